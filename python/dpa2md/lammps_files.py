"""LAMMPS's dump and data files: read by ASE, but atom types are never taken for atomic numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols
from ase.io.formats import open_with_compression

from .errors import RunError

_PEEK = 1 << 16  # bytes: the header of a dump or data file fits in
_REMEDY = "name the elements of the types 1, 2, ... with --elements, as in --elements O,H"
# Masses are given to a few digits: further than this from an element's, it may be another's.
_MASS_TOLERANCE = 0.1


def lammps_format(path: Path) -> str | None:
    """ASE's name of the format when a file is a LAMMPS dump or data file; None for other files."""
    try:
        with open_with_compression(str(path), "rb") as file:
            head = file.read(_PEEK)
    except Exception:  # noqa: BLE001 - a damaged archive raises anything, again when it is read
        return None
    if re.search(rb"^ITEM: TIMESTEP", head, re.MULTILINE):
        return "lammps-dump-text"
    if re.search(rb"^\s*\d+\s+atoms\b", head, re.MULTILINE) and re.search(
        rb"^\s*\d+\s+atom\s+types\b", head, re.MULTILINE
    ):
        return "lammps-data"
    return None


def read_lammps(
    path: Path,
    file_format: str,
    read: Callable[..., list[Atoms]],
    elements: Sequence[str] | None,
) -> list[Atoms]:
    """Structures of a file that `lammps_format` knows.

    Parameters
    ----------
    read
        Reads the file with ASE; it takes the keywords of ASE's reader.
    elements
        Those of the types 1, 2, ...; None: as the file says.

    Raises
    ------
    RunError
        When the elements or the units are not known.
    """
    with open_with_compression(str(path), "rb") as file:
        head = file.read(_PEEK).decode("utf-8", "replace")
    pattern = r"^ITEM: UNITS\s+(\w+)" if "dump" in file_format else r"\A.*\bunits\s*=\s*(\w+)"
    named = re.search(pattern, head, re.MULTILINE)
    units = named[1] if named else "metal"
    if units == "lj":
        raise RunError(f"{path}: it is in reduced units (lj), which say nothing about a material.")
    if "dump" in file_format:
        return _read_dump(path, head, read, units, elements)
    return _read_data(path, head, read, units, elements)


def _read_dump(
    path: Path,
    head: str,
    read: Callable[..., list[Atoms]],
    units: str,
    elements: Sequence[str] | None,
) -> list[Atoms]:
    columns = re.findall(r"^ITEM: ATOMS(.*)$", head, re.MULTILINE)
    columns = columns[0].split() if columns else []
    if elements is None and "element" not in columns:
        raise RunError(f"{path}: this dump has no column with elements; {_REMEDY}.")
    if elements is not None and "type" not in columns:
        raise RunError(f"{path}: this dump has no column with types; leave out --elements.")
    frames = read(units=units)
    counts = _atom_counts(path)
    for atoms in frames:
        if len(atoms) not in counts:  # ASE takes what there is of a frame
            raise RunError(f"{path}: its last frame is cut short; name others, as {path}@:-1 does.")
        if elements is not None:
            if "type" not in atoms.arrays:  # ASE before 3.24
                atoms.arrays["type"] = _types_of_numbers(path, atoms, columns)
            _name_types(path, atoms, dict(enumerate(elements, start=1)))
        if atoms.calc is not None:  # ASE puts an energy of 0 beside the forces
            atoms.calc.results.pop("energy", None)
    return frames


def _types_of_numbers(path: Path, atoms: Atoms, columns: list[str]) -> np.ndarray:
    """The types, where ASE made atomic numbers of them."""
    if {"element", "mass"} & set(columns):
        raise RunError(f"{path}: the installed ASE leaves the types out; update ase to 3.24.")
    return atoms.numbers


def _atom_counts(path: Path) -> set[int]:
    """The numbers of atoms that the frames of a dump say they have."""
    try:
        with open_with_compression(str(path), "rt") as file:
            heads = (line.startswith("ITEM: NUMBER OF ATOMS") for line in file)
            return {int(next(file, "0")) for found in heads if found}
    except ValueError:
        raise RunError(f"{path}: this dump is damaged: a number of atoms is no number.") from None


def _read_data(
    path: Path,
    head: str,
    read: Callable[..., list[Atoms]],
    units: str,
    elements: Sequence[str] | None,
) -> list[Atoms]:
    if not re.search(r"^Atoms\s*#\s*\w", head, re.MULTILINE):
        style = ' (if the atom style is the reason: write it behind Atoms, as in "Atoms # charge")'
    else:
        style = ""
    try:
        frames = read(units=units)
    except RunError as error:
        raise RunError(f"{str(error).rstrip('.')}{style}.") from None
    for atoms in frames:
        if not atoms.arrays["type"].all():  # ASE mixes these up when it sorts the atoms
            raise RunError(
                f"{path}: its atoms have labels for types; write numbers, as write_data does with "
                "the keywords types numeric."
            )
        if elements is not None:
            known = dict(enumerate(elements, start=1))
        else:
            known = _type_labels(head) or _elements_by_mass(path, atoms)
        _name_types(path, atoms, known)
    return frames


def _type_labels(head: str) -> dict[int, str]:
    """The section Atom Type Labels, when its names are elements."""
    section = re.search(
        r"^Atom Type Labels.*\n\s*\n((?:[ \t]*\d+[ \t]+\S+.*\n)+)", head, re.MULTILINE
    )
    rows = [line.split() for line in section[1].splitlines()] if section else []
    labels = {int(row[0]): row[1] for row in rows}
    return labels if set(labels.values()) <= set(chemical_symbols) else {}


def _elements_by_mass(path: Path, atoms: Atoms) -> dict[int, str]:
    if not atoms.has("masses"):
        raise RunError(f"{path}: this file has neither masses nor labels of its types; {_REMEDY}.")
    found = {}
    for number, mass in zip(atoms.arrays["type"], atoms.get_masses(), strict=True):
        distance = np.abs(atomic_masses[1:] - mass)
        if distance.min() > _MASS_TOLERANCE:
            raise RunError(
                f"{path}: type {number} has a mass of {mass:g}, no element's; {_REMEDY}."
            )
        found[int(number)] = chemical_symbols[1 + int(np.argmin(distance))]
    return found


def _name_types(path: Path, atoms: Atoms, known: Mapping[int, str]) -> None:
    types: Any = atoms.arrays["type"]
    missing = sorted(set(types.tolist()) - set(known))
    if missing:
        raise RunError(f"{path}: type {missing[0]} has no element; {_REMEDY}.")
    masses = atoms.get_masses() if atoms.has("masses") else None
    atoms.set_chemical_symbols([known[int(k)] for k in types])
    if masses is not None:
        atoms.set_masses(masses)
