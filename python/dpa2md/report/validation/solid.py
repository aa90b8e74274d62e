"""A crystal in the models: its cell, equation of state and elastic constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from ase import Atoms, units
from ase.eos import EquationOfState

from ...calculator import DPA2Calculator
from ...elastic import Moduli, moduli, stiffness
from ...errors import RunError
from ...relaxation import Relaxation, relax

_FMAX = 0.0005  # eV/angstrom; moves a stress by far less than the strains do
_STEPS = 500  # of a relaxation, at most
# Of the lengths: small enough for the third order of Birch's equation in soft crystals, too, and in float64
# large enough for differences of energies.
_STRAINS = np.linspace(-0.01, 0.01, 7)
_STAGES = 1 + len(_STRAINS) + 6


@dataclasses.dataclass(frozen=True)
class Solid:
    """A crystal in one model."""

    model: str  #: its name
    formula: str  #: of the cell
    lengths: np.ndarray  #: (3,) angstrom, of the relaxed cell
    angles: np.ndarray  #: (3,) degrees
    volumes: np.ndarray  #: (7,) angstrom^3/atom
    energies: np.ndarray  #: (7,) eV/atom
    volume: float  #: angstrom^3/atom, where the equation of state is lowest
    energy: float  #: eV/atom there
    bulk: float  #: GPa, of the equation of state
    stiffness: np.ndarray  #: (6, 6) GPa, in the order xx, yy, zz, yz, xz, xy
    moduli: Moduli  #: of the stiffness


def compute_solid(
    name: str,
    calculator: DPA2Calculator,
    crystal: Atoms,
    report: Callable[[str, int, int], None],
) -> Solid:
    """Relax a crystal with its cell, strain it, and fit.

    Parameters
    ----------
    name
        Of the model.
    calculator
        The model, in float64: stresses are subtracted.
    crystal
        Periodic in three directions; not changed.
    report
        Called with a text, the stages done and their number.

    Raises
    ------
    RunError
        When the crystal can't be relaxed.
    """
    atoms = crystal.copy()
    atoms.set_constraint()
    atoms.calc = calculator
    _relax(atoms, cell=True)
    report(f"{name}: crystal", 1, _STAGES)
    volumes, energies = [], []
    for k, strain in enumerate(_STRAINS):
        scaled = atoms.copy()
        scaled.calc = calculator
        scaled.set_cell(atoms.cell.array * (1 + strain), scale_atoms=True)
        _relax(scaled, cell=False)
        volumes.append(scaled.get_volume() / len(atoms))
        energies.append(scaled.get_potential_energy() / len(atoms))
        report(f"{name}: crystal", 2 + k, _STAGES)
    volume, energy, bulk = _birch(np.array(volumes), np.array(energies))
    done = 1 + len(_STRAINS)
    matrix = stiffness(
        atoms, fmax=_FMAX, report=lambda k: report(f"{name}: crystal", done + k, _STAGES)
    )
    return Solid(
        name,
        atoms.get_chemical_formula(),
        atoms.cell.lengths(),
        atoms.cell.angles(),
        np.array(volumes),
        np.array(energies),
        volume,
        energy,
        bulk,
        matrix,
        moduli(matrix),
    )


def _birch(volumes: np.ndarray, energies: np.ndarray) -> tuple[float, float, float]:
    """Volume, energy and bulk modulus (GPa) of Birch's and Murnaghan's equation of state."""
    try:
        fitted = EquationOfState(volumes, energies, eos="birchmurnaghan").fit(warn=False)
    except (RuntimeError, ValueError, TypeError):
        raise RunError("the energies over the volume have no minimum to fit") from None
    return float(fitted[0]), float(fitted[1]), float(fitted[2] / units.GPa)


def _relax(atoms: Atoms, *, cell: bool) -> None:
    outcome = relax(atoms, Relaxation("bfgs", cell=cell, fmax=_FMAX, steps=_STEPS))
    if outcome.interrupted:
        raise KeyboardInterrupt
    if not outcome.converged:
        raise RunError(f"the crystal is not relaxed after {_STEPS} steps")
