"""`dpa2md info`: the elements that a model was trained on, where that is known."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dpa2md import convert
from dpa2md.cli import main
from dpa2md.conversion import load_records

from tests.support.checkpoints import write_checkpoint, write_model
from tests.support.deepmd_files import GOLDEN, needs_golden
from tests.support.small_models import small_config, small_tensors


def trained(path, capsys, *options: str) -> tuple[list[str] | None, str]:
    """The elements that `info` names, and what it warns of."""
    assert main(["info", str(path), "--json", *options]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out).get("trained elements"), captured.err


@pytest.mark.parametrize("key", ["observed_type", "observed-type"])
def test_the_note_of_deepmd(tmp_path, capsys, key):
    config = small_config() | {"info": {key: ["H", "O"]}}
    source = write_model(tmp_path / "model.pt", config, small_tensors(config))
    assert load_records(source)["meta.observed_types"] == "O\nH"
    for path in (source, convert(source, tmp_path / "model.dpa2")):
        found, warning = trained(path, capsys)
        assert found == ["O", "H"]
        assert "never trained on Si (1 of 3 elements)" in warning and "--elements O,H" in warning
    assert main(["convert", str(source), "-o", str(tmp_path / "again.dpa2")]) == 0
    assert "O H Si, trained on O H" in capsys.readouterr().out
    kept = convert(source, tmp_path / "few.dpa2", elements=["H", "O"])
    assert trained(kept, capsys) == (["H", "O"], "")
    assert main(["info", str(source)]) == 0
    assert "trained elements" in capsys.readouterr().out


def test_each_head_has_its_own(tmp_path, capsys):
    config = small_config()
    tensors = {f"model.{h}.{k}": v for h in "AB" for k, v in small_tensors(config).items()}
    branches = {"A": config | {"info": {"observed_type": ["Si"]}}, "B": config}
    params = {"model_dict": branches, "shared_dict": {}}
    source = write_checkpoint(tmp_path / "heads.pt", params, tensors)
    assert trained(source, capsys, "--head", "A")[0] == ["Si"]
    assert trained(source, capsys, "--head", "B") == (["O", "H", "Si"], "")


@pytest.mark.parametrize("note", [None, "O", 3, {"observed_type": "O"}, {"observed_type": [["O"]]}])
def test_an_odd_note_is_none(tmp_path, capsys, note):
    config = small_config() | {"info": note}
    source = write_model(tmp_path / "model.pt", config, small_tensors(config))
    assert "meta.observed_types" not in load_records(source)
    assert trained(source, capsys) == (["O", "H", "Si"], "")


def test_without_a_note_the_energies_tell(tmp_path, capsys):
    """As DeePMD-kit's `dp show observed-type`: who has no energy of its own was not in the data."""
    config = small_config()
    tensors = small_tensors(config)
    bias = tensors["atomic_model.out_bias"]
    for values, expected in (([1, 0, 2], ["O", "Si"]), ([0, 0, 0], None)):
        bias[...] = np.reshape(values, bias.shape)
        source = write_model(tmp_path / "model.pt", config, tensors)
        found, warning = trained(source, capsys)
        assert found == expected and ("never trained on H" in warning) == (expected is not None)


@needs_golden
def test_the_note_in_a_file_of_any_backend(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "model.dp"
    shutil.copy(GOLDEN / "medium-like.dp", path)
    with h5py.File(path, "r+") as file:
        tree = json.loads(file.attrs["json"])
        elements = tree["model"]["type_map"]
        tree["model_def_script"] = {"info": {"observed_type": elements[:1]}}
        file.attrs["json"] = json.dumps(tree)
    assert load_records(path)["meta.observed_types"] == elements[0]
