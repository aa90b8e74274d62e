"""What a run tells: lines of log.txt, and how far it is."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..base.files import named_errors, whole_file
from .job import Event
from .layout import RunFolder
from .outcomes import read_json
from .plan import STAGES, Pace, Plan
from .verdict import RoundState

FINISHED = "finished"  # the last stage
_TOLD = {"found": "still runs", "retried": "again", "failed": "set aside"}
_STATES = re.compile(r"^\S+ \S+ (\S+) (started|again|still runs|done|set aside)", re.MULTILINE)


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    round: int  #: 0: before the first
    rounds: int
    stage: str
    done: int  #: jobs of the stage
    jobs: int
    frames: int  #: that are labelled
    force_error: float | None  #: eV/angstrom, of the round before
    left: float  #: seconds that the run will still take, about

    def write(self, path: Path) -> None:
        """As JSON. OSError."""
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Progress:
        """Of a file that `write` wrote; RunError for another one."""
        return cls(**read_json(path))


Report = Callable[[Progress], None]


@dataclass
class Journal:
    """Writes the log and reports progress.

    Attributes
    ----------
    folder
        Of the run.
    plan
        What the run was expected to take.
    report
        Called after every event; None: nobody is told.
    """

    folder: RunFolder
    plan: Plan
    report: Report | None = None
    round: int = 0
    stage: str = ""
    frames: int = 0
    last: RoundState | None = None
    _done: set[str] = field(default_factory=set)
    _jobs: int = 0
    _pace: Pace = field(default_factory=Pace)
    _logged: dict[str, str] = field(default_factory=dict)  # the last state of each job in the log

    def __post_init__(self) -> None:
        if self.folder.log.exists():
            text = self.folder.log.read_text(encoding="utf-8", errors="replace")
            self._logged = dict(_STATES.findall(text))

    def say(self, text: str) -> None:
        """Add a line to the log. OSError."""
        with named_errors(self.folder.log), open(self.folder.log, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def begin(self, stage: str, jobs: int) -> None:
        """A stage begins, with so many jobs."""
        self.stage, self._jobs, self._done = stage, jobs, set()
        self._tell()

    def end(self) -> None:
        """The stage has ended."""
        if self.round and self.stage in STAGES:
            workers = max(1, min(self.plan.workers, self._jobs))
            self._pace.stage(self.plan.round(self.round)[self.stage].seconds, workers)

    def event(self, event: Event) -> None:
        """Something happened to a job of the stage."""
        if event.kind in ("skipped", "done", "failed"):
            self._done.add(event.job.name)
            self._pace.job(event.seconds)
        kind: str = event.kind
        if kind == "skipped":
            kind = "failed" if event.message else "done"
        word = _TOLD.get(kind, kind)
        # A driver that was killed may have written done.json, but not the line.
        if event.kind != "skipped" or self._logged.get(event.job.name) != word:
            seconds = f" after {event.seconds:.1f} s" if event.seconds else ""
            message = f": {event.message}" if event.message else ""
            self.say(f"{event.job.name} {word}{seconds}{message}")
            self._logged[event.job.name] = word
        self._tell()

    def _tell(self) -> None:
        part = len(self._done) / self._jobs if self._jobs else 1.0
        progress = Progress(
            round=self.round,
            rounds=self.plan.rounds,
            stage=self.stage,
            done=len(self._done),
            jobs=self._jobs,
            frames=self.frames,
            force_error=self.last.force_error if self.last else None,
            left=self.plan.left(self.round, self.stage, part) * self._pace.factor,
        )
        progress.write(self.folder.progress)
        if self.report is not None:
            self.report(progress)
