"""Run jobs that are not done yet."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..errors import RunError
from .folders import JobFolder
from .job import Event, Job, Report, Result

__all__ = ["Event", "Job", "Report", "Result", "Runner", "run_jobs"]


class Runner(Protocol):
    """Where jobs run."""

    def run(self, folders: Sequence[JobFolder], report: Report) -> None:
        """Run all to their end: afterwards each has its done.json or failed.json."""


def run_jobs(
    jobs: Sequence[Job], runner: Runner, *, report: Report, retry_failed: bool = False
) -> list[Result]:
    """Run those of the jobs that are not done, and tell how each ended.

    A job is done when its folder has a ``done.json`` with the hashes of its inputs and of its run.sh,
    and the outputs are there. One that fails again and again is set aside with a ``failed.json``; it
    starts anew when that file is removed, or with `retry_failed`.

    Parameters
    ----------
    jobs
        Independent of each other, each with a folder of its own.
    runner
        A `LocalRunner` or a `ClusterRunner`.
    report
        Called with every `Event`.

    Returns
    -------
    list[Result]
        In the order of `jobs`.

    Raises
    ------
    RunError
        An input is missing, or the disk is full. A job that fails raises nothing.
    KeyboardInterrupt
        At SIGINT and SIGTERM.
    """
    if len({job.folder.resolve() for job in jobs}) < len(jobs):
        raise ValueError("two jobs have the same folder.")
    with _full_disk():
        folders = [JobFolder(job) for job in jobs]
        left = [folder for folder in folders if not _settled(folder, report, retry_failed)]
        if left:
            runner.run(left, report)
    results = [folder.result() for folder in folders]
    return [result for result in results if result]


def _settled(folder: JobFolder, report: Report, retry_failed: bool) -> bool:
    """Whether nothing is left to do."""
    result, job = folder.result(), folder.job
    ended = folder.exit()
    if ended and (result is None or result.state == "failed") and folder.ran_by_hand():
        folder.finish(ended[1], attempts=1)
        report(Event("done", job, ended[1], "run.sh was run by hand"))
        return True
    if result and result.state == "failed" and retry_failed:
        folder.forgive()
        return False
    if result:
        folder.tidy()
        report(Event("skipped", job, result.seconds, result.message))
    return result is not None


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunError(
            f"{error.filename or 'a file'} can't be written: {error.strerror}; make room and start "
            "again, what is done stays done."
        ) from None
