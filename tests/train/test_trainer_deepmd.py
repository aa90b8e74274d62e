"""Trainings beside DeePMD-kit's, from the same parameters with the same batches.

Needs DPA2MD_DEEPMD, a Python interpreter that has DeePMD-kit 3.2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpa2md.cli import main
from dpa2md.train import train
from dpa2md.train.checkpoint import read_state
from dpa2md.train.multi_task import MultiTaskModel
from dpa2md.train.parameters import TrainableModel
from dpa2md.train.settings import settings_of

from tests.support.deepmd_kit import run_deepmd
from tests.support.tiny_training import DPA1, DPA2, double, repelling, single, write_anew
from tests.support.training_data import Example


def deepmd_train(folder: Path, data: dict[str, Any], *options: str) -> None:
    (folder / "input.json").write_text(json.dumps(data))
    run_deepmd("-m", "deepmd", "--pt", "train", "input.json", "--skip-neighbor-stat", *options,
               folder=folder)  # fmt: skip


def in_float64(folder: Path, descriptor: dict[str, Any], **training: Any) -> dict[str, Any]:
    """All frames are one batch, so that both programs have the same."""
    training = {"training_data": {"systems": ["data"], "batch_size": 4}, "save_freq": 1} | training
    data = single(folder, descriptor | {"precision": "float64"}, **training)
    data["model"]["fitting_net"] = data["model"]["fitting_net"] | {"precision": "float64"}
    return data


@pytest.mark.parametrize(
    ("descriptor", "training"),
    [(DPA1, {}), (DPA2, {}), (DPA1, {"gradient_max_norm": 1.0, "opt_type": "AdamW",
                                     "weight_decay": 0.01})],
    ids=["dpa1", "dpa2", "clipped, with decay"],
)  # fmt: skip
def test_the_same_steps(tmp_path, monkeypatch, descriptor, training):
    """DeePMD-kit takes two steps, then both go on from its checkpoint; they end alike."""
    monkeypatch.chdir(tmp_path)
    data = in_float64(tmp_path, descriptor, numb_steps=6, **training)
    deepmd_train(tmp_path, data)
    theirs = TrainableModel.read("model.ckpt-6.pt")
    start = TrainableModel.read("model.ckpt-2.pt")
    data["training"] |= {"save_ckpt": "ours", "disp_file": "ours.out"}
    path = train(data, restart="model.ckpt-2.pt", threads=1)
    ours = read_state(path, settings_of(data).optimizer, False)
    assert ours.step == 6
    moved = np.abs(theirs.flat() - start.flat()).max()
    assert moved > 0.003
    # Adam divides by the root of mean squares: of gradients near 0 it makes much of their rounding
    assert np.abs(ours.vector - theirs.flat()).max() < 1e-7 * moved
    # and back: DeePMD-kit repeats our last step and takes two more
    data["training"] |= {"numb_steps": 8, "save_ckpt": "back"}
    deepmd_train(tmp_path, data, "--restart", str(path))
    assert Path("back-8.pt").exists()


@pytest.mark.parametrize("make", [single, double])
def test_deepmd_goes_on_from_float32(tmp_path, monkeypatch, make):
    """What we keep in float64 beside the model does not disturb it; nor two tasks' own counts."""
    monkeypatch.chdir(tmp_path)
    data = make(tmp_path, numb_steps=6, save_freq=3)
    path = train(data, threads=1)
    data["training"] |= {"numb_steps": 9, "save_ckpt": "theirs"}
    deepmd_train(tmp_path, data, "--restart", str(path))
    state = read_state("theirs-9.pt", settings_of(data).optimizer, make is double)
    # it repeats our last step
    assert state.step == 10
    # and we go on from its own
    data["training"] |= {"numb_steps": 12, "save_ckpt": "ours"}
    assert train(data, restart="theirs-9.pt", threads=1) == Path("ours-12.pt")


def unchanged(data: dict[str, Any], **training: Any) -> dict[str, Any]:
    """The input with a learning rate that changes no number."""
    rate = {"type": "exp", "start_lr": 1e-30, "stop_lr": 1e-31, "decay_steps": 5}
    training = {"disp_freq": 1, "save_freq": 1, "numb_steps": 1} | training
    return data | {"learning_rate": rate, "training": data["training"] | training}


@pytest.mark.parametrize("descriptor", [DPA1, DPA2], ids=["dpa1", "dpa2"])
def test_finetuning_with_another_type_map(tmp_path, monkeypatch, descriptor):
    """The first model of both is the same in float64, but for random rows and what they change."""
    monkeypatch.chdir(tmp_path)
    data = in_float64(tmp_path, descriptor, numb_steps=4, save_ckpt="old")
    old = train(data, threads=1)
    rows = "type_embedding.embedding.embedding_net.layers.0.matrix"
    for elements in (["O", "H", "C"], ["Na", "O", "C", "H"]):
        write_anew(tmp_path / "data", repelling(4, seed=3, strength=1.5))
        data["model"]["type_map"] = elements
        given = unchanged(data, save_ckpt="theirs")
        deepmd_train(tmp_path, given, "--finetune", str(old))
        given["training"] |= {"save_ckpt": "ours", "disp_file": "ours.out"}
        ours = TrainableModel.read(train(given, finetune=old, threads=1)).tensors
        theirs = TrainableModel.read("theirs-1.pt").tensors
        for name, tensor in ours.items():
            if name.endswith("min_nbor_dist"):
                continue
            if name.endswith(rows) and "Na" in elements:
                tensor, theirs[name] = tensor[1:], theirs[name][1:]
            # sums in another order; energies of the least squares' matrix are -3 eV
            assert tensor == pytest.approx(theirs[name], rel=1e-9, abs=1e-9), name


def several(folder: Path) -> dict[str, Any]:
    """Two tasks in float64 with frame parameters and cases, all frames of each in one batch."""
    data = double(folder)
    data["model"]["shared_dict"]["common"]["precision"] = "float64"
    for name, task in data["model"]["model_dict"].items():
        more = {"precision": "float64", "numb_fparam": 1, "dim_case_embd": 3}
        data["model"]["model_dict"][name] = task | {"fitting_net": task["fitting_net"] | more}
    for seed, (name, section) in enumerate(data["training"]["data_dict"].items()):
        section["training_data"]["batch_size"] = 4
        write_anew(folder / name, with_parameters(repelling(seed=seed, strength=1.0 + seed), seed))
    return data


def with_parameters(frames: Example, seed: int) -> Example:
    rng = np.random.default_rng(seed)
    return frames.having(fparam=seed + rng.normal(size=(len(frames.arrays["energy"]), 1)))


FITTED = ("out_bias", "out_std", "fparam_avg", "fparam_inv_std")


def links(model: MultiTaskModel) -> dict[Any, Any]:
    """Those of tensors that have numbers."""
    return {k: v for k, v in model.links.items() if model.heads[k[0]].tensors[k[1]].size}


@pytest.mark.parametrize("options", [[], ["--use-pretrain-script"]], ids=["own", "pretrained"])
def test_finetuning_of_several_tasks(tmp_path, monkeypatch, options):
    """A task that goes on, one from another head, one with a new fitting net: the same tensors but
    for those of the new net."""
    monkeypatch.chdir(tmp_path)
    data = several(tmp_path)
    old = train(data | {"training": data["training"] | {"numb_steps": 6, "save_ckpt": "old"}})
    write_anew(tmp_path / "strong", with_parameters(repelling(4, seed=5, strength=1.5), 5))
    tasks, sections = data["model"]["model_dict"], data["training"]["data_dict"]
    tasks["other"] = tasks["strong"] | {"finetune_head": "weak"}
    tasks["new"] = tasks.pop("strong")
    sections["other"] = sections["new"] = sections.pop("strong")
    data["loss_dict"] = dict.fromkeys(tasks, data["loss_dict"]["weak"])
    data = unchanged(data, save_ckpt="theirs")
    data["training"]["data_dict"] = {name: sections[name] for name in tasks}
    deepmd_train(tmp_path, data, "--finetune", str(old), *options)
    data["training"] |= {"save_ckpt": "ours", "disp_file": "ours.out"}
    (tmp_path / "input.json").write_text(json.dumps(data))
    command = ["train", "input.json", "--finetune", str(old), "--threads", "1", "-o", "o.dpa2"]
    assert main([*command, *options]) == 0
    before = MultiTaskModel.read(old).heads
    ours, theirs = (MultiTaskModel.read(f"{name}-1.pt") for name in ("ours", "theirs"))
    assert links(ours) == links(theirs)
    for task, source in (("weak", "weak"), ("other", "weak"), ("new", "weak")):
        for name, tensor in ours.heads[task].tensors.items():
            if name.endswith("min_nbor_dist"):
                continue
            drawn = task == "new" and ".fitting_net.filter_layers." in name
            if not drawn:
                # sums in another order; energies of the least squares' matrix are -3 eV
                expected = theirs.heads[task].tensors[name]
                assert tensor == pytest.approx(expected, rel=1e-9, abs=1e-9), (task, name)
            fitted = ("out_bias", "out_std") if task == "other" else (*FITTED, "case_embd")
            moved = drawn or (task != "weak" and name.endswith(fitted))
            same = np.array_equal(tensor, before[source].tensors[name])
            assert same != moved, (task, name)
