"""A driver as a process of its own, for tests that kill it; the jobs log their starts and ends.

    python -m tests.support.job_driver FOLDER COUNT SECONDS [MACHINE RESOURCES]

It prints `ready` when it begins, then one line an event, and `interrupted` at KeyboardInterrupt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import dpa2md
from dpa2md.base.files import whole_file
from dpa2md.workflow.cluster import ClusterRunner
from dpa2md.workflow.jobs import Event, Job, run_jobs
from dpa2md.workflow.local import LocalRunner

from tests.support.paths import ROOT


def make_jobs(run: Path, count: int, seconds: float) -> list[Job]:
    """Jobs that sleep, and write a line into the run's log before and after."""
    run.mkdir(exist_ok=True)
    if not (run / "input").exists():  # jobs of a killed driver may be reading it
        with whole_file(run / "input") as temporary:
            temporary.write_text("some input\n")
    return [
        Job(
            folder=run / "010-sleep" / f"job-{n}",
            commands=(
                f"echo start {n} >> ../../log",
                f"sleep {seconds}",
                "cp ../../input output",
                f"echo end {n} >> ../../log",
            ),
            inputs=(run / "input",),
            outputs=("output",),
            run=run,
        )
        for n in range(count)
    ]


def failing_job(run: Path) -> Job:
    """One that fails whenever it is started."""
    commands = ("echo start bad >> ../../log", "echo it can not work", "exit 3")
    return Job(run / "010-sleep" / "bad", commands, outputs=("output",), run=run)


def counts(run: Path) -> Counter:
    """How often each line stands in the run's log."""
    log = run / "log"
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


class Driver:
    """The process, and the lines that it has printed."""

    def __init__(self, *arguments: object, environment: dict[str, str] | None = None):
        paths = [str(Path(dpa2md.__file__).parents[1]), str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.job_driver", *map(str, arguments)],
            env=(environment or os.environ) | {"PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def wait_for(self, start: str, times: int = 1) -> None:
        """Until it has printed so many lines that start so, or has ended."""
        deadline = time.monotonic() + 60
        while (
            sum(line.startswith(start) for line in self.lines) < times and self._reader.is_alive()
        ):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.002)

    def kill(self) -> bool:
        """With -9; whether it was still running."""
        running = self.process.poll() is None
        self.process.kill()
        self.end()
        return running

    def end(self) -> int:
        """Its exit status, after it has ended by itself."""
        status = self.process.wait(120)
        self._reader.join()
        return status


def main(folder: str, count: str, seconds: str, *cluster: str) -> None:
    run = Path(folder)
    jobs = make_jobs(run, int(count), float(seconds))
    runner: LocalRunner | ClusterRunner = LocalRunner(workers=2, grace=1.0)
    if cluster:
        runner = ClusterRunner(Path(cluster[0]), Path(cluster[1]), interval=0.5)
        jobs.append(failing_job(run))

    def report(event: Event) -> None:
        print(event.kind, event.job.folder.name, event.message, flush=True)

    print("ready", flush=True)
    try:
        results = run_jobs(jobs, runner, report=report)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(2)
    print("results", *(f"{r.job.folder.name}:{r.state}:{r.attempts}" for r in results), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
