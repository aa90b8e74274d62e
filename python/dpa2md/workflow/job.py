"""What a driver runs: jobs, each in a folder of its own, and what it tells about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Job:
    """Shell commands that make files out of files.

    Everything that lies in the folder before the job starts, and that it reads, is one of `inputs`.
    """

    folder: Path
    commands: tuple[str, ...]  #: lines of run.sh, which runs in the folder
    inputs: tuple[
        Path, ...
    ] = ()  #: files, and folders of files; when one changes, the job runs again
    outputs: tuple[str, ...] = ()  #: names in the folder; afterwards they exist and are not empty
    threads: int | None = None  #: for OMP_NUM_THREADS; None: the cores, divided among the workers
    run: Path | None = None  #: the run's folder, which names are relative to

    @property
    def name(self) -> str:
        """The folder, relative to that of the run."""
        return self.folder.relative_to(self.run).as_posix() if self.run else self.folder.as_posix()


EventKind: TypeAlias = Literal["skipped", "found", "started", "retried", "done", "failed"]


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job.

    Kinds: ``skipped`` (it had been done), ``found`` (an earlier driver started it and it still
    runs), ``started``, ``retried`` (a try failed or was cut off, and the next one follows), ``done``,
    ``failed`` (it was set aside).
    """

    kind: EventKind
    job: Job
    seconds: float = 0.0  #: how long the job ran, where it has ended
    message: str = ""
    time: float = field(default_factory=time.time)  #: seconds since 1970


Report: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """How a job ended."""

    job: Job
    state: Literal["done", "failed"]
    seconds: float  #: of its last try
    attempts: int  #: how often it was started
    message: str = ""  #: the reason of a failure, with the last line that the job printed
