"""Trainings as jobs: their run.sh, and one by several processes."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
from ase.io import write
from dpa2md import evaluate
from dpa2md.errors import RunError
from dpa2md.structures import water_box
from dpa2md.train.checkpoint import read_state
from dpa2md.train.settings import settings_of
from dpa2md.workflow.jobs import Event, Job, run_jobs
from dpa2md.workflow.local import LocalRunner
from dpa2md.workflow.settings import read_settings
from dpa2md.workflow.trainers import INPUT, MODEL, TRAINERS, DeepmdTrainer, OwnTrainer, Start, Task
from dpa2md.workflow.training_input import training_input

from tests.support.mpi import require_mpirun
from tests.support.small_rounds import STUDENT, distill_settings

DIVIDED = (
    '[ -z "${OMP_NUM_THREADS:-}" ] || '
    "export OMP_NUM_THREADS=$((OMP_NUM_THREADS > 4 ? OMP_NUM_THREADS / 4 : 1))"
)


def task(ranks: int) -> Task:
    return Task(("a b.xyz",), 10, Start("--init-model", "../old.pt"), ranks)


def test_a_process_alone():
    """As it is without the setting."""
    for trainer in TRAINERS.values():
        text = "\n".join(trainer.commands(task(1)))
        assert "mpirun" not in text and "torchrun" not in text
        assert "export OMP_NUM_THREADS" not in text


def test_several_processes():
    """The start and the going on are both of all ranks; the threads are divided before."""
    own = OwnTrainer().commands(task(4))
    assert own[0] == "[ -e data ] || dpa2md systems 'a b.xyz' -o data"
    assert own[1] == DIVIDED
    train = "mpirun -n 4 dpa2md train input.json --quiet"
    assert f"  {train} --init-model ../old.pt\n" in own[2]
    assert f'  {train} --restart "$(cat checkpoint)"\n' in own[2]
    assert own[3] == "dpa2md convert model.ckpt-10.pt -o model.dpa2"
    other = DeepmdTrainer().commands(task(4))
    assert other[1] == DIVIDED
    train = "torchrun --nproc_per_node 4 --no-python dp --pt train input.json --skip-neighbor-stat"
    assert "\n".join(other).count(f"  {train} --") == 2


@pytest.mark.parametrize(("given", "each"), [("8", "2"), ("3", "1"), ("", "")])
def test_threads_are_divided(tmp_path, given, each):
    line = OwnTrainer().commands(task(4))[1]
    job = Job(tmp_path / "job", (line, 'echo "$OMP_NUM_THREADS" > out'), (), ("out",), run=tmp_path)
    job = Job(**(vars(job) | {"commands": (f"export OMP_NUM_THREADS={given}", *job.commands)}))
    (result,) = run_jobs([job], LocalRunner(1), report=lambda event: None)
    assert result.state == "done"
    assert (tmp_path / "job" / "out").read_text().strip() == each


def test_programs_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    OwnTrainer().check(1)
    with pytest.raises(RunError, match="ranks: 2 needs mpirun and mpi4py; install"):
        OwnTrainer().check(2)
    with pytest.raises(RunError, match="needs the command dp; install"):
        DeepmdTrainer().check(1)
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "torchrun" else name)
    DeepmdTrainer().check(1)
    with pytest.raises(RunError, match="needs the command torchrun; install"):
        DeepmdTrainer().check(2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="ranks: 2 needs mpirun and mpi4py"):
        OwnTrainer().check(2)


def test_the_setting(tmp_path):
    assert read_settings(distill_settings(tmp_path)).training.ranks == 1
    assert read_settings(distill_settings(tmp_path, ranks=2)).training.ranks == 2


def test_a_training_of_two_processes(tmp_path, monkeypatch):
    program = Path(require_mpirun())
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    frames = [water_box(8, seed=k) for k in range(3)]
    for atoms, found in zip(frames, evaluate("water", frames), strict=True):
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = found["energy"], found["forces"]
    write(tmp_path / "frames.extxyz", frames)
    folder = tmp_path / "train"
    folder.mkdir()
    data = training_input(
        STUDENT | {"type_map": ["O", "H"]}, steps=20, rates=(1e-2, 1e-4), batch=1, seed=1,
        pretrained=False,
    )  # fmt: skip
    (folder / INPUT).write_text(json.dumps(data))
    job = Job(
        folder,
        OwnTrainer().commands(Task(("../frames.extxyz",), 20, None, ranks=2)),
        (folder / INPUT, tmp_path / "frames.extxyz"),
        (MODEL, "model.ckpt-20.pt"),
        threads=1,
        run=tmp_path,
    )
    events: list[Event] = []
    (result,) = run_jobs([job], LocalRunner(1), report=events.append)
    assert result.state == "done", events
    state = read_state(folder / "model.ckpt-20.pt", settings_of(data).optimizer, False)
    assert state.sections["number of ranks"] == "2"
    assert evaluate(folder / MODEL, frames)[0]["forces"].any()
