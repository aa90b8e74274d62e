"""A real Slurm: drivers that are killed give no job to the queue twice."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.job_driver import Driver, counts
from tests.support.selection import skip_or_fail
from tests.support.slurm import running_slurm

JOBS = 5


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
    resources = {"queue_name": "main", "number_node": 1, "cpu_per_node": 1, "group_size": 1}
    (run / "machine.json").write_text(json.dumps(machine))
    (run / "resources.json").write_text(json.dumps(resources))
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
