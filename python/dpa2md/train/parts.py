"""Frames that are held out of a training, and the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .data_settings import Part
from .draws import order
from .systems import LabeledFrame, System

_STREAM = 2**63  # which no batches have


class PartOfSystem:
    """Some frames of a system."""

    def __init__(self, system: System, frames: Sequence[int]):
        self._system, self._frames = system, frames
        self.name, self.natoms = system.name, system.natoms
        self.notes: tuple[str, ...] = tuple(getattr(system, "notes", ()))

    def __len__(self) -> int:
        return len(self._frames)

    def frame(self, index: int) -> LabeledFrame:
        """One frame."""
        return self._system.frame(self._frames[index])

    def place(self, index: int, quantity: str = "") -> str:
        """As the whole system calls it."""
        return self._system.place(self._frames[index], quantity)


def part_of(systems: Sequence[System], part: Part) -> list[System]:
    """One part of all systems' frames; systems that have none in it are left out.

    Parameters
    ----------
    systems
        The same ones for both parts.

    Raises
    ------
    InputError
        When one of the two parts would have no frame.
    """
    total = sum(map(len, systems))
    count = max(1, round(part.fraction * total))
    if count >= total:
        raise InputError(
            f"{systems[0].name}: {count} of {total} frame{'s' if total > 1 else ''} would be held "
            "out, and none left to train on; give more frames, or held-out ones of their own."
        )
    held_out = np.zeros(total, dtype=bool)
    held_out[order(total, 0, 0, part.seed, _STREAM)[:count]] = True
    out: list[System] = []
    first = 0
    for system in systems:
        own = held_out[first : first + len(system)] == part.held_out
        first += len(system)
        if own.any():
            out.append(PartOfSystem(system, np.flatnonzero(own).tolist()))
    return out
