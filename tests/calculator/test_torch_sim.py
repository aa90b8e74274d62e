"""The model for torch-sim gives the engine's numbers, in torch-sim's conventions."""

from __future__ import annotations

import sys
from pathlib import Path

import dpa2md
import numpy as np
import pytest
from dpa2md.structures import water_box

from tests.support.selection import skip_or_fail

WATER = Path(dpa2md.__file__).parent / "models" / "water.dpa2"
# float64 both; the order of atoms in memory and therefore of sums is the same
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def ts():
    """torch-sim itself."""
    try:
        import torch_sim
    except ImportError as error:
        skip_or_fail("torch-sim", f"torch-sim is not installed ({error})")
    return torch_sim


@pytest.fixture(scope="module")
def model(ts):
    from dpa2md.torch_sim import DPA2Model

    return DPA2Model(WATER, precision="float64", threads=1)


def structures():
    """Boxes of different sizes, one of them tilted so that rows and columns of its cell differ."""
    boxes = [water_box(n, seed=n) for n in (8, 12)]
    cell = boxes[1].cell.array.copy()
    cell[1, 0] += 1.5
    boxes[1].set_cell(cell, scale_atoms=True)
    return boxes


def test_numbers_are_the_engines(ts, model):
    atoms = structures()
    state = ts.io.atoms_to_state(atoms, model.device, model.dtype)
    out = model(state)
    expected = dpa2md.evaluate(model.engine, atoms)
    np.testing.assert_allclose(out["energy"], [e["energy"] for e in expected], rtol=TOLERANCE)
    forces = np.concatenate([e["forces"] for e in expected])
    np.testing.assert_allclose(out["forces"], forces, atol=TOLERANCE * abs(forces).max())
    for stress, entry, box in zip(out["stress"], expected, atoms, strict=True):
        np.testing.assert_allclose(stress, -entry["virial"] / box.cell.volume, rtol=1e-9)


def test_torch_sims_own_check(ts, evaluate):
    """`validate_model_outputs` evaluates silicon and iron: a golden model of 118 elements knows them."""
    from dpa2md.torch_sim import DPA2Model
    from torch_sim.models.interface import validate_model_outputs

    from tests.golden.suite import MODELS

    model = DPA2Model(evaluate.path(MODELS["all_118_elements"]), precision="float64", threads=1)
    validate_model_outputs(model, model.device, model.dtype)


def test_torch_sim_runs_it(ts, model):
    """NVE from rest: what the potential loses is kinetic, as only the right forces and order give."""
    atoms = structures()
    before = np.array([e["energy"] for e in dpa2md.evaluate(model.engine, atoms)])
    nve = getattr(ts, "Integrator", ts.integrators).nve  # an enumeration in newer versions
    # 0.1 fs: the step's error is far below the per cent allowed for
    state = ts.integrate(atoms, model, integrator=nve, n_steps=20, temperature=0.0, timestep=1e-4)
    share = (state.momenta**2).sum(1) / (2 * state.masses)
    kinetic = np.bincount(state.system_idx.numpy(), weights=share.numpy())
    assert (kinetic > 0.01).all()
    np.testing.assert_allclose(kinetic, before - state.energy.numpy(), rtol=0.01)


def test_absence_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, "dpa2md.torch_sim", raising=False)
    monkeypatch.setitem(sys.modules, "torch_sim.models.interface", None)
    with pytest.raises(ImportError, match="pip install torch-sim-atomistic"):
        import dpa2md.torch_sim  # noqa: F401
