"""A real Slurm: drivers that are killed give no job to the queue twice, and a whole distillation ends as it would here."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dpa2md
import pytest
from dpa2md.base.files import sha256
from dpa2md.workflow import distill

from tests.support.job_driver import Driver, counts
from tests.support.selection import skip_or_fail
from tests.support.slurm import running_slurm
from tests.support.small_rounds import distill_settings

JOBS = 5
RESOURCES = {"queue_name": "main", "number_node": 1, "cpu_per_node": 1, "group_size": 1}


@pytest.fixture(scope="module")
def slurm():
    if not importlib.util.find_spec("dpdispatcher"):
        skip_or_fail("slurm", "needs dpdispatcher: pip install 'dpa2md[cluster]'")
    with tempfile.TemporaryDirectory() as folder, running_slurm(Path(folder)) as environment:
        yield environment


@pytest.mark.parametrize("moment", ["while they are submitted", "while they run"])
def test_killed_drivers(slurm, tmp_path, moment):
    """Six jobs, one of which always fails: that is started three times, the others once."""
    run = tmp_path / "run"
    run.mkdir()
    machine = {"batch_type": "Slurm", "context_type": "LazyLocalContext", "local_root": "./"}
    (run / "machine.json").write_text(json.dumps(machine))
    (run / "resources.json").write_text(json.dumps(RESOURCES))
    arguments = (run, JOBS, 1.0, run / "machine.json", run / "resources.json")
    driver = Driver(*arguments, environment=slurm)
    if moment == "while they run":
        driver.wait_for("started", 2)
    else:
        deadline = time.monotonic() + 60
        while not list(run.glob("*/*_job_id")):
            assert time.monotonic() < deadline, driver.lines
            time.sleep(0.005)
    assert driver.kill()
    driver = Driver(*arguments, environment=slurm)
    assert driver.end() == 0, driver.lines
    assert any(line.startswith("found") for line in driver.lines)
    states = [f"job-{n}:done:1" for n in range(JOBS)] + ["bad:failed:3"]
    assert driver.lines[-1] == " ".join(["results", *states])
    once = {f"{word} {n}": 1 for word in ("start", "end") for n in range(JOBS)}
    assert counts(run) == once | {"start bad": 3}
    driver = Driver(*arguments, environment=slurm)
    assert driver.end() == 0
    assert counts(run) == once | {"start bad": 3}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """The run's folder without a queue."""
    folder = tmp_path_factory.mktemp("here")
    distill(distill_settings(folder, threads=1), folder / "run")
    return folder / "run"


def test_whole_distillation(slurm, here, tmp_path):
    """On another disk, by copies; the driver is killed once while jobs are in the queue."""
    machine = {"batch_type": "Slurm", "context_type": "LocalContext", "local_root": "./"}
    machine["remote_root"] = str(tmp_path / "node")
    (tmp_path / "node").mkdir()
    package = str(Path(dpa2md.__file__).parents[1])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    of_jobs = {"PATH": path, "PYTHONPATH": package, "OMP_NUM_THREADS": 1}
    resources = RESOURCES | {"group_size": 2, "envs": of_jobs}
    (tmp_path / "machine.json").write_text(json.dumps(machine))
    (tmp_path / "resources.json").write_text(json.dumps(resources))
    cluster = {"machine": "machine.json", "resources": "resources.json"}
    settings, run = distill_settings(tmp_path, threads=1, cluster=cluster), tmp_path / "run"
    command = [sys.executable, "-m", "dpa2md", "distill", str(settings), "--folder", str(run)]
    options = {"env": os.environ | slurm | {"PYTHONPATH": package}, "text": True}
    with open(tmp_path / "printed", "w") as printed:
        first = subprocess.Popen(command, **options, stdout=printed, stderr=printed)
    deadline = time.monotonic() + 200
    while not (run / "round-1" / "030-label" / "part-0" / "running.json").exists():
        assert first.poll() is None, (tmp_path / "printed").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    second = subprocess.run(command, **options, check=False, capture_output=True, timeout=400)
    assert second.returncode == 0, second.stderr[-2000:]
    assert sha256(run / "student.dpa2") == sha256(here / "student.dpa2")
    assert not list((tmp_path / "node").iterdir())
    ended = re.findall(r" (\S+) done", (run / "log.txt").read_text())
    assert len(ended) == len(set(ended)) == len(list(run.glob("**/done.json")))
