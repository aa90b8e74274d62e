"""What the reference in numpy reads."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from dpa2md.model_file import read_model


def float64_records(path: str | os.PathLike) -> dict[str, Any]:
    """A model's records in float64, in which the results of the golden models are."""
    return {
        name: value.astype(float) if getattr(value, "dtype", None) == np.float32 else value
        for name, value in read_model(path).items()
    }
