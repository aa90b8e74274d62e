"""Derivatives against differences of energies."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.tolerances import TOLERANCES

STEPS = 1e-3 / 2.0 ** np.arange(5)


def derivative_by_differences(energy) -> tuple[np.ndarray, float]:
    """Central differences of `energy(t)` at 0 for all STEPS, and their extrapolation to step 0."""
    differences = np.array([(energy(h) - energy(-h)) / (2 * h) for h in STEPS])
    return differences, (4 * differences[-1] - differences[-2]) / 3


def check_derivative(energy, derivative: float):
    """`derivative` is that of `energy(t)` at 0, and the differences converge to it as step^2."""
    differences, extrapolated = derivative_by_differences(energy)
    scale = max(1, abs(derivative))
    assert abs(extrapolated - derivative) <= TOLERANCES["extrapolated_derivative"] * scale
    errors = np.abs(differences - derivative)
    # Below this the rounding of the energies, not the step, decides.
    visible = errors > 1e3 * np.finfo(float).eps * max(1, abs(energy(0))) / STEPS
    if visible.sum() >= 3:
        order = np.polyfit(np.log(STEPS[visible]), np.log(errors[visible]), 1)[0]
        assert order == pytest.approx(2, abs=TOLERANCES["order_of_convergence"])
