"""Displacements of motions whose laws are known, means and drifts."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from dpa2md.errors import RunError
from dpa2md.report.transport import (
    block_mean,
    diffusion,
    drift,
    finite_size_correction,
    mean_squared_displacement,
    unwrapped,
)


def random_walk(frames: int, atoms: int, step: float, seed: int = 0) -> np.ndarray:
    """Positions (frames, atoms, 3); D is half of the square of the step over the time of a frame."""
    return np.cumsum(np.random.default_rng(seed).normal(0, step, (frames, atoms, 3)), axis=0)


def test_displacements_by_brute_force():
    positions = random_walk(12, 3, 1.0)
    expected = [
        np.mean(
            [
                np.sum((positions[k + lag, i] - positions[k, i]) ** 2)
                for k in range(12 - lag)
                for i in range(3)
            ]
        )
        for lag in (0, 1, 5, 11)
    ]
    found = mean_squared_displacement(positions, np.array([0, 1, 5, 11]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_diffusion_of_a_random_walk():
    """Steps of 0.1 angstrom a component every 0.02 ps: D = 0.1^2 / (2 0.02) = 0.25."""
    found = diffusion(random_walk(4000, 300, 0.1), 0.02)
    # the error is itself from four blocks, so that six of it are seldom missed
    assert abs(found.coefficient.value - 0.25) < 6 * found.coefficient.error < 0.05
    assert found.motion == "diffusive" and found.exponent == pytest.approx(1, abs=0.05)
    assert found.window == (pytest.approx(2.5), pytest.approx(10.0))  # of blocks of 20 ps
    np.testing.assert_allclose(found.lags[-1], 40.0)


def test_errors_of_diffusion_are_standard_errors():
    """Over many walks the deviations from the true D are, in the mean, what the errors say."""
    found = [diffusion(random_walk(400, 10, 1.0, seed), 1.0).coefficient for seed in range(100)]
    deviation = np.sqrt(np.mean([(c.value - 0.5) ** 2 for c in found]))
    told = np.sqrt(np.mean([c.error**2 for c in found]))
    # the whole run has origins across blocks, which make it a little better than the mean of four
    assert 0.6 < deviation / told < 1.3


def test_ballistic_and_bound_motion():
    """Constant velocities: v^2 t^2, exponent 2; oscillations: no growth, exponent 0."""
    times = np.arange(200.0)[:, None, None]
    velocities = np.random.default_rng(0).normal(0, 1, (50, 3))
    found = diffusion(times * velocities, 1.0)
    square = np.mean(np.sum(velocities**2, axis=1))
    np.testing.assert_allclose(found.displacement, square * found.lags**2, rtol=1e-10)
    assert found.exponent == pytest.approx(2, abs=1e-9) and found.motion == "too short"
    near = diffusion(random_walk(4000, 300, 0.01), 0.02)  # ends 0.4 angstrom from where it began
    assert near.exponent == pytest.approx(1, abs=0.05) and near.motion == "too short"
    shaken = np.random.default_rng(1).normal(0, 0.1, (400, 50, 3))
    bound = diffusion(shaken, 1.0)
    assert bound.motion == "bound" and abs(bound.exponent) < 0.05


def test_a_short_run_is_refused():
    with pytest.raises(RunError, match="64 frames or more and there are 63"):
        diffusion(random_walk(63, 2, 1.0), 1.0)


def test_wrapped_frames_are_unwrapped():
    """The walk of atoms that were wrapped into a skewed cell, and of two that weren't."""
    cell = np.array([[6.0, 0, 0], [2, 5, 0], [-1, 2, 7]])
    walk = random_walk(60, 8, 0.3) + 3
    frames = [Atoms("O8", x, cell=cell, pbc=True) for x in walk]
    for atoms in frames:
        atoms.wrap()
    assert abs(np.diff([a.positions for a in frames], axis=0)).max() > 3  # there are jumps
    expected = walk - walk.mean(axis=1, keepdims=True)
    found = unwrapped(frames)
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-10)
    plain = unwrapped([Atoms("O8", x, cell=cell, pbc=True) for x in walk])
    np.testing.assert_allclose(plain - plain[0], expected - expected[0], atol=1e-10)


def test_a_breathing_cell_moves_no_one():
    """Atoms at fixed fractions of a cell that breathes, three cells away, go nowhere: not 3 times as far."""
    fractions = np.array([[0.1, 0.2, 0.3], [3.6, 3.7, 3.8]])
    frames = []
    for k in range(50):
        cell = np.eye(3) * (10 + 0.5 * np.sin(k))
        frames.append(Atoms("O2", fractions @ cell, cell=cell, pbc=True))
    moved = unwrapped(frames) - unwrapped(frames)[0]
    # only their distance within one cell, 0.87 of its side, breathes: 0.5 * 0.87 / 2 for each, and back
    assert np.linalg.norm(moved, axis=2).max() < 0.5 * np.sqrt(3) * 0.5


def test_the_centre_of_mass_does_not_count():
    atoms = Atoms("OH2", np.eye(3), cell=[20] * 3, pbc=True)
    frames = []
    for k in range(5):
        moved = atoms.copy()
        moved.positions += [0.7 * k, 0, 0]
        frames.append(moved)
    np.testing.assert_allclose(
        unwrapped(frames), unwrapped(frames[:1]).repeat(5, axis=0), atol=1e-12
    )
    np.testing.assert_allclose(atoms.get_masses() @ unwrapped(frames)[3], 0, atol=1e-10)
    with pytest.raises(RunError, match="Frame 1 has other atoms"):
        unwrapped([atoms, Atoms("O3", np.eye(3))])


def test_block_means():
    """Independent values: the standard deviation over the root of their number. Constant ones: no error."""
    values = np.random.default_rng(0).normal(5, 2, (200, 100))
    found = [block_mean(row) for row in values]
    told = np.sqrt(np.mean([m.error**2 for m in found]))
    assert told == pytest.approx(2 / 10, rel=0.1)  # 800 degrees of freedom: 2.5 % is one sigma
    np.testing.assert_allclose([m.value for m in found], values.mean(axis=1))
    assert block_mean(np.full(20, 3.0)).error == 0
    assert np.isnan(block_mean(np.ones(9)).error)
    # pairs of equal values have half of the information
    twice = [block_mean(np.repeat(row, 2)) for row in values]
    assert np.sqrt(np.mean([m.error**2 for m in twice])) == pytest.approx(2 / 10, rel=0.1)


def test_drift_of_a_known_slope():
    times = np.linspace(0, 4, 401)
    wave = 0.3 * np.sin(2 * np.pi * 25 * times)
    slope, deviation = drift(times, 7 - 1.25 * times + wave)
    assert slope == pytest.approx(-1.25, abs=0.005)  # whole waves have hardly any slope
    assert deviation == pytest.approx(0.3 / np.sqrt(2), rel=0.01)


def test_finite_size_correction_of_water():
    """2.837297 kT / (6 pi eta L) with eta = 0.89 mPa s, L = 12.42 angstrom, 298 K: 0.56e-9 m^2/s."""
    # kT = 4.1143e-21 J; 1 angstrom^2/ps is 10e-9 m^2/s
    metres = 2.837297 * 4.1143e-21 / (6 * np.pi * 0.89e-3 * 12.42e-10)
    found = finite_size_correction(298.0, 12.42**3) / 0.89 * 10e-9
    assert found == pytest.approx(metres, rel=1e-3)
    assert metres == pytest.approx(0.56e-9, rel=0.01)
