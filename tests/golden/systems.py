"""The structures of the parity suite, built from formulas and seeds (numpy only).

Lengths in angstrom. `kind` numbers the elements of a structure from 0; a model maps them to its own
elements with `Structure.types`, so that every structure can be evaluated with every model.
Random numbers come from numpy's RandomState, whose streams never change between versions of numpy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Structure:
    """`positions` (n, 3), `kinds` (n,), `cell` (3, 3) with one row per vector, `pbc` (3,).

    Rows of `cell` that belong to a non-periodic axis have no meaning and may be zero.
    """

    name: str
    positions: np.ndarray
    kinds: np.ndarray
    cell: np.ndarray
    pbc: tuple[bool, bool, bool]

    def __len__(self) -> int:
        return len(self.positions)

    def types(self, used: Sequence[int]) -> np.ndarray:
        """Type of every atom, int64 (n,): kind k becomes `used[k % len(used)]`."""
        return np.asarray(used, dtype=np.int64)[self.kinds % len(used)]


def periodic_box(structure: Structure, rcut: float) -> np.ndarray | None:
    """A fully periodic cell (3, 3) with the same neighbours: vacuum of more than 2 `rcut` on the
    non-periodic axes, which point along the normal of the periodic ones. None without any axis."""
    if not any(structure.pbc):
        return None
    vectors = [v for v, periodic in zip(structure.cell, structure.pbc, strict=True) if periodic]
    normals = np.linalg.svd(np.array(vectors))[2][len(vectors) :]
    box = structure.cell.copy()
    for axis, normal in zip(np.flatnonzero(~np.array(structure.pbc)), normals, strict=True):
        box[axis] = normal * (np.ptp(structure.positions @ normal) + 2 * rcut + 1)
    if np.linalg.det(box) < 0:  # DeePMD-kit needs a right-handed cell; this is the same lattice
        box[2] *= -1
    return box


def neighbour_distances(structure: Structure, rcut: float) -> list[np.ndarray]:
    """Sorted distances to all neighbours (images included) within `rcut`, one array an atom."""
    box = periodic_box(structure, rcut)
    shifts = np.zeros((1, 3))
    if box is not None:
        heights = 1 / np.linalg.norm(np.linalg.inv(box), axis=0)
        spread = np.ptp(structure.positions @ np.linalg.inv(box), axis=0)
        reach = np.ceil(rcut / heights + spread).astype(int)
        shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach)))) @ box
    result = []
    for i, position in enumerate(structure.positions):
        images = structure.positions[None] + shifts[:, None]
        r = np.linalg.norm(images - position, axis=-1)
        r[np.linalg.norm(shifts, axis=1) == 0, i] = np.inf
        result.append(np.sort(r[r <= rcut]))
    return result


def _scatter(rng, n: int, cell: np.ndarray, pbc: Sequence[bool], closest: float) -> np.ndarray:
    """`n` random points in the cell, no two (nor their nearest images) closer than `closest`."""
    steps = [(-1, 0, 1) if periodic else (0,) for periodic in pbc]
    shifts = np.array(list(itertools.product(*steps))) @ cell
    points: list[np.ndarray] = []
    for _ in range(200_000):
        if len(points) == n:
            return np.array(points)
        trial = rng.random_sample(3) @ cell
        images = (np.array(points).reshape(-1, 1, 3) - trial) + shifts
        if not points or np.linalg.norm(images, axis=-1).min() > closest:
            points.append(trial)
    raise RuntimeError(f"{n} points at least {closest} apart do not fit into the cell")


def _random(name: str, seed: int, n: int, cell, closest: float, kinds: int, pbc=(True,) * 3):
    rng = np.random.RandomState(seed)
    cell = np.array(cell, dtype=float)
    positions = _scatter(rng, n, cell, pbc, closest)
    kind = np.concatenate([np.arange(kinds), rng.randint(kinds, size=max(0, n - kinds))])[:n]
    return Structure(name, positions, rng.permutation(kind), cell, tuple(pbc))


def _water() -> Structure:
    """27 molecules at the density of the liquid: a jittered lattice of random orientations."""
    rng = np.random.RandomState(1)
    side = (27 * 29.9) ** (1 / 3)
    angle = np.deg2rad(104.5) / 2
    hydrogens = 0.97 * np.array(
        [[np.sin(angle), np.cos(angle), 0], [-np.sin(angle), np.cos(angle), 0]]
    )
    positions = []
    for site in itertools.product(range(3), repeat=3):
        oxygen = (np.array(site) + 0.5) * side / 3 + rng.normal(scale=0.1, size=3)
        x, z = rng.normal(size=(2, 3))
        x /= np.linalg.norm(x)
        y = np.cross(z, x) / np.linalg.norm(np.cross(z, x))
        positions += [oxygen, *(oxygen + hydrogens @ np.array([x, y, np.cross(x, y)]))]
    return Structure(
        "water", np.array(positions), np.tile([0, 1, 1], 27), side * np.eye(3), (True,) * 3
    )


def _metal(basis: int) -> Structure:
    """fcc with slightly strained cell: one atom (all 54 neighbours are its own images), or a
    two-atom cell along z with one atom displaced."""
    rng = np.random.RandomState(2)
    cell = 4.05 / 2 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    cell = cell @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3)))
    positions = np.zeros((1, 3))
    if basis == 2:
        positions = np.array([[0.3, 0.2, 0.1], cell[2] + rng.normal(scale=0.15, size=3)])
        cell[2] *= 2
    return Structure(f"metal_{basis}", positions, np.arange(basis), cell, (True,) * 3)


def _tilted() -> Structure:
    """Cell angles near 30 and 150 degrees, atoms up to two lattice vectors outside the cell."""
    cell = np.array([[6.1, 0, 0], [5.5, 3.2, 0], [-4.8, 2.5, 6.5]])
    inside = _random("tilted", 6, 14, cell, 1.3, 2)
    shifts = np.random.RandomState(7).randint(-2, 3, size=(14, 3))
    return Structure("tilted", inside.positions + shifts @ cell, inside.kinds, cell, inside.pbc)


def _isolated() -> Structure:
    """A dimer and two atoms that nobody sees."""
    positions = np.array([[0.1, 0.2, 0.3], [0.9, 0.6, 0.8], [31.0, 0, 0], [0, -42.0, 7.0]])
    return Structure("isolated", positions, np.array([0, 1, 1, 0]), np.zeros((3, 3)), (False,) * 3)


def all_structures() -> dict[str, Structure]:
    """Every structure by name."""
    molecule = _random("molecule", 3, 9, 3.6 * np.eye(3), 1.0, 2, (False,) * 3)
    slab = _random(
        "slab", 4, 20, [[6.1, 0.4, 0], [1.2, 5.7, 0.3], [0, 0, 5.5]], 1.2, 2, (True, True, False)
    )
    wire = _random(
        "wire",
        5,
        8,
        [[3.4, 1.9, 1.5], [-1.6, 3.2, 0], [0.7, 0.9, -2.8]],
        1.1,
        2,
        (True, False, False),
    )
    # The rows of non-periodic axes: modest in the slab, absent in the wire and the molecule.
    wire.cell[1:] = 0
    molecule.cell[:] = 0
    structures = [
        _water(),
        _metal(1),
        _metal(2),
        molecule,
        slab,
        wire,
        _random("triclinic", 8, 24, [[7.0, 0, 0], [1.5, 6.5, 0], [-1.0, 2.0, 7.0]], 1.3, 2),
        _tilted(),
        # More neighbours than any nsel of the suite's usual models: the nearest are kept.
        _random("overfull", 9, 24, 4.4 * np.eye(3), 1.0, 2),
        _isolated(),
        Structure(
            "single", np.array([[1.0, -2.0, 0.5]]), np.zeros(1, int), np.zeros((3, 3)), (False,) * 3
        ),
        _random("five_elements", 10, 20, np.diag([6.1, 6.6, 7.1]), 1.3, 5),
        _random("three_elements", 11, 15, [[5.5, 0, 0.4], [0, 6.2, 0], [0.6, 0, 6.4]], 1.4, 3),
        # Distances down to 0.7 angstrom, where 1/r and its derivatives are large.
        _random("dense", 12, 16, 4.7 * np.eye(3), 0.7, 2),
    ]
    return {structure.name: structure for structure in structures}


def frame_parameters(n: int) -> np.ndarray:
    """The `fparam` (n,) given to models that take frame parameters."""
    return np.sin(1.0 + np.arange(n))


def atom_parameters(natoms: int, n: int) -> np.ndarray:
    """The `aparam` (natoms, n) given to models that take atomic parameters."""
    return np.cos(0.7 * np.arange(natoms)[:, None] + 1.3 * np.arange(n))
