"""Fixtures that several folders use, and what `make check` runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.evaluator import Evaluator

pytest.register_assert_rewrite("tests.support")  # before anything is imported from there

# What `make check` runs (-m quick): one test of every kind that an ordinary change can break, in less than a
# minute. Of the golden models these, which have every block and no block twice.
QUICK = {
    "test_calculator",
    "test_convert",
    "test_labels",
    "test_layering",
    "test_model_file",
    "test_packaging",
    "test_parity",
    "test_reading",
    "test_reference",
}
QUICK_MODELS = {"medium", "full", "strip", "not_smooth", "generation_2_0", "se_atten_v2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        model = getattr(item, "callspec", None) and item.callspec.params.get("model")
        if item.module.__name__.rpartition(".")[2] in QUICK and (
            not model or model.name in QUICK_MODELS
        ):
            item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session")
def evaluate(tmp_path_factory) -> Evaluator:
    from tests.support.evaluator import Evaluator

    return Evaluator(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def cpp_programs() -> Path:
    """The directory of the freshly built C++ test programs."""
    from tests.support.cpp_programs import build_programs
    from tests.support.selection import skip_or_fail

    programs = build_programs()
    if programs is None:
        skip_or_fail("cpp", "the C++ tests need cmake: pip install cmake ninja")
    return programs


@pytest.fixture(scope="session")
def lammps() -> None:
    """For tests that need LAMMPS and the plugin."""
    from tests.support.lammps_runs import require_lammps

    require_lammps()


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A small model of O, H and Si; tests over golden models put those in its place."""
    from tests.support.small_models import small_model

    return small_model(tmp_path_factory.mktemp("model"))
