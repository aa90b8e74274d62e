"""Frames that can't be meant: refused before a training starts, with file, frame and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from .._core import CoreError, neighbor_list
from ..errors import InputError
from .systems import LabeledFrame, System

LARGEST_FORCE = 1000.0  # eV/angstrom; forces of colliding atoms in labelled data are below 200
NEAREST = 0.3  # angstrom; the shortest bond, that of H2, has 0.74; in nm it would be 0.074
_THINNEST = 1e-3  # angstrom, the least singular value of a cell
# The nearest neighbours of all are at 0.9 to 1.3 sums of covalent radii, in bohr at 1.7 to 2.5.
_WIDE = 1.6
_WIDEST = 3.0  # beyond this, atoms are apart for another reason
_LISTED = 3  # systems that a sentence names
_NOBLE = {"He", "Ne", "Ar", "Kr", "Xe", "Rn"}  # whose nearest neighbours are far away


def check_frames(systems: Iterable[System]) -> set[int]:
    """Read every frame once; returns the elements that occur, as indices of the type map.

    Energies in other units can't be told from right ones: their zero is free, and neighbouring
    frames need not be close. What forces and distances tell is checked.

    Raises
    ------
    InputError
        For a number that isn't finite, a singular cell, atoms on top of each other (as with lengths
        in nm), and forces beyond reason.
    """
    elements: set[int] = set()
    for system in systems:
        for index in range(len(system)):
            frame = system.frame(index)
            _check(system, index, frame)
            elements.update(np.unique(frame.types).tolist())
    return elements


def _check(system: System, index: int, frame: LabeledFrame) -> None:
    for quantity, values in vars(frame).items():
        if values is not None and not np.isfinite(values).all():
            raise InputError(
                f"{system.place(index, quantity)}: there is a number that is not finite; leave the "
                "frame out."
            )
    _check_cell(system, index, frame)
    if frame.forces is not None:
        _check_forces(system, index, frame.forces)
    _check_distances(system, index, frame)


def _check_cell(system: System, index: int, frame: LabeledFrame) -> None:
    vectors = frame.cell[frame.pbc != 0]
    if len(vectors) and np.linalg.svd(vectors, compute_uv=False).min() < _THINNEST:
        raise InputError(
            f"{system.place(index, 'cell')}: the cell has no volume; write its three vectors in "
            "angstrom, or say that there is no periodicity."
        )


def _check_forces(system: System, index: int, forces: np.ndarray) -> None:
    sizes = np.linalg.norm(forces, axis=1)
    atom = int(sizes.argmax())
    if sizes[atom] > LARGEST_FORCE:
        raise InputError(
            f"{system.place(index, 'forces')}: the force on atom {atom} is {sizes[atom]:.6g} "
            "eV/angstrom; leave the frame out, or convert the forces if they are in other units."
        )


def _check_distances(system: System, index: int, frame: LabeledFrame) -> None:
    place = system.place(index, "positions")
    try:
        first, _, _ = _neighbors(frame, NEAREST)
    except CoreError as error:
        text = error.sentence.replace("{atom}", f"atom {error.atom}").replace("{of}", "")
        raise InputError(f"{place}: {text}") from None
    close = np.flatnonzero(np.diff(first))
    if len(close):
        raise InputError(
            f"{place}: atom {close[0]} has another one within {NEAREST} angstrom; "
            "leave the frame out, or convert the lengths if they are in other units."
        )


def _neighbors(frame: LabeledFrame, rcut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First pairs of the atoms (n + 1), neighbours, shift vectors; in order of atoms."""
    return neighbor_list(
        np.ascontiguousarray(frame.positions, float),
        np.ascontiguousarray(frame.cell, float),
        frame.pbc.astype(np.intc),
        rcut,
    )


def count_neighbors(systems: Iterable[System], rcut: float) -> int:
    """The most neighbours that an atom has in any frame, images counted, as DeePMD-kit does.

    Parameters
    ----------
    rcut
        Cutoff, angstrom.
    """
    most = 0
    for system in systems:
        for index in range(len(system)):
            first, _, _ = _neighbors(system.frame(index), rcut)
            most = max(most, int(np.diff(first).max()))
    return most


def doubts(systems: Sequence[System], type_map: Sequence[str]) -> list[str]:
    """What may be wrong with the data and need not be: sentences for a log.

    Of each system the first frame is looked at. Lengths in bohr show where in all systems even the
    nearest atoms are as far apart as no bond is.
    """
    out = []
    firsts = [system.frame(0) for system in systems]
    for quantity in ("energy", "forces"):
        without = [
            system.name
            for system, frame in zip(systems, firsts, strict=True)
            if getattr(frame, quantity) is None
        ]
        if without:
            more = f" and {len(without) - _LISTED} more" if len(without) > _LISTED else ""
            out.append(f"Without {quantity}: {', '.join(without[:_LISTED])}{more}.")
    ratios = [r for frame in firsts if (r := _nearest(frame, type_map)) is not None]
    if ratios and min(ratios) > _WIDE:
        out.append(
            f"The nearest atoms of all systems are {min(ratios):.1f} times the sum of their "
            "covalent radii apart; lengths should be in angstrom, not bohr."
        )
    return out


def _nearest(frame: LabeledFrame, type_map: Sequence[str]) -> float | None:
    """The least distance in sums of covalent radii; None where there is no pair that tells."""
    names = [type_map[kind] for kind in frame.types]
    known = [name in atomic_numbers and name not in _NOBLE for name in names]
    if not all(known):
        return None
    radii = np.array([covalent_radii[atomic_numbers[name]] for name in names])
    first, other, shift = _neighbors(frame, 2.0 * _WIDEST * radii.max())
    if not len(other):
        return None
    atom = np.repeat(np.arange(len(radii)), np.diff(first))
    distance = np.linalg.norm(frame.positions[other] + shift - frame.positions[atom], axis=1)
    return float((distance / (radii[atom] + radii[other])).min())
