"""Files that DeePMD-kit wrote itself, in every format (see DPA2MD_GOLDEN_DIR below)."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from dpa2md.conversion import list_heads, load_records
from dpa2md.engine import Engine
from dpa2md.errors import ModelError

from tests.support.checkpoints import assert_same
from tests.support.deepmd_files import GOLDEN, needs_golden
from tests.support.tolerances import TOLERANCES

EXACT = 1e-14  # two float64 evaluations of a layer with below 20 inputs of order 1


@needs_golden
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.pt")), ids=lambda path: path.name)
def test_every_golden_checkpoint_converts(path):
    for head in list_heads(path) or [None]:
        records = load_records(path, head)
        assert records["model.kind"] == ("dpa1" if "student" in path.name else "dpa2")


@needs_golden
@pytest.mark.parametrize("name", ["medium-like.pth", "medium-like.dp", "medium-like.yaml",
                                  "strip.pth", "student-se_atten_v2.pth"])  # fmt: skip
def test_all_formats_give_the_same_records(name):
    if name.endswith(".dp"):
        pytest.importorskip("h5py")
    if name.endswith(".yaml"):
        pytest.importorskip("yaml")
    path = GOLDEN / name
    assert_same(load_records(path), load_records(path.with_suffix(".pt")))


@needs_golden
def test_compiled_files_hold_the_same_numbers(tmp_path):
    """A .pt2 file: code in a folder of the file's name, the model as JSON in another."""
    h5py = pytest.importorskip("h5py")

    def written_out(node, file):
        if isinstance(node, dict):
            return {
                key: {name: array(file, at) for name, at in value.items()}
                if key == "@variables"
                else written_out(value, file)
                for key, value in node.items()
            }
        return [written_out(value, file) for value in node] if isinstance(node, list) else node

    def array(file, name):
        if isinstance(name, list):
            return [array(file, part) for part in name]
        if not isinstance(name, str) or name not in file:
            return name
        value = file[name][()]
        return {"@class": "np.ndarray", "dtype": value.dtype.name, "value": value.tolist()}

    with h5py.File(GOLDEN / "medium-like.dp") as file:
        tree = written_out(json.loads(file.attrs["json"]), file)
    path = tmp_path / "water.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("water/data/aotinductor/model/code.so", b"\x7fELF")
        archive.writestr("model/extra/model.json", json.dumps(tree))
    assert_same(load_records(path), load_records(GOLDEN / "medium-like.pt"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("elsewhere/x", b"")
    with pytest.raises(ModelError, match="not laid out"):
        load_records(path)


@needs_golden
@pytest.mark.parametrize("name", ["strip-compressed.pth", "student-se_atten_v2-compressed.pth",
                                  "strip.pth", "medium-like.pth"])  # fmt: skip
def test_frozen_files_give_the_original_results(name):
    """Compressed models go through their tables, as DeePMD-kit's own operator does."""
    engine = Engine(GOLDEN / name, precision="float64", threads=1)
    expected = np.load((GOLDEN / name).with_suffix(".npz"))
    for s in ("water", "triclinic", "molecule"):
        cell = expected.get(f"{s}.cell")
        result = engine.compute(
            expected[f"{s}.positions"], expected[f"{s}.types"], cell=cell, pbc=cell is not None
        )
        energy = float(expected[f"{s}.energy"].item())
        assert abs(result.energy - energy) <= TOLERANCES["energy"] * max(1, abs(energy))
        assert np.abs(result.forces - expected[f"{s}.forces"]).max() <= TOLERANCES["forces"]
        virial = expected[f"{s}.virial"].reshape(3, 3)
        assert np.abs(result.virial - virial).max() <= TOLERANCES["virial"]


@needs_golden
@pytest.mark.parametrize("name", ["strip", "student-se_atten_v2"])
def test_compressed_files_hold_the_same_type_table(name):
    """DeePMD-kit stored T when it compressed the model; the converter evaluates the same net."""
    plain = load_records(GOLDEN / f"{name}.pt")["repinit.strip_table"]
    stored = load_records(GOLDEN / f"{name}-compressed.pth")["repinit.strip_table"]
    np.testing.assert_allclose(plain, stored, atol=EXACT)


@needs_golden
@pytest.mark.parametrize(
    "old, new, words",
    [
        ('"@version":3,"ntypes"', '"@version":99,"ntypes"', "@version.*update"),
        ('"smooth":true', '"brand_new":1,"smooth":true', "brand_new"),
        ('"use_exp_switch":false', '"use_exp_switch":true', "exponential switch"),
        ('"attnw_shift":20.0', '"attnw_shift":10.0', "attnw_shift"),
        ('"resnet":true', '"resnet":false', "skip connection"),
        ('"mixed_types":true', '"mixed_types":false', "one net for each element"),
        ('"type":"standard"', '"type":"zbl"', "standard"),
        ('"ndim":0', '"ndim":1', "one net for each element"),
        ('"@variables":{"davg"', '"compress":{},"@variables":{"davg"', "compressed"),
        ('"davg":"/variable_0010"', '"davg":null', "mean"),
        ('"davg":"/variable_0010"', '"davg":"/variable_0000"', "mean.*shape"),
        ('"neuron":[8]', '"neuron":[8,8]', "one linear layer"),
    ],
)
def test_changed_trees_are_refused_by_name(tmp_path, old, new, words):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "model.dp"
    path.write_bytes((GOLDEN / "medium-like.dp").read_bytes())
    with h5py.File(path, "r+") as file:
        text = file.attrs["json"]
        assert old in text
        file.attrs["json"] = text.replace(old, new)
    with pytest.raises(ModelError, match=words):
        load_records(path)


@needs_golden
def test_trees_of_version_2_have_no_separate_g1_updates(tmp_path):
    """Before version 3 of the tree three switches did not exist; here the layers give it away."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "model.dp"
    path.write_bytes((GOLDEN / "medium-like.dp").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["json"] = file.attrs["json"].replace('"@version":3,"ntypes"', '"ntypes"')
    with pytest.raises(ModelError, match="use_sqrt_nnei.*inconsistent"):
        load_records(path)
