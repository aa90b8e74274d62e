"""Where atoms are relative to each other: radial and angular distributions of a trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.neighborlist import neighbor_list

from ..errors import RunError

Pair = tuple[str, str]  # chemical symbols
Triplet = tuple[str, str, str]  # the middle one is the centre of the angle

_SMOOTH = 0.05  # angstrom; hides the noise of counting, but no gap between two shells
_AT_ONCE = 20000  # distances, which fit into a cache
_AHEAD = 0.3  # angstrom; so far beyond a minimum g must stay above it


def radial_distribution(
    frames: Sequence[Atoms],
    first: str = "O",
    second: str = "O",
    rmax: float | None = None,
    bins: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """The radial distribution function between two elements, averaged over frames.

    Every periodic image within `rmax` is counted, so small and skewed cells are done right.

    Parameters
    ----------
    frames
        Structures, periodic in three directions.
    first, second
        Chemical symbols.
    rmax
        Angstrom; None: half the smallest height of the first cell, at most 10.
    bins
        Number of bins.

    Returns
    -------
    r, g
        Middle of each bin (angstrom) and g there, both (bins,).

    Raises
    ------
    RunError
        When a frame isn't periodic in three directions or lacks one of the elements.
    """
    edges, g, _ = shells(frames, first, second, rmax, bins)
    return (edges[1:] + edges[:-1]) / 2, g


def coordination_number(
    frames: Sequence[Atoms],
    first: str = "O",
    second: str = "O",
    rmax: float | None = None,
    bins: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """How many atoms of one element an atom of another has within a distance, in the mean.

    Parameters and errors are those of `radial_distribution`, of which this is the integral.

    Returns
    -------
    r, n
        Distances (angstrom), and the number of `second` around a `first` up to there, both (bins,).
    """
    edges, _, n = shells(frames, first, second, rmax, bins)
    return edges[1:], n


def shells(
    frames: Sequence[Atoms], first: str, second: str, rmax: float | None, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of the bins (bins + 1,), g in them, and the running coordination number, both (bins,)."""
    if not frames:
        raise RunError("There are no frames to make a radial distribution function from.")
    if rmax is None:
        rmax = min(10.0, float(_heights(frames[0]).min()) / 2)
    edges = np.linspace(0, rmax, bins + 1)
    g, around = np.zeros(bins), np.zeros(bins)
    for atoms in frames:
        if not (atoms.cell.rank == 3 and all(atoms.pbc)):
            raise RunError("A radial distribution function needs fully periodic structures.")
        symbols = np.array(atoms.get_chemical_symbols())
        a, b = (np.flatnonzero(symbols == element) for element in (first, second))
        if not (len(a) and len(b)):
            raise RunError(f"The structure has no pair {first}-{second}; name other elements.")
        expected = len(a) * len(b) / atoms.get_volume() * 4 / 3 * np.pi * np.diff(edges**3)
        counts = _count_pairs(atoms, a, b, edges)
        g += counts / expected
        around += counts / len(a)
    return edges, g / len(frames), np.cumsum(around) / len(frames)


def _heights(atoms: Atoms) -> np.ndarray:
    """Distances (3,) between opposite faces of the cell, angstrom."""
    return 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)


def _count_pairs(atoms: Atoms, a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> np.ndarray:
    cell = atoms.cell.array
    fractional = atoms.positions @ np.linalg.inv(cell)
    # With differences wrapped to [-1/2, 1/2], an image |S| cells away is no nearer than
    # (|S| - 1/2) heights.
    reach = np.ceil(edges[-1] / _heights(atoms) + 0.5).astype(int) - 1
    shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach)), -1).reshape(-1, 3)
    counts = np.zeros(len(edges) - 1)
    here = np.all(shifts == 0, axis=1)
    rows = max(1, _AT_ONCE // (len(b) * len(shifts)))
    for some in np.split(a, range(rows, len(a), rows)):
        d = fractional[b] - fractional[some][:, None]
        d -= np.round(d)
        r = np.linalg.norm((d[:, :, None] + shifts) @ cell, axis=-1)
        own = (b == some[:, None])[:, :, None] & here
        counts += np.histogram(r[~own], edges)[0]
    return counts


def first_minimum(r: np.ndarray, g: np.ndarray) -> float | None:
    """Where the first shell of neighbours ends: the first minimum after the first peak above 1.

    Parameters
    ----------
    r, g
        As `radial_distribution` gives them, both (bins,).

    Returns
    -------
    float or None
        Angstrom; the middle of the gap where g is 0 between two shells. None without a peak or without a
        minimum behind it.
    """
    step = r[1] - r[0]
    offsets = np.arange(-int(4 * _SMOOTH / step) - 1, int(4 * _SMOOTH / step) + 2)
    weights = np.exp(-0.5 * (offsets * step / _SMOOTH) ** 2)
    smooth = np.convolve(g, weights / weights.sum(), "same") * (np.abs(g).max() > 0)
    ahead = max(1, round(_AHEAD / step))
    peaked = False
    for k in range(1, len(r) - ahead):
        if not peaked:
            peaked = smooth[k] > 1 and smooth[k] >= smooth[k - 1 : k + 2].max()
        elif smooth[k] <= smooth[k + 1 : k + 1 + ahead].min():
            gap = np.flatnonzero(smooth[k:] > smooth[k] + 1e-9)
            return float(r[k] + r[k + gap[0] - 1]) / 2 if len(gap) else None
    return None


def angle_distribution(
    frames: Sequence[Atoms], cutoffs: Mapping[Pair, float], bins: int = 90
) -> tuple[np.ndarray, dict[Triplet, np.ndarray], dict[Triplet, float]]:
    """How often a bond angle is found, for every triplet of elements.

    Two atoms are bound to a centre where they are nearer than the cutoff of their pair of elements. All
    periodic images count.

    Parameters
    ----------
    frames
        Structures.
    cutoffs
        Angstrom, by pair of elements in either order; pairs that are left out have no bonds.
    bins
        Between 0 and 180 degrees.

    Returns
    -------
    angles, densities, numbers
        The middle of each bin in degrees (bins,); for each triplet with any angle the probability per
        degree (bins,), whose integral is 1; and how many angles a frame has in the mean. The two ends of a
        triplet are in alphabetical order.
    """
    edges = np.linspace(0, 180, bins + 1)
    found: dict[Triplet, np.ndarray] = {}
    numbered = {(atomic_numbers[a], atomic_numbers[b]): c for (a, b), c in cutoffs.items()}
    for atoms in frames:
        for triplet, angles in _angles(atoms, numbered):
            counts = np.histogram(angles, edges)[0]
            found[triplet] = found.get(triplet, np.zeros(bins)) + counts
    width = edges[1] - edges[0]
    densities = {t: c / (c.sum() * width) for t, c in sorted(found.items()) if c.sum()}
    numbers = {t: float(found[t].sum()) / len(frames) for t in densities}
    return (edges[1:] + edges[:-1]) / 2, densities, numbers


def _angles(
    atoms: Atoms, cutoffs: Mapping[tuple[int, int], float]
) -> list[tuple[Triplet, np.ndarray]]:
    """The angles (degrees) of a frame, by triplet."""
    if not cutoffs:
        return []
    i, j, d, vector = neighbor_list("ijdD", atoms, dict(cutoffs))
    if not len(i):
        return []
    ends = np.searchsorted(i, i, side="right")  # bonds come sorted by their centre
    others = ends - 1 - np.arange(len(i))  # bonds of the same centre behind each bond
    one = np.repeat(np.arange(len(i)), others)
    two = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(others) - others, others)
    cosines = np.einsum("kx,kx->k", vector[one], vector[two]) / (d[one] * d[two])
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    numbers = atoms.numbers
    keys = np.stack([numbers[j[one]], numbers[i[one]], numbers[j[two]]], axis=1)
    kinds, which = np.unique(keys, axis=0, return_inverse=True)
    named = []
    for k, kind in enumerate(kinds):
        a, centre, b = (chemical_symbols[z] for z in kind)
        named.append(((min(a, b), centre, max(a, b)), angles[which.ravel() == k]))
    return named
