"""Which golden models a test is for, and what it cannot do without."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.golden.suite import MODELS


def golden_models(*names: str) -> pytest.MarkDecorator:
    """Parametrises `model` over golden models, all of them without `names`."""
    return pytest.mark.parametrize(
        "model", [MODELS[n] for n in names or MODELS], ids=lambda m: m.name
    )


def skip_or_fail(what: str, reason: str) -> NoReturn:
    """Skips the test, or fails it when DPA2MD_REQUIRE (names separated by commas) lists `what`.

    Where a machine should have everything, a skip would hide that it has not.
    """
    if what in os.environ.get("DPA2MD_REQUIRE", "").split(","):
        pytest.fail(f"{reason} (required by DPA2MD_REQUIRE={what})", pytrace=False)
    pytest.skip(reason)
