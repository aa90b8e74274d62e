"""Energies, forces and virials equal DeePMD-kit's, for every switch of the model."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TOLERANCES, golden_models
from golden.configs import CASES
from golden.suite import INDEX, MODELS, STRUCTURES

DIFFERENT_PRECISION = [n for n, m in MODELS.items() if m.precision != ("float64", "float64")]


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_structures_are_those_of_the_results():
    """`systems.py` rebuilds the very positions that DeePMD-kit saw."""
    assert list(STRUCTURES) == list(INDEX["structures"])
    for name, checksum in INDEX["structures"].items():
        assert np.sum(STRUCTURES[name].positions * [1, 2, 3]) == pytest.approx(checksum, abs=1e-11)


def test_suite_varies_every_switch():
    """Each key of each section takes at least two values over the suite."""
    values: dict[str, set[str]] = {}
    fixed = {"repinit.rcut_smth", "repformer.g2_dim", "repformer.update_residual"}
    fixed |= {"repformer.update_residual_init", "attn_layer", "fitting_net.type"}
    for case in CASES.values():
        for model in [case.model] if "descriptor" in case.model else []:
            sections = {"": model, "fitting_net.": model["fitting_net"]}
            sections["descriptor."] = model["descriptor"]
            for block in ("repinit", "repformer"):
                sections[f"{block}."] = model["descriptor"].get(block, {})
            for prefix, section in sections.items():
                for key, value in section.items():
                    values.setdefault(prefix + key, set()).add(repr(value))
    assert {key for key, seen in values.items() if len(seen) == 1} <= fixed


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
@golden_models()
def test_float64(model, structure, evaluate):
    result = evaluate(model, structure, "float64")
    expected = model.expected(structure.name)
    for quantity in ("energy", "atom_energy"):
        scale = np.maximum(1, np.abs(expected[quantity]))
        deviation = np.abs(result[quantity] - expected[quantity]) / scale
        assert deviation.max() <= TOLERANCES[quantity], quantity
    for quantity in ("forces", "virial"):
        deviation = np.abs(result[quantity] - expected[quantity])
        assert deviation.max() <= TOLERANCES[quantity], quantity


def float32_failures(model, evaluate, precision: str | None) -> list[str]:
    """Where a result is further from the exact one than the rule for float32 allows."""
    failures = []
    for name in model.structures:
        result = evaluate(model, STRUCTURES[name], precision)
        exact = model.expected(name)
        original = "float32" if precision == "float32" else "own"
        energy, atom_energy, forces, virial = model.original_errors(name, original)
        n = len(STRUCTURES[name])
        # Sums may cancel by luck in the original: its energy error is no smaller than n
        # independent errors of its atoms, its virial error no smaller than forces times 1 angstrom.
        energy = max(energy, np.sqrt(n) * atom_energy)
        virial = max(virial, np.sqrt(n) * forces)
        atom_scale = max(1, np.abs(exact["atom_energy"]).max())
        virial_scale = max(np.abs(exact["virial"]).max(), np.abs(exact["forces"]).max())
        deviations = {
            "energy": (abs(result.energy - exact["energy"]), energy, np.sqrt(n) * atom_scale),
            "atom_energy": (
                rms(result.atom_energy - exact["atom_energy"]),
                atom_energy,
                atom_scale,
            ),
            # The pair forces behind a net force are of the size of the virial per atom.
            "forces": (rms(result.forces - exact["forces"]), forces, virial_scale / np.sqrt(n)),
            "virial": (np.abs(result.virial - exact["virial"]).max(), virial, virial_scale),
        }
        for quantity, (deviation, theirs, scale) in deviations.items():
            floor = TOLERANCES["float32_floor"] * scale
            if not deviation <= TOLERANCES["float32_factor"] * theirs + floor:
                failures.append(f"{name} {quantity}: {deviation:.2e}, DeePMD-kit {theirs:.2e}")
    return failures


@golden_models()
def test_float32(model, evaluate):
    """Any model run in float32 is about as accurate as DeePMD-kit in float32."""
    assert not float32_failures(model, evaluate, "float32")


@golden_models(*DIFFERENT_PRECISION)
def test_own_precision(model, evaluate):
    """A float32 or mixed model opened as it is."""
    assert not float32_failures(model, evaluate, None)


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
