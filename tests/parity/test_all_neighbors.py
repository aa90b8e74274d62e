"""Models that take all neighbours within their cutoffs (`--all-neighbors`), beyond what DeePMD-kit computes itself.

test_parity.py compares the golden models of DeePMD-kit's graph route.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from dpa2md import DPA2Calculator
from dpa2md._core import CoreError
from dpa2md.cli import main
from dpa2md.conversion import convert, load_records
from dpa2md.engine import Engine
from dpa2md.errors import ModelError
from dpa2md.model_file import write_model
from dpa2md.verification import verify

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.derivatives import check_derivative
from tests.support.evaluator import Evaluator
from tests.support.parity import check_float64
from tests.support.selection import golden_models
from tests.support.small_models import crystal, small_model
from tests.support.tolerances import TOLERANCES


class TakesAll(Evaluator):
    """Evaluates golden models as `convert(..., all_neighbors=True)` makes them."""

    def path(self, model):
        output = self._folder / f"{model.name}-all.dpa2"
        if not output.exists():
            convert(super().path(model), output, all_neighbors=True)
        return output


@pytest.fixture(scope="module")
def takes_all(tmp_path_factory) -> TakesAll:
    return TakesAll(tmp_path_factory.mktemp("all"))


@pytest.fixture(autouse=True)
def no_warning():
    """Nothing is overfull."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@golden_models(
    "small",
    "medium",
    "full",
    "strip",
    "davg_strip",
    "all_exclusions",
    "not_smooth",
    "se_atten_v2",
    "dense_three_body",
)
def test_where_nothing_overflows_nothing_changes(model, takes_all):
    """DeePMD-kit's dense results, three-body terms, averages of empty slots and exclusions included."""
    fit = [name for name, over in zip(model.structures, model.overfull, strict=True) if not over]
    assert len(fit) >= 3
    for name in fit:
        check_float64(model, STRUCTURES[name], takes_all)


def shrunk(path: Path, output: Path, nsel: int) -> Path:
    """A model without attention, with little room, whose weights make up for the other divisors."""
    records = load_records(path)
    assert not any(records[f"repformer.has_{name}"] for name in ("g1_attn", "g2_attn"))
    assert records["repformer.g1_out_mlp"] and records["repformer.g1_out_conv"]
    three = len(np.atleast_1d(records["three_body.net.skip"])) - 1
    three = records[f"three_body.net.{three}.w"].shape[1]
    transform = np.array(records["g1_transform"])
    transform[:-three] *= (nsel / records["repinit.nsel"]) ** 2  # D is a product of two sums
    transform[-three:] *= (nsel / records["three_body.nsel"]) ** 2  # one over pairs
    records["g1_transform"] = transform
    ratio = nsel / records["repformer.nsel"]
    for layer in range(records["repformer.nlayers"]):
        records[f"repformer.{layer}.conv.w"] = records[f"repformer.{layer}.conv.w"] * ratio
        power = 1 if records["repformer.use_sqrt_nnei"] else 2  # grrg and drrd: two sums each
        linear1 = f"repformer.{layer}.linear1.w"
        records[linear1] = records[linear1] * ratio**power
    for block in ("repinit", "three_body", "repformer"):
        records[f"{block}.nsel"] = nsel
    records["model.all_neighbors"] = 1
    write_model(output, records)
    return output


@golden_models("small")
def test_room_is_only_a_divisor(model, evaluate, tmp_path):
    """Room for 3 neighbours and weights to match: the energies of the roomy model, as DeePMD-kit gives them."""
    engine = Engine(shrunk(evaluate.path(model), tmp_path / "s.dpa2", 3), "float64", threads=1)
    fit = [name for name, over in zip(model.structures, model.overfull, strict=True) if not over]
    for name in fit:
        structure, expected = STRUCTURES[name], model.expected(name)
        found = engine.compute(
            structure.positions, model.types(structure), cell=structure.cell, pbc=structure.pbc
        )
        scale = max(1, abs(expected["energy"]))
        assert abs(found.energy - expected["energy"]) <= TOLERANCES["energy"] * scale
        assert np.abs(found.forces - expected["forces"]).max() <= TOLERANCES["forces"]
        assert np.abs(found.virial - expected["virial"]).max() <= TOLERANCES["virial"]


def jump_along_a_path(engine, model, steps: int) -> float:
    """The largest change of energy in a step of an atom through a crowded cell that the forces don't explain, eV."""
    structure = STRUCTURES["overfull"]
    direction = np.array([0.48, -0.6, 0.64])
    path = np.linspace(0, 0.1, steps + 1)  # angstrom
    energies, pulls = [], []
    for distance in path:
        positions = structure.positions.copy()
        positions[4] += distance * direction
        result = engine.compute(
            positions, model.types(structure), cell=structure.cell, pbc=structure.pbc
        )
        energies.append(result.energy)
        pulls.append(result.forces[4] @ direction)
    work = np.diff(path) * (np.array(pulls[1:]) + pulls[:-1]) / 2
    return float(np.abs(np.diff(energies) + work).max())


@golden_models("graph", "graph_steep", "dense_three_body")
def test_no_jump_where_atoms_change_places(model, takes_all, evaluate):
    """An atom moves through the cutoffs and through the places of crowded lists.

    A jump would be the same for steps of any length. What there is vanishes with the second power of the step
    (where a second derivative jumps) or the third, so that a quarter of it leaves a sixteenth.
    """
    coarse, fine = (jump_along_a_path(takes_all.engine(model), model, n) for n in (100, 400))
    assert fine < max(coarse / 10, 1e-12)
    if not model.all_neighbors:  # the same model over the nearest neighbours
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coarse, fine = (jump_along_a_path(evaluate.engine(model), model, n) for n in (100, 400))
        assert fine > 0.5 * coarse > 1e-4


@pytest.mark.parametrize("name", ["water", "overfull", "five_elements"])
@golden_models("graph_steep", "dense_three_body", "medium", "se_atten_v2")
def test_forces_are_the_derivative(model, name, takes_all):
    structure = STRUCTURES[name]
    rng = np.random.RandomState(3)
    direction = rng.normal(size=structure.positions.shape)
    direction /= np.linalg.norm(direction)
    engine = takes_all.engine(model)

    def energy(t: float) -> float:
        moved = structure.positions + t * direction
        return engine.compute(
            moved, model.types(structure), cell=structure.cell, pbc=structure.pbc
        ).energy

    forces = takes_all(model, structure).forces
    check_derivative(energy, -np.sum(forces * direction))


def test_extreme_logits_stay_finite(takes_all):
    """Rows whose logits are all far below that of an empty slot, as in no trained model; DeePMD-kit's own forces
    are up to 1e17 eV/angstrom for such."""
    model = MODELS["dense_steep_h2"]
    for name in ("wire", "triclinic", "water"):
        result = takes_all(model, STRUCTURES[name])
        assert np.abs(result.forces).max() < 1e3
        single = takes_all(model, STRUCTURES[name], "float32")
        assert abs(single.energy - result.energy) < 1e-3 * max(1, abs(result.energy))


def test_conversion_by_function_and_command(tmp_path, capsys):
    source = small_model(tmp_path, nsel=6)
    plain = load_records(source)
    assert "model.all_neighbors" not in plain
    for output in (
        convert(source, tmp_path / "a.dpa2", all_neighbors=True),
        convert(tmp_path / "a.dpa2", tmp_path / "b.dpa2", elements=["Si", "O"]),
    ):
        assert load_records(output)["model.all_neighbors"] == 1
    assert main(["convert", str(source), "-o", str(tmp_path / "c.dpa2"), "--all-neighbors"]) == 0
    assert "all neighbours" in capsys.readouterr().out
    assert load_records(tmp_path / "c.dpa2").keys() == plain.keys() | {"model.all_neighbors"}
    for name, said in (("c.dpa2", "all within the cutoffs"), (source.name, "nearest")):
        assert main(["info", str(tmp_path / name), "--json"]) == 0
        assert said in json.loads(capsys.readouterr().out)["neighbours"]


def test_crowded_atoms_are_no_reason_to_warn(tmp_path):
    atoms = crystal()
    path = convert(small_model(tmp_path, nsel=6), tmp_path / "all.dpa2", all_neighbors=True)
    atoms.calc = DPA2Calculator(path, threads=1)
    assert atoms.calc.engine.all_neighbors
    assert np.isfinite(atoms.get_forces()).all()


def test_two_meanings_are_not_compared(tmp_path):
    source = small_model(tmp_path)
    output = convert(source, tmp_path / "all.dpa2", all_neighbors=True)
    with pytest.raises(ModelError, match="can't be compared"):
        verify(source, output)


@pytest.mark.parametrize("value", [2, -1, 0.5, "yes"])
def test_other_values_are_refused(value, tmp_path):
    records = load_records(small_model(tmp_path))
    write_model(tmp_path / "odd.dpa2", records | {"model.all_neighbors": value})
    with pytest.raises(CoreError, match="all_neighbors"):
        Engine(tmp_path / "odd.dpa2", threads=1)
