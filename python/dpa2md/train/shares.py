"""The parameters of all heads as one vector, and which parts of it a step of one head changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .model_settings import SINGLE
from .multi_task import MultiTaskModel
from .parameters import TrainableModel

AnyModel = TrainableModel | MultiTaskModel


@dataclass(frozen=True)
class Stretch:
    """A contiguous part of a head's vector whose parameters the same heads have."""

    own: slice  #: in the head's vector
    whole: slice  #: in that of all heads
    heads: frozenset[str]


def heads_of(model: AnyModel) -> Mapping[str, TrainableModel]:
    """The heads by name; a single one is called as DeePMD-kit does."""
    return model.heads if isinstance(model, MultiTaskModel) else {SINGLE: model}


def tensors_of(model: AnyModel) -> list[np.ndarray]:
    """All tensors of all heads, to be written to in place; equal models have them in one order."""
    return [tensor for head in heads_of(model).values() for tensor in head.tensors.values()]


def stretches(model: AnyModel) -> dict[str, list[Stretch]]:
    """Of each head: its vector, cut where its place in the whole one jumps or its sharing changes."""
    if isinstance(model, TrainableModel):
        every = slice(0, model.size)
        return {SINGLE: [Stretch(every, every, frozenset({SINGLE}))]}
    sharing = np.zeros(model.size, dtype=object)
    for number, index in enumerate(model.indices.values()):
        sharing[index] += 1 << number
    names = list(model.indices)
    return {head: _cut(index, sharing, names) for head, index in model.indices.items()}


def _cut(index: np.ndarray, sharing: np.ndarray, names: Sequence[str]) -> list[Stretch]:
    if not len(index):
        return []
    shared = sharing[index]
    jumps = np.flatnonzero((np.diff(index) != 1) | (shared[1:] != shared[:-1])) + 1
    out = []
    for start, end in zip([0, *jumps], [*jumps, len(index)], strict=True):
        heads = frozenset(name for k, name in enumerate(names) if shared[start] >> k & 1)
        whole = slice(int(index[start]), int(index[end - 1]) + 1)
        out.append(Stretch(slice(int(start), int(end)), whole, heads))
    return out


def steps_of_parameters(model: AnyModel, steps: Mapping[str, int]) -> list[int]:
    """How many steps each of the model's parameters has had, from those of each head."""
    found = np.zeros(model.size, dtype=np.int64)
    for parts in stretches(model).values():
        for part in parts:
            found[part.whole] = sum(steps[head] for head in part.heads)
    return [int(found[p.offset]) if p.end > p.offset else 0 for p in model.parameters]
