"""Other type maps: the tensors of DeePMD-kit's change_type_map, and the same energies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dpa2md import _core
from dpa2md.importer.config import Model, read_config
from dpa2md.importer.records import build_records
from dpa2md.importer.weights import Weights
from dpa2md.model_file import write_model
from dpa2md.train.initial import new_embedding
from dpa2md.train.parameters import TrainableModel
from dpa2md.train.type_maps import config_with_elements, with_elements

from tests.golden.suite import MODELS, STRUCTURES, Golden
from tests.support.tolerances import TOLERANCES
from tests.train.type_map_cases import EMBEDDING, TYPE_MAPS, is_by_element, short

REFERENCE = np.load(Path(__file__).parent / "type_maps.npz")


def read(golden: Golden, folder: Path) -> TrainableModel:
    return TrainableModel.read(golden.write(folder), golden.head)


def identity(shape: tuple[int, int]) -> np.ndarray:
    """What a layer as wide as its inputs, or twice so, adds to its matrix."""
    inputs, outputs = shape
    copies = outputs // inputs if outputs in (inputs, 2 * inputs) else 0
    return np.tile(np.eye(inputs), copies) if copies else np.zeros(shape)


@pytest.mark.quick
@pytest.mark.parametrize("name", TYPE_MAPS)
def test_deepmd_kit(name, tmp_path):
    """Every tensor to the last bit, but for random rows."""
    model, elements = read(MODELS[name], tmp_path), TYPE_MAPS[name]
    found = with_elements(model, elements, seed=1)
    new = [k for k, element in enumerate(elements) if element not in model.model.elements]
    compared = 0
    for key, array in found.items():
        if not is_by_element(key):
            assert np.array_equal(array, model.tensors[key])
            continue
        ours, theirs = short(key, array), REFERENCE[f"{name}/{key}"]
        if key.endswith(EMBEDDING) and len(theirs) == len(elements):
            for whole in (ours + identity(ours.shape), theirs + identity(theirs.shape)):
                assert ((whole[new] >= 0) & (whole[new] < 1)).all()
            ours, theirs = np.delete(ours, new, axis=0), np.delete(theirs, new, axis=0)
        assert np.array_equal(ours, theirs), key
        compared += 1
    assert compared == sum(key.startswith(f"{name}/") for key in REFERENCE.files) >= 5


def test_random_rows():
    """Those of an element depend on the seed, the head and the element."""
    rows = [new_embedding(*x, 500) for x in [(1, "", "Na"), (2, "", "Na"), (1, "a", "Na"),
                                              (1, "", "K")]]  # fmt: skip
    assert np.abs(np.corrcoef(rows) - np.eye(4)).max() < 5 / np.sqrt(500)
    # five standard errors of a uniform distribution's mean
    assert abs(np.mean(rows) - 0.5) < 5 * np.sqrt(1 / 12 / 2000)
    assert np.array_equal(rows[0], new_embedding(1, "", "Na", 500))


def in_float64(model: Model) -> Model:
    """With the arithmetic of the expected results."""
    return replace(
        model,
        descriptor=replace(model.descriptor, precision="float64"),
        fitting=replace(model.fitting, precision="float64"),
    )


@pytest.mark.parametrize("name", MODELS)
def test_energies_stay(name, tmp_path):
    """Elements in the reverse order, and only those that there are: DeePMD-kit's results for the
    old type map."""
    golden, structure = MODELS[name], STRUCTURES["molecule"]
    model = read(golden, tmp_path)
    old, types = model.model.elements, golden.types(structure)
    fparam = golden.fparam()
    for elements in (old[::-1], [old[k] for k in np.unique(types)[::-1]]):
        config = in_float64(read_config(config_with_elements(model.config, elements)))
        tensors = with_elements(model, elements, 1)
        if golden.precision[1] == "float32":  # the net uses it rounded
            bias = "atomic_model.fitting_net.bias_atom_e"
            tensors[bias] = tensors[bias].astype(np.float32).astype(float)
        weights = Weights(tensors)
        path = tmp_path / "other.dpa2"
        write_model(path, build_records(config, weights, model.all_neighbors))
        found = _core.Engine(str(path), "float64", 1, tables=False).compute(
            structure.positions,
            np.array([elements.index(old[k]) for k in types]),
            np.array([0, len(structure)]),
            np.zeros((1, 3, 3)),
            np.zeros((1, 3), int),
            skin=0.0,
            fparam=None if fparam is None else fparam.reshape(1, -1),
            aparam=golden.aparam(structure),
        )
        expected = golden.expected(structure.name)
        for key, ours in (("atom_energy", found["energies"]), ("forces", found["forces"])):
            scale = np.maximum(1.0, np.abs(expected[key]))
            assert (np.abs(ours - expected[key]) <= TOLERANCES[key] * scale).all(), elements


def test_what_is_listed_by_type(tmp_path):
    config = read(MODELS["all_exclusions"], tmp_path).config
    preset = {"energy": [None, -1.0, [2.0]]}
    changed = config_with_elements(config | {"preset_out_bias": preset}, ["Na", "Li", "H"])
    # O, H, Na were 0, 1, 2
    assert config["pair_exclude_types"] == [[0, 2]] and changed["pair_exclude_types"] == []
    assert config["atom_exclude_types"] == [2] and changed["atom_exclude_types"] == [0]
    assert config["descriptor"]["exclude_types"] == [[1, 1]]
    assert changed["descriptor"]["exclude_types"] == [[2, 2]]
    assert changed["preset_out_bias"] == {"energy": [[2.0], None, -1.0]}
    assert changed["type_map"] == ["Na", "Li", "H"]
