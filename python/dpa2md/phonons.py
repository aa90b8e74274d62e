"""Phonons of crystals by finite displacements: phonopy chooses them, the model evaluates them together.

phonopy is an optional package (A. Togo, J. Phys. Soc. Jpn. 92, 012001 (2023)); nothing else needs it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.dft.kpoints import BandPath

from .batch import evaluate
from .calculator import DPA2Calculator
from .engine import Engine
from .errors import RunError

_STILL = 1e-3  # THz
INVCM = 33.35640951981521  #: 1/cm in a THz


@dataclass(frozen=True)
class Bands:
    """Frequencies along a path through the Brillouin zone."""

    points: np.ndarray  #: (k, 3), fractions of the primitive cell's reciprocal vectors
    distances: np.ndarray  #: (k,), along the path, 1/angstrom with a factor of 2 pi
    frequencies: np.ndarray  #: (k, 3 n), THz; imaginary ones are negative
    ticks: np.ndarray  #: distances of the special points
    labels: list[str]  #: names of the special points


def phonons(
    model: str | os.PathLike | Engine | DPA2Calculator,
    atoms: Atoms,
    supercell: Sequence[int] | np.ndarray = (2, 2, 2),
    *,
    delta: float = 0.01,
) -> Any:
    """Force constants of a crystal.

    Parameters
    ----------
    model
        A model file, which is run in float64, or an `Engine` or `DPA2Calculator`; float64 is advised, since
        forces are differenced.
    atoms
        A relaxed unit cell, periodic in three directions; the primitive cell is found.
    supercell
        How often it is repeated in each direction, or a matrix (3, 3) of integers. The supercell should be
        larger than the range of the forces: try whether frequencies still change.
    delta
        Angstrom; how far an atom is moved.

    Returns
    -------
    phonopy.Phonopy
        With forces and symmetric force constants, for all that phonopy does.

    Raises
    ------
    RunError
        Without phonopy, for a structure that is no crystal, a supercell without volume, or no positive `delta`.
    ValueError
        As `evaluate`.
    """
    crystal = displace(atoms, supercell, delta)
    if not isinstance(model, (Engine, DPA2Calculator)):
        model = Engine(model, "float64")
    compute_forces(crystal, model)
    return crystal


def displace(atoms: Atoms, supercell: Sequence[int] | np.ndarray, delta: float = 0.01) -> Any:
    """A `phonopy.Phonopy` with the displacements that symmetry leaves; arguments as of `phonons`."""
    matrix = np.asarray(supercell, dtype=int)
    if matrix.shape == (3,) and matrix.min() > 0:
        matrix = np.diag(matrix)
    if matrix.shape != (3, 3) or np.linalg.det(matrix) < 0.5:
        raise RunError("A supercell is three positive numbers, or a matrix of nine.")
    if not 0 < delta < float("inf"):
        raise RunError(f"A displacement of {delta} angstrom can't be; give a positive length.")
    if not (atoms.cell.rank == 3 and all(atoms.pbc)):
        raise RunError("Phonons need a crystal, with a cell that is periodic in three directions.")
    crystal = _phonopy(atoms, matrix)
    crystal.generate_displacements(distance=delta)
    return crystal


def compute_forces(
    crystal: Any, model: Engine | DPA2Calculator, report: Callable[[int], None] | None = None
) -> None:
    """Give the result of `displace` forces and force constants.

    `report` is called after each batch with the number of displaced supercells that are done.
    """
    displaced = [as_atoms(cell) for cell in crystal.supercells_with_displacements]
    results = evaluate(model, displaced, report=report)
    crystal.forces = np.array([result["forces"] for result in results])
    crystal.produce_force_constants(show_drift=False)
    crystal.symmetrize_force_constants(show_drift=False)


def as_atoms(cell: Any) -> Atoms:
    """A cell of phonopy as `ase.Atoms`."""
    return Atoms(
        cell.symbols,
        scaled_positions=cell.scaled_positions,
        cell=cell.cell,
        masses=cell.masses,
        pbc=True,
    )


def band_path(crystal: Any, path: str | None = None, npoints: int = 200) -> BandPath:
    """A path through the Brillouin zone of a `phonopy.Phonopy`'s primitive cell.

    Parameters
    ----------
    path
        Special points of the lattice as in `ase.cell.Cell.bandpath`, "GXMG,XR" for example; None: its
        default.
    npoints
        Number of points.

    Raises
    ------
    RunError
        For a point that the lattice does not have.
    """
    cell = Cell(crystal.primitive.cell)
    try:
        return cell.bandpath(path, npoints=npoints)
    except (KeyError, ValueError, IndexError):
        known = " ".join(sorted(cell.bandpath(npoints=0).special_points))
        raise RunError(f"The path {path!r} can't be; points of this lattice are {known}.") from None


def bands(crystal: Any, path: BandPath) -> Bands:
    """Frequencies of a `phonopy.Phonopy` with force constants along a path from `band_path`."""
    distances, ticks, labels = path.get_linear_kpoint_axis()
    crystal.run_qpoints(path.kpts)
    return Bands(path.kpts, distances, crystal.qpoints.frequencies, ticks, list(labels))


def gamma(crystal: Any) -> np.ndarray:
    """The frequencies (3 n,) of a `phonopy.Phonopy` at the zone centre, THz; imaginary ones are negative."""
    crystal.run_qpoints([[0, 0, 0]])
    return np.array(crystal.qpoints.frequencies[0])


def density_of_states(crystal: Any, mesh: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (k,) in THz and the states there, per THz and primitive cell, from a mesh of points.

    Raises
    ------
    RunError
        For a mesh that is not three positive numbers.
    """
    _run_mesh(crystal, mesh)
    crystal.run_total_dos(freq_pitch=max(np.ptp(crystal.mesh.frequencies), 1e-3) / 400)
    return crystal.total_dos.frequency_points, crystal.total_dos.dos


def thermodynamics(
    crystal: Any, mesh: Sequence[int], temperatures: Sequence[float]
) -> list[dict[str, float]]:
    """Harmonic properties of a primitive cell.

    Returns
    -------
    list of dict
        For each temperature (K): free energy (eV, the zero-point energy included), entropy and heat capacity
        at constant volume (J/K/mol). Imaginary modes and translations are left out.

    Raises
    ------
    RunError
        For a negative temperature, or a mesh that is not three positive numbers.
    """
    from ase import units

    if not all(0 <= temperature < float("inf") for temperature in temperatures):
        raise RunError("Temperatures must be zero or positive.")
    _run_mesh(crystal, mesh)
    # translations, which have no frequency but for rounding, would count as endless entropy
    crystal.run_thermal_properties(temperatures=list(temperatures), cutoff_frequency=_STILL)
    found = crystal.thermal_properties
    kilojoule = units.kJ / units.mol
    rows = zip(
        found.temperatures, found.free_energy, found.entropy, found.heat_capacity, strict=True
    )
    return [
        {
            "temperature / K": float(t),
            "free energy / eV": float(f * kilojoule),
            "entropy / (J/K/mol)": float(s),
            "heat capacity / (J/K/mol)": float(c),
        }
        for t, f, s, c in rows
    ]


def _run_mesh(crystal: Any, mesh: Sequence[int]) -> None:
    if len(mesh) != 3 or min(mesh) < 1:
        raise RunError("A mesh is three positive numbers.")
    crystal.run_mesh(mesh)


def check_phonopy() -> None:
    """Raise `RunError` when phonopy is not installed."""
    try:
        import phonopy  # noqa: F401
    except ImportError:
        raise RunError("Phonons need phonopy: pip install phonopy.") from None


def _phonopy(atoms: Atoms, matrix: np.ndarray) -> Any:
    check_phonopy()
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        scaled_positions=atoms.get_scaled_positions(),
        cell=atoms.cell.array,
        masses=atoms.get_masses(),
    )
    with warnings.catch_warnings():  # of its choice of a primitive cell
        warnings.simplefilter("ignore")
        found = Phonopy(cell, supercell_matrix=matrix, primitive_matrix="auto")
    if len(found.primitive) < len(cell):
        return found
    # the same lattice with other vectors would only rename the points of a path
    return Phonopy(cell, supercell_matrix=matrix, primitive_matrix=np.eye(3))
