"""A job's folder: its run.sh, and the files that tell how far it is.

``running.json``  written before the job starts: what it starts with, and as which process
``stdout``        what the job prints, with its errors
``exit``          written by run.sh at its end: status and seconds
``done.json``     written last: the job is done, and with which inputs
``failed.json``   in its place: the job was set aside
``before-1`` ...  what an earlier run left, which had other inputs or another run.sh
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from .._core import __version__
from ..base.files import sha256, whole_file
from ..errors import RunError
from .job import Job, Result

SCRIPT, STDOUT, EXIT = "run.sh", "stdout", "exit"
RUNNING, DONE, FAILED = "running.json", "done.json", "failed.json"
_SIGNED = "# Written by dpa2md. Change it, and it is run as you left it. "


@dataclass(frozen=True)
class Start:
    """What ``running.json`` says."""

    script: str  #: SHA-256 of run.sh
    inputs: dict[str, str]  #: SHA-256 of each
    attempt: int  #: how often the job was started, this time included
    failures: int  #: how many of them failed
    started: float  #: seconds since 1970
    process: dict[str, Any] | None = None  #: fields of a ProcessMark
    submission: str | None = None  #: of dpdispatcher


class JobFolder:
    """The folder of a job, with run.sh written and the inputs' hashes taken.

    Raises
    ------
    RunError
        An input is missing.
    """

    def __init__(self, job: Job):
        self.job = job
        job.folder.mkdir(parents=True, exist_ok=True)
        for path in job.inputs:
            if not path.exists():
                raise RunError(f"{job.name} needs {path}, which does not exist.")
        self.note = _write_script(job)
        self._script = sha256(job.folder / SCRIPT)
        # By their names, seen from the folder.
        self.inputs = {os.path.relpath(p, job.folder): _hash(p) for p in job.inputs}

    # ---- what is there

    def result(self) -> Result | None:
        """How the job ended; None where it has still to run."""
        done = self._read(DONE)
        if done and not self._change(done) and not self._lost(done):
            return Result(self.job, "done", done["seconds"], done["attempts"])
        failed = self._read(FAILED)
        if failed and not self._change(failed):
            return Result(
                self.job, "failed", failed["seconds"], failed["attempts"], failed["reason"]
            )
        return None

    def reason(self) -> str:
        """Why a job that had been started, or was done, has to run again."""
        done = self._read(DONE)
        return self.change() or (self._lost(done) if done else "")

    def change(self) -> str:
        """What is not as it was when the job was last started: run.sh, or an input."""
        records = filter(None, map(self._read, (RUNNING, DONE, FAILED)))
        return next(filter(None, map(self._change, records)), "")

    def start(self) -> Start | None:
        """What running.json says; None where there is none."""
        record = self._read(RUNNING)
        try:
            return Start(**record) if record else None
        except TypeError:
            return None

    def exit(self) -> tuple[int, float] | None:
        """Status and seconds, as run.sh wrote them at its end."""
        try:
            status, seconds = (self.job.folder / EXIT).read_text().split()
            return int(status), float(seconds)
        except (OSError, ValueError):
            return None

    def ran_by_hand(self) -> bool:
        """Whether run.sh was run without a driver, to a good end, on what is there now."""
        ended = self.exit()
        if ended is None or ended[0] != 0 or self.start() or self.empty():
            return False
        written = (self.job.folder / EXIT).stat().st_mtime
        return all(_changed(p) <= written for p in (self.job.folder / SCRIPT, *self.job.inputs))

    def printed(self, offset: int = 0) -> list[str]:
        """The last lines of stdout, at most twenty, of what follows `offset` bytes."""
        try:
            with open(self.job.folder / STDOUT, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(offset, size - 8192))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        return [line.rstrip() for line in lines if line.strip()][-20:]

    def empty(self) -> str:
        """The first output that is missing or empty."""
        return next((n for n in self.job.outputs if not _size(self.job.folder / n)), "")

    # ---- what is written

    def begin(self, failures: int = 0, submission: str | None = None) -> Start:
        """Make the folder ready for a start, and write that it comes."""
        before = self.start()
        if self.change():
            self._put_away()
            before = None
        begun = bool(before and (before.process or before.submission))
        start = Start(
            self._script,
            self.inputs,
            attempt=(before.attempt if before else 0) + (begun or before is None),
            failures=failures,
            started=time.time(),
            submission=submission,
        )
        self._write(RUNNING, asdict(start))
        self._remove(EXIT, DONE, FAILED)  # after running.json, which says that they do not count
        return start

    def begun(self, start: Start, process: dict[str, Any]) -> Start:
        """Write which process it is."""
        start = replace(start, process=process)
        self._write(RUNNING, asdict(start))
        return start

    def finish(self, seconds: float, attempts: int) -> str:
        """Write that the job is done; or return why it is not: an output is missing or empty."""
        empty = self.empty()
        if empty:
            return f"{empty} is missing or empty"
        sizes = {name: _size(self.job.folder / name) for name in self.job.outputs}
        self._write(DONE, self._ended(seconds, attempts) | {"outputs": sizes})
        self._remove(RUNNING, EXIT, FAILED)
        return ""

    def fail(self, reason: str, seconds: float, attempts: int) -> None:
        """Set the job aside."""
        lines = {"reason": reason, "last_lines": self.printed()}
        self._write(FAILED, lines | self._ended(seconds, attempts))
        self._remove(RUNNING, EXIT, DONE)

    def forgive(self) -> None:
        """Let a job that was set aside start anew."""
        self._remove(RUNNING, EXIT, FAILED)

    def tidy(self) -> None:
        """Remove what a driver left that was killed after it had written how the job ended."""
        self._remove(RUNNING, EXIT)

    # ---- inside

    def _ended(self, seconds: float, attempts: int) -> dict[str, Any]:
        start = self.start()
        return {
            "seconds": round(seconds, 3),
            "attempts": attempts,
            "ended": time.strftime("%Y-%m-%d %H:%M:%S"),
            "host": socket.gethostname(),
            "dpa2md": __version__,
            # As they were at the start: what changed since is seen by the next driver.
            "script": start.script if start else self._script,
            "inputs": start.inputs if start else self.inputs,
        }

    def _change(self, record: dict[str, Any]) -> str:
        if record["script"] != self._script:
            return "its run.sh has changed"
        # The order counts, not the names: a run's folder may have been moved.
        before, now = list(record["inputs"].values()), list(self.inputs.values())
        if len(before) != len(now):
            return "it has other inputs"
        pairs = zip(self.inputs, before, now, strict=True)
        return next((f"its input {name} has changed" for name, a, b in pairs if a != b), "")

    def _lost(self, done: dict[str, Any]) -> str:
        for name, size in done["outputs"].items():
            if _size(self.job.folder / name) != size:
                return f"its output {name} is not what it left"
        return ""

    def _put_away(self) -> None:
        """Move what an earlier run left, which may hold checkpoints of other inputs, out of the way."""
        folder = self.job.folder
        number = next(n for n in range(1, 10**6) if not (folder / f"before-{n}").exists())
        kept = {folder / SCRIPT, *(folder / Path(name).parts[0] for name in self.inputs)}
        left = [p for p in folder.iterdir() if p not in kept and not p.name.startswith("before-")]
        (folder / f"before-{number}").mkdir()
        # The record goes last: a driver that is ended here goes on with this.
        for path in sorted(left, key=lambda p: p.name in (RUNNING, DONE, FAILED)):
            path.rename(folder / f"before-{number}" / path.name)

    def _read(self, name: str) -> dict[str, Any] | None:
        """None where it is missing, or is not one of ours."""
        try:
            record = json.loads((self.job.folder / name).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) and {"script", "inputs"} <= set(record) else None

    def _write(self, name: str, record: dict[str, Any]) -> None:
        with whole_file(self.job.folder / name) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.job.folder / name).unlink(missing_ok=True)


def _write_script(job: Job) -> str:
    """Write run.sh, unless a person changed it; then say so."""
    path, text = job.folder / SCRIPT, _script(job)
    there = path.read_text(errors="replace") if path.exists() else None
    if there == text:
        return ""
    if there is not None and there != _sign(there.rpartition(_SIGNED)[0]):
        return "its run.sh was changed by hand and runs as it is; remove it to have it written anew"
    with whole_file(path) as temporary:
        temporary.write_text(text)
        temporary.chmod(temporary.stat().st_mode | 0o111)
    return ""


def _script(job: Job) -> str:
    lines = ["#!/usr/bin/env bash", f"# {job.name}", 'cd "$(dirname "$0")" && rm -f exit || exit 1']
    lines += ["(", "set -euo pipefail"]
    if job.threads:
        lines.append(f"export OMP_NUM_THREADS={job.threads}")
    lines += job.commands
    for name in map(shlex.quote, job.outputs):
        lines.append(f"test -s {name} || {{ echo {name} is missing or empty; exit 1; }}")
    lines += [")", "status=$?", 'echo "$status $SECONDS" > exit.tmp && mv exit.tmp exit']
    return _sign("\n".join([*lines, "exit $status", ""]))


def _sign(text: str) -> str:
    return f"{text}{_SIGNED}({hashlib.sha256(text.encode()).hexdigest()[:16]})\n"


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> int:
    """Bytes; 0 for what is missing."""
    return sum(p.stat().st_size for p in _files(path)) if path.exists() else 0


def _changed(path: Path) -> float:
    return max((p.stat().st_mtime for p in _files(path)), default=0.0)


def _hash(path: Path) -> str:
    """The SHA-256 of a file, or of the names and SHA-256 of a folder's files."""
    if not path.is_dir():
        return _hash_once(path, path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino)
    parts = [f"{p.relative_to(path).as_posix()} {_hash(p)}\n" for p in _files(path)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@cache
def _hash_once(path: Path, *_: int) -> str:
    """A model that every job reads is read once, as long as this process lives and it is the same."""
    return sha256(path)
