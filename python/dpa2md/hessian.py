"""Second derivatives of the energy, as differences of forces of structures that are evaluated together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from .batch import WithEngine, evaluate
from .engine import Engine


def hessian(
    model: str | os.PathLike | Engine | WithEngine,
    atoms: Atoms,
    *,
    delta: float = 0.01,
    indices: Sequence[int] | None = None,
    batch_atoms: int = 2000,
    report: Callable[[int], None] | None = None,
) -> np.ndarray:
    """The matrix of second derivatives of the energy by the positions, symmetric.

    Central differences of forces; their error is the fourth derivative of the energy times delta^2 / 6.

    Parameters
    ----------
    model
        A model file, which is run in float64, or an `Engine` or `DPA2Calculator`; float64 is advised, since
        forces are differenced.
    atoms
        n atoms.
    delta
        Angstrom; how far an atom is moved to either side.
    indices
        The atoms to move; None: all.
    batch_atoms
        So many atoms, or a little more, are evaluated at once; it bounds the memory.
    report
        Called after each batch with the number of atoms that are done.

    Returns
    -------
    ndarray
        (m, 3, m, 3) for the m moved atoms, eV/angstrom^2, as `ase.vibrations.VibrationsData` takes it.

    Raises
    ------
    ValueError
        For a `delta` that is not positive, and as `evaluate`.
    """
    chosen = np.arange(len(atoms)) if indices is None else np.asarray(indices, dtype=int)
    found = force_constants(model, atoms, chosen, delta, batch_atoms, report)[:, :, chosen]
    return (found + found.transpose(2, 3, 0, 1)) / 2


def force_constants(
    model: str | os.PathLike | Engine | WithEngine,
    atoms: Atoms,
    indices: Sequence[int] | np.ndarray,
    delta: float = 0.01,
    batch_atoms: int = 2000,
    report: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Minus the derivatives of all n forces by the positions of some atoms; arguments as of `hessian`.

    Returns
    -------
    ndarray
        (m, 3, n, 3), eV/angstrom^2: moved atom and direction, atom and direction of the force.

    Raises
    ------
    ValueError
        As `hessian`.
    """
    if not 0 < delta < float("inf"):
        raise ValueError(f"A displacement of {delta} angstrom can't be; give a positive length.")
    if not isinstance(model, (Engine, WithEngine)):
        model = Engine(model, "float64")
    out = np.empty((len(indices), 3, len(atoms), 3))
    step = max(1, batch_atoms // (6 * max(len(atoms), 1)))
    for first in range(0, len(indices), step):
        part = indices[first : first + step]
        moved = [_moved(atoms, a, k, s * delta) for a in part for k in range(3) for s in (1, -1)]
        forces = np.array([r["forces"] for r in evaluate(model, moved, batch_atoms=batch_atoms)])
        plus, minus = np.moveaxis(forces.reshape(len(part), 3, 2, len(atoms), 3), 2, 0)
        out[first : first + step] = (minus - plus) / (2 * delta)
        if report:
            report(first + len(part))
    return out


def _moved(atoms: Atoms, atom: int, direction: int, distance: float) -> Atoms:
    moved = atoms.copy()
    moved.positions[atom, direction] += distance
    return moved
