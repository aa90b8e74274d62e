"""Jobs that dpdispatcher runs: by its Shell, without a queue."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from dpa2md.errors import RunError
from dpa2md.workflow.cluster import ClusterRunner
from dpa2md.workflow.folders import JobFolder
from dpa2md.workflow.jobs import Event, Job, Result, run_jobs

from tests.support.job_driver import counts, failing_job, make_jobs

pytestmark = pytest.mark.skipif(  # importing it here would make a log in the current folder
    not importlib.util.find_spec("dpdispatcher"), reason="needs dpdispatcher"
)


class Cluster:
    """A runner by files in the run's folder, and the events of what it last ran."""

    def __init__(self, run: Path, context: str = "LazyLocalContext"):
        self.run = run
        self.events: list[Event] = []
        machine = {"batch_type": "Shell", "context_type": context, "local_root": "./"}
        machine["remote_root"] = str(run.parent / "scratch")
        (run / "machine.json").write_text(json.dumps(machine))
        self.resources(group_size=2)

    def resources(self, **settings) -> None:
        (self.run / "resources.json").write_text(json.dumps(settings))

    def __call__(self, *jobs: Job, **options) -> list[Result]:
        self.events = []
        runner = ClusterRunner(self.run / "machine.json", self.run / "resources.json", interval=0.2)
        return run_jobs(jobs, runner, report=self.events.append, **options)

    def count(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.events)


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_done_once(run):
    """A job that fails is set aside, the one that shares its place in the queue is done."""
    cluster = Cluster(run)
    jobs = [*make_jobs(run, 3, 0.1), failing_job(run)]
    results = cluster(*jobs)
    assert [(r.state, r.attempts) for r in results] == [("done", 1)] * 3 + [("failed", 3)]
    assert results[-1].message == "ended with status 3: it can not work"
    wanted = {f"{word} {n}": 1 for word in ("start", "end") for n in range(3)} | {"start bad": 3}
    assert counts(run) == wanted
    assert [cluster.count(k) for k in ("started", "done", "failed")] == [4, 3, 1]
    names = {p.name for p in jobs[0].folder.iterdir()}
    assert names == {"done.json", "output", "run.sh", "stdout"}
    assert not Path("dpdispatcher.log").exists()  # it lies with the jobs
    assert cluster(*jobs) == results
    assert (counts(run), cluster.count("skipped")) == (wanted, 4)
    (run / "input").write_text("other\n")
    cluster(*jobs)
    assert [counts(run)[f"start {n}"] for n in range(3)] == [2, 2, 2]
    assert (jobs[0].folder / "output").read_text() == "other\n"
    cluster(*jobs, retry_failed=True)
    assert counts(run)["start bad"] == 6


def test_files_that_are_seen_late(run, monkeypatch):
    """As on a network's disk: the queue says that a job has finished, its files follow."""
    seen = JobFolder.exit
    calls: list[None] = []

    def late(folder: JobFolder) -> tuple[int, float] | None:
        calls.append(None)
        return seen(folder) if len(calls) > 6 else None

    monkeypatch.setattr(JobFolder, "exit", late)
    (result,) = Cluster(run)(*make_jobs(run, 1, 0))
    assert (result.state, result.attempts, len(calls) > 6) == ("done", 1, True)


def test_a_queue_that_does_not_answer(run):
    cluster = Cluster(run)
    machine = json.loads((run / "machine.json").read_text())
    (run / "machine.json").write_text(
        json.dumps(machine | {"batch_type": "Slurm"})
    )  # there is none
    jobs = make_jobs(run, 1, 0)
    with pytest.raises(RunError, match="^the cluster did not answer as expected: .*sbatch"):
        cluster(*jobs)
    (run / "machine.json").write_text(json.dumps(machine))
    assert [r.state for r in cluster(*jobs)] == ["done"]  # the queue had got none


def test_files_that_are_copied(run):
    """On another disk: a job finds its inputs where run.sh looks for them, and its outputs come back."""
    cluster = Cluster(run, context="LocalContext")
    own = run / "020-copy" / "copy" / "own"
    own.parent.mkdir(parents=True)
    own.write_text("own\n")
    (run / "models").mkdir()
    (run / "models" / "a").write_text("a\n")
    inputs = (own, run / "models")
    copy = Job(own.parent, ("cat own ../../models/a > output", "pwd"), inputs, ("output",), run=run)
    bad = failing_job(run)
    results = cluster(copy, bad)
    assert [r.state for r in results] == ["done", "failed"]
    assert (own.parent / "output").read_text() == "own\na\n"
    assert (own.parent / "stdout").read_text().startswith(str(run.parent / "scratch"))
    assert results[1].message == "ended with status 3: it can not work"
    assert not list((run.parent / "scratch").iterdir())
    outside = run.parent / "outside"
    outside.touch()
    with pytest.raises(RunError, match="lies outside of .*put it inside"):
        cluster(Job(copy.folder, copy.commands, (outside,), copy.outputs, run=run))


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("machine.json", "{", "machine.json is not JSON"),
        ("machine.json", "[]", "machine.json must hold one object"),
        ("machine.json", '{"batch_type": "Abacus"}', "can't be used by dpdispatcher"),
        ("resources.json", "{}", "can't be used by dpdispatcher: .*group_size"),
    ],
)
def test_settings_that_are_wrong(run, name, text, sentence):
    cluster = Cluster(run)
    (run / name).write_text(text)
    with pytest.raises(RunError, match=sentence):
        cluster(*make_jobs(run, 1, 0))
    assert not counts(run)


def test_a_job_that_is_in_the_queue_is_not_started_elsewhere(run):
    """What a killed driver gave to the cluster with other settings may still run there."""
    cluster = Cluster(run)
    (job,) = make_jobs(run, 1, 0)
    cluster(job)
    done = json.loads((job.folder / "done.json").read_text())
    (job.folder / "done.json").unlink()
    start = {name: done[name] for name in ("script", "inputs")}
    start |= {"attempt": 1, "failures": 0, "started": 0.0, "submission": "0" * 40}
    (job.folder / "running.json").write_text(json.dumps(start))
    with pytest.raises(RunError, match=r"is in the cluster's queue .* remove .*running\.json\.$"):
        cluster(job)
    assert counts(run)["start 0"] == 1
