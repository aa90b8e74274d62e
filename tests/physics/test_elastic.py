"""Elastic constants of copper in ASE's EMT against second derivatives of its energy, and Hill's moduli."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from dpa2md.elastic import moduli, stiffness
from dpa2md.errors import RunError


@pytest.fixture(scope="module")
def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-6)
    return atoms


def curvature(atoms: Atoms, strain: np.ndarray, h: float = 0.002) -> float:
    """The second derivative of the energy along a strain over the volume, GPa; all atoms are at centres."""

    def energy(x: float) -> float:
        moved = atoms.copy()
        moved.calc = EMT()
        moved.set_cell(atoms.cell.array @ (np.eye(3) + x * strain), scale_atoms=True)
        return moved.get_potential_energy()

    second = (energy(h) - 2 * energy(0) + energy(-h)) / h**2
    return second / atoms.get_volume() / units.GPa


def test_stiffness_is_the_curvature_of_the_energy(copper):
    matrix = stiffness(copper)
    c11, c12, c44 = matrix[0, 0], matrix[0, 1], matrix[3, 3]
    cubic = np.zeros((6, 6))
    cubic[:3, :3], cubic[[0, 1, 2], [0, 1, 2]], cubic[[3, 4, 5], [3, 4, 5]] = c12, c11, c44
    # the third order of a strain of 0.5 % and the relaxation leave some tenths of a GPa
    np.testing.assert_allclose(matrix, cubic, atol=0.01 * c11)
    shear = np.zeros((3, 3))
    shear[1, 2] = shear[2, 1] = 0.5
    # 1 %: third orders cancel in central differences, fourth orders are 1e-4 of these
    assert c11 == pytest.approx(curvature(copper, np.diag([1.0, 0, 0])), rel=0.01)
    assert 2 * (c11 - c12) == pytest.approx(curvature(copper, np.diag([1.0, -1, 0])), rel=0.01)
    assert c44 == pytest.approx(curvature(copper, shear), rel=0.01)
    assert moduli(matrix).bulk == pytest.approx(curvature(copper, np.eye(3)) / 9, rel=0.01)


def test_moduli_of_an_isotropic_body():
    """Voigt's and Reuss's bounds meet: K = lambda + 2 mu / 3, G = mu."""
    lame, mu = 40.0, 25.0
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = lame
    matrix[[0, 1, 2], [0, 1, 2]] = lame + 2 * mu
    matrix[[3, 4, 5], [3, 4, 5]] = mu
    found = moduli(matrix)
    assert found.bulk == pytest.approx(lame + 2 * mu / 3) and found.shear == pytest.approx(mu)
    with pytest.raises(RunError, match="resists some strain not at all"):
        moduli(np.zeros((6, 6)))


def test_moduli_of_a_cubic_crystal():
    """Hill's shear modulus of copper from its measured constants, 47.3 GPa with 168.4, 121.4, 75.4 GPa."""
    c11, c12, c44 = 168.4, 121.4, 75.4
    matrix = np.zeros((6, 6))
    matrix[:3, :3], matrix[[0, 1, 2], [0, 1, 2]], matrix[[3, 4, 5], [3, 4, 5]] = c12, c11, c44
    voigt = (c11 - c12 + 3 * c44) / 5
    reuss = 5 * (c11 - c12) * c44 / (4 * c44 + 3 * (c11 - c12))
    found = moduli(matrix)
    assert found.shear == pytest.approx((voigt + reuss) / 2)
    assert found.shear == pytest.approx(47.3, abs=0.1)
    assert found.bulk == pytest.approx((c11 + 2 * c12) / 3)
