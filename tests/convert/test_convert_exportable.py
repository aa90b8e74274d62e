"""Files of DeePMD-kit's exportable backend: checkpoints of `dp --pt-expt train`, `.pte` and `.pt2`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dpa2md.conversion import load_records
from dpa2md.errors import ModelError, UnsupportedModelError

from tests.golden.suite import HERE, MODELS
from tests.support.checkpoints import (
    assert_same,
    changed,
    dpa1_config,
    dpa2_config,
    make_tensors,
    write_model,
)

SWITCH = "atomic_model.descriptor.graph_lower_disabled"


def two_body() -> dict:
    """A configuration that DeePMD-kit's graph route evaluates."""
    return changed(dpa2_config(), "descriptor.repinit", use_three_body=False)


def two_body_tensors(config: dict) -> dict[str, np.ndarray]:
    tensors = make_tensors(config)
    three = config["descriptor"]["repinit"]["three_body_neuron"][-1]
    matrix = "atomic_model.descriptor.g1_shape_tranform.matrix"
    tensors[matrix] = tensors[matrix][:-three]
    return {name: array for name, array in tensors.items() if "repinit_three_body" not in name}


def renamed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors as `dp --pt-expt train` names them, seen in files of DeePMD-kit 3.2."""
    out = {"_min_nbor_dist": np.array(0.9)}
    for name, array in tensors.items():
        if any(word in name for word in ("compress_", "type_embd_data")):
            continue
        parts = name.split(".")
        parts[-1] = {"matrix": "w", "bias": "b"}.get(parts[-1], parts[-1])
        name = ".".join(parts)
        for theirs, ours in (
            ("fitting_net.filter_layers.", "fitting_net.nets."),
            (".filter_layers_strip.", ".embeddings_strip."),
            (".filter_layers.", ".embeddings."),
            (".networks.", "._module_networks."),
            (".embedding.embedding_net.", ".embedding_net."),
        ):
            name = name.replace(theirs, ours)
        out[name] = array
    return out


def switch(on: int) -> dict[str, np.ndarray]:
    return {SWITCH: np.array(on, dtype=np.int64)}


@pytest.mark.parametrize(
    "config", [dpa2_config(), two_body(), dpa1_config()], ids=["dpa2", "two_body", "dpa1"]
)
def test_checkpoints_give_the_same_records(config, tmp_path):
    dpa2 = config["descriptor"]["type"] == "dpa2"
    three_body = dpa2 and config["descriptor"]["repinit"]["use_three_body"]
    tensors = make_tensors(config) if three_body or not dpa2 else two_body_tensors(config)
    plain = load_records(write_model(tmp_path / "plain.pt", config, tensors))
    other = renamed(tensors) | switch(0)
    found = load_records(write_model(tmp_path / "exportable.pt", config, other))
    assert found.pop("model.all_neighbors", 0) == (0 if three_body else 1)
    assert_same(found, plain)


@pytest.mark.parametrize(
    ("section", "values", "tensors", "all_neighbors"),
    [
        ("descriptor", {}, {}, 1),  # before there was a switch
        ("descriptor", {}, switch(0), 1),
        ("descriptor", {}, switch(1), 0),
        ("descriptor.repinit", {"set_davg_zero": False}, switch(0), 0),
        ("descriptor.repformer", {"set_davg_zero": False}, switch(0), 0),
        ("descriptor.repformer", {"set_davg_zero": True}, switch(0), 1),
    ],
)
def test_which_lists_a_checkpoint_means(section, values, tensors, all_neighbors, tmp_path):
    """As DeePMD-kit's `uses_graph_lower` decides it."""
    config = changed(two_body(), section, **values)
    tensors = renamed(two_body_tensors(config)) | tensors
    records = load_records(write_model(tmp_path / "model.pt", config, tensors))
    assert records.get("model.all_neighbors", 0) == all_neighbors


def test_copies_of_a_compiled_run_are_left_out(tmp_path):
    config = two_body()
    tensors = {
        f"original_model.{name}": array
        for name, array in (renamed(two_body_tensors(config)) | switch(1)).items()
    }
    tensors["compiled_forward_lower._orig_mod._param_constant0"] = np.ones(3)
    tensors["_task_bias_atom_e"] = np.ones(3)
    records = load_records(write_model(tmp_path / "model.pt", config, tensors))
    assert "model.all_neighbors" not in records
    plain = write_model(tmp_path / "plain.pt", config, two_body_tensors(config))
    assert_same(records, load_records(plain))


def test_damaged_switches_are_refused(tmp_path):
    config = two_body()
    tensors = renamed(two_body_tensors(config)) | {SWITCH: np.zeros(2, dtype=np.int64)}
    with pytest.raises(ModelError, match="graph_lower_disabled"):
        load_records(write_model(tmp_path / "model.pt", config, tensors))


def test_excluded_pairs_of_cut_lists_are_refused(tmp_path):
    """DeePMD-kit closes their gaps before it cuts the shorter lists; the graph route cuts none."""
    config = dpa2_config() | {"pair_exclude_types": [[0, 2]]}
    path = write_model(tmp_path / "model.pt", config, renamed(make_tensors(config)))
    with pytest.raises(UnsupportedModelError, match="pair_exclude_types.*--all-neighbors"):
        load_records(path)
    assert load_records(path, all_neighbors=True)["model.pair_exclude"].sum() == 2
    config = two_body() | {"pair_exclude_types": [[0, 2]]}
    load_records(write_model(path, config, renamed(two_body_tensors(config))))


def test_averages_of_the_graph_route_are_refused(tmp_path):
    """Its sums then jump by the average's share whenever a neighbour comes or goes."""
    config = dpa1_config()
    tensors = make_tensors(config)
    tensors["atomic_model.descriptor.se_atten.mean"][..., 0] = 0.1
    load_records(write_model(tmp_path / "plain.pt", config, tensors))
    with pytest.raises(UnsupportedModelError, match="all neighbours.*set_davg_zero"):
        load_records(write_model(tmp_path / "model.pt", config, renamed(tensors)))


def write_exported(path: Path, tree: bytes, metadata: bytes | None) -> Path:
    """A frozen file of the exportable backend as far as it is read, torch's folder named after the file."""
    beside = "model" if path.suffix == ".pt2" else path.stem
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/archive_format", b"pt2")
        archive.writestr(f"{path.stem}/data/weights/weight_0", b"\0" * 8)
        archive.writestr(f"{beside}/extra/model.json", tree)
        if metadata is not None:
            archive.writestr(f"{beside}/extra/metadata.json", metadata)
    return path


def tree_of(name: str) -> bytes:
    with zipfile.ZipFile(HERE / "exportable_models.zip") as archive:
        return archive.read(f"{name}.json")


@pytest.mark.parametrize("suffix", [".pte", ".pt2"])
@pytest.mark.parametrize("name", ["graph", "graph_dpa1_strip", "dense_three_body"])
def test_frozen_files_give_the_same_records(name, suffix, tmp_path):
    """The model.json was written by DeePMD-kit for the same weights as the checkpoint."""
    kind = "graph" if MODELS[name].all_neighbors else "nlist"
    metadata = json.dumps({"lower_input_kind": kind, "rcut": 5.0}).encode()
    path = write_exported(tmp_path / f"frozen{suffix}", tree_of(name), metadata)
    found, expected = load_records(path), load_records(MODELS[name].write(tmp_path))
    assert bool(found.get("model.all_neighbors", 0)) == MODELS[name].all_neighbors
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("metadata", "all_neighbors"),
    [
        (None, 0),
        (b"{}", 0),
        (b'{"lower_input_kind": "nlist"}', 0),
        (b'{"lower_input_kind": "dpa1_canonical"}', 1),
    ],
)
def test_which_lists_a_frozen_file_means(metadata, all_neighbors, tmp_path):
    path = write_exported(tmp_path / "m.pte", tree_of("graph_dpa1_strip"), metadata)
    assert load_records(path).get("model.all_neighbors", 0) == all_neighbors


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b"[]", "dictionary"),
        (b"{", "JSON"),
        (b'{"lower_input_kind": "edges"}', "'edges'"),
        (b'{"lower_input_kind": ["graph"]}', "graph"),
    ],
)
def test_damaged_metadata_is_refused(metadata, words, tmp_path):
    path = write_exported(tmp_path / "m.pt2", tree_of("graph_dpa1_strip"), metadata)
    with pytest.raises(ModelError, match=words):
        load_records(path)


def test_frozen_files_without_weights_are_refused_by_name(tmp_path):
    path = tmp_path / "m.pte"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/models/model.json", b"{}")
    with pytest.raises(UnsupportedModelError, match=r"\.pte file holds no weights"):
        load_records(path)


def test_compressed_files_are_refused_by_name(tmp_path):
    """As `dp --pt-expt compress` marks them."""
    tree = json.loads(tree_of("graph_dpa1_strip"))
    tree["model"]["descriptor"]["compress"] = {"@variables": {}, "geo_compress": True}
    path = write_exported(tmp_path / "m.pte", json.dumps(tree).encode(), None)
    with pytest.raises(UnsupportedModelError, match="compressed from"):
        load_records(path)
