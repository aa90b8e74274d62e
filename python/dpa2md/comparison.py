"""How far a model is from labels: energies, forces by element, stresses, virials, as ``dp test`` counts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from .labels import Labels, labels_of

_UNITS = {
    "energy": "eV/atom",
    "total energy": "eV",
    "force": "eV/angstrom",
    "stress": "eV/angstrom^3",
    "virial": "eV/atom",
    "total virial": "eV",
}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """One quantity, labelled and predicted, both (n,)."""

    name: str  #: energy, total energy, force, force O, ..., stress, virial, total virial
    unit: str  #: of both
    label: np.ndarray  #: (n,) from the file, all finite
    model: np.ndarray  #: (n,) from the model

    def errors(self) -> dict[str, Any]:
        """A row of the error table: number of values, MAE, RMSE, largest and mean error."""
        d = self.model - self.label
        return {
            "quantity": self.name,
            "unit": self.unit,
            "values": len(d),
            "MAE": float(np.abs(d).mean()),
            "RMSE": float(np.sqrt(np.mean(d**2))),
            "largest": float(np.abs(d).max()),
            "mean": float(d.mean()),
        }


def labelled(structures: Iterable[Atoms]) -> bool:
    """Whether any structure has a label, so that `pair_up` will give something."""
    values = (v for atoms in structures for v in vars(labels_of(atoms)).values())
    return any(v is not None and np.isfinite(v).any() for v in values)


def pair_up(
    structures: Iterable[Atoms],
    results: Iterable[dict[str, Any]],
    shift: Mapping[str, float] | None = None,
) -> list[Pairs]:
    """Labels that came with the structures, beside what `evaluate` gave for them.

    Energies and virials are there per atom, because only so structures of different sizes compare, and in
    total. Forces, stresses and virials count by component; the latter two have nine. Structures may have some
    labels and not others, and what is nan in a label doesn't count.

    Parameters
    ----------
    shift
        Energies (eV) by element, added to the labels; see `energy_shift`.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _UNITS}  # each (2, values)
    numbers: list[np.ndarray] = []  # of the atoms, for each component of the forces

    def add(name: str, label: Any, model: Any) -> None:
        parts[name].append(np.stack([np.ravel(label), np.ravel(model)]))

    for atoms, result in zip(structures, results, strict=True):
        labels, n = labels_of(atoms), len(atoms)
        if labels.energy is not None:
            energy = labels.energy + sum(c * _count(atoms, e) for e, c in (shift or {}).items())
            add("energy", energy / n, result["energy"] / n)
            add("total energy", energy, result["energy"])
        if labels.forces is not None:
            add("force", labels.forces, result["forces"])
            numbers.append(np.repeat(atoms.numbers, 3))
        if labels.stress is not None:
            virial, volume = -labels.stress * atoms.get_volume(), atoms.get_volume()
            add("stress", labels.stress, -result["virial"] / volume)
            add("virial", virial / n, result["virial"] / n)
            add("total virial", virial, result["virial"])
    joined = {name: np.concatenate(values, axis=1) for name, values in parts.items() if values}
    return [p for p in _by_element(joined, np.concatenate([[], *numbers])) if len(p.label)]


def energy_shift(
    structures: Sequence[Atoms], results: Sequence[dict[str, Any]]
) -> dict[str, float] | None:
    """The energies by element (eV) that, added to the labels, bring these closest to the model's energies.

    It is what remains to be compared where two references differ by a constant for each atom. Of elements
    that never change their ratio only the sum is determined, and is divided as evenly as possible.

    Returns
    -------
    dict or None
        None when there are not more energies than constants, so that nothing would be left to compare.
    """
    rows = [
        (atoms, result["energy"] - energy)
        for atoms, result in zip(structures, results, strict=True)
        if (energy := labels_of(atoms).energy) is not None and np.isfinite(energy)
    ]
    elements = sorted({e for atoms, _ in rows for e in atoms.symbols.species()})
    counts = np.array([[_count(atoms, e) for e in elements] for atoms, _ in rows], float)
    if not rows or np.linalg.matrix_rank(counts) >= len(rows):
        return None
    found = np.linalg.lstsq(counts, np.array([d for _, d in rows]), rcond=None)[0]
    return {e: float(c) for e, c in zip(elements, found, strict=True)}


def _count(atoms: Atoms, element: str) -> int:
    return int((atoms.numbers == atomic_numbers[element]).sum())


def detail_tables(
    structures: Sequence[Atoms], results: Sequence[dict[str, Any]]
) -> dict[str, tuple[str, np.ndarray]]:
    """The tables that ``dp test -d`` writes: by suffix, what its header says of the columns, and the rows.

    A row is a structure, of forces an atom; where a structure has no label, that is nan. Quantities that no
    structure has are left out.
    """
    tables: dict[str, list[np.ndarray]] = {}
    for atoms, result in zip(structures, results, strict=True):
        n = len(atoms)
        for name, label, model in _details(labels_of(atoms), atoms, result):
            rows = np.concatenate([label, model], axis=1)
            tables.setdefault(name, []).append(rows)
            if name in ("e", "v"):
                tables.setdefault(f"{name}_peratom", []).append(rows / n)
    whole = {name: np.concatenate(rows) for name, rows in tables.items()}
    return {
        name: (_COLUMNS[name[0]], rows)
        for name, rows in whole.items()
        if np.isfinite(rows[:, : rows.shape[1] // 2]).any()
    }


def _columns(letter: str, ends: Sequence[str]) -> str:
    return " ".join(f"{who}_{letter}{end}" for who in ("data", "pred") for end in ends)


_NINE = [a + b for a in "xyz" for b in "xyz"]
_COLUMNS = {
    "e": ": " + _columns("e", [""]),
    "f": ": " + _columns("f", "xyz"),
    "v": ": " + _columns("v", _NINE),
    "s": " (eV/Å³): " + _columns("s", _NINE),
}


def _details(
    labels: Labels, atoms: Atoms, result: dict[str, Any]
) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
    energy = np.nan if labels.energy is None else labels.energy
    yield "e", np.array([[energy]]), np.array([[result["energy"]]])
    forces = result["forces"]
    yield "f", np.full_like(forces, np.nan) if labels.forces is None else labels.forces, forces
    stress = np.full((1, 9), np.nan) if labels.stress is None else labels.stress.reshape(1, 9)
    virial, volume = result["virial"].reshape(1, 9), atoms.cell.volume
    yield "v", -stress * volume, virial
    yield "s", stress, -virial / (volume or np.nan)


def _by_element(joined: dict[str, np.ndarray], numbers: np.ndarray) -> Iterable[Pairs]:
    """Pairs without what isn't finite; those of the forces are followed by the forces on each element."""
    for name, both in joined.items():
        groups = {name: both}
        if name == "force":
            for z in dict.fromkeys(numbers.tolist()):
                groups[f"force {chemical_symbols[int(z)]}"] = both[:, numbers == z]
        for title, (label, model) in groups.items():
            known = np.isfinite(label)
            yield Pairs(title, _UNITS[name], label[known], model[known])
