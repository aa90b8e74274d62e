"""Opening a model file of any supported format: one head's configuration and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HeadError, ModelError
from ..torch_zip import Tensor
from .keys import first_lines

FORMATS = ".pt, .pth, .pt2, .pte, .dp, .yaml and .yml"


@dataclass(frozen=True)
class Source:
    """One head of a model file, before anything was checked against anything."""

    config: dict[str, Any]
    tensors: Mapping[str, Tensor | np.ndarray]
    head: str | None = None
    exportable: bool = False  # of DeePMD-kit's exportable backend
    all_neighbors: bool = False  # which evaluates it by its graph route


@dataclass(frozen=True)
class Contents:
    """A whole model file: `heads` is empty for a single-task model, which is then in `single`."""

    single: Source | None = None
    heads: dict[str, Source] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def choose(self, head: str | None) -> Source:
        """The head called `head`, exactly or in another case, by its name or an alias.

        Raises
        ------
        HeadError
            When there is no such head, or none is named for a multi-task model.
        """
        if self.single is not None:
            if head is not None:
                raise HeadError(f"The model has a single head, so leave out --head {head}.")
            return self.single
        names = first_lines(self.heads)
        if head is None:
            raise HeadError(f"The model has several heads, so choose one with --head: {names}.")
        known = {name: name for name in self.heads} | self.aliases
        found = known.get(head)
        if found is None:
            folded = {known[name] for name in known if name.lower() == head.lower()}
            if len(folded) != 1:
                raise HeadError(f"The model has no head {head!r}; its heads are {names}.")
            (found,) = folded
        return self.heads[found]


@contextmanager
def open_source(path: Path) -> Iterator[Contents]:
    """Read a file by its extension; tensors may be read from it as long as the context lasts.

    Raises
    ------
    ModelError
        When the file is damaged, malicious or of an unknown format.
    """
    from . import torch_files, tree_files  # each needs its own libraries

    readers = {
        ".pt": torch_files.read_checkpoint,
        ".pth": torch_files.read_script,
        ".pt2": tree_files.read_exported,
        ".pte": tree_files.read_exported,
        ".dp": tree_files.read_hdf5,
        ".yaml": tree_files.read_yaml,
        ".yml": tree_files.read_yaml,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ModelError(
            f"The extension {path.suffix!r} is not that of a model file; known are {FORMATS}."
        )
    with reader(path) as contents:
        yield contents
