"""The model that comes with the package, and its name."""

from __future__ import annotations

import os
from pathlib import Path

SHIPPED = "water"  # the name of the model, and of the structure, that come with the package
DEFAULT_MODEL = Path(__file__).parent / "models" / "water.dpa2"


def model_file(name: str | os.PathLike) -> Path:
    """The file that a model's name means: itself, or the shipped model for "water" where there is no such file."""
    path = Path(name)
    return DEFAULT_MODEL if os.fspath(name) == SHIPPED and not path.exists() else path
