"""Jobs in folders: what runs, what is skipped, what runs again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from dpa2md.base.processes import group_lives
from dpa2md.base.resources import usable_cores
from dpa2md.errors import RunError
from dpa2md.workflow.jobs import Event, Job, Result, run_jobs
from dpa2md.workflow.local import LocalRunner


class Run:
    """A run's folder with a job or more, and the events of the last time that they ran."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.events: list[Event] = []
        (folder / "input").write_text("one\n")

    def job(self, name: str = "job", *commands: str, **more) -> Job:
        commands = commands or ("echo start >> ../log", "cp ../input output")
        job = Job(
            self.folder / name, commands, (self.folder / "input",), ("output",), run=self.folder
        )
        return Job(**(vars(job) | more))

    def __call__(self, *jobs: Job, workers: int = 2, **options) -> list[Result]:
        self.events = []
        return run_jobs(jobs, LocalRunner(workers), report=self.events.append, **options)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def starts(self) -> int:
        return (self.folder / "log").read_text().count("start")


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


def record(job: Job, name: str = "done.json") -> dict:
    return json.loads((job.folder / name).read_text())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_done_once(run):
    job = run.job("stage/part-0", "echo start >> ../../log", "cp ../../input output; echo hello")
    assert job.name == "stage/part-0"
    (result,) = run(job)
    assert (result.state, result.attempts, run.kinds()) == ("done", 1, ["started", "done"])
    done = record(job)
    assert done["script"] == digest(job.folder / "run.sh")
    assert done["inputs"] == {"../../input": digest(run.folder / "input")}
    assert done["outputs"] == {"output": len("one\n")}
    assert (job.folder / "stdout").read_text() == "hello\n"
    assert sorted(p.name for p in job.folder.iterdir()) == [
        "done.json",
        "output",
        "run.sh",
        "stdout",
    ]
    assert run(job) == [result]
    assert (run.starts(), run.kinds()) == (1, ["skipped"])


def test_a_run_may_be_moved(run, tmp_path_factory):
    run(run.job())
    moved = Run(shutil.copytree(run.folder, tmp_path_factory.mktemp("other") / "run"))
    moved(moved.job())
    assert moved.kinds() == ["skipped"]


@pytest.mark.parametrize("what", ["input", "folder", "commands", "output", "no output"])
def test_runs_again(run, what):
    """And says why; a checkpoint of the earlier run does not lie in the way, unless it still fits."""
    inputs = run.folder / "system"
    inputs.mkdir()
    (inputs / "energy.npy").write_text("1")
    job = run.job(inputs=(run.folder / "input", inputs))
    run(job)
    (job.folder / "checkpoint").write_text("of the first run")
    if what == "input":
        (run.folder / "input").write_text("two\n")
    elif what == "folder":
        (inputs / "energy.npy").rename(inputs / "force.npy")
    elif what == "commands":
        job = Job(**(vars(job) | {"commands": (*job.commands, "true")}))
    elif what == "output":
        (job.folder / "output").write_text("cut")
    else:
        (job.folder / "output").unlink()
    (result,) = run(job)
    assert (result.state, run.starts(), run.kinds()) == ("done", 2, ["started", "done"])
    reason = {"input": "../input has changed", "folder": "../system has changed"}
    reason |= {"commands": "its run.sh has changed"}
    assert reason.get(what, "output is not what it left") in run.events[0].message
    kept = job.folder / ("before-1" if what in reason else "") / "checkpoint"
    assert kept.read_text() == "of the first run"
    assert (job.folder / "output").read_text() == (run.folder / "input").read_text()
    run(job)
    assert run.kinds() == ["skipped"]


def test_a_failing_job_is_set_aside(run):
    good = [run.job(f"good-{n}", "sleep 0.1", "echo x > output") for n in range(3)]
    bad = run.job(
        "bad", "echo start >> ../log", "echo it can not work >&2", "exit 3", "echo not here"
    )
    results = run(good[0], bad, *good[1:])
    assert [r.state for r in results] == ["done", "failed", "done", "done"]
    assert results[1].message == "ended with status 3: it can not work"
    assert (results[1].attempts, run.starts()) == (3, 3)
    assert record(bad, "failed.json")["last_lines"][-1] == "it can not work"
    assert [run.kinds().count(k) for k in ("retried", "failed", "done")] == [2, 1, 3]
    run(good[0], bad, *good[1:])
    assert (set(run.kinds()), run.starts()) == ({"skipped"}, 3)
    run(bad, retry_failed=True)
    assert run.starts() == 6
    (bad.folder / "failed.json").unlink()
    run(bad)
    assert run.starts() == 9


def test_a_job_that_works_at_the_second_time(run):
    job = run.job("job", "test -f there || { touch there; exit 1; }", "echo x > output")
    (result,) = run(job)
    assert (result.state, result.attempts) == ("done", 2)
    assert run.kinds() == ["started", "retried", "started", "done"]


def test_an_output_that_is_missing(run):
    (result,) = run(run.job("job", "true"))
    assert result.message == "ended with status 1: output is missing or empty"


def test_an_output_that_is_a_folder(run):
    job = run.job("job", "mkdir -p output", "test ! -f ../fill || echo x > output/x")
    assert run(job)[0].message == "output is missing or empty"
    (run.folder / "fill").touch()
    assert run(job, retry_failed=True)[0].state == "done"
    assert record(job)["outputs"] == {"output": 2}
    run(job)
    assert run.kinds() == ["skipped"]


def test_an_input_that_is_missing(run):
    (run.folder / "input").unlink()
    with pytest.raises(RunError, match=r"^job needs .*/input, which does not exist\.$"):
        run(run.job())


def test_two_jobs_in_one_folder(run):
    with pytest.raises(ValueError, match="same folder"):
        run(run.job(), run.job("other/../job"))


def test_workers(run):
    """As many at a time as there are workers: no more, no fewer."""
    wait = ("echo + >> ../log", "sleep 0.2", "echo x > output", "echo - >> ../log")
    run(*(run.job(f"job-{n}", *wait) for n in range(7)), workers=3)
    at_once, most = 0, 0
    for line in (run.folder / "log").read_text().split():
        at_once += 1 if line == "+" else -1
        most = max(most, at_once)
    assert (at_once, most) == (0, 3)


def test_threads(run, monkeypatch):
    def threads(*jobs: Job) -> list[str]:
        run(*jobs)
        return [(job.folder / "output").read_text().strip() for job in jobs]

    def job(name: str, **more) -> Job:
        return run.job(name, "echo $OMP_NUM_THREADS > output", **more)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = usable_cores()
    assert threads(job("alone")) == [str(cores)]
    assert threads(job("one"), job("two", threads=5)) == [str(max(1, cores // 2)), "5"]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads(job("as told")) == ["7"]


def test_run_by_hand(run):
    """What a person ran to a good end counts, as long as it is newer than what it was made of."""
    job = run.job("job", "test -f ../repaired", "echo start >> ../log", "cp ../input output")
    assert run(job)[0].state == "failed"
    (run.folder / "repaired").touch()
    assert subprocess.run([job.folder / "run.sh"], check=False).returncode == 0
    assert run(job)[0].state == "done"
    assert (run.starts(), run.events[0].message) == (1, "run.sh was run by hand")
    (job.folder / "done.json").unlink()
    subprocess.run([job.folder / "run.sh"], check=True)
    (run.folder / "input").write_text("newer\n")
    written = (job.folder / "exit").stat().st_mtime
    os.utime(run.folder / "input", (written + 1, written + 1))
    assert run(job)[0].state == "done"
    assert (run.starts(), (job.folder / "output").read_text()) == (3, "newer\n")


def test_changed_by_hand(run):
    job = run.job()
    run(job)
    script = job.folder / "run.sh"
    script.write_text(script.read_text().replace("cp ../input", "sed s/one/other/ ../input >"))
    run(job)
    assert (job.folder / "output").read_text() == "other\n"
    assert "changed by hand" in run.events[0].message
    run(job)
    assert run.kinds() == ["skipped"]
    script.unlink()
    run(job)
    assert (job.folder / "output").read_text() == "one\n"


def test_a_process_that_is_killed_leaves_no_children(run):
    """Or the next try would work beside them in the same folder."""
    job = run.job(
        "job",
        "test -f tried && { echo x > output; exit 0; }",
        "touch tried; sleep 60 & echo $! > child",
        "kill -9 $$; sleep 60",
    )
    (result,) = run(job)
    assert (result.state, result.attempts) == ("done", 2)
    assert "ended by signal 9" in run.events[1].message
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", (job.folder / "child").read_text()],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert state.strip()[:1] in ("", "Z")


def test_interrupted_while_a_job_does_not_listen(run):
    """After some seconds it is killed."""
    job = run.job("job", "trap '' TERM", "touch there", "while true; do sleep 0.1; done")

    def interrupt() -> None:
        while not (job.folder / "there").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], LocalRunner(grace=0.3), report=run.events.append)
    assert not group_lives(record(job, "running.json")["process"]["pid"])


def test_a_job_that_finds_the_disk_full(run):
    other = run.job("other", "sleep 60")
    job = run.job("job", "sleep 0.2", "echo x > /dev/full")
    with pytest.raises(RunError, match=r"^job found its disk full \(.*No space left on device\); "):
        run(other, job)
    assert not list(run.folder.glob("*/done.json")) and not list(run.folder.glob("*/failed.json"))
    assert not group_lives(record(other, "running.json")["process"]["pid"])


def test_a_driver_that_finds_the_disk_full(run):
    job = run.job()
    job.folder.mkdir()
    # The temporary name that the driver writes to.
    (job.folder / f".tmp.{os.getpid()}.done.json").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"done\.json can't be written: No space left on device; "):
        run(job)
    assert not (job.folder / "done.json").exists()
    assert (run(job)[0].state, run.starts()) == ("done", 1)  # it had ended well
