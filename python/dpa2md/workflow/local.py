"""Jobs as processes of this machine."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..base.interrupt import interruptible
from ..base.processes import ProcessMark, signal_group
from ..base.resources import usable_cores
from ..errors import RunError
from .folders import STDOUT, JobFolder, Start
from .job import Event, Report

# The process waits until its number has been written: a driver that is killed before leaves no job
# that the next one can't find.
_WAITING = ["bash", "-c", "read -r _ && exec bash run.sh < /dev/null"]
_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True)
class LocalRunner:
    """Runs jobs as processes, some at a time.

    At SIGINT and SIGTERM it ends its jobs and raises KeyboardInterrupt. When it is killed itself, its
    jobs live on; the next one finds them and waits for them.
    """

    workers: int = 1  #: jobs at a time
    attempts: int = 3  #: failures before a job is set aside
    grace: float = 10.0  #: seconds between SIGTERM and SIGKILL

    def run(self, folders: Sequence[JobFolder], report: Report) -> None:
        """Run all to their end."""
        crew = _Crew(
            self, report, threads=max(1, usable_cores() // min(self.workers, len(folders)))
        )
        with interruptible() as stop:
            try:
                for folder in folders:
                    crew.take(folder)
                while crew.busy():
                    if stop.is_set():
                        raise KeyboardInterrupt
                    crew.step()
                    time.sleep(0.02)
            finally:
                crew.end()


@dataclass
class _Process:
    """A job that runs; `popen` is None for one that an earlier driver started."""

    folder: JobFolder
    start: Start
    mark: ProcessMark
    popen: subprocess.Popen | None = None
    offset: int = 0  # of what it prints in stdout

    def ended(self) -> bool:
        if self.popen:
            return self.popen.poll() is not None
        return not self.mark.alive()

    def left(self) -> bool:
        """Whether anything of it still runs: the children of a process may outlive it."""
        return not self.ended() or self.mark.left_a_group()


def _end(processes: Sequence[_Process], grace: float) -> None:
    """SIGTERM, and SIGKILL to what is left after `grace` seconds."""
    left = [p for p in processes if p.left()]
    for process in left:
        signal_group(process.mark.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(p.left() for p in left) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in left:
        if process.left():
            signal_group(process.mark.pid, signal.SIGKILL)
        if process.popen:
            process.popen.wait()


class _Crew:
    """Jobs that wait and jobs that run."""

    def __init__(self, runner: LocalRunner, report: Report, threads: int):
        self._runner, self._report = runner, report
        self._threads = os.environ.get("OMP_NUM_THREADS") or str(threads)
        self._waiting: deque[tuple[JobFolder, int]] = deque()  # with their failures so far
        self._running: list[_Process] = []

    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def take(self, folder: JobFolder) -> None:
        """Put a job in the queue, or go on with what an earlier driver started."""
        start = folder.start()
        if start and start.submission and not folder.exit():
            raise RunError(
                f"{folder.job.name} was given to a cluster; cancel its job there and remove "
                f"{folder.job.folder / 'running.json'}, or go on with that cluster."
            )
        if not start or not start.process:
            self._waiting.append((folder, start.failures if start else 0))
            return
        process = _Process(folder, start, ProcessMark(**start.process))
        if folder.change():
            _end([process], self._runner.grace)
            self._waiting.append((folder, 0))
        elif process.mark.alive():
            self._running.append(process)
            self._report(Event("found", folder.job, message=f"process {process.mark.pid}"))
        else:
            self._settle(process)

    def step(self) -> None:
        """See which jobs have ended, and start others in their place."""
        for process in [p for p in self._running if p.ended()]:
            self._running.remove(process)
            self._settle(process)
        while self._waiting and len(self._running) < self._runner.workers:
            self._start(*self._waiting.popleft())

    def end(self) -> None:
        """End what runs."""
        _end(self._running, self._runner.grace)

    def _start(self, folder: JobFolder, failures: int) -> None:
        why = folder.reason()
        start = folder.begin(failures)
        with open(folder.job.folder / STDOUT, "ab") as stdout:
            popen = subprocess.Popen(
                _WAITING,
                cwd=folder.job.folder,
                env=os.environ | {"OMP_NUM_THREADS": self._threads},
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            offset = stdout.seek(0, os.SEEK_END)
        mark = ProcessMark.of(popen.pid)
        process = _Process(folder, start, mark, popen, offset)
        self._running.append(process)
        process.start = folder.begun(start, asdict(mark))
        assert popen.stdin
        popen.stdin.write(b"go\n")
        popen.stdin.close()
        self._report(
            Event("started", folder.job, message="; ".join(filter(None, (why, folder.note))))
        )

    def _settle(self, process: _Process) -> None:
        """What follows from the end of a process."""
        folder, start = process.folder, process.start
        written = folder.exit()
        status = process.popen.returncode if process.popen else written[0] if written else None
        seconds = time.time() - start.started if process.popen else written[1] if written else 0.0
        reason = folder.finish(seconds, start.attempt) if status == 0 else _reason(status)
        if not reason:
            self._report(Event("done", folder.job, seconds))
            return
        _end([process], self._runner.grace)  # or the next try would meet children of this one
        lines = folder.printed(process.offset)
        if any(word in line for word in _FULL for line in lines):
            raise RunError(
                f"{folder.job.name} found its disk full ({lines[-1]}); make room and start again, "
                "what is done stays done."
            )
        reason = ": ".join([reason, *lines[-1:]])
        failures = start.failures + (status is not None)
        if failures < self._runner.attempts:
            self._waiting.appendleft((folder, failures))
            self._report(Event("retried", folder.job, seconds, reason))
        else:
            folder.fail(reason, seconds, start.attempt)
            self._report(Event("failed", folder.job, seconds, reason))


def _reason(status: int | None) -> str:
    if status is None:
        return "it was cut off"
    return f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
