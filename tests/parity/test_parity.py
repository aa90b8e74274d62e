"""Energies, forces and virials equal DeePMD-kit's, for every switch of the model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.configs import CASES
from tests.golden.suite import INDEX, STRUCTURES
from tests.support.parity import DIFFERENT_PRECISION, check_float32, check_float64
from tests.support.selection import golden_models
from tests.support.tolerances import TOLERANCES

# The structure `overfull` is meant to be; test_overfull_lists_are_told looks at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:Atom .* neighbours")


def test_structures_are_those_of_the_results():
    """`systems.py` rebuilds the very positions that DeePMD-kit saw."""
    assert list(STRUCTURES) == list(INDEX["structures"])
    for name, checksum in INDEX["structures"].items():
        assert np.sum(STRUCTURES[name].positions * [1, 2, 3]) == pytest.approx(checksum, abs=1e-11)


def test_suite_varies_every_switch():
    """Each key of each section is absent (its default) in some model, or has two values."""
    sections = {"model": [], "dpa2": [], "dpa1": [], "repinit": [], "repformer": [], "fitting": []}
    for model in (case.model for case in CASES.values() if not case.heads):
        descriptor = model["descriptor"]
        sections["model"].append(model)
        sections["fitting"].append(model["fitting_net"])
        sections["dpa2" if "repinit" in descriptor else "dpa1"].append(descriptor)
        for block in ("repinit", "repformer"):
            sections[block] += [descriptor[block]] if block in descriptor else []
    # Not in the arithmetic, or no other value is supported.
    fixed = {"fitting.type", "dpa2.type", "dpa1.attn_layer"}
    fixed |= {"repformer.update_residual", "repformer.update_residual_init"}
    for name, section in sections.items():
        for key in {key for settings in section for key in settings} - {"descriptor"}:
            values = {repr(settings.get(key)) for settings in section}
            assert len(values) > 1 or f"{name}.{key}" in fixed, f"{name}.{key}: {values}"


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
@golden_models()
def test_float64(model, structure, evaluate):
    check_float64(model, structure, evaluate)


@golden_models()
def test_float32(model, evaluate):
    """Any model run in float32 is about as accurate as DeePMD-kit in float32."""
    check_float32(model, evaluate, "float32")


@golden_models(*DIFFERENT_PRECISION)
def test_own_precision(model, evaluate):
    """A float32 or mixed model opened as it is."""
    check_float32(model, evaluate, None)


@pytest.mark.parametrize("structure", ["water", "slab", "wire", "molecule", "tilted", "metal_1"])
@golden_models("medium", "full", "two_heads.Water_B", "se_atten_v2")
def test_calculator(model, structure, evaluate):
    """The ASE calculator gives the same numbers in ASE's conventions."""
    ase = pytest.importorskip("ase")
    from dpa2md import DPA2Calculator

    system = STRUCTURES[structure]
    atoms = ase.Atoms(model.symbols(system), system.positions, cell=system.cell, pbc=system.pbc)
    atoms.calc = DPA2Calculator(evaluate.path(model), precision="float64")
    expected = model.expected(structure)
    assert atoms.get_potential_energy() == pytest.approx(
        expected["energy"], abs=TOLERANCES["energy"] * max(1, abs(expected["energy"]))
    )
    np.testing.assert_allclose(
        atoms.get_forces(), expected["forces"], rtol=0, atol=TOLERANCES["forces"]
    )
    np.testing.assert_allclose(
        atoms.get_potential_energies(), expected["atom_energy"], rtol=1e-10, atol=1e-10
    )
    if all(system.pbc):
        volume = atoms.get_volume()
        np.testing.assert_allclose(
            atoms.get_stress(voigt=False) * volume,
            -expected["virial"],
            rtol=0,
            atol=TOLERANCES["virial"],
        )
