"""The molecular dynamics behind a report: from the same start with every model, resumable."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory

from ...base.files import whole_file
from ...calculator import DPA2Calculator
from ...errors import RunError
from ...md import run_md
from .request import Conditions

_SETTINGS = "settings.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """What one model's runs left."""

    name: str  #: of the model
    folder: Path  #: with the trajectories
    done: tuple[str, ...]  #: the stages that came to their end
    failed: str = ""  #: why the next one didn't, or ""

    def frames(self, stage: str = "production", most: int | None = None) -> list[Atoms]:
        """The frames of a stage without its first one, evenly thinned to at most `most`."""
        with Trajectory(str(self.folder / f"{stage}.traj")) as file:
            chosen = np.arange(1, len(file))
            if most is not None and len(chosen) > most:
                chosen = chosen[np.linspace(0, len(chosen) - 1, most).astype(int)]
            return [file[int(k)] for k in chosen]

    def table(self, stage: str = "production") -> np.ndarray:
        """The thermo table of a stage, a record array with the columns of `run_md`, without its first row."""
        rows = np.genfromtxt(self.folder / f"{stage}.csv", delimiter=",", names=True)
        return np.atleast_1d(rows)[1:]


def open_work(folder: Path, facts: dict[str, Any], *, replace: bool) -> None:
    """Make the folder of the runs, or see that it holds those of the same settings.

    Parameters
    ----------
    folder
        The folder.
    facts
        What the runs depend on, as JSON can hold it.
    replace
        Delete the runs of other settings.

    Raises
    ------
    RunError
        When the folder holds the runs of other settings, or something else.
    """
    file = folder / _SETTINGS
    facts = json.loads(json.dumps(facts))
    if folder.exists():
        if not file.exists():
            raise RunError(f"{folder} exists and holds no runs of a report; move it away.")
        found = _read(file)
        if found == facts:
            return
        if not replace and any(folder.glob("run-*")):
            others = sorted(k for k in facts if found.get(k) != facts[k])
            raise RunError(
                f"{folder} holds runs with other {', '.join(others)}; give the same again, or add "
                "--overwrite to delete them."
            )
        shutil.rmtree(folder)
    folder.mkdir()
    with whole_file(file) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunError(f"{file}: the file is damaged; delete the folder.")
    return found


def run_all(
    name: str,
    calculator: DPA2Calculator,
    start: Atoms,
    conditions: Conditions,
    folder: Path,
    stages: Sequence[str],
    report: Callable[[str, int, int], None],
) -> Run:
    """Run the stages of one model, or go on where they stopped.

    Parameters
    ----------
    name
        Of the model.
    calculator
        The model.
    start
        Where the equilibration begins; not changed. It is the same for every model, and so are the velocities.
    conditions
        How to run.
    folder
        Gets a trajectory, a table and a checkpoint for each stage.
    stages
        Names out of `Conditions.stages`.
    report
        Called with a text, the steps done and their number.

    Raises
    ------
    KeyboardInterrupt
        When it was stopped by Ctrl-C or SIGTERM, with its state saved.
    """
    folder.mkdir(exist_ok=True)
    done: tuple[str, ...] = ()
    atoms = start.copy()
    atoms.calc = calculator
    for stage, settings in conditions.stages().items():
        if stage not in stages:
            continue

        def show(step: int, _: Any, stage: str = stage, last: int = settings.steps) -> None:
            report(f"{name}: {stage}", step, last)

        try:
            outcome = run_md(
                atoms,
                settings,
                trajectory=folder / f"{stage}.traj",
                log=folder / f"{stage}.csv",
                checkpoint=folder / f"{stage}.npz",
                restart=True,
                report=show,
            )
        except RunError as error:  # an explosion is a result, too
            return Run(name, folder, done, f"{stage}: {error}")
        if outcome.interrupted:
            raise KeyboardInterrupt
        done = (*done, stage)
    return Run(name, folder, done)
