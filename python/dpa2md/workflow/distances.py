"""The smallest distances that each pair of elements has, and limits that follow from them.

They are taken from structures that can be trusted: starting structures and runs with the teacher.
Covalent radii would not do: bonds are shorter than their sums allow, and what is close depends on
the matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from .._core import neighbor_list
from ..errors import RunError
from ..reading import read_structures

REACH = 4.0  #: angstrom; a pair of elements that is never nearer gets no limit
FACTOR = 0.85  #: a limit is so much of the smallest distance

Distances = Mapping[str, float]  # by pairs as "H-O", in the order of the alphabet; angstrom


def smallest_distances(structures: Iterable[Atoms], reach: float = REACH) -> dict[str, float]:
    """The smallest distance of each pair of elements, over all structures and periodic images.

    Parameters
    ----------
    structures
        Any number of `ase.Atoms`; they are gone through once.
    reach
        Angstrom; pairs of elements that are never nearer are left out.

    Returns
    -------
    dict
        Angstrom by the pair, as in ``{"H-O": 0.93}``, in the order of the alphabet.

    Raises
    ------
    ValueError
        For a structure whose neighbours can't be found: positions that are not finite, a cell
        without volume.
    """
    return lowest(_of_one(atoms, reach) for atoms in structures)


def lowest(tables: Iterable[Distances]) -> dict[str, float]:
    """The smallest distance of each pair over several tables."""
    found: dict[str, float] = {}
    for table in tables:
        for pair, distance in table.items():
            found[pair] = min(distance, found.get(pair, np.inf))
    return dict(sorted(found.items()))


def violation(atoms: Atoms, limits: Distances) -> str | None:
    """What of a structure is nearer than the limits allow, in words; None: nothing.

    Parameters
    ----------
    limits
        Angstrom by the pair; pairs without a limit may be at any distance.

    Raises
    ------
    ValueError
        As `smallest_distances`.
    """
    if not limits:
        return None
    found = _of_one(atoms, max(limits.values()))
    for pair, distance in found.items():
        if distance < limits.get(pair, 0.0):
            return f"{pair} at {distance:.3f} angstrom, below {limits[pair]:.3f}"
    return None


def read_limits(names: Sequence[str], factor: float = FACTOR) -> dict[str, float]:
    """Limits from files: the smallest distances over all of them, times a factor.

    Parameters
    ----------
    names
        JSON files with distances, alone or under "distances" as `dpa2md explore` writes them, and
        files of structures.
    factor
        Positive, at most 1.

    Raises
    ------
    RunError
        When a file can't be read or has no distances, or for another factor.
    """
    if not 0 < factor <= 1:
        raise RunError(
            f"The factor of the limits is {factor}; give a number up to 1, such as 0.85."
        )
    found = lowest(_of_file(name) for name in names)
    return {pair: factor * distance for pair, distance in found.items()}


def _of_one(atoms: Atoms, reach: float) -> dict[str, float]:
    periodic = atoms.pbc.any()
    first, neighbor, shift = neighbor_list(
        np.ascontiguousarray(atoms.positions, dtype=float),
        atoms.cell.complete().array if periodic else np.zeros((3, 3)),
        atoms.pbc.astype(np.intc),
        reach,
    )
    atom = np.repeat(np.arange(len(atoms)), np.diff(first))
    vectors = atoms.positions[neighbor] + shift - atoms.positions[atom]
    numbers, kinds = np.unique(atoms.numbers, return_inverse=True)
    count = len(numbers)
    smallest = np.full((count, count), np.inf)
    np.minimum.at(smallest, (kinds[atom], kinds[neighbor]), np.linalg.norm(vectors, axis=1))
    return {
        pair_name(numbers[a], numbers[b]): float(smallest[a, b])
        for a in range(count)
        for b in range(a, count)
        if smallest[a, b] <= reach
    }


def pair_name(first: int, second: int) -> str:
    """What two elements are called in tables of distances, by their atomic numbers."""
    return "-".join(sorted((chemical_symbols[first], chemical_symbols[second])))


def _of_file(name: str) -> dict[str, float]:
    if not name.endswith(".json"):
        return smallest_distances(read_structures(name))
    try:
        content = json.loads(Path(name).read_text())
    except FileNotFoundError:
        raise RunError(f"{name}: there is no such file of distances.") from None
    except ValueError:
        raise RunError(f"{name}: this is no JSON, or damaged; make it again.") from None
    table = content.get("distances", content) if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table or not all(map(_is_entry, table, table.values())):
        raise RunError(f'{name}: there are no distances in it, as in {{"H-O": 0.93}}.')
    return {"-".join(sorted(pair.split("-"))): float(value) for pair, value in table.items()}


def _is_entry(pair: str, value: object) -> bool:
    elements = pair.split("-")
    return (
        len(elements) == 2
        and all(element in chemical_symbols[1:] for element in elements)
        and isinstance(value, int | float)
        and value > 0
    )
