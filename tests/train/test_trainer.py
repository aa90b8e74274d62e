"""Trainings of seconds: they fit, restart with the same bits, and stop in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpa2md.engine import Engine
from dpa2md.errors import InputError, RunError
from dpa2md.train import train
from dpa2md.train.checkpoint import read_state
from dpa2md.train.curve import read_curve
from dpa2md.train.preparation import Start
from dpa2md.train.settings import settings_of
from dpa2md.train.trainer import Step, Trainer

from tests.support.tiny_training import DPA1, DPA2, double, repelling, single, write_anew


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state_of(path: Path, data: dict[str, Any]) -> dict[str, np.ndarray]:
    settings = settings_of(data)
    state = read_state(path, settings.optimizer, settings.multi_task)
    return {"vector": state.vector, "mean": state.adam.mean, "square": state.adam.square}


def assert_same_bits(one: Path, other: Path, data: dict[str, Any]) -> None:
    first, second = state_of(one, data), state_of(other, data)
    assert np.abs(first["square"]).max() > 0
    for name, values in first.items():
        assert values.tobytes() == second[name].tobytes(), name


@pytest.mark.quick
@pytest.mark.parametrize("descriptor", [DPA1, DPA2], ids=["dpa1", "dpa2"])
def test_a_few_frames_are_learnt(folder, descriptor):
    data = single(folder, descriptor, numb_steps=300, disp_freq=50)
    losses = []
    path = train(data, threads=1, callback=lambda step: losses.append(step.loss))
    assert path == Path("model.ckpt-300.pt")
    assert np.mean(losses[-10:]) < 0.1 * np.mean(losses[:10])
    curve = read_curve("lcurve.out")
    assert list(curve["step"]) == [1, 50, 100, 150, 200, 250, 300]
    # the checkpoint is the model: its forces are as near to the labels as the last line says
    frames = repelling()
    types = [["H", "C", "O"].index(e) for e in frames.elements]
    engine = Engine(path, threads=1)
    errors = [
        engine.compute(x, types, cell=box, pbc=[1, 1, 1]).forces - f
        for x, box, f in zip(*(frames.arrays[k] for k in ("coord", "box", "force")), strict=True)
    ]
    rmse = np.sqrt(np.mean(np.square(errors)))
    # the last line is of two of the four frames, before the last of the small steps
    assert rmse == pytest.approx(curve["rmse_f_trn"][-1], rel=0.5)


def test_two_tasks_are_learnt(folder):
    steps: list[Step] = []
    path = train(double(folder), threads=1, callback=steps.append)
    for name in ("weak", "strong"):
        losses = [step.loss for step in steps if step.task == name]
        assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    header = Path("lcurve.out").read_text().splitlines()[0].split()
    wanted = [f"rmse{q}_{s}_weak" for q in ("", "_e", "_f", "_v") for s in ("val", "trn")]
    assert header[2:-1] == wanted + [f"rmse{q}_trn_strong" for q in ("", "_e", "_f", "_v")]
    # of the last steps, weak's fitting net has had only its own
    state = read_state(path, settings_of(double(folder)).optimizer, True)
    assert state.steps == {name: sum(s.task == name for s in steps) for name in ("weak", "strong")}


@pytest.mark.parametrize("make", [single, double])
@pytest.mark.parametrize("averages", [False, True])
def test_stopped_and_restarted(folder, make, averages):
    """In the middle of a line's interval and between two checkpoints."""
    whole, parts = ({"disp_file": f"{n}.out", "save_ckpt": n, "numb_steps": 60} for n in ("a", "b"))
    more = {"save_freq": 20, "disp_avg": averages}
    data = make(folder, **whole, **more)
    train(data, threads=1)
    again = make(folder, **parts, **more)
    trainer = Trainer(settings_of(again), threads=1)
    stopped = trainer.run(lambda step: trainer.stop() if step.step == 33 else None)
    assert stopped == Path("b-33.pt")
    with open("b.out", "a") as file:  # lines of steps after the checkpoint, the last one cut short
        file.write("     50   1.0\n     55")
    last = train(again, restart=stopped, threads=1)
    assert_same_bits(Path("a-60.pt"), last, data)
    assert Path("a.out").read_bytes() == Path("b.out").read_bytes()
    assert Path("checkpoint").read_text() == "b-60.pt"
    assert Path("b.pt").resolve().name == "b-60.pt"


RUN = """
import json, os, signal, sys
from dpa2md.train import train
data, kill = json.load(open("input.json")), int(sys.argv[1])
def end(step):
    if step.step == kill:
        os.kill(os.getpid(), signal.SIGKILL)
train(data, threads=1, restart=sys.argv[2] if len(sys.argv) > 2 else None, callback=end)
"""


def run(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-c", RUN, *arguments], check=False).returncode


def test_killed_and_restarted(folder):
    data = single(folder, save_ckpt="a", disp_file="a.out")
    train(data, threads=1)
    data["training"] |= {"save_ckpt": "b", "disp_file": "b.out"}
    Path("input.json").write_text(json.dumps(data))
    assert run("47") == -signal.SIGKILL
    newest = Path("checkpoint").read_text()
    assert newest == "b-40.pt"
    assert len(read_curve("b.out")["step"]) == 10
    assert run("0", newest) == 0
    assert_same_bits(Path("a-60.pt"), Path("b-60.pt"), data)
    assert Path("a.out").read_bytes() == Path("b.out").read_bytes()


def test_killed_at_any_time(folder):
    """Whatever is being written: what `checkpoint` names can be read."""
    data = single(folder, save_freq=1, numb_steps=100000, max_ckpt_keep=2)
    Path("input.json").write_text(json.dumps(data))
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", RUN, "0"])
        while not Path("checkpoint").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3 * rng.random())
        process.kill()
        process.wait()
        state = read_state(Path("checkpoint").read_text(), settings_of(data).optimizer, False)
        assert state.step > 0
        os.unlink("checkpoint")


def test_old_checkpoints_go(folder):
    train(single(folder, save_freq=10, max_ckpt_keep=2, save_dir="kept"), threads=1)
    assert sorted(p.name for p in Path("kept").iterdir()) == [
        "model.ckpt-50.pt",
        "model.ckpt-60.pt",
    ]
    assert Path("checkpoint").read_text() == "kept/model.ckpt-60.pt"


def test_settings_of_a_run(folder):
    """The seed decides; one that is not given is said; the bias is changed after the last step."""

    def trained(**training: Any) -> np.ndarray:
        data = single(folder, numb_steps=3, **training)
        return state_of(train(data, threads=1), data)["vector"]

    one, same, other = trained(), trained(), trained(seed=4)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    trainer = Trainer(settings_of(single(folder, seed=None)), threads=1)
    assert any("training.seed is not given" in note for note in trainer.notes)

    def bias(**training: Any) -> np.ndarray:
        data = single(folder, numb_steps=3, **training)
        model = read_state(train(data, threads=1), settings_of(data).optimizer, False).model
        return model.tensors["atomic_model.out_bias"].ravel()

    before, after = bias(), bias(change_bias_after_training=True)
    # one composition: every element gets the same part of what is missed
    assert np.ptp(after - before) < 1e-9 < abs(after - before).max()


def test_notes_about_the_data(folder):
    data = single(folder)
    data["model"]["type_map"] = ["H", "C", "O", "Na"]
    notes = "\n".join(Trainer(settings_of(data), threads=1).notes)
    assert "don't tell the energies of H and C and O apart" in notes
    assert "preset_out_bias" in notes
    assert "No frame has Na" in notes


def test_a_loss_that_is_not_finite(folder):
    data = single(folder, save_freq=1, validation_data=None)
    data["learning_rate"] = {"type": "exp", "start_lr": 1e30, "stop_lr": 1e29}
    place = r"data/set.000, frame \d"
    with pytest.raises(RunError, match=rf"step 2, {place}, {place}: .* not finite; lower start_lr"):
        train(data, threads=1)
    assert Path("checkpoint").read_text() == "model.ckpt-1.pt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["loss"].update(start_pref_h=1), "start_pref_h"),
        (lambda d: d["learning_rate"].update(start_lr=0), "start_lr = 0"),
        (lambda d: d["training"]["training_data"].update(systems=["nowhere"]), "nowhere: there is no"),
        (lambda d: d["model"]["descriptor"].update(axis_neuron=4), r"axis_neuron is not that of"),
    ],
)  # fmt: skip
def test_a_restart_with_another_input(folder, change, message):
    data = single(folder, numb_steps=2)
    path = train(data, threads=1)
    data = json.loads(json.dumps(data)) | {}
    data["training"]["numb_steps"] = 4
    change(data)
    with pytest.raises(InputError, match=message):
        Trainer(settings_of(data), Start(restart=str(path)))


def test_an_ended_run_does_not_go_on(folder):
    data = single(folder, numb_steps=2)
    path = train(data, threads=1)
    with pytest.raises(InputError, match="of step 2, and the run has 2; raise numb_steps"):
        train(data, restart=path)
    data["training"]["numb_steps"] = 3
    notes = Trainer(settings_of(data), Start(restart=str(path))).notes
    assert any("number of steps" in note for note in notes)


# ---- pretrained models


def test_init_model_takes_the_parameters(folder):
    data = single(folder, numb_steps=2)
    path = train(data, threads=1)
    trainer = Trainer(settings_of(data | {}), Start(init_model=str(path)), threads=1)
    trained = state_of(path, data)["vector"].astype(np.float32)
    assert np.array_equal(trainer.state.vector, trained.astype(float))
    assert trainer.state.step == 0 and not trainer.state.adam.square.any()
    data["model"]["fitting_net"] = {"neuron": [10, 10]}
    with pytest.raises(InputError, match="differs in shape.*--use-pretrain-script"):
        Trainer(settings_of(data), Start(init_model=str(path)))


def test_finetuning_shifts_the_energy(folder):
    """The bias takes up another zero of energy: the first loss is that of the trained model."""
    data = single(folder, numb_steps=200, disp_freq=100)
    data["loss"] = data["loss"] | {"start_pref_f": 1.0, "limit_pref_f": 1.0}
    path = train(data, threads=1)
    moved = repelling()
    write_anew(folder / "data", moved.having(energy=moved.arrays["energy"] + 1200.0))
    write_anew(folder / "held_out", moved.having(energy=moved.arrays["energy"] + 1200.0))
    data["training"] |= {"numb_steps": 1, "disp_freq": 1}
    before = read_curve("lcurve.out")["rmse_e_trn"][-1]
    train(data, finetune=path, threads=1)
    assert read_curve("lcurve.out")["rmse_e_trn"][0] < 10 * before + 0.01
    # a new fitting net: other parameters, the same descriptor
    new = Trainer(settings_of(data), Start(finetune=str(path), head="RANDOM"), threads=1)
    old = Trainer(settings_of(data), Start(finetune=str(path)), threads=1)
    for name, tensor in old.state.model.tensors.items():
        if name.endswith(".matrix"):
            same = np.array_equal(tensor, new.state.model.tensors[name])
            assert same == (".descriptor." in name), name


def test_parameters_of_frames_and_atoms(folder):
    """An energy that only fparam tells is learnt; elements that no frame has disturb nothing."""
    data = single(folder, numb_steps=300, disp_freq=100, validation_data=None)
    frames = repelling()
    fparam = np.arange(4.0)[:, None]
    shifted = frames.arrays["energy"] + 2.0 * fparam[:, 0]
    aparam = np.random.default_rng(0).normal(size=(4, 12, 1))
    write_anew(folder / "data", frames.having(energy=shifted, fparam=fparam, aparam=aparam))
    data["model"]["fitting_net"] |= {"numb_fparam": 1, "numb_aparam": 1}
    data["model"]["type_map"] = ["Na", "O", "C", "Cl", "H"]
    data["loss"] |= {"start_pref_e": 100.0, "limit_pref_e": 100.0}
    path = train(data, threads=1)
    # the spread of 2 eV times fparam is 2.2 eV, 0.19 eV an atom
    assert read_curve("lcurve.out")["rmse_e_trn"][-1] < 0.02
    tensors = read_state(path, settings_of(data).optimizer, False).model.tensors
    assert tensors["atomic_model.fitting_net.fparam_avg"] == pytest.approx(1.5)


def test_losses_of_all_kinds(folder):
    """Atomic energies, absolute and Huber's costs, wsd with a warmup: each falls."""
    frames = repelling()
    energies = np.repeat(frames.arrays["energy"][:, None] / 12, 12, axis=1)
    for extra in ({"start_pref_ae": 1.0, "limit_pref_ae": 1.0}, {"loss_func": "mae"},
                  {"use_huber": True, "huber_delta": 0.05}):  # fmt: skip
        data = single(folder, numb_steps=200, disp_freq=100)
        for name in ("data", "held_out"):
            write_anew(folder / name, frames.having(atom_ener=energies))
        data["loss"] |= extra
        data["learning_rate"] = {"type": "wsd", "start_lr": 0.01, "stop_lr": 1e-4,
                                 "warmup_steps": 10}  # fmt: skip
        losses: list[float] = []
        train(data, threads=1, callback=lambda step, seen=losses: seen.append(step.loss))
        assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10]), extra
        first = Path("lcurve.out").read_text().splitlines()[0]
        assert ("mae_f_trn" in first) == ("loss_func" in extra)
        assert ("rmse_ae_val" in first) == ("start_pref_ae" in extra)
