"""Comparing a converted model with DeePMD-kit, where that is installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from .conversion import load_records
from .engine import Engine
from .errors import ModelError
from .model_file import Record, read_model

# Largest relative differences that rounding explains (energy of all atoms, largest force): a sum of
# some thousand terms in the model's own precision, an allowance of 1e3 units in the last place.
_TOLERANCE = {"float64": 1e-9, "float32": 2e-4}


@dataclass(frozen=True)
class Comparison:
    """Differences between a `.dpa2` model and DeePMD-kit on one random structure."""

    atoms: int  #: in the structure
    energy_difference: float  #: eV per atom
    force_difference: float  #: eV/angstrom, the largest of any component; NaN without forces
    force_scale: float  #: eV/angstrom, the largest component of any force

    def __str__(self) -> str:
        text = f"{self.atoms} atoms: energy differs by {self.energy_difference:.2e} eV/atom, "
        if np.isnan(self.force_scale):
            return text + "forces not compared (DeePMD-kit computes none for this kind of file)"
        return (
            text + f"forces by at most {self.force_difference:.2e} eV/A "
            f"(largest force {self.force_scale:.2e} eV/A)"
        )


def verify(
    source: str | os.PathLike, output: str | os.PathLike, head: str | None = None
) -> Comparison:
    """Compare energies and forces of a converted model with DeePMD-kit's own.

    Needs an environment in which DeePMD-kit (with PyTorch) and dpa2md's engine are installed.

    Parameters
    ----------
    source
        The file that DeePMD-kit loads.
    output
        The ``.dpa2`` file that was made from it.
    head
        Which head of a multi-task model.

    Returns
    -------
    Comparison
        The differences (eV, eV/angstrom) on one random structure.

    Raises
    ------
    ModelError
        When the two differ by more than rounding, take neighbours differently, or when
        DeePMD-kit is not installed.
    """
    key = "model.all_neighbors"
    if load_records(output).get(key, 0) and not load_records(source, head).get(key, 0):
        raise ModelError(
            f"{output} takes all neighbours and DeePMD-kit the nearest that {source} has room for, so that "
            "the two can't be compared; leave out --verify, or --all-neighbors."
        )
    return _compare(Path(source), Path(output), head)


def _random_structure(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """64 atoms of `count` elements: positions (n, 3), types (n), cell (3, 3), angstrom.

    They sit near the points of a sheared lattice of 2.2 angstrom, so that none are very close.
    """
    rng = np.random.default_rng(2024)
    side = 4
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = 2.2 * grid + rng.uniform(-0.4, 0.4, grid.shape)
    types = rng.permutation(np.arange(len(positions)) % count)
    cell = 2.2 * side * np.eye(3) + np.array([[0, 0, 0], [0.7, 0, 0], [-0.5, 0.9, 0]])
    return positions, types, cell


def _compare(source: Path, output: Path, head: str | None) -> Comparison:
    """Energies and forces of both models; ModelError when they differ by more than rounding."""
    records = read_model(output)
    _refuse_parameters(records)
    elements = str(records["model.elements"]).split("\n")
    positions, types, cell = _random_structure(len(elements))
    energy, forces = _deepmd_kit(source, head, elements, positions, types, cell)
    symbols = [elements[index] for index in types]
    atoms = Atoms(symbols, positions=positions, cell=cell, pbc=True)
    # a compressed model's own pieces, also where a table made from them is nearer to the uncompressed one
    (ours,) = Engine(output, tables="repinit.table" not in records).compute_atoms([atoms])
    result = Comparison(
        atoms=len(atoms),
        energy_difference=abs(ours.energy - energy) / len(atoms),
        force_difference=float(np.abs(ours.forces - forces).max()),
        force_scale=float(np.abs(forces).max()),
    )
    precisions = {records["model.precision"], records["model.fitting_precision"]}
    tolerance = _TOLERANCE["float32" if "float32" in precisions else "float64"]
    energy_agrees = result.energy_difference <= tolerance * max(1.0, abs(energy) / len(atoms))
    # DeePMD-kit evaluates .dp and .yaml files without forces
    without_forces = bool(np.isnan(forces).all()) and source.suffix in (".dp", ".yaml", ".yml")
    forces_agree = result.force_difference <= tolerance * max(1.0, result.force_scale)
    if not (energy_agrees and (forces_agree or without_forces)):
        raise ModelError(f"{output} does not agree with DeePMD-kit: {result}; please report this.")
    return result


def _deepmd_kit(
    source: Path,
    head: str | None,
    elements: list[str],
    positions: np.ndarray,
    types: np.ndarray,
    cell: np.ndarray,
) -> tuple[float, np.ndarray]:
    """DeePMD-kit's energy (eV) and forces (n, 3), NaN where its backend computes none."""
    try:
        from deepmd.infer import DeepPot
    except ImportError:
        raise ModelError(
            "Comparing with DeePMD-kit needs DeePMD-kit (pip install deepmd-kit torch) in the same "
            "environment; leave out --verify to convert without it."
        ) from None
    try:
        model = DeepPot(str(source), head=head) if head else DeepPot(str(source))
        order = np.array([model.get_type_map().index(name) for name in elements])
        size = model.get_dim_aparam()
        # such a parameter is only a mask here: its value is not read
        parameters = {"aparam": np.zeros((1, len(types), size))} if size else {}
        energy, forces, *_ = model.eval(
            positions.reshape(1, -1), cell.reshape(1, 9), order[types], **parameters
        )
    except Exception as error:  # whatever a foreign program raises, for example for compressed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]  # models without ops
        raise ModelError(f"DeePMD-kit itself could not evaluate {source}: {reason}") from error
    return float(energy.item()), forces.reshape(-1, 3)


def _refuse_parameters(records: dict[str, Record]) -> None:
    needs_fparam = "fitting.fparam_avg" in records and "fitting.default_fparam" not in records
    if needs_fparam or "fitting.aparam_avg" in records:
        raise ModelError(
            "The model needs frame or atomic parameters, which have no natural values for a "
            "comparison; compare with --verify left out, on a structure of your own."
        )
