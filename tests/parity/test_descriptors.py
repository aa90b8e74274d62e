"""The descriptors of atoms equal DeePMD-kit's."""

from __future__ import annotations

import numpy as np
import pytest
from dpa2md import DPA2Calculator

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.paths import ROOT
from tests.support.small_models import crystal, small_model
from tests.support.tolerances import TOLERANCES

EXPECTED = np.load(ROOT / "tests" / "golden" / "descriptors.npz")
# float32 carries 2^-24 through some hundred operations; the descriptor is of order 1.
FLOAT32 = 1e-5


def descriptor(engine, model, structure) -> np.ndarray:
    return engine.descriptor(
        structure.positions, model.types(structure), cell=structure.cell, pbc=structure.pbc
    )


@pytest.mark.parametrize("name", EXPECTED.files)
def test_like_deepmd(evaluate, name):
    model, structure = MODELS[name.split("/")[0]], STRUCTURES[name.split("/")[1]]
    engine = evaluate.engine(model)
    found, expected = descriptor(engine, model, structure), EXPECTED[name]
    assert found.dtype == np.float64
    assert found.shape == expected.shape == (len(structure), engine.descriptor_dim)
    # As an atom's energy, which is one more net behind it.
    assert np.abs(found - expected).max() <= TOLERANCES["atom_energy"]
    assert expected.std() > 0.01

    single = descriptor(evaluate.engine(model, "float32"), model, structure)
    assert 0 < np.abs(single - expected).max() <= FLOAT32 * max(1, np.abs(expected).max())


def test_of_the_calculator(tmp_path):
    path = small_model(tmp_path, numb_fparam=1, numb_aparam=2)
    calculator = DPA2Calculator(path, precision="float64", threads=1)
    with pytest.raises(ValueError, match="no atoms yet"):
        calculator.get_descriptors()
    atoms = crystal()
    whole = calculator.get_descriptors(atoms)  # needs no fparam and no aparam
    assert whole.shape == (len(atoms), calculator.engine.descriptor_dim)
    order = np.random.default_rng(1).permutation(len(atoms))
    moved = atoms[order]
    moved.translate((1, 2, 3))
    moved.wrap()
    # Other order of sums: rounding of 1e-16 times the few hundred terms of a sum.
    assert np.abs(calculator.get_descriptors(moved) - whole[order]).max() < 1e-12
    atoms.positions[0, 0] += 0.1
    assert np.abs(calculator.get_descriptors(atoms) - whole).max() > 1e-5


def test_virtual_atoms_have_none(tmp_path):
    engine = DPA2Calculator(small_model(tmp_path), precision="float64", threads=1).engine
    atoms = crystal()
    types = engine.types(atoms.get_chemical_symbols())
    types[3] = -1
    found = engine.descriptor(atoms.positions, types, cell=atoms.cell.array, pbc=True)
    real = types >= 0
    assert not found[~real].any()
    expected = engine.descriptor(
        atoms.positions[real], types[real], cell=atoms.cell.array, pbc=True
    )
    assert np.abs(found[real] - expected).max() < 1e-12
