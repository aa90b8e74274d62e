"""Exported files: read back by the importer bit for bit, and as DeePMD-kit itself writes them."""

from __future__ import annotations

import gzip
import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from dpa2md.conversion import load_records
from dpa2md.errors import ModelError
from dpa2md.importer.torch_zip import Tensor, TorchZip
from dpa2md.importer.unpickle import read_pickle
from dpa2md.train.export import AdamState, export_model, write_checkpoint
from dpa2md.train.multi_task import MultiTaskModel
from dpa2md.train.parameters import TrainableModel
from dpa2md.train.torch_file import write_torch
from dpa2md.train.tree import model_tree

from tests.golden.suite import MODELS

PLAIN = [name for name, golden in MODELS.items() if golden.head is None and not golden.set]
TREES = json.loads(gzip.decompress((Path(__file__).parent / "trees.json.gz").read_bytes()))
FEW = ["medium_float32", "full", "se_atten_v2_float32", "fparam_aparam_case", "atom_ener"]


def read(name: str, folder) -> TrainableModel:
    return TrainableModel.read(MODELS[name].write(folder), MODELS[name].head)


def same_records(first: dict, second: dict) -> None:
    assert {k for k in first if not k.startswith("meta")} == {
        k for k in second if not k.startswith("meta")
    }
    for key, value in first.items():
        if not key.startswith("meta"):
            assert np.array_equal(value, second[key]), key


def state(path) -> dict:
    with closing(TorchZip(path)) as archive:
        found = read_pickle(archive)
        return _with_arrays(found)


def _with_arrays(value):
    if isinstance(value, dict):
        return {key: _with_arrays(entry) for key, entry in value.items()}
    return value.numpy() if isinstance(value, Tensor) else value


@pytest.mark.parametrize("suffix", [".dp", ".pt"])
@pytest.mark.parametrize("name", PLAIN)
def test_round_trip(name, suffix, tmp_path):
    model = read(name, tmp_path)
    path = tmp_path / f"out{suffix}"
    export_model(model, path)
    same_records(model.records(), load_records(path))
    again = TrainableModel.read(path)
    assert list(again.tensors) == list(model.tensors)
    precise = {key: array.astype(np.float32) for key, array in model.tensors.items()}
    for key, array in again.tensors.items():
        assert np.array_equal(array.astype(np.float32), precise[key]), key


@pytest.mark.parametrize("name", FEW)
def test_yaml_round_trip(name, tmp_path):
    model = read(name, tmp_path)
    export_model(model, tmp_path / "out.yaml")
    same_records(model.records(), load_records(tmp_path / "out.yaml"))


@pytest.mark.parametrize("name", PLAIN)
def test_checkpoint_is_that_of_deepmd(name, tmp_path):
    """Every key, in order, with its type and its numbers, as in the state dict that it came from;
    the pickle's dictionaries are ordered where torch's are."""
    path = MODELS[name].write(tmp_path)
    original = state(path)["model"]
    export_model(TrainableModel.read(path), tmp_path / "out.pt")
    ours = state(tmp_path / "out.pt")["model"]
    extra = original.pop("_extra_state")["model_params"]
    mine = ours.pop("_extra_state")
    for key, value in extra.items():
        if key != "descriptor":  # switches that were read off the tensors are added there
            assert mine["model_params"][key] == value
    assert mine["train_infos"] == {"lr": 0.0, "step": 0}
    assert set(ours) == set(original)
    for key, array in original.items():
        assert ours[key].dtype == array.dtype and np.array_equal(ours[key], array), key


def shapes_only(value):
    """Arrays as their type and shape, the rest as it is in JSON."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        return {key: shapes_only(entry) for key, entry in value.items()}
    return [shapes_only(entry) for entry in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", TREES)
def test_tree_is_that_of_deepmd(name, tmp_path):
    """Every key and setting of the tree that DeePMD-kit serializes the same model to."""
    ours = model_tree(read(name, tmp_path))["model"]
    assert shapes_only(ours) == TREES[name]


def test_several_heads(tmp_path):
    path = MODELS["two_heads.Water_A"].write(tmp_path)
    model = MultiTaskModel.read(path)
    model.set_flat(model.flat() * 1.5)
    moments = np.arange(model.size) / model.size
    adam = AdamState(8, moments, moments**2, 1e-4, 1e-3)
    write_checkpoint(model, tmp_path / "out.pt", step=7, adam=adam)
    entries = state(tmp_path / "out.pt")["optimizer"]["state"].values()
    written = np.concatenate([entry["exp_avg"].ravel() for entry in entries])
    assert np.array_equal(written, moments)  # each shared tensor once
    again = MultiTaskModel.read(tmp_path / "out.pt")
    assert again.links == model.links and again.size == model.size
    assert np.array_equal(again.flat(), model.flat())
    for head in model.heads:
        same_records(model.heads[head].records(), load_records(tmp_path / "out.pt", head))


def test_optimizer(tmp_path):
    """Adam's moments under torch's numbers: all parameters count, those of empty tables too."""
    model = read("medium_float32", tmp_path)
    rng = np.random.default_rng(0)
    adam = AdamState(5, rng.normal(size=model.size), rng.random(model.size), 1e-4, 1e-3)
    write_checkpoint(model, tmp_path / "out.pt", step=4, adam=adam)
    found = state(tmp_path / "out.pt")
    assert found["model"]["_extra_state"]["train_infos"] == {"lr": 1e-4, "step": 4}
    optimizer = found["optimizer"]
    (group,) = optimizer["param_groups"]
    names = [
        name for name in model.tensors
        if name.split(".")[-1] in ("matrix", "bias", "idt") or "_residual" in name
        or "compress" in name
    ]  # fmt: skip
    assert group["params"] == list(range(len(names))) and group["initial_lr"] == 1e-3
    assert len(optimizer["state"]) == len(model.parameters) == len(names) - 4
    for p in model.parameters:
        entry = optimizer["state"][names.index(p.name)]
        assert entry["step"] == 5 and entry["step"].dtype == np.float32
        mean = adam.mean[p.offset : p.end].reshape(p.shape).astype(np.float32)
        assert np.array_equal(entry["exp_avg"], mean)
        assert entry["exp_avg_sq"].dtype == np.float32


def test_shared_and_odd_values_of_a_torch_file(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    value = {"a": array, "b": [array, 2**40, -(2**33), True, None, (1, "x")], "c": np.zeros((2, 0)),
             "scalar": np.array(3.5), "transposed": array.T}  # fmt: skip
    write_torch(tmp_path / "x.pt", value)
    with closing(TorchZip(tmp_path / "x.pt")) as archive:
        found = read_pickle(archive)
        assert found["a"] == found["b"][0]
        assert found["b"][1:] == [2**40, -(2**33), True, None, (1, "x")]
        assert np.array_equal(found["transposed"].numpy(), array.T)
        assert found["c"].shape == (2, 0) and found["scalar"].numpy() == 3.5
    with pytest.raises(TypeError, match="a set can't"):
        write_torch(tmp_path / "y.pt", {1, 2})
    assert not (tmp_path / "y.pt").exists()


def test_unknown_extension(tmp_path):
    with pytest.raises(ModelError, match=r"x\.pth: the extension '\.pth' is none"):
        export_model(read("medium", tmp_path), tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()
