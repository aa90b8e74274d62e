"""Opening a model file of any supported format: one head's configuration and tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ModelError
from . import torch_files, tree_files
from .contents import Contents

FORMATS = ".pt, .pth, .pt2, .pte, .dp, .yaml and .yml"
_READERS = {
    ".pt": torch_files.read_checkpoint,
    ".pth": torch_files.read_script,
    ".pt2": tree_files.read_exported,
    ".pte": tree_files.read_exported,
    ".dp": tree_files.read_hdf5,
    ".yaml": tree_files.read_yaml,
    ".yml": tree_files.read_yaml,
}


@contextmanager
def open_source(path: Path) -> Iterator[Contents]:
    """Read a file by its extension; tensors may be read from it as long as the context lasts.

    Raises
    ------
    ModelError
        When the file is damaged, malicious or of an unknown format.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ModelError(
            f"The extension {path.suffix!r} is not that of a model file; known are {FORMATS}."
        )
    with reader(path) as contents:
        yield contents


@contextmanager
def named_file(path: Path) -> Iterator[None]:
    """Put the file's name in front of the message of a ModelError."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"{path}: {error}") from None
