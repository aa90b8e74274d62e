"""Fine-tuning in rounds, and runs in which jobs fail."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ase.io import read
from dpa2md import evaluate
from dpa2md.base.files import sha256
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.workflow import distill, finetune_loop
from dpa2md.workflow.driver import Result
from dpa2md.workflow.status import read_status

from tests.support.deepmd_kit import run_deepmd
from tests.support.paths import ROOT
from tests.support.small_rounds import distill_settings, loop_settings

PRETRAINED = ROOT / "examples" / "water.pt"

# A calculator that fails for the first frame of a job, as a DFT program that does not converge.
FAILING = """
import os

from dpa2md import DPA2Calculator

class Failing(DPA2Calculator):
    first = None

    def calculate(self, atoms, *arguments):
        if Failing.first is None:
            Failing.first = atoms.positions.copy()
        moved = abs(Failing.first - atoms.positions).max()
        if os.getcwd().endswith("round-1/030-label/part-0") and moved < 1e-6:
            raise RuntimeError("no convergence in 100 steps")
        super().calculate(atoms, *arguments)

def make():
    return Failing("water")
"""


def test_a_loop(tmp_path):
    """Two rounds; the labels are those of the calculator, and each tuning starts from the pretrained model."""
    (tmp_path / "given.py").write_text(FAILING)
    path = loop_settings(tmp_path, PRETRAINED, label={"calculator": "given:make"})
    result = finetune_loop(path, tmp_path / "run")
    run = tmp_path / "run"
    assert result.model == run / "tuned.dpa2"
    assert [state.round for state in result.rounds] == [1, 2]
    first = run / "round-1" / "030-label"
    labelled = read(first / "part-0" / "labelled.extxyz", ":")
    truth = evaluate("water", [atoms.copy() for atoms in labelled])
    for atoms, result in zip(labelled, truth, strict=True):
        # eight decimals in the file, float32 in another order of atoms' neighbours
        assert abs(atoms.get_forces() - result["forces"]).max() < 1e-4
    # of 8 frames a quarter is held out, and one of the others could not be labelled
    failures = json.loads((first / "part-0" / "labelled.json").read_text())["failures"]
    assert "no convergence in 100 steps" in failures[0]["reason"]
    assert len(labelled) == 8 - 2 - 1
    held_out = [run / f"round-{n}" / "030-label" / "held-out-0" for n in (1, 2)]
    assert all((folder / "labelled.extxyz").exists() for folder in held_out)
    script = (run / "round-2" / "040-train" / "run.sh").read_text()
    assert "--finetune ../../pretrained/pretrained.pt" in script
    select = (run / "round-2" / "020-select" / "run.sh").read_text()
    assert "--teacher ../../pretrained/model.dpa2 --student ../../round-1/040-train" in select
    validated = sorted(path.name for path in (run / "round-2" / "050-validate").iterdir())
    assert validated == ["held-out-0", "held-out-1", "trained"]


def test_a_loop_on_the_command_line(tmp_path, capsys):
    path = loop_settings(tmp_path, PRETRAINED)
    assert main(["finetune", "--loop", str(path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "8 frames by dpa2md.calculator:DPA2Calculator: its own time comes on top" in out
    assert main(["finetune", "x.pt", "data", "--loop", str(path)]) == 2
    assert "leave them out" in capsys.readouterr().err
    assert main(["finetune", "x.pt"]) == 2
    assert "Give PRETRAINED, DATA and -o OUT.dpa2, or --loop" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with settings, and a run of two short rounds."""
    folder = tmp_path_factory.mktemp("finished")
    distill(distill_settings(folder, perturbed=0, steps=24), folder / "run")
    return folder


def again(finished: Path, folder: Path, round_: int, change: Callable[[dict], None]) -> Result:
    """Go on in a copy of that run whose training was changed by hand, in a round."""
    shutil.copytree(finished / "run", folder / "run")
    file = folder / "run" / f"round-{round_}" / "040-train" / "input.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    return distill(finished / "distill.json", folder / "run")


def started(run: Path, name: str) -> int:
    return (run / "log.txt").read_text().count(f"{name} started")


def test_a_training_that_was_changed_by_hand(finished, tmp_path):
    """It runs again with that, and so does what follows from it, and nothing else."""
    result = again(finished, tmp_path, 2, lambda d: d["training"].update(numb_steps=330))
    assert [state.steps for state in result.rounds] == [300, 330]
    run = tmp_path / "run"
    assert (run / "round-2" / "040-train" / "model.ckpt-330.pt").exists()
    assert started(run, "round-2/040-train") == started(run, "round-2/050-validate/s0-t300") == 2
    assert started(run, "round-1/040-train") == started(run, "round-2/020-select") == 1


def test_a_training_that_fails(finished, tmp_path):
    """The student before is kept, and it is said; the job is set aside after three attempts."""

    def spoil(data: dict) -> None:
        data["training"]["training_data"]["batch_size"] = "filter:2"

    result = again(finished, tmp_path, 2, spoil)
    assert [state.good for state in result.rounds] == [True, False]
    assert result.rounds[1].why == "the training failed; the model of round 1 is kept"
    assert result.rounds[1].set_aside == ("round-2/040-train",)
    assert result.round == 1
    run = tmp_path / "run"
    assert sha256(result.model) == sha256(run / "round-1" / "040-train" / "model.dpa2")
    assert started(run, "round-2/040-train") == 1 + 3
    assert "filter leaves none" in read_status(run).set_aside["round-2/040-train"]


def test_retry_failed(finished, tmp_path, capsys):
    """What was set aside stays aside, until the command is told to start it anew."""
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    script = run / "report" / "run.sh"
    script.write_text("[ -e ../fixed ] || exit 1\n" + script.read_text())
    command = ["distill", str(finished / "distill.json"), "--folder", str(run)]
    assert main(command) == 0
    assert "report: there is no report" in capsys.readouterr().err
    (run / "fixed").touch()
    assert main(command) == 0
    assert started(run, "report") == 1 + 3
    assert main([*command, "--retry-failed"]) == 0
    assert started(run, "report") == 1 + 3 + 1
    assert not (run / "report" / "failed.json").exists()
    assert main(["finetune", "x.pt", "data", "-o", "y.dpa2", "--retry-failed"]) == 2
    assert "--retry-failed is for --loop" in capsys.readouterr().err


def test_a_student_that_diverges(finished, tmp_path):
    """So, too, a student whose forces are worth nothing."""

    def spoil(data: dict) -> None:
        data["learning_rate"] |= {"start_lr": 1e9, "stop_lr": 1e9}

    result = again(finished, tmp_path, 2, spoil)
    assert [state.good for state in result.rounds] == [True, False]
    assert "the model of round 1 is kept" in result.rounds[1].why
    assert result.round == 1


def test_no_student_at_all(finished, tmp_path):
    """Where the first round gives none the run ends with a sentence; the same command tries again."""

    def spoil(data: dict) -> None:
        data["training"]["training_data"]["batch_size"] = "filter:2"

    shutil.copytree(finished / "run", tmp_path / "old")
    with pytest.raises(RunError, match="round 1 gave no model: the training failed"):
        again(finished, tmp_path, 1, spoil)
    shutil.rmtree(tmp_path / "run" / "round-2")
    with pytest.raises(RunError, match="round 1 gave no model"):
        distill(finished / "distill.json", tmp_path / "run")
    assert started(tmp_path / "run", "round-1/040-train") == 1 + 3 + 3


def test_deepmd_trains(tmp_path, monkeypatch):
    """The same input.json, by DeePMD-kit; the checkpoint is killed off and goes on, too."""
    run_deepmd("-c", "pass", folder=tmp_path)
    python = Path(os.environ["DPA2MD_DEEPMD"])
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{python.parent}")
    path = distill_settings(tmp_path, perturbed=0, trainer="deepmd", steps=24)
    result = distill(path, tmp_path / "run")
    assert [state.good for state in result.rounds] == [True, True]
    checkpoint = tmp_path / "run" / "round-2" / "040-train" / "model.ckpt-320.pt"
    frames = read(tmp_path / "box.xyz", ":")
    ours, theirs = (evaluate(model, frames)[0]["forces"] for model in (result.model, checkpoint))
    assert abs(ours - theirs).max() == 0  # converted, it is the same model
