"""Structures for demonstrations and benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io.extxyz import read_extxyz

DENSITY = 0.997  # g/cm3, water at 298 K
_OH, _ANGLE = 0.9572, np.radians(104.52)  # angstrom; the free molecule's geometry
_TRIALS = 60  # orientations tried per molecule


def water_box(n_molecules: int = 64, seed: int = 0) -> Atoms:
    """A periodic cubic box of water at 0.997 g/cm3.

    The oxygens stand on a cubic grid; each molecule takes, of several random orientations, the one
    that is furthest from its neighbours (hydrogens of different molecules are more than 1.5
    angstrom apart). It is a start for an equilibration, not a liquid.

    Parameters
    ----------
    n_molecules
        Number of molecules; cubes (27, 64, 125, 216, ...) fill the grid evenly.
    seed
        Of the random orientations.

    Raises
    ------
    ValueError
        For less than one molecule.
    """
    if n_molecules < 1:
        raise ValueError(f"A box of {n_molecules} molecules can't be made; give 1 or more.")
    rng = np.random.default_rng(seed)
    molecule = Atoms("OH2", positions=_geometry())
    volume = n_molecules * molecule.get_masses().sum() / (DENSITY * units.mol * 1e-24)
    side = volume ** (1 / 3)
    sites = _grid(n_molecules, rng) * side
    placed = np.empty((n_molecules, 3, 3))
    for k, site in enumerate(sites):
        offset = sites[:k] - site
        close = np.linalg.norm(offset - side * np.round(offset / side), axis=1) < 6.0
        others = placed[:k][close].reshape(-1, 3)
        trials = site + molecule.positions @ _rotations(_TRIALS, rng)
        placed[k] = trials[np.argmax([_gap(trial, others, side) for trial in trials])]
    return Atoms("OH2" * n_molecules, placed.reshape(-1, 3), cell=[side] * 3, pbc=True)


def equilibrated_water() -> Atoms:
    """Liquid water, 64 molecules at 0.997 g/cm3 and 300 K, with velocities.

    It was made from `water_box` with this package, by examples/equilibrate_water.py.
    """
    with open(Path(__file__).parent / "data" / "water-64.extxyz") as file:
        return next(read_extxyz(file))


def _geometry() -> np.ndarray:
    x, y = _OH * np.sin(_ANGLE / 2), _OH * np.cos(_ANGLE / 2)
    return np.array([[0, 0, 0], [x, y, 0], [-x, y, 0]])


def _grid(count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` fractional sites of the smallest cubic grid that has so many."""
    n = int(np.ceil(round(count ** (1 / 3), 9)))
    sites = np.stack(np.meshgrid(*3 * [np.arange(n)], indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = np.sort(rng.permutation(n**3)[:count])
    return (sites[chosen] + 0.5) / n


def _rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    """Uniformly random rotation matrices (count, 3, 3), from unit quaternions."""
    w, x, y, z = (q := rng.normal(size=(4, count))) / np.linalg.norm(q, axis=0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def _gap(molecule: np.ndarray, others: np.ndarray, side: float) -> float:
    """The smallest distance (angstrom) to the atoms of other molecules."""
    if not len(others):
        return np.inf
    d = molecule[:, None] - others
    return float(np.linalg.norm(d - side * np.round(d / side), axis=-1).min())
