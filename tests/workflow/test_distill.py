"""Whole distillations of the shipped model, in half a minute each; killed ones end with the same bits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dpa2md
import numpy as np
import pytest
from ase.io import read
from dpa2md import Engine, evaluate
from dpa2md.base.files import sha256
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.workflow import distill
from dpa2md.workflow.driver import Result
from dpa2md.workflow.status import read_status

from tests.support.small_rounds import distill_settings

KILLS = int(os.environ.get("DPA2MD_KILLS", "4"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Result, list]:
    """A run that nobody disturbs: its folder, its result, what it reported."""
    folder = tmp_path_factory.mktemp("whole")
    told: list = []
    result = distill(distill_settings(folder), folder / "run", report=told.append)
    return folder / "run", result, told


def test_what_it_leaves(whole):
    run, result, _ = whole
    assert result.model == run / "student.dpa2"
    assert result.report == run / "report.html"
    assert [state.round for state in result.rounds] == [1, 2]
    assert result.model.read_bytes() == (run / "round-2" / "040-train" / "model.dpa2").read_bytes()
    assert not (run / "lock").exists()
    stages = sorted(path.name for path in (run / "round-1").iterdir() if path.is_dir())
    assert stages == ["010-explore", "020-select", "030-label", "040-train", "050-validate"]
    jobs = [path.parent for path in run.glob("**/run.sh")]
    assert len(jobs) == 1 + 2 * 6 + 1 + 1  # teacher, two rounds, perturbed copies, report
    assert all((job / "done.json").exists() for job in jobs)


def test_errors_are_those_of_the_frames(whole):
    """The error of a round, from its model and the teacher on the frames that it drove itself."""
    run, result, _ = whole
    for state in result.rounds:
        folder = run / f"round-{state.round}"
        frames = read(folder / "050-validate" / "s0-t300" / "frames.extxyz", ":")
        student = evaluate(folder / "040-train" / "model.dpa2", frames)
        teacher = evaluate("water", frames)
        off = [a["forces"] - b["forces"] for a, b in zip(student, teacher, strict=True)]
        rms = np.sqrt(np.mean(np.square(off)))
        # positions have eight decimals in files, and both models compute in float32
        assert state.force_error == pytest.approx(rms, rel=1e-4)


def test_rounds_build_on_each_other(whole):
    """Later rounds begin with the student before, train on all frames, and differ in their frames."""
    run, result, _ = whole
    first, second = result.rounds
    assert second.frames == first.frames + second.labelled
    script = (run / "round-2" / "040-train" / "run.sh").read_text()
    assert "--init-model ../../round-1/040-train/model.ckpt-300.pt" in script
    inputs = [
        json.loads((run / f"round-{n}" / "040-train" / "input.json").read_text()) for n in (1, 2)
    ]
    assert inputs[0]["model"] == inputs[1]["model"]
    assert [one["training"]["numb_steps"] for one in inputs] == [300, 320]
    # a student that goes on begins with less, and ends alike
    rates = [(one["learning_rate"]["start_lr"], one["learning_rate"]["stop_lr"]) for one in inputs]
    assert rates == [(0.01, 1e-4), (pytest.approx(0.004), 1e-4)]
    frames = [
        read(run / f"round-{n}" / "030-label" / "part-0" / "labelled.extxyz", ":") for n in (1, 2)
    ]
    assert len(frames[0]) + len(frames[1]) == second.frames
    gaps = [abs(a.positions - b.positions).max() for a in frames[0] for b in frames[1]]
    assert min(gaps) > 0
    assert Engine(run / "student.dpa2").elements == ["O", "H"]


def test_sel_is_counted(whole):
    """Room for a quarter more neighbours than any atom of the first frames has, in steps of four."""
    run, _, _ = whole
    sel = json.loads((run / "round-1" / "040-train" / "input.json").read_text())["model"][
        "descriptor"
    ]["sel"]
    most = 0
    for atoms in read(run / "round-1" / "030-label" / "part-0" / "labelled.extxyz", ":"):
        images = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)])
        shifts = images @ atoms.cell.array
        gaps = atoms.positions[None, :, None] + shifts - atoms.positions[:, None, None]
        near = np.linalg.norm(gaps, axis=-1) < 4.0
        most = max(most, int(near.sum(axis=(1, 2)).max()) - 1)  # not the atom itself
    # the student's own rule is "auto": DeePMD-kit's ratio 1.1
    assert sel == 4 * ((int(1.1 * most) + 3) // 4)


def test_what_it_reports(whole):
    run, _, told = whole
    assert told[0].stage == "start"
    assert told[-1].stage == "finished"
    assert told[-1].left == 0
    assert {p.stage for p in told if p.round == 1} == {
        "explore", "select", "label", "train", "validate"
    }  # fmt: skip
    lines = (run / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in lines)
    assert lines[-1].endswith("finished: student.dpa2 is the model of round 2")


def test_status(whole, capsys):
    run, result, _ = whole
    status = read_status(run)
    assert (status.state, status.rounds, status.model) == ("finished", result.rounds, result.model)
    assert not status.running and not status.set_aside
    assert main(["status", str(run)]) == 0
    assert "finished" in capsys.readouterr().out


def test_a_finished_run_is_left_alone(whole):
    run, result, _ = whole
    before = {path: path.stat().st_mtime_ns for path in run.glob("round-*/*/*/done.json")}
    again = distill(run.parent / "distill.json", run)
    assert again == result
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_are_refused(whole):
    run, _, _ = whole
    path = distill_settings(run.parent / "other", temperatures=[400])
    with pytest.raises(RunError, match=r"structures is not as the run in .* began"):
        distill(path, run)


def test_dry_run_says_what_is_done(whole, capsys, monkeypatch):
    """Its jobs have the very lines of the run's scripts."""
    run, _, _ = whole
    monkeypatch.chdir(run.parent)
    settings = str(run.parent / "distill.json")
    assert main(["distill", settings, "--dry-run", "--folder", "elsewhere"]) == 0
    out = capsys.readouterr().out
    scripts = re.findall(r"^(\S+)/run\.sh\n((?:    .*\n)+)", out, re.MULTILINE)
    assert len(scripts) == 7
    for name, text in scripts:
        lines = [line.removeprefix("    ") for line in text.splitlines()]
        assert "\n".join(lines) in (run / name / "run.sh").read_text()
    assert not (run.parent / "elsewhere").exists()


def test_a_run_can_be_moved_and_goes_on(whole, tmp_path):
    """Nothing runs again in a copy at another place, but what was removed."""
    run, result, _ = whole
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "round-2" / "050-validate")
    again = distill(run.parent / "distill.json", tmp_path / "run")
    assert sha256(again.model) == sha256(result.model)
    assert [s.force_error for s in again.rounds] == [s.force_error for s in result.rounds]
    log = (tmp_path / "run" / "log.txt").read_text().partition("finished")[2]
    ended = re.findall(r" (\S+) done after", log)
    assert ended == ["round-2/050-validate/s0-t300", "round-2/050-validate/trained"]


def test_a_line_that_was_lost_is_said_by_the_next_driver(whole, tmp_path):
    """A driver may be killed after it wrote done.json, and before it wrote the line of the log."""
    run, _, _ = whole
    shutil.copytree(run, tmp_path / "run")
    log = tmp_path / "run" / "log.txt"
    lines = log.read_text().splitlines()
    (lost,) = [line for line in lines if "round-1/040-train done after" in line]
    log.write_text("".join(f"{line}\n" for line in lines if line != lost))
    for _ in range(2):
        distill(run.parent / "distill.json", tmp_path / "run")
        ended = re.findall(r" (\S+ done after .*)", log.read_text())
        assert sorted(ended) == sorted(re.findall(r" (\S+ done after .*)", "\n".join(lines)))


class Killed:
    """A distillation in a process of its own, that is killed."""

    def __init__(self, settings: Path, run: Path):
        self.run = run
        command = [sys.executable, "-m", "dpa2md", "distill", str(settings), "--folder", str(run)]
        environment = os.environ | {"PYTHONPATH": str(Path(dpa2md.__file__).parents[1])}
        self.printed = run.parent / "printed"
        with open(self.printed, "wb") as file:
            self.process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by itself."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        assert status == 0, self.printed.read_text()[-2000:]
        return True

    def kill(self, jobs: bool) -> None:
        """SIGKILL to the driver, or to its jobs, too."""
        self.process.kill()
        self.process.wait()
        for record in self.run.glob("**/running.json") if jobs else ():
            process = json.loads(record.read_text())["process"]
            if process is not None:
                try:
                    os.killpg(process["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    pass


def test_killed_at_any_moment(whole, tmp_path):
    """The same command goes on; the student is the same to the bit, and no job is done twice."""
    run, result, _ = whole
    rng = np.random.default_rng(5)
    kills = 0
    while True:
        killed = Killed(run.parent / "distill.json", tmp_path / "run")
        # the last one may take long on a busy machine
        if killed.wait(400 if kills == KILLS else rng.uniform(1, 12 if KILLS < 10 else 2.5)):
            break
        assert kills < KILLS, killed.printed.read_text()[-2000:]
        killed.kill(jobs=kills % 2 == 0)
        kills += 1
        time.sleep(0.1)
    assert sha256(tmp_path / "run" / "student.dpa2") == sha256(result.model)
    states = [tmp_path / "run" / f"round-{n}" / "round.json" for n in (1, 2)]
    for path, state in zip(states, result.rounds, strict=True):
        assert json.loads(path.read_text())["force_error"] == state.force_error
    log = (tmp_path / "run" / "log.txt").read_text()
    ended = re.findall(r" (\S+) done", log)
    assert len(ended) == len(set(ended))
    assert len(ended) == len(list((tmp_path / "run").glob("**/done.json")))
    for name in ended:
        assert f" {name} started" not in log.partition(f" {name} done")[2]
    assert kills or KILLS == 0
