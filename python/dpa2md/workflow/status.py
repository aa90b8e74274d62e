"""Where a run stands, from its folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from .folders import FAILED, RUNNING
from .journal import FINISHED, Progress
from .layout import RunFolder
from .lock import is_locked
from .outcomes import read_json
from .settings import Kind
from .verdict import RoundState


@dataclass(frozen=True)
class Status:
    """Where a run stands."""

    kind: Kind
    state: str  #: running, stopped or finished
    progress: Progress  #: at the last event
    rounds: tuple[RoundState, ...]  #: those that have ended
    running: tuple[str, ...]  #: jobs
    set_aside: dict[str, str]  #: jobs and why
    model: Path | None  #: the one that the run ended with


def read_status(folder: Path) -> Status:
    """Where a run stands.

    Raises
    ------
    RunError
        When there is no run in the folder.
    """
    found = [RunFolder(folder, kind) for kind in Kind if RunFolder(folder, kind).settings.exists()]
    if not found or not found[0].progress.exists():
        raise RunError(f"{folder}: there is no run in this folder; name that of dpa2md distill.")
    run = found[0]
    progress = Progress.read(run.progress)
    state = "running" if is_locked(folder) else "stopped"
    if state == "stopped" and progress.stage == FINISHED:
        state = FINISHED
    return Status(
        kind=run.kind,
        state=state,
        progress=progress,
        rounds=tuple(RoundState.read(path) for path in _in_order(folder, "round-*/round.json")),
        running=tuple(_job(p, folder) for p in _in_order(folder, f"**/{RUNNING}")),
        set_aside={
            _job(p, folder): read_json(p)["reason"] for p in _in_order(folder, f"**/{FAILED}")
        },
        model=run.result if state == FINISHED else None,
    )


def _in_order(folder: Path, pattern: str) -> list[Path]:
    """Files of jobs, without those that were put away, by round and stage."""
    paths = [p for p in folder.glob(pattern) if not p.parent.name.startswith("before-")]
    return sorted(paths, key=lambda path: (len(path.parts[len(folder.parts)]), path))


def _job(path: Path, folder: Path) -> str:
    return path.parent.relative_to(folder).as_posix()
