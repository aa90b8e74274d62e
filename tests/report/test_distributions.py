"""Distributions against brute force over all images, ideal gases and crystals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from dpa2md.report.distributions import angle_distribution, first_minimum, radial_distribution
from dpa2md.structures import equilibrated_water

from tests.support.small_models import crystal


def images(atoms: Atoms, reach: int) -> np.ndarray:
    """All shifts (k, 3) of the cell up to `reach`."""
    shifts = list(product(range(-reach, reach + 1), repeat=3))
    return np.array(shifts) @ atoms.cell.array


def distances(atoms: Atoms, first: str, second: str, reach: int) -> np.ndarray:
    """Of all pairs with all images, one after the other."""
    out = []
    shifts = images(atoms, reach)
    for i, a in enumerate(atoms):
        for j, b in enumerate(atoms):
            if (a.symbol, b.symbol) == (first, second):
                r = np.linalg.norm(b.position - a.position + shifts, axis=1)
                out += [x for x, s in zip(r, shifts, strict=True) if i != j or s.any()]
    return np.array(out)


@pytest.mark.parametrize("pair", [("Si", "O"), ("H", "H")])
def test_radial_distribution_by_brute_force(pair):
    frames = [crystal((2, 1, 1), seed=seed) for seed in (1, 2)]
    r, g = radial_distribution(frames, *pair, rmax=6.0, bins=40)
    edges = np.linspace(0, 6.0, 41)
    expected = np.zeros(40)
    for atoms in frames:
        counts = np.histogram(distances(atoms, *pair, reach=4), edges)[0]
        ideal = 2 * 2 / atoms.get_volume() * 4 / 3 * np.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
        expected += counts / ideal / 2
    np.testing.assert_allclose(g, expected, rtol=1e-12)
    np.testing.assert_allclose(r, (edges[1:] + edges[:-1]) / 2)


def test_one_frame_in_pieces(monkeypatch):
    """How many distances are computed at once changes nothing."""
    atoms = equilibrated_water()
    whole = radial_distribution([atoms], "O", "H")[1]
    monkeypatch.setattr("dpa2md.report.distributions._AT_ONCE", 1000)
    np.testing.assert_array_equal(radial_distribution([atoms], "O", "H")[1], whole)


def angles_by_brute_force(atoms: Atoms, cutoffs: dict, reach: int) -> dict[tuple, list[float]]:
    out: dict[tuple, list[float]] = {}
    shifts = images(atoms, reach)
    for i, centre in enumerate(atoms):
        bonds = []
        for j, other in enumerate(atoms):
            pair = (centre.symbol, other.symbol)
            cutoff = cutoffs.get(pair, cutoffs.get(pair[::-1], 0))
            for shift in shifts:
                d = other.position + shift - centre.position
                if (i != j or shift.any()) and np.linalg.norm(d) < cutoff:
                    bonds.append((other.symbol, d))
        for k, (one, d) in enumerate(bonds):
            for two, e in bonds[k + 1 :]:
                cosine = d @ e / np.linalg.norm(d) / np.linalg.norm(e)
                key = (min(one, two), centre.symbol, max(one, two))
                out.setdefault(key, []).append(np.degrees(np.arccos(cosine)))
    return out


def test_angles_by_brute_force():
    atoms = crystal((2, 1, 1))
    cutoffs = {("Si", "O"): 3.2, ("O", "O"): 3.9, ("H", "O"): 2.4}
    middles, densities, numbers = angle_distribution([atoms], cutoffs, bins=36)
    expected = angles_by_brute_force(atoms, cutoffs, 2)
    assert set(densities) == set(expected) and len(expected) > 4
    for triplet, angles in expected.items():
        assert numbers[triplet] == len(angles)
        counts = np.histogram(angles, np.linspace(0, 180, 37))[0]
        np.testing.assert_allclose(densities[triplet], counts / counts.sum() / 5, atol=1e-12)
    np.testing.assert_allclose(middles, np.arange(2.5, 180, 5))


def test_angles_of_known_crystals():
    """Diamond has bonds at 109.47 degrees only; of the 66 angles in fcc 24 are 60, 12 90, 24 120, 6 180."""
    angles, densities, numbers = angle_distribution([bulk("Si")] * 3, {("Si", "Si"): 2.6}, bins=180)
    (triplet,) = densities
    assert triplet == ("Si", "Si", "Si") and numbers[triplet] == 2 * 6
    assert angles[densities[triplet].argmax()] == 109.5 and densities[triplet].max() == 1
    _, densities, _ = angle_distribution([bulk("Cu")], {("Cu", "Cu"): 3.0}, bins=18)
    # bins of 10 degrees; what lies on an edge may fall on either side by its rounding
    found = 660 * densities["Cu", "Cu", "Cu"]
    shares = [found[5] + found[6], found[8] + found[9], found[11] + found[12], found[17]]
    np.testing.assert_allclose(shares, [24, 12, 24, 6], atol=1e-9)


def test_angle_of_a_molecule():
    """Without a cell, too; hydrogens that are bound to no one have no angles."""
    water = molecule("H2O")
    angles, densities, numbers = angle_distribution([water], {("O", "H"): 1.2}, bins=180)
    assert numbers == {("H", "O", "H"): 1}
    assert abs(angles[densities["H", "O", "H"].argmax()] - water.get_angle(1, 0, 2)) <= 0.5
    assert angle_distribution([water], {})[1] == {}


def test_first_minimum():
    """Of two Gaussians, of shells with a gap, and of the oxygens of liquid water."""
    r = np.arange(0.025, 8, 0.05)

    def peak(at: float, width: float) -> np.ndarray:
        return np.exp(-0.5 * ((r - at) / width) ** 2)

    # mirror images of each other: the minimum is in the middle
    assert first_minimum(r, 3 * peak(2.0, 0.4) + 3 * peak(4.0, 0.4)) == pytest.approx(3.0, abs=0.05)
    gap = 9 * peak(1.0, 0.05) + np.where(r > 1.5, 1.5 * peak(2.0, 0.1), 0)
    assert 1.2 < first_minimum(r, gap) < 1.6
    assert first_minimum(r, np.zeros_like(r)) is None
    assert first_minimum(r, np.ones_like(r)) is None  # no peak above an ideal gas
    # 3.3 to 3.5 angstrom in experiments: L. B. Skinner et al., J. Chem. Phys. 138, 074506 (2013)
    g = radial_distribution([equilibrated_water()], "O", "O", bins=120)
    assert 3.1 < first_minimum(*g) < 3.7
