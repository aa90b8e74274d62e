"""What is in a model file: the heads, each with its configuration and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import HeadError
from .keys import first_lines
from .torch_zip import Tensor


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
