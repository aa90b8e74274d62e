"""`kill -9` of drivers and jobs at any moment: what is done is not done again, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from dpa2md.base.processes import ProcessMark
from dpa2md.workflow.folders import JobFolder
from dpa2md.workflow.jobs import run_jobs
from dpa2md.workflow.local import LocalRunner

from tests.support.job_driver import Driver, counts, make_jobs

JOBS = 8
ONCE = {f"{word} {n}": 1 for n in range(JOBS) for word in ("start", "end")}


def processes(run: Path) -> list[ProcessMark]:
    """Of the jobs that run."""
    records = [json.loads(p.read_text()) for p in run.glob("*/*/running.json")]
    return [ProcessMark(**r["process"]) for r in records if r["process"]]


def done(run: Path) -> set[str]:
    return {path.parent.name for path in run.glob("*/*/done.json")}


def test_killed_drivers(tmp_path):
    """Twenty of them, each at a random moment; their jobs live on, so that each starts just once."""
    rng = np.random.default_rng(1)
    kills = rounds = 0
    while kills < 20:
        run = tmp_path / f"run-{rounds}"
        rounds += 1
        while len(done(run)) < JOBS:
            driver = Driver(run, JOBS, 0.3)
            driver.wait_for("ready")
            time.sleep(rng.uniform(0, 0.3))
            kills += driver.kill()
        assert counts(run) == ONCE
        results = run_jobs(make_jobs(run, JOBS, 0.3), LocalRunner(), report=lambda event: None)
        assert [r.state for r in results] == ["done"] * JOBS
        assert counts(run) == ONCE
        assert not list(run.glob("*/*/running.json"))


def test_killed_drivers_and_jobs(tmp_path):
    """As when the machine loses power: a job that was done is not started again, the others are."""
    rng = np.random.default_rng(2)
    kills, cut_off = 0, 0
    while len(done(tmp_path)) < JOBS:
        driver = Driver(tmp_path, JOBS, 0.3)
        driver.wait_for("ready")
        time.sleep(rng.uniform(0.1, 0.6))
        kills += driver.kill()
        for mark in processes(tmp_path):
            if mark.alive():
                os.killpg(mark.pid, signal.SIGKILL)
                cut_off += 1
        assert kills < 30
        before, finished = counts(tmp_path), done(tmp_path)
        driver = Driver(tmp_path, JOBS, 0.3)
        driver.wait_for("started", 1)
        driver.kill()
        for name in finished:
            line = f"start {name.removeprefix('job-')}"
            assert counts(tmp_path)[line] == before[line]
    assert kills > 1 and cut_off > 1
    assert {line for line in counts(tmp_path) if line.startswith("end")} == {
        f"end {n}" for n in range(JOBS)
    }
    results = run_jobs(make_jobs(tmp_path, JOBS, 0.3), LocalRunner(), report=lambda event: None)
    assert [r.state for r in results] == ["done"] * JOBS
    # Being cut off is no failure: no job was set aside, however often it was killed.
    assert max(r.attempts for r in results) > 1


def test_jobs_that_outlive_their_driver_are_waited_for(tmp_path):
    driver = Driver(tmp_path, 3, 2.0)
    driver.wait_for("started", 2)
    assert driver.kill()
    alive = [mark for mark in processes(tmp_path) if mark.alive()]
    assert len(alive) == 2
    events = []
    results = run_jobs(make_jobs(tmp_path, 3, 2.0), LocalRunner(2), report=events.append)
    kinds = [e.kind for e in events]
    assert kinds[:3] == ["found", "found", "done"]
    assert sorted(kinds[3:]) == ["done", "done", "started"]
    assert [r.attempts for r in results] == [1, 1, 1]
    assert counts(tmp_path) == {f"{w} {n}": 1 for n in range(3) for w in ("start", "end")}
    assert not any(mark.alive() for mark in alive)


@pytest.mark.parametrize("written", [False, True])
def test_killed_before_a_job_may_go(tmp_path, monkeypatch, written):
    """Its process waits until its number is written: one that nobody could find does not run."""
    begun = JobFolder.begun

    def die(*arguments) -> None:
        if written:
            begun(*arguments)
        os._exit(9)

    jobs = make_jobs(tmp_path, 1, 0)
    driver = os.fork()
    if driver == 0:
        monkeypatch.setattr(JobFolder, "begun", die)
        run_jobs(jobs, LocalRunner(), report=lambda event: None)
    assert os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1]) == 9
    assert (jobs[0].folder / "running.json").exists()
    time.sleep(0.3)
    assert not counts(tmp_path)
    (result,) = run_jobs(jobs, LocalRunner(), report=lambda event: None)
    assert (result.state, counts(tmp_path)) == ("done", {"start 0": 1, "end 0": 1})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path, number):
    """The driver ends its jobs; they start again with the next one."""
    driver = Driver(tmp_path, 2, 30.0)
    driver.wait_for("started", 2)
    marks = processes(tmp_path)
    driver.process.send_signal(number)
    assert driver.end() == 2
    assert driver.lines[-1] == "interrupted"
    assert not any(mark.alive() or mark.left_a_group() for mark in marks)
    assert not done(tmp_path)
    # Another length is another run.sh; as if the same jobs had become quick.
    results = run_jobs(make_jobs(tmp_path, 2, 0.0), LocalRunner(2), report=lambda event: None)
    assert [r.state for r in results] == ["done", "done"]


def test_another_process_with_the_same_number(tmp_path):
    """A record names its process by number and birth: numbers are used again."""
    own = ProcessMark.of(os.getpid())
    assert own.alive()
    assert not ProcessMark(own.pid, own.host, "boot 1").alive()
    assert not ProcessMark(own.pid, "elsewhere", own.born).alive()
