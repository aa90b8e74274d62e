"""The model that comes with the package, and what the name of a model means."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import RunError

SHIPPED = "water"  # the name of the model, and of the structure, that come with the package
MODEL_SUFFIXES = {".dpa2", ".pt", ".pth", ".pt2", ".dp", ".pb"}
DEFAULT_MODEL = Path(__file__).parent / "models" / "water.dpa2"


def model_file(name: str | os.PathLike) -> Path:
    """The file that a model's name means: itself, or the shipped model for "water" where there is no such file."""
    path = Path(name)
    return DEFAULT_MODEL if os.fspath(name) == SHIPPED and not path.exists() else path


def model_path(name: str) -> Path:
    """As `model_file`, for names that a person gives.

    Raises
    ------
    RunError
        When there is no such file, or it is a structure.
    """
    path = model_file(name)
    if path.exists():
        if path.suffix.lower() not in MODEL_SUFFIXES and _is_named_as_structure(path):
            raise RunError(
                f"{path}: this is a structure; give the model first, then the structure."
            )
        return path
    raise RunError(f'{path}: there is no such model; give a file, or "{SHIPPED}".')


def _is_named_as_structure(path: Path) -> bool:
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        return filetype(str(path), read=False) in ioformats
    except UnknownFileTypeError:
        return False
