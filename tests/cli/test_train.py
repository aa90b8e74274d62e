"""The commands train and export."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpa2md.cli import main
from dpa2md.conversion import load_records, trained_elements
from dpa2md.engine import Engine
from dpa2md.train.parameters import TrainableModel

from tests.support.tiny_training import double, repelling, single


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(data: dict[str, Any]) -> None:
    Path("input.json").write_text(json.dumps(data))


def train(*arguments: str) -> int:
    return main(["train", "input.json", "--threads", "1", *arguments])


@pytest.mark.quick
def test_a_training(folder, capsys):
    write(single(folder, numb_steps=10))
    assert train("--skip-neighbor-stat") == 0
    out = capsys.readouterr().out
    assert "model: se_atten_v2, float32, H C O" in out
    assert "data: 1 systems, 4 frames of 12 atoms" in out
    assert "held out: 1 systems, 2 frames" in out
    assert "run: 10 steps, learning rate 2.0e-02 to" in out
    assert "note: The frames don't tell the energies of H and C and O apart" in out
    assert re.search(r"^step 10  rmse \S+/\S+  rmse_e .* lr \S+$", out, re.MULTILINE)
    assert "model.ckpt-10.pt: step 10" in out
    # the .dpa2 file is the checkpoint, and knows its elements
    assert trained_elements(load_records("model.dpa2")) == ["H", "C", "O"]
    frame = {k: v[0] for k, v in repelling().arrays.items()}
    energies = [
        Engine(name, threads=1)
        .compute(frame["coord"], [0, 1, 2] * 4, cell=frame["box"], pbc=[1, 1, 1])
        .energy
        for name in ("model.dpa2", "model.ckpt-10.pt")
    ]
    assert energies[0] == energies[1]


def test_several_tasks(folder, capsys):
    write(double(folder, numb_steps=4))
    assert train("-o", "both.dpa2", "--quiet") == 0
    assert "both.weak.dpa2" in capsys.readouterr().out
    assert load_records("both.strong.dpa2")["meta.head"] == "strong"


def test_a_dry_run_writes_nothing(folder, capsys):
    write(single(folder))
    before = sorted(folder.iterdir())
    assert train("--dry-run") == 0
    assert sorted(folder.iterdir()) == before
    assert "parameters:" in capsys.readouterr().out


def test_a_picture(folder):
    pytest.importorskip("matplotlib")
    write(single(folder, numb_steps=10))
    assert train("--plot", "curve.png") == 0
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(folder, number):
    """A checkpoint, the command that goes on, and the status of Ctrl-C."""
    write(single(folder, numb_steps=100000))
    process = subprocess.Popen(
        [sys.executable, "-m", "dpa2md", "train", "input.json", "--threads", "1"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step 5"):
        assert process.poll() is None
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    found = re.search(r"stopped after step (\d+); to go on:\ndpa2md (train .*)\n", out)
    assert found is not None
    assert Path(f"model.ckpt-{found[1]}.pt").exists()
    data = single(folder, numb_steps=int(found[1]) + 2)
    write(data)
    assert main([*found[2].split(), "--threads", "1", "--quiet"]) == 0


def change(**sections: dict[str, Any]) -> Any:
    def apply(data: dict[str, Any]) -> None:
        for name, keys in sections.items():
            data[name] |= keys

    return apply


@pytest.mark.parametrize(
    ("edit", "arguments", "message"),
    [
        (change(training={"numb_stepps": 3}), [], "training.numb_stepps is no key"),
        (change(learning_rate={"start_lr": -1}), [], "learning_rate.start_lr = -1 should be above 0"),
        (change(loss={"start_pref_h": 1.0, "limit_pref_h": 1.0}), [], "Hessians"),
        (change(training={"training_data": {"systems": ["gone"]}}), [], "gone: there is no such"),
        (change(), ["--restart", "gone.pt"], "gone.pt"),
        (change(), ["--head", "Water"], "chosen for fine-tuning"),
        (change(), ["--use-pretrain-script"], "add --finetune"),
        (change(), ["-o", "out.json"], "out.json: -o names the trained model"),
        (change(), ["-o", "gone/model.dpa2"], "gone: there is no such folder"),
        (change(), ["--plot", "curve.gif"], "must end in .png"),
        (change(model={"type_map": ["H", "C"]}), [], "O is no element of the model's type_map"),
    ],
)  # fmt: skip
def test_refused_before_anything_starts(folder, capsys, edit, arguments, message):
    data = single(folder)
    edit(data)
    write(data)
    before = sorted(folder.iterdir())
    assert train(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dpa2md train: ") and message in line
    assert sorted(folder.iterdir()) == before


def test_finetuning_with_the_pretrained_models_section(folder, capsys):
    data = single(folder, numb_steps=2)
    write(data)
    assert train("--quiet") == 0
    Path("model.ckpt-2.pt").rename("old.pt")
    del data["model"]
    write(data)
    assert train("--finetune", "old.pt", "--use-pretrain-script", "--quiet") == 0
    old, new = (TrainableModel.read(name) for name in ("old.pt", "model.ckpt-2.pt"))
    assert old.model == new.model
    moved = np.abs(old.flat() - new.flat()).max()
    assert 0 < moved < 0.1  # two steps of 0.02


def test_the_inputs_type_map_stays(folder, capsys):
    """As in DeePMD-kit; the input's other keys, too, but for descriptor and fitting net."""
    data = single(folder, numb_steps=1)
    data["model"]["pair_exclude_types"] = [[0, 1]]  # H and C
    write(data)
    assert train("--quiet") == 0
    Path("model.ckpt-1.pt").rename("old.pt")
    data["model"] = {"type_map": ["O", "Na", "H", "C"], "descriptor": {}, "data_stat_nbatch": 3}
    write(data)
    capsys.readouterr()
    assert train("--finetune", "old.pt", "--use-pretrain-script") == 0
    out = capsys.readouterr().out
    assert "note: The type_map of old.pt lacks Na: the type embedding starts from random" in out
    old, new = (TrainableModel.read(name) for name in ("old.pt", "model.ckpt-1.pt"))
    assert new.model.elements == ["O", "Na", "H", "C"]
    assert new.model.pair_exclude == [(2, 3)]
    assert new.model.descriptor == old.model.descriptor and new.model.fitting == old.model.fitting
    assert new.config["data_stat_nbatch"] == 3
    data["model"] = {"type_map": ["H", "C"]}
    write(data)
    assert train("--finetune", "old.pt", "--use-pretrain-script", "--quiet") == 2
    assert "O is no element of the model's type_map" in capsys.readouterr().err


# ---- export


def test_export(folder, capsys):
    write(single(folder, numb_steps=2))
    assert train("--quiet") == 0
    for name in ("model.dp", "model.yaml", "model.pt"):
        assert main(["export", "model.ckpt-2.pt", name]) == 0
        found, wanted = (TrainableModel.read(path) for path in (name, "model.ckpt-2.pt"))
        assert np.array_equal(found.flat(), wanted.flat())
    capsys.readouterr()
    assert main(["export", "model.ckpt-2.pt", "model.dp"]) == 2
    assert "model.dp exists; add --overwrite" in capsys.readouterr().err
    assert main(["export", "model.ckpt-2.pt", "model.txt"]) == 2
    assert "model.txt" in capsys.readouterr().err


def test_export_of_one_head(folder):
    write(double(folder, numb_steps=2))
    assert train("--quiet") == 0
    assert main(["export", "model.ckpt-2.pt", "weak.pt", "--head", "weak"]) == 0
    weak = TrainableModel.read("model.ckpt-2.pt", "weak")
    assert np.array_equal(TrainableModel.read("weak.pt").flat(), weak.flat())
