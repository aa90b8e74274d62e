"""Fine-tuning of several tasks at once: what each starts from, its energy bias, and refusals."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpa2md.cli import main
from dpa2md.errors import InputError, ModelError
from dpa2md.train import train
from dpa2md.train.curve import read_curve
from dpa2md.train.multi_task import MultiTaskModel
from dpa2md.train.preparation import Start
from dpa2md.train.settings import settings_of
from dpa2md.train.trainer import Trainer

from tests.support.tiny_training import DPA1, double, repelling, single, write_anew

SHIFT = 1200.0  # eV a frame: another zero of energy
FITTING = "atomic_model.fitting_net."


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """Two heads, weak and strong, that know their repulsion."""
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = double(folder, numb_steps=300, disp_freq=300)
        data["model"]["model_dict"]["strong"]["model_branch_alias"] = ["Hard"]
        return folder / train(data, threads=1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_anew(tmp_path / "weak", repelling())
    moved = repelling(seed=1, strength=2.0)
    write_anew(tmp_path / "moved", moved.having(energy=moved.arrays["energy"] + SHIFT))
    return tmp_path


def tasks(folder: Path, heads: dict[str, str | None], **training: Any) -> dict[str, Any]:
    """An input with a task for each of these names and finetune_heads; weak goes on."""
    data = double(folder, numb_steps=1, disp_freq=1, **training)
    task = data["model"]["model_dict"].pop("strong")
    section = data["training"]["data_dict"].pop("strong")
    section["training_data"]["systems"] = ["moved"]
    for name, head in heads.items():
        data["model"]["model_dict"][name] = task | ({"finetune_head": head} if head else {})
        data["training"]["data_dict"][name] = deepcopy(section)
    data["loss_dict"] = dict.fromkeys(data["model"]["model_dict"], data["loss_dict"]["weak"])
    return data


@pytest.mark.quick
def test_what_each_task_starts_from(folder, pretrained):
    """A task goes on, one takes a head by its alias, one has a new fitting net without being asked."""
    data = tasks(folder, {"tuned": "Hard", "new": None, "random": "RANDOM"})
    trainer = Trainer(settings_of(data), Start(finetune=str(pretrained)), threads=1)
    old, model = MultiTaskModel.read(pretrained), trainer.state.model
    assert isinstance(model, MultiTaskModel)
    origin = {"weak": "weak", "tuned": "strong", "new": "weak", "random": "weak"}
    for task, head in model.heads.items():
        before = old.heads[origin[task]].tensors
        for name, tensor in head.tensors.items():
            same = np.array_equal(tensor, before[name])
            if name.endswith(("out_bias", "out_std")):
                assert same == (task == "weak"), (task, name)
            elif name.endswith(("matrix", ".bias", "idt")):
                assert same == (task in ("weak", "tuned") or FITTING not in name), (task, name)
            else:
                assert same, (task, name)
    first, second = (model.heads[t].tensors[FITTING + "filter_layers.networks.0.layers.0.matrix"]
                     for t in ("new", "random"))  # fmt: skip
    assert not np.isclose(first, second).any()
    notes = "\n".join(trainer.notes)
    assert f"weak goes on from the head weak of {pretrained}, with its energy bias." in notes
    assert f"tuned starts from the head strong of {pretrained}, with another" in notes
    for task in ("new", "random"):
        assert f"{task} has a new fitting net, and the descriptor of the head weak" in notes


def test_the_first_errors(folder, pretrained):
    """Those of the trained heads, also with another zero of energy."""
    train(tasks(folder, {"tuned": "strong"}), finetune=pretrained, threads=1)
    curve = read_curve("lcurve.out")
    # 1200 eV are 100 eV an atom; the trained heads know energies to 0.01
    assert curve["rmse_e_trn_tuned"][0] < 0.05 and curve["rmse_e_trn_weak"][0] < 0.05
    assert curve["rmse_f_trn_tuned"][0] < 1.0


def test_of_a_single_model(folder):
    """Its only head is called Default."""
    old = train(single(folder, numb_steps=1, save_ckpt="old"), threads=1)
    data = tasks(folder, {"Default": None, "tuned": "Default"})
    trainer = Trainer(settings_of(data), Start(finetune=str(old)), threads=1)
    assert isinstance(trainer.state.model, MultiTaskModel)
    heads = trainer.state.model.heads
    names = [n for n in heads["tuned"].tensors if n.startswith(FITTING) and n.endswith("matrix")]
    for name in names:
        assert np.array_equal(heads["tuned"].tensors[name], heads["Default"].tensors[name])
        assert not np.isclose(heads["weak"].tensors[name], heads["tuned"].tensors[name]).any()
    assert f"Default goes on from {old}, with its energy bias." in trainer.notes


def test_new_elements(folder, pretrained):
    """Statistics of known elements stay; those of a new one are of all tasks' data."""
    new = repelling(seed=1, strength=2.0)
    new.elements[3] = "Na"
    write_anew(folder / "moved", new)
    elements = ["Na", "O", "H", "C"]
    data = tasks(folder, {"tuned": "strong"})
    data["model"]["shared_dict"]["map"] = elements
    trainer = Trainer(settings_of(data), Start(finetune=str(pretrained)), threads=1)
    fresh = Trainer(settings_of(data), threads=1)
    old = MultiTaskModel.read(pretrained).heads["weak"].tensors
    statistic = "atomic_model.descriptor.se_atten.stddev"
    both = [t.state.model.heads for t in (trainer, fresh)]  # type: ignore[union-attr]
    for task in ("weak", "tuned"):
        found, anew = (heads[task].tensors[statistic] for heads in both)
        assert np.array_equal(found[1:], old[statistic][[2, 0, 1]])
        assert np.array_equal(found[0], anew[0])
    assert sum("lacks Na" in note for note in trainer.notes) == 2


def test_the_pretrained_section(folder, pretrained):
    """Shared parts get the pretrained model's settings and stay shared."""
    data = tasks(folder, {"tuned": "strong", "new": "RANDOM"})
    data["model"]["shared_dict"]["common"] = {"type": "dpa2"}
    data["model"]["model_dict"]["tuned"]["fitting_net"] = {"neuron": [3]}
    data["model"]["model_dict"]["new"]["fitting_net"] = {"neuron": [5]}
    Path("input.json").write_text(json.dumps(data))
    command = ["train", "input.json", "--finetune", str(pretrained), "--threads", "1", "--quiet"]
    assert main([*command, "--use-pretrain-script"]) == 0
    model = MultiTaskModel.read("model.ckpt-1.pt")
    for task, neuron in (("weak", [12, 12]), ("tuned", [12, 12]), ("new", [5])):
        head = model.heads[task].model
        assert head.fitting.neuron == neuron and head.descriptor.repinit.rcut == DPA1["rcut"]
    assert all(
        (task, name) in model.links
        for task in ("tuned", "new")
        for name in model.heads[task].tensors
        if ".descriptor." in name and name.endswith("matrix")
    )


def test_refused(folder, pretrained):
    start = Start(finetune=str(pretrained))
    with pytest.raises(ModelError, match=r"no head 'Gone'.*task tuned.*heads are weak, strong"):
        Trainer(settings_of(tasks(folder, {"tuned": "Gone"})), start)
    with pytest.raises(InputError, match="write finetune_head into the tasks"):
        Trainer(settings_of(tasks(folder, {})), Start(finetune=str(pretrained), head="weak"))
    data = tasks(folder, {"tuned": "strong"})
    data["model"]["model_dict"]["tuned"]["fitting_net"] = {"neuron": [3]}
    with pytest.raises(InputError, match="differs in shape.*--use-pretrain-script"):
        Trainer(settings_of(data), start)
