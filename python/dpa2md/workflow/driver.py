"""A whole run, from its settings to its report."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.files import sha256, whole_file
from ..errors import RunError
from .costs import Costs, measure
from .inputs import Inputs, read_inputs
from .job import Job
from .jobs import Runner, run_jobs
from .journal import FINISHED, Journal, Report
from .layout import RunFolder
from .local import LocalRunner
from .lock import run_lock
from .plan import Plan, first_jobs
from .rounds import Loop
from .setting_keys import CHANGEABLE
from .settings import Kind, Settings, read_settings, settings_of, settings_text
from .stages import REPORT, Stages
from .verdict import RoundState

_COMMAND = "dpa2md"


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes
    ----------
    model
        student.dpa2, or tuned.dpa2.
    report
        report.html; None where it could not be made.
    round
        The round that the model is of.
    rounds
        What came of each.
    """

    model: Path
    report: Path | None
    round: int
    rounds: tuple[RoundState, ...]


def load(settings: Settings | Mapping[str, Any] | str | os.PathLike, kind: Kind) -> Settings:
    """Settings of a file, of a table, or as they are; raises as `read_settings`."""
    if isinstance(settings, Settings):
        return settings
    if isinstance(settings, Mapping):
        return settings_of(dict(settings), kind)
    return read_settings(settings, kind)


def run(
    settings: Settings | Mapping[str, Any] | str | os.PathLike,
    kind: Kind,
    folder: str | os.PathLike,
    report: Report | None = None,
    retry_failed: bool = False,
) -> Result:
    """Start a run or go on with it; see `dpa2md.workflow.distill`."""
    read = load(settings, kind)
    inputs = read_inputs(read)
    for sentence in inputs.warnings:
        warnings.warn(sentence, UserWarning, stacklevel=2)
    where = RunFolder(Path(folder).absolute(), kind)
    with run_lock(where.path):
        _keep_settings(read, where)
        _find_command()
        journal = Journal(where, Plan(read, _costs(read, inputs, where)), report)
        journal.say("started")
        runner = _runner(read)
        try:
            outcome = Loop(read, inputs, where, runner, journal, retry_failed).run()
            _copy(outcome.model, where.result)
            job = Stages(read, inputs, where).report(outcome.round)
            made = _report(job, where, runner, journal, retry_failed)
        except KeyboardInterrupt:
            journal.say("stopped; the same command goes on")
            raise
        except RunError as error:
            journal.say(f"ended: {error}")
            raise
        journal.begin(FINISHED, 0)
        journal.say(f"finished: {where.result.name} is the model of round {outcome.round}")
    return Result(where.result, made, outcome.round, outcome.rounds)


def _keep_settings(settings: Settings, folder: RunFolder) -> None:
    """Write the settings, or compare them with those that the run began with.

    Raises
    ------
    RunError
        When something differs on which finished work depends, or the folder has another run.
    """
    others = [RunFolder(folder.path, kind).settings for kind in Kind if kind is not folder.kind]
    if there := [path for path in others if path.exists()]:
        raise RunError(f"{there[0]}: this folder has another run; name another --folder.")
    if folder.settings.exists():
        before = stored_values(folder)
        now = json.loads(json.dumps(dict(settings.values)))
        for name in [*before, *now]:
            if name not in CHANGEABLE and before.get(name) != now.get(name):
                raise RunError(
                    f"{settings.source}: {name} is not as the run in {folder.path} began "
                    f"({json.dumps(before.get(name))}); put it back, or name another --folder."
                )
    with whole_file(folder.settings) as temporary:
        temporary.write_text(settings_text(settings), encoding="utf-8")


def stored_values(folder: RunFolder) -> dict[str, Any]:
    """The settings that a run began with, as `settings_text` wrote them; RunError for other text."""
    try:
        lines = folder.settings.read_text(encoding="utf-8").splitlines()
        pairs = [line.split(": ", 1) for line in lines if line]
        return {name: json.loads(value) for name, value in pairs}
    except (OSError, ValueError):
        raise RunError(f"{folder.settings}: this is not what a run wrote; put it back.") from None


def _costs(settings: Settings, inputs: Inputs, folder: RunFolder) -> Costs:
    """Those that were measured when the run began."""
    if not folder.costs.exists():
        measure(settings, inputs).write(folder.costs)
    return Costs.read(folder.costs)


def plan(settings: Settings, folder: str | os.PathLike) -> tuple[Inputs, Plan, list[Job]]:
    """What a run would do: its inputs, its plan, and the jobs of the first round. Nothing is written.

    Raises
    ------
    InputError, ModelError, RunError, OSError
        As `run`, when something can't be used.
    """
    inputs = read_inputs(settings)
    where = RunFolder(Path(folder).absolute(), settings.kind)
    costs = measure(settings, inputs)
    return inputs, Plan(settings, costs), first_jobs(settings, inputs, where)


def _find_command() -> None:
    """See that jobs find this program: that of this environment, whether or not it is activated."""
    own = Path(sys.executable).parent
    if (own / _COMMAND).exists():
        os.environ["PATH"] = os.pathsep.join([str(own), os.environ.get("PATH", os.defpath)])
    if shutil.which(_COMMAND) is None:
        raise RunError(f"The command {_COMMAND} is not on the PATH; activate its environment.")


def _runner(settings: Settings) -> Runner:
    if settings.cluster is None:
        return LocalRunner(settings.workers)
    from .cluster import ClusterRunner

    return ClusterRunner(settings.cluster.machine, settings.cluster.resources)


def _copy(model: Path, result: Path) -> None:
    if not result.exists() or sha256(result) != sha256(model):
        with whole_file(result) as temporary:
            shutil.copyfile(model, temporary)


def _report(
    job: Job, folder: RunFolder, runner: Runner, journal: Journal, retry_failed: bool
) -> Path | None:
    """Run the comparison of the model with the given one; None where that failed."""
    journal.begin("report", 1)
    (result,) = run_jobs([job], runner, report=journal.event, retry_failed=retry_failed)
    if result.state == "failed":
        warnings.warn(
            f"{job.name}: there is no report: {result.message.rstrip('.')}.", stacklevel=3
        )
        return None
    for name in REPORT:
        _copy(job.folder / name, folder.path / name)
    return folder.path / REPORT[0]
