"""The reference in numpy (tests/reference) gives DeePMD-kit's results, for every switch of the model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.suite import MODELS, STRUCTURES
from tests.reference import evaluate as reference
from tests.reference import forces_and_virial
from tests.support.reference_records import float64_records
from tests.support.selection import golden_models
from tests.support.tolerances import TOLERANCES

# Padded sums in numpy's order; where activations are not bounded (activation_linear), terms of 1e3 cancel.
ENERGY = 10 * TOLERANCES["atom_energy"]
# Richardson's extrapolation of central differences: h^4 of its steps (1e-4 angstrom), and the rounding of the
# energy, 1e-13 eV over the step.
DERIVATIVE = 1e-7


def cases(model, most: int):
    """The structures of at most so many atoms, with their arguments for the reference."""
    for name in model.structures:
        s = STRUCTURES[name]
        if len(s) <= most:
            parameters = {"fparam": model.fparam(), "aparam": model.aparam(s)}
            yield s, (s.positions, model.types(s), s.cell, s.pbc), parameters


@golden_models()
def test_energies(model, evaluate):
    m = float64_records(evaluate.path(model))
    for s, atoms, parameters in cases(model, 12):
        found = reference(m, *atoms, **parameters)["energies"]
        expected = model.expected(s.name)["atom_energy"]
        assert (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max() <= ENERGY, s.name


@pytest.mark.parametrize("name", ["full", "generation_2_0", "not_smooth_h2_float32"])
def test_derivatives(name, evaluate):
    model = MODELS[name]
    m = float64_records(evaluate.path(model))
    for s, atoms, parameters in cases(model, 4):
        found = forces_and_virial(m, *atoms, **parameters)
        for value, quantity in zip(found, ("forces", "virial"), strict=True):
            expected = model.expected(s.name)[quantity]
            scale = max(1, np.abs(expected).max())
            assert np.abs(value - expected).max() <= DERIVATIVE * scale, (s.name, quantity)
