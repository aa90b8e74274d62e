"""How far a model is from labels: energies per atom, forces by element, stresses, virials."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress


@dataclasses.dataclass(frozen=True)
class Pairs:
    """One quantity, labelled and predicted, both (n,)."""

    name: str  #: energy, force, force O, ..., stress, virial
    unit: str  #: of both
    label: np.ndarray  #: (n,) from the file
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
    for atoms in structures:
        labels = getattr(atoms.calc, "results", {})
        if (
            "energy" in labels
            or "forces" in labels
            or ("stress" in labels and atoms.cell.rank == 3)
        ):
            return True
    return False


def pair_up(structures: Iterable[Atoms], results: Iterable[dict[str, Any]]) -> list[Pairs]:
    """Labels that ASE read with the structures, beside what `evaluate` gave for them.

    Energies and virials are per atom, because only so structures of different sizes compare. Forces and
    stresses count by component. Structures may have some labels and not others.
    """
    energy: list[np.ndarray] = []
    stress: list[np.ndarray] = []
    virial: list[np.ndarray] = []
    force: list[np.ndarray] = []
    symbols: list[str] = []
    for atoms, result in zip(structures, results, strict=True):
        labels = getattr(atoms.calc, "results", {})
        n = len(atoms)
        if "energy" in labels:
            energy.append(np.array([[labels["energy"]], [result["energy"]]]) / n)
        if "forces" in labels:
            force.append(np.stack([labels["forces"], result["forces"]]))
            symbols += atoms.get_chemical_symbols()
        if "stress" in labels and "stress" in result:
            label = np.asarray(labels["stress"])
            label = full_3x3_to_voigt_6_stress(label) if label.shape == (3, 3) else label
            both = np.stack([label, result["stress"]])
            stress.append(both)
            virial.append(-both * atoms.get_volume() / n)
    pairs = []
    if energy:
        pairs.append(_pairs("energy", "eV/atom", energy))
    if force:
        pairs.append(_pairs("force", "eV/angstrom", force))
        both, who = np.concatenate(force, axis=1), np.array(symbols)
        for element in dict.fromkeys(symbols):
            pairs.append(_pairs(f"force {element}", "eV/angstrom", [both[:, who == element]]))
    if stress:
        pairs.append(_pairs("stress", "eV/angstrom^3", stress))
        pairs.append(_pairs("virial", "eV/atom", virial))
    return pairs


def _pairs(name: str, unit: str, parts: list[np.ndarray]) -> Pairs:
    label, model = (np.concatenate([p[k].ravel() for p in parts]) for k in (0, 1))
    return Pairs(name, unit, label, model)
