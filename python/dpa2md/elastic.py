"""Elastic constants of a crystal, from differences of stresses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from ase import Atoms, units

from .errors import RunError
from .relaxation import Relaxation, relax

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_STEPS = 500  # of a relaxation, at most


@dataclasses.dataclass(frozen=True)
class Moduli:
    """Of a polycrystal without texture, GPa: the means of Voigt's and Reuss's bounds (Hill)."""

    bulk: float  #: GPa
    shear: float  #: GPa


def stiffness(
    crystal: Atoms,
    strain: float = 0.005,
    fmax: float = 0.0005,
    report: Callable[[int], None] | None = None,
) -> np.ndarray:
    """The stiffness matrix: the crystal is strained both ways along each of Voigt's six components.

    Atoms are relaxed after every strain. A column is the central difference of two stresses; how much the
    matrix lacks in symmetry tells its error.

    Parameters
    ----------
    crystal
        Relaxed, cell included, with a calculator; in float64, because stresses are subtracted.
    strain
        Of a component.
    fmax
        eV/angstrom; where the relaxation of the atoms ends.
    report
        Called after each component with the number of components done, of 6.

    Returns
    -------
    ndarray
        (6, 6), GPa, in the order xx, yy, zz, yz, xz, xy.

    Raises
    ------
    RunError
        When the atoms of a strained crystal can't be relaxed.
    KeyboardInterrupt
        When it was stopped by Ctrl-C or SIGTERM.
    """
    columns = []
    for k in range(6):
        up, down = (_stress(crystal, k, sign * strain, fmax) for sign in (1, -1))
        columns.append((up - down) / (2 * strain))
        if report:
            report(k + 1)
    return np.transpose(columns)


def moduli(matrix: np.ndarray) -> Moduli:
    """Hill's bulk and shear modulus of a stiffness matrix (6, 6), GPa.

    R. Hill, Proc. Phys. Soc. A 65, 349 (1952).

    Raises
    ------
    RunError
        When the matrix can't be inverted.
    """
    c = (matrix + matrix.T) / 2
    try:
        s = np.linalg.inv(c)
    except np.linalg.LinAlgError:
        raise RunError("The crystal resists some strain not at all: it has no moduli.") from None
    voigt_bulk = c[:3, :3].sum() / 9
    reuss_bulk = 1 / s[:3, :3].sum()
    normal, mixed, shear = np.trace(c[:3, :3]), c[0, 1] + c[0, 2] + c[1, 2], np.trace(c[3:, 3:])
    voigt_shear = (normal - mixed + 3 * shear) / 15
    normal, mixed, shear = np.trace(s[:3, :3]), s[0, 1] + s[0, 2] + s[1, 2], np.trace(s[3:, 3:])
    reuss_shear = 15 / (4 * (normal - mixed) + 3 * shear)
    return Moduli(float(voigt_bulk + reuss_bulk) / 2, float(voigt_shear + reuss_shear) / 2)


def _stress(crystal: Atoms, component: int, strain: float, fmax: float) -> np.ndarray:
    """The stress (6,), GPa, after a strain of one component and a relaxation of the atoms."""
    i, j = _VOIGT[component]
    deformation = np.eye(3)
    deformation[i, j] += strain / 2
    deformation[j, i] += strain / 2
    strained = crystal.copy()
    strained.calc = crystal.calc
    strained.set_cell(crystal.cell.array @ deformation, scale_atoms=True)
    outcome = relax(strained, Relaxation("bfgs", fmax=fmax, steps=_STEPS))
    if outcome.interrupted:
        raise KeyboardInterrupt
    if not outcome.converged:
        raise RunError(
            f"The crystal, strained by {strain:g}, is not relaxed after {_STEPS} steps: it is not stable."
        )
    return strained.get_stress() / units.GPa
