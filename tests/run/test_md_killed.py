"""`kill -9` at any moment: the run goes on from the last row of the table, to the very same end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dpa2md
import numpy as np
import pytest
from ase.io import read, write

from tests.support.small_models import crystal, small_model

INTERVAL = 5  # steps between rows
STEPS = 120
WAYS = {
    "nve": ["--ensemble", "nve"],
    "langevin": ["--ensemble", "nvt", "--thermostat", "langevin", "--friction", "10"],
    "bussi": ["--ensemble", "nvt", "--thermostat", "bussi"],
    "nose-hoover": ["--ensemble", "nvt", "--thermostat", "nose-hoover"],
}


@pytest.fixture
def start(tmp_path):
    """Begins `dpa2md md` as a process of its own, in a folder."""
    model = small_model(tmp_path, scale=100.0)
    atoms = crystal(rattle=0.05)
    atoms.set_masses(np.full(len(atoms), 50.0))
    write(tmp_path / "start.traj", atoms)

    def begin(folder: Path, *options: str) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "dpa2md", "md", str(model), str(tmp_path / "start.traj"),
                   "--threads", "1", "--interval", str(INTERVAL), "--steps", str(STEPS), "--seed", "3",
                   "--restart", "--quiet", *options]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(Path(dpa2md.__file__).parents[1])}
        return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE)

    return begin


def rows(folder: Path) -> int:
    """How many lines of the table have reached the disk."""
    log = folder / "md.csv"
    return log.read_text().count("\n") - 1 if log.exists() else 0


def kill_after(process: subprocess.Popen, folder: Path, wanted: int, delay: float) -> int:
    """Kill when `wanted` rows are there and `delay` seconds have passed; returns the rows then."""
    deadline = time.monotonic() + 60
    while rows(folder) < wanted and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.wait()
    return rows(folder)


@pytest.mark.parametrize(
    ("way", "extension"),
    [("nve", "xyz"), ("langevin", "traj"), ("bussi", "xyz"), ("nose-hoover", "traj")],
)
def test_killed_runs_reach_the_same_end(start, tmp_path, way, extension):
    options = [*WAYS[way], "--traj", f"md.{extension}"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole, *options)
    assert process.wait(timeout=120) == 0, process.stderr.read()
    rng = np.random.default_rng(len(way))
    kills = 0
    for wanted in (1, 9):
        there = kill_after(start(killed, *options), killed, wanted, rng.uniform(0, 0.05))
        kills += there < STEPS // INTERVAL + 1
        with np.load(killed / "md.checkpoint.npz") as checkpoint:
            step = int(str(checkpoint["facts"]).split('"step": ')[1].split(",")[0])
        # at most the last interval is lost: of the last row only its checkpoint may be missing
        assert step >= (there - 2) * INTERVAL or there == 1
    assert kills >= 1  # a run that had ended would prove nothing
    process = start(killed, *options)
    assert process.wait(timeout=120) == 0, process.stderr.read()
    assert (killed / "md.csv").read_text() == (whole / "md.csv").read_text()
    runs = json.loads((killed / "md.settings.json").read_text())["runs"]
    begun = [run["from_step"] for run in runs]
    assert len(begun) == 3 and begun == sorted(begun) and begun[0] == 0
    frames, others = (read(f / f"md.{extension}", ":") for f in (killed, whole))
    assert len(frames) == len(others) == STEPS // INTERVAL + 1
    for frame, other in zip(frames, others, strict=True):
        np.testing.assert_array_equal(frame.positions, other.positions)
        np.testing.assert_array_equal(frame.get_momenta(), other.get_momenta())


def test_killed_before_the_first_row(start, tmp_path):
    """Then there is nothing, and the same command begins again."""
    folder = tmp_path / "run"
    process = start(folder)
    time.sleep(0.2)  # Python is still importing
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(folder.iterdir())
    assert start(folder).wait(timeout=120) == 0
    assert rows(folder) == STEPS // INTERVAL + 1
