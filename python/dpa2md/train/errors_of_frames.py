"""How far a model is from all labels of some frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .core_model import CoreModel
from .parameters import TrainableModel
from .systems import Batch, System

_ATOMS = 500  # that are evaluated at a time


@dataclass(frozen=True)
class FrameErrors:
    """Root mean squares over all frames; None where no frame has the label.

    Attributes
    ----------
    energy_rmse_mev_per_atom
        Of the frames' energies, each divided by its number of atoms.
    force_rmse_ev_per_angstrom
        Of the forces' components.
    """

    energy_rmse_mev_per_atom: float | None
    force_rmse_ev_per_angstrom: float | None


def errors_of_frames(
    model: TrainableModel, systems: Sequence[System], threads: int = 0
) -> FrameErrors:
    """The errors of a model in its own precision.

    Parameters
    ----------
    threads
        0: one for each processor.
    """
    elements = {int(k) for s in systems for i in range(len(s)) for k in s.frame(i).types}
    core = CoreModel(model, sorted(elements), threads)
    energies: list[np.ndarray] = []
    forces: list[np.ndarray] = []
    for batch in _batches(systems):
        found = core.compute(batch, False)
        sums = np.add.reduceat(found.energies, batch.frame_start[:-1])
        misses = (sums - batch.energy.values) / batch.natoms
        energies.append(misses[batch.energy.known])
        known = np.repeat(batch.forces.known, batch.natoms)
        forces.append((found.forces - batch.forces.values)[known].ravel())
    energy = _root_mean_square(energies)
    return FrameErrors(None if energy is None else 1000 * energy, _root_mean_square(forces))


def _batches(systems: Sequence[System]) -> Iterator[Batch]:
    for system in systems:
        size = max(1, _ATOMS // system.natoms)
        for first in range(0, len(system), size):
            chosen = range(first, min(first + size, len(system)))
            yield Batch.of([system.frame(k) for k in chosen])


def _root_mean_square(parts: Sequence[np.ndarray]) -> float | None:
    values = np.concatenate(parts)
    return math.sqrt(float(np.mean(values**2))) if values.size else None
