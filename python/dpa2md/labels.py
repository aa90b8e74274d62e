"""Labels of structures: energies, forces, stresses and virials, in the spellings of several programs.

A label is called energy, free_energy, force(s), stress or virial(s), in upper or lower case, alone or after
one of `PREFIXES`. Energies are in eV, forces in eV/angstrom, stresses in eV/angstrom^3 with ASE's sign, and a
virial is -stress times volume (eV). Six numbers of a stress or virial are xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress

from .errors import RunError

# Of several the first is taken: names that are meant as labels, plain names, another program's results.
PREFIXES = ("label_", "ref_", "reference_", "target_", "true_", "dft_", "qm_", "", "mace_")
_QUANTITIES = {
    "energy": "energy",
    "free_energy": "free_energy",
    "force": "forces",
    "forces": "forces",
    "stress": "stress",
    "virial": "virial",
    "virials": "virial",
}
# A name that has one of these words, and none of the others, looks like a label.
_WORDS = {"energy", "force", "forces", "stress", "virial", "virials"}
_OTHER_WORDS = {
    "weight",
    "weights",
    "sigma",
    "std",
    "mask",
    "unit",
    "units",
    "kinetic",
    "formation",
}


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of a structure, nan where a number is missing; None for those that it doesn't have."""

    energy: float | None = None  #: eV
    forces: np.ndarray | None = None  #: (n, 3), eV/angstrom
    stress: np.ndarray | None = None  #: (3, 3), eV/angstrom^3, for structures with a full cell


def labels_of(atoms: Atoms) -> Labels:
    """The labels that a structure's calculator has, as `read_structures` leaves them there."""
    found = getattr(atoms.calc, "results", {})
    usable = {q: v for q in found if (v := _values(q, found[q], len(atoms))) is not None}
    stress = usable.get("stress") if atoms.cell.rank == 3 else None
    energy = usable.get("energy", usable.get("free_energy"))
    return Labels(None if energy is None else float(energy), usable.get("forces"), stress)


def adopt_labels(structures: Sequence[Atoms], prefix: str | None = None) -> list[str]:
    """Give each structure a calculator with its labels, whatever their names are, and remove those names.

    All structures take their labels from names with the same prefix, the first of `PREFIXES` that is found.
    Plain names are removed in any case: after an evaluation they would stand for something else.

    Parameters
    ----------
    structures
        As they were read; energies and the like are in ``calc``, ``info`` and ``arrays``.
    prefix
        Take the names with this prefix alone.

    Returns
    -------
    list of str
        What looks like a label and was not taken, one sentence for each reason.

    Raises
    ------
    RunError
        When no structure has a label with the given prefix.
    """
    found = [_named(atoms) for atoms in structures]
    present = {p for names in found for p, _ in names}
    if prefix is None:
        chosen = next((p for p in PREFIXES if p in present), "")
    else:
        chosen = prefix.lower().rstrip("_") + "_" if prefix else ""
        found = [_named(atoms, chosen) for atoms in structures]
        if not any(p == chosen for names in found for p, _ in names):
            raise RunError(f"no label is called {chosen}energy, {chosen}forces or the like.")
    notes = _Notes()
    for atoms, names in zip(structures, found, strict=True):
        own = {q: values for (p, q), values in names.items() if p == chosen}
        _adopt(atoms, own, notes)
        gone = {chosen, ""}
        for name in [name for (p, _), v in names.items() if p in gone for name in v]:
            atoms.info.pop(name, None)
            if name in atoms.arrays:
                del atoms.arrays[name]
        notes.unused |= _unused(atoms, names, chosen)
    return notes.sentences(chosen)


def drop_labels(atoms: Atoms) -> None:
    """Remove everything that looks like a label: it is wrong as soon as the atoms move."""
    for where in (atoms.info, atoms.arrays):
        for name in [name for name in where if _looks_like_a_label(str(name))]:
            del where[name]
    atoms.calc = None


class _Notes:
    """What was seen in all structures of a file and not taken."""

    def __init__(self) -> None:
        self.unusable: dict[str, str] = {}  # name: why
        self.unused: set[str] = set()
        self.contradiction = False

    def sentences(self, chosen: str) -> list[str]:
        out = [f"{name} is no label ({why})" for name, why in sorted(self.unusable.items())]
        if self.contradiction:
            out.append("stress and virial contradict each other; the virial is taken")
        if unused := sorted(self.unused):
            taken = f"; taken are those with {chosen}" if chosen else ""
            out.append(
                f"{', '.join(unused)}: not read as labels{taken}; choose with --labels PREFIX, "
                "or rename them to energy, forces, stress or virial"
            )
        return out


@functools.cache
def _split(name: str, prefixes: tuple[str, ...]) -> tuple[str, str] | None:
    """The prefix and the quantity of a name; None for one that isn't a label's."""
    small = name.lower().replace("-", "_")
    for prefix in sorted(prefixes, key=len, reverse=True):
        if small.startswith(prefix) and small[len(prefix) :] in _QUANTITIES:
            return prefix, _QUANTITIES[small[len(prefix) :]]
    return None


def _named(atoms: Atoms, *more: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By prefix and quantity: names and values in the calculator, the info and the arrays."""
    prefixes = (*PREFIXES, *more)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for where in (atoms.info, atoms.arrays, getattr(atoms.calc, "results", {})):
        for name, value in where.items():
            key = _split(str(name), prefixes)
            if key is not None and value is not None:
                found.setdefault(key, {})[name] = value
    return found


def _adopt(atoms: Atoms, own: Mapping[str, dict[str, Any]], notes: _Notes) -> None:
    """Put what can be used of the chosen names into a calculator."""
    usable = {}
    for quantity, values in own.items():
        for name, value in values.items():
            read = _values(quantity, value, len(atoms))
            if read is None:
                notes.unusable[name] = _why_not(value)
            else:
                usable[quantity] = read
    virial = usable.pop("virial", None)
    if virial is not None and atoms.cell.rank == 3:
        stress = -virial / atoms.get_volume()
        other = usable.get("stress", stress)
        # files hold eight decimals or more; what differs by more than a thousandth is not the same
        if np.abs(other - stress).max() > 1e-3 * np.abs(stress).max() + 1e-6:
            notes.contradiction = True
        usable["stress"] = stress
    free = usable.pop("free_energy", None)
    if "energy" not in usable and free is not None:
        usable["energy"] = free
    atoms.calc = SinglePointCalculator(atoms, **usable) if usable else None


def _values(quantity: str, value: Any, natoms: int) -> np.ndarray | None:
    """A label as numbers: an energy (), forces (n, 3), a stress or virial (3, 3); None if it can't be one."""
    try:
        raw = np.asarray(value)
        numbers = raw.astype(float)
    except (TypeError, ValueError):
        return None
    if raw.dtype.kind not in "iuf":
        return None
    if quantity in ("energy", "free_energy"):
        return numbers.reshape(()) if numbers.size == 1 else None
    if quantity == "forces":
        return numbers.reshape(natoms, 3) if numbers.size == 3 * natoms else None
    if numbers.size == 6:
        return voigt_6_to_full_3x3_stress(numbers.ravel())
    return numbers.reshape(3, 3) if numbers.size == 9 else None


def _why_not(value: Any) -> str:
    try:
        raw = np.asarray(value)
    except ValueError:  # lists of different lengths
        return "it is no array"
    if raw.dtype.kind not in "iuf":
        return "it is not made of numbers"
    return f"it has {raw.size} number{'' if raw.size == 1 else 's'}"


@functools.cache
def _looks_like_a_label(name: str) -> bool:
    words = set(name.lower().replace("-", "_").split("_"))
    return bool(words & _WORDS) and not words & _OTHER_WORDS


def _unused(atoms: Atoms, names: Mapping[tuple[str, str], dict], chosen: str) -> set[str]:
    """Names that look like labels of another set; next to label_ the plain ones are a model's results."""
    left = {
        str(n) for where in (atoms.info, atoms.arrays) for n in where if _looks_like_a_label(str(n))
    }
    plain = {n for (p, _), values in names.items() if p == "" for n in values}
    return left | (set() if chosen in ("", "label_") else plain)
