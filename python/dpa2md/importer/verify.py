"""Comparing a converted model with DeePMD-kit, where that is installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ModelError
from ..model_file import read_model

# Largest relative differences that rounding explains (energy of all atoms, largest force): a sum of
# some thousand terms in the model's own precision, an allowance of 1e3 units in the last place.
_TOLERANCE = {"float64": 1e-9, "float32": 2e-4}


@dataclass(frozen=True)
class Comparison:
    """Differences between a `.dpa2` model and DeePMD-kit on one random structure."""

    atoms: int
    energy_difference: float  # eV per atom
    force_difference: float  # eV/angstrom, the largest of any component
    force_scale: float  # eV/angstrom, the largest component of any force

    def __str__(self) -> str:
        return (
            f"{self.atoms} atoms: energy differs by {self.energy_difference:.2e} eV/atom, "
            f"forces by at most {self.force_difference:.2e} eV/A "
            f"(largest force {self.force_scale:.2e} eV/A)"
        )


def random_structure(elements: list[str], rcut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A periodic structure with all elements: positions (n, 3), types (n), cell (3, 3), angstrom.

    Atoms sit near the points of a lattice of 2.2 angstrom, so that none are very close.
    """
    rng = np.random.default_rng(2024)
    side = 4
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = 2.2 * grid + rng.uniform(-0.4, 0.4, grid.shape)
    types = rng.permutation(np.arange(len(positions)) % len(elements))
    cell = 2.2 * side * np.eye(3) + np.array([[0, 0, 0], [0.7, 0, 0], [-0.5, 0.9, 0]])
    return positions, types, cell


def compare(source: Path, output: Path, head: str | None) -> Comparison:
    """Energies and forces of both models; ModelError when they differ by more than rounding."""
    try:
        from deepmd.infer import DeepPot
    except ImportError:
        raise ModelError(
            "Comparing with DeePMD-kit needs DeePMD-kit (pip install deepmd-kit torch) in the same "
            "environment; leave out --verify to convert without it."
        ) from None
    from ase import Atoms

    from .. import DPA2Calculator

    records = read_model(output)
    elements = str(records["model.elements"]).split("\n")
    positions, types, cell = random_structure(elements, float(records["repinit.rcut"]))
    theirs = DeepPot(str(source), head=head) if head else DeepPot(str(source))
    order = [theirs.get_type_map().index(name) for name in elements]
    energy, force, *_ = theirs.eval(
        positions.reshape(1, -1), cell.reshape(1, 9), np.array(order)[types]
    )
    symbols = [elements[index] for index in types]
    atoms = Atoms(symbols, positions=positions, cell=cell, pbc=True)
    atoms.calc = DPA2Calculator(output)
    result = Comparison(
        atoms=len(atoms),
        energy_difference=abs(atoms.get_potential_energy() - float(energy.item())) / len(atoms),
        force_difference=float(np.abs(atoms.get_forces() - force.reshape(-1, 3)).max()),
        force_scale=float(np.abs(force).max()),
    )
    precision = {records["model.precision"], records["model.fitting_precision"]}
    tolerance = _TOLERANCE["float32" if "float32" in precision else "float64"]
    energy_scale = max(1.0, abs(float(energy.item())) / len(atoms))
    if (
        result.force_difference > tolerance * max(1.0, result.force_scale)
        or result.energy_difference > tolerance * energy_scale
    ):
        raise ModelError(f"{output} does not agree with DeePMD-kit: {result}; please report this.")
    return result
