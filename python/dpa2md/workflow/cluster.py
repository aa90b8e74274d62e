"""Jobs in the queue of a cluster, through dpdispatcher (the extra [cluster])."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shlex
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..base.interrupt import interruptible
from ..base.processes import ProcessMark
from ..errors import RunError
from .folders import EXIT, SCRIPT, STDOUT, JobFolder
from .job import Event, EventKind, Report

_PACKED = "left.tar"
_PATIENCE = 60.0  # seconds for which a network's disk may hide a file that is there


@dataclass(frozen=True)
class ClusterRunner:
    """Gives jobs to Slurm, PBS, LSF and others, by the files that dpdispatcher's users have.

    A driver that ends, by Ctrl-C or `kill -9`, leaves its jobs in the queue; the next one goes on with
    them. Where the cluster's disk is another one (any ``context_type`` but LazyLocalContext), all
    inputs lie in the run's folder, and whatever a job leaves comes back.
    """

    machine: Path  #: machine.json: batch_type, context_type, remote_root, ...
    resources: Path  #: resources.json: group_size, queue_name, cpu_per_node, ...
    attempts: int = 3  #: failures before a job is set aside
    interval: float = 10.0  #: seconds between looks at the queue, at first less

    def run(self, folders: Sequence[JobFolder], report: Report) -> None:
        """Run all to their end."""
        batch = _Batch(self, folders)
        if not all(_in_flight(folder, {batch.hash}) for folder in folders):
            # What a driver left that was killed while it wrote how the jobs ended.
            folders = [folder for folder in folders if not _ended_well(folder, report)]
            if not folders:
                return
            hashes = {batch.hash}
            batch = _Batch(self, folders)
            for folder in folders:
                _refuse(folder, hashes | {batch.hash})
            batch.forget()
            for folder in folders:
                folder.begin(submission=batch.hash)
        try:
            with interruptible() as stop:
                batch.recover(report)
                seconds = min(1.0, self.interval)
                while not batch.look(report):
                    if stop.wait(seconds):
                        raise KeyboardInterrupt
                    seconds = min(1.5 * seconds, self.interval)
        except RunError:
            if not batch.submitted():  # so that other settings may be tried
                for folder in folders:
                    folder.tidy()
            raise
        batch.settle(report)


class _Batch:
    """Jobs that are submitted together: a `Submission` of dpdispatcher."""

    def __init__(self, runner: ClusterRunner, folders: Sequence[JobFolder]):
        self._dp = _dpdispatcher()
        machine, resources = _settings(runner.machine), _settings(runner.resources)
        self._stays = "lazy" in str(machine.get("context_type")).lower()
        self._base = _base(folders, self._stays)
        machine |= {"local_root": str(self._base), "retry_count": runner.attempts - 1}
        self._folders = {os.path.relpath(f.job.folder.resolve(), self._base): f for f in folders}
        try:
            self._submission = self._dp.Submission(
                work_base=str(self._base),
                machine=self._dp.Machine.load_from_dict(machine),
                resources=self._dp.Resources.load_from_dict(resources),
                task_list=[self._task(path, f) for path, f in self._folders.items()],
                forward_common_files=[] if self._stays else self._common(folders),
                continue_on_failure=True,
            )
            self._submission.generate_jobs()
        except Exception as error:  # of many kinds, by what dpdispatcher finds wrong
            files = f"{runner.machine} or {runner.resources}"
            raise RunError(f"{files} can't be used by dpdispatcher: {_line(error)}") from error
        self.hash: str = self._submission.submission_hash
        self._told: dict[str, int] = {}  # hashes of jobs that were told as started: their failures
        self._failures: dict[
            str, int
        ] = {}  # of each folder: a batch that is tried again skips some
        _log_to(self._base / "dpdispatcher.log")

    def recover(self, report: Report) -> None:
        """Find what an earlier driver submitted; bring the files where the jobs run, if nothing."""
        context = self._submission.machine.context
        with _cluster_errors():
            if not context.check_file_exists(f"{self.hash}.json"):
                self._submission.upload_jobs()
            self._submission.try_recover_from_json()
        for job in self._submission.belonging_jobs:
            # The number is written at once, that file after all have been submitted.
            if context.check_file_exists(f"{job.job_hash}_job_id"):
                job.register_job_id(context.read_file(f"{job.job_hash}_job_id").strip())
                self._told[job.job_hash] = self._count(job)
                self._tell(report, "found", job, f"in the queue as {job.job_id}")

    def look(self, report: Report) -> bool:
        """Ask the queue, submit what has to be submitted; whether all have ended."""
        from dpdispatcher.utils.job_status import JobStatus

        with _cluster_errors():
            self._submission.update_submission_state()
            self._submission.handle_unexpected_submission_state(continue_on_failure=True)
            self._submission.submission_to_json()
        for job in self._submission.belonging_jobs:
            if job.job_hash not in self._told and job.job_state > JobStatus.waiting:
                self._told[job.job_hash] = 0
                self._tell(report, "started", job, f"as {job.job_id}")
            if job.fail_count > self._told.get(job.job_hash, 0):
                self._told[job.job_hash] = self._count(job)
                if job.job_state != JobStatus.failed:
                    self._tell(report, "retried", job, f"failed, and goes on as {job.job_id}")
        return bool(self._submission.check_all_finished())

    def submitted(self) -> bool:
        """Whether the queue has any of the jobs."""
        return any(job.job_id for job in self._submission.belonging_jobs)

    def settle(self, report: Report) -> None:
        """Write how each job ended, those that failed first: they must not get new tries."""
        with _cluster_errors():
            if self._stays:
                self._wait_for_files()
            else:
                self._submission.download_jobs(include_failed=True)
                for folder in self._folders.values():
                    _unpack(folder)
        for path in sorted(self._folders, key=lambda path: _status(self._folders[path]) == 0):
            _settle(self._folders[path], self._failures.get(path, 0), report)
        self.forget()

    def forget(self) -> None:
        """Remove dpdispatcher's own files: an equal batch starts afresh."""
        context = self._submission.machine.context
        if not self._stays:
            if context.check_file_exists(f"{self.hash}.json"):
                self._submission.clean_jobs()
            return
        for name in (self.hash, *(job.job_hash for job in self._submission.belonging_jobs)):
            for path in (*self._base.glob(f"{name}*"), *self._base.glob(f".{name}*")):
                path.unlink()
        for task in self._submission.belonging_tasks:
            tag = self._base / task.task_work_path / f"{task.task_hash}_task_tag_finished"
            tag.unlink(missing_ok=True)

    def _task(self, path: str, folder: JobFolder) -> Any:
        inside = [name for name in folder.inputs if not name.startswith("..")]
        return self._dp.Task(
            command=f"bash {SCRIPT}" if self._stays else f"bash {SCRIPT} && {_pack(inside)}",
            task_work_path=path,
            task_name=folder.job.name,
            forward_files=[SCRIPT, *inside],
            backward_files=[*([] if self._stays else [_PACKED]), EXIT, STDOUT],
            outlog=STDOUT,
            errlog=STDOUT,
        )

    def _common(self, folders: Sequence[JobFolder]) -> list[str]:
        """Inputs from outside of the jobs' folders, relative to that of the run."""
        paths = set()
        for folder in folders:
            for name in filter(lambda name: name.startswith(".."), folder.inputs):
                path = os.path.relpath((folder.job.folder / name).resolve(), self._base)
                if path.startswith(".."):
                    raise RunError(
                        f"{folder.job.name} needs {folder.job.folder / name}, which lies outside of "
                        f"{self._base} and is not copied to the cluster; put it inside."
                    )
                paths.add(path)
        return sorted(paths)

    def _wait_for_files(self) -> None:
        """A disk of a network may show late what another node wrote."""
        context, deadline = self._submission.machine.context, time.monotonic() + _PATIENCE
        for task in self._submission.belonging_tasks:
            folder = self._folders[task.task_work_path]
            while task.has_finished_tag(context) and (_status(folder) != 0 or folder.empty()):
                os.listdir(folder.job.folder)  # asks the server anew
                if time.monotonic() > deadline:
                    break
                time.sleep(0.2)

    def _count(self, job: Any) -> int:
        """Take down the failures of those of a job's tasks that have not finished."""
        for task in job.job_task_list:
            if not task.has_finished_tag(job.machine.context):
                self._failures[task.task_work_path] = job.fail_count
        return int(job.fail_count)

    def _tell(self, report: Report, kind: EventKind, job: Any, message: str) -> None:
        for task in job.job_task_list:
            report(Event(kind, self._folders[task.task_work_path].job, message=message))


def _base(folders: Sequence[JobFolder], stays: bool) -> Path:
    """The folder that dpdispatcher calls local_root: it holds the jobs' folders and what they need."""
    run = folders[0].job.run
    if run and not stays:
        return run.resolve()
    return Path(os.path.commonpath([f.job.folder.resolve().parent for f in folders]))


def _pack(inputs: Sequence[str]) -> str:
    """A line of shell: all that a job leaves in its folder, in one file; folders and checkpoints, too."""
    left_out = [_PACKED, SCRIPT, EXIT, STDOUT, "*_task_tag_finished", *inputs]
    excluded = [f"--exclude=./{name}" for name in left_out]
    return shlex.join(["tar", "-cf", _PACKED, "--anchored", *excluded, "."])


def _unpack(folder: JobFolder) -> None:
    packed = folder.job.folder / _PACKED
    if not packed.exists():  # of a job that failed
        return
    with tarfile.open(packed) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder.job.folder)
    packed.unlink()


def _in_flight(folder: JobFolder, submissions: set[str]) -> bool:
    """Whether it was given to the cluster in one of these submissions, as it is now."""
    start = folder.start()
    return bool(start and start.submission in submissions and not folder.change())


def _ended_well(folder: JobFolder, report: Report) -> bool:
    if not folder.start() or folder.change() or _status(folder) != 0:
        return False
    _settle(folder, 0, report)
    return folder.result() is not None


def _refuse(folder: JobFolder, submissions: set[str]) -> None:
    """Not to start a second copy of a job that is in the queue, or a process."""
    start = folder.start()
    if not start or folder.exit() or _in_flight(folder, submissions):
        return
    record = folder.job.folder / "running.json"
    if start.process and ProcessMark(**start.process).alive():
        raise RunError(
            f"{folder.job.name} still runs on this machine as process {start.process['pid']}; wait "
            "for it or end it."
        )
    if start.submission:
        raise RunError(
            f"{folder.job.name} is in the cluster's queue with other inputs, jobs or settings beside "
            f"it; cancel it there and remove {record}."
        )


def _settle(folder: JobFolder, failures: int, report: Report) -> None:
    status, seconds = folder.exit() or (None, 0.0)
    reason = "it left no exit status" if status is None else f"ended with status {status}"
    if status == 0:
        reason = folder.finish(seconds, failures + 1)
    if not reason:
        report(Event("done", folder.job, seconds))
        return
    reason = ": ".join([reason, *folder.printed()[-1:]])
    folder.fail(reason, seconds, max(1, failures))
    report(Event("failed", folder.job, seconds, reason))


def _status(folder: JobFolder) -> int | None:
    ended = folder.exit()
    return ended[0] if ended else None


def _settings(path: Path) -> dict[str, Any]:
    """A file of dpdispatcher's."""
    try:
        settings = json.loads(path.read_text())
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}.") from None
    if not isinstance(settings, dict):
        raise RunError(f"{path} must hold one object, as dpdispatcher's documentation shows.")
    return settings


@contextlib.contextmanager
def _cluster_errors() -> Iterator[None]:
    """One sentence for what goes wrong between dpdispatcher and the cluster, a full disk apart."""
    try:
        yield
    except Exception as error:  # of ssh, of the queue's commands, of the files
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunError(
            f"the cluster did not answer as expected: {_line(error)}; what it has stays in the "
            "queue, start again to go on."
        ) from error


def _line(error: Exception) -> str:
    """The last cause that it tells, in one line."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join((str(error) or type(error).__name__).split())


def _dpdispatcher() -> ModuleType:
    """The package, which says nothing on the screen and makes no log in the current folder."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        import dpdispatcher
    except ImportError as error:
        raise RunError(
            f"a cluster needs dpdispatcher >= 1.1 ({error}): pip install 'dpa2md[cluster]'."
        ) from None
    finally:
        logging.disable(before)
    return dpdispatcher


def _log_to(path: Path) -> None:
    logger = logging.getLogger("dpdispatcher")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
