"""Neighbours by brute force, and the environment matrix of a block."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Slots:
    """The neighbours of every atom for one block, padded to nsel slots, or to more where all neighbours count."""

    nsel: int
    index: np.ndarray  # (n, nsel) neighbour's atom, -1: empty
    vec: np.ndarray  # (n, nsel, 3) r_j - r_i, angstrom
    r: np.ndarray  # (n, nsel)
    real: np.ndarray  # (n, nsel) whether a slot is taken
    zeroed: np.ndarray  # (n, nsel) taken by a pair that the descriptor excludes
    sw: np.ndarray = field(default_factory=lambda: np.empty(0))  # (n, nsel) switch, 0 where empty
    em: np.ndarray = field(default_factory=lambda: np.empty(0))  # (n, nsel, 4) environment matrix


def sorted_neighbors(
    x: np.ndarray, types: np.ndarray, cell: np.ndarray, pbc: np.ndarray, rcut: float
) -> list[list[tuple[float, int, np.ndarray]]]:
    """For every atom the pairs (distance, neighbour, vector) with r <= rcut, the nearest first.

    An atom may be its own neighbour's image, and its own. Atoms of negative type are nobody's neighbour and have
    none.
    """
    shifts = _shifts(x, cell, pbc, rcut)
    lists = []
    for i in range(len(x)):
        pairs = []
        for j in range(len(x)) if types[i] >= 0 else ():
            if types[j] < 0:
                continue
            for s in shifts:
                if i == j and not s.any():
                    continue
                v = x[j] + s - x[i]
                r = float(np.sqrt(v @ v))
                if r <= rcut:
                    pairs.append((r, j, v))
        lists.append(sorted(pairs, key=lambda p: (p[0], p[1])))
    return lists


def _shifts(x: np.ndarray, cell: np.ndarray, pbc: np.ndarray, rcut: float) -> np.ndarray:
    """All lattice vectors that may bring an atom within rcut of another, (m, 3)."""
    vectors = np.asarray(cell, dtype=float)[np.asarray(pbc)]
    if len(vectors) == 0:
        return np.zeros((1, 3))
    to_fractions = np.linalg.pinv(vectors)  # (3, k)
    spread = np.ptp(x @ to_fractions, axis=0)
    counts = np.ceil(rcut * np.linalg.norm(to_fractions, axis=0) + spread).astype(int)
    grid = np.meshgrid(*(np.arange(-c, c + 1) for c in counts), indexing="ij")
    return np.stack([g.ravel() for g in grid], axis=1) @ vectors


def block_slots(
    lists: list,
    rcut: float,
    nsel: int,
    room: int | None,
    types: np.ndarray,
    pair_exclude: np.ndarray,
    exclude: np.ndarray,
) -> Slots:
    """The nearest `room` neighbours within `rcut` (None: all); pairs that the model excludes leave their slot empty."""
    inside = [[pair for pair in pairs if pair[0] <= rcut][:room] for pairs in lists]
    width = max([nsel, *map(len, inside)])
    n = len(lists)
    s = Slots(
        nsel,
        np.full((n, width), -1),
        np.zeros((n, width, 3)),
        np.zeros((n, width)),
        np.zeros((n, width), dtype=bool),
        np.zeros((n, width), dtype=bool),
    )
    for i, pairs in enumerate(inside):
        for k, (r, j, v) in enumerate(pairs):
            if pair_exclude[types[i], types[j]]:
                continue
            s.index[i, k], s.vec[i, k], s.r[i, k], s.real[i, k] = j, v, r, True
            s.zeroed[i, k] = exclude[types[i], types[j]]
    return s


def switch(r: np.ndarray, smooth_from: float, rcut: float) -> np.ndarray:
    """1 up to rcut_smth, 0 from rcut on, with two continuous derivatives."""
    u = np.clip((r - smooth_from) / (rcut - smooth_from), 0, 1)
    return 1 - 10 * u**3 + 15 * u**4 - 6 * u**5


def environment(s: Slots, block: dict, protection: float, types: np.ndarray) -> None:
    """Fill in `sw` and `em`: sw * (1/r, x/r^2, y/r^2, z/r^2), shifted and scaled by statistics."""
    s.sw = np.where(s.real, switch(s.r, block["rcut_smth"], block["rcut"]), 0.0)
    d = np.where(s.real, s.r, 1.0)[..., None] + protection
    e = np.concatenate([1 / d, s.vec / d**2], axis=-1) * s.sw[..., None]
    center = np.maximum(types, 0)
    s.em = (e - block["davg"][center][:, None]) / block["dstd"][center][:, None]
