"""The loop: rounds of exploring, selecting, labelling, training and validating.

Where it stands follows from the folder alone: every job is skipped that is done, and what a round led
to is computed anew from what its jobs left.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base.files import whole_file
from ..errors import RunError
from ..train.structure_systems import StructureSystem
from ..train.systems import Needs
from .folders import FAILED
from .inputs import Inputs
from .job import Job, Result
from .jobs import Runner, run_jobs
from .journal import Journal
from .layout import RoundFolder, RunFolder
from .local import LocalRunner
from .outcomes import Errors, Runs, errors_of, read_json, runs_of, spread_of
from .settings import Settings
from .stages import FRAMES, GIVEN, HELD_OUT, LABELLED, TRAINED, Models, Stages
from .students import student_model
from .trainers import INPUT
from .training_input import CHECKPOINT, training_input
from .verdict import RoundState, few_candidates, judge

# Of the first learning rate, in a student that goes on: 8e-3 made one of water forget all in its last round.
_GOES_ON = 0.4


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    rounds: tuple[RoundState, ...]
    model: Path  #: the last good one
    round: int  #: that it is of


@dataclass(frozen=True)
class _Stage:
    """How the jobs of a stage ended."""

    done: list[Result]
    failed: list[Result]

    @property
    def folders(self) -> list[Path]:
        return [result.job.folder for result in self.done]


class Loop:
    """Runs what is left of a run.

    Parameters
    ----------
    settings, inputs
        Of the run.
    folder
        Of the run.
    runner
        Where jobs run.
    journal
        Who is told.
    retry_failed
        Whether jobs that were set aside start anew.
    """

    def __init__(
        self,
        settings: Settings,
        inputs: Inputs,
        folder: RunFolder,
        runner: Runner,
        journal: Journal,
        retry_failed: bool = False,
    ):
        self._retry_failed = retry_failed
        self._settings, self._inputs, self._folder = settings, inputs, folder
        self._runner, self._journal = runner, journal
        self._stages = Stages(settings, inputs, folder)

    def run(self) -> Outcome:
        """Make all rounds that are left.

        Raises
        ------
        RunError
            When no model can be made: all jobs of a stage failed in a round before any was good.
        OSError
            When a file can't be written.
        """
        self._stages.write_structures()
        # Here, wherever the others run: the given model lies outside of the run's folder.
        start = self._run("start", [self._stages.start()], LocalRunner())
        if start.failed:
            raise _failure(start)
        states: list[RoundState] = []
        for number in range(1, self._settings.rounds + 1):
            state = self._round(self._folder.round(number), states)
            states.append(state)
            if state.last:
                break
        good = [state for state in states if state.good]
        if not good:
            raise RunError(f"round {states[-1].round} gave no model: {states[-1].why}.")
        last = good[-1].round
        return Outcome(tuple(states), self._folder.round(last).model, last)

    def _run(self, stage: str, jobs: Sequence[Job], runner: Runner | None = None) -> _Stage:
        self._journal.begin(stage, len(jobs))
        # Where all failed the run ended there, and a person has seen to it. Otherwise it went on
        # without those that failed, and does so again, unless it is told not to.
        later = self._folder.round(self._journal.round + 1).path.exists()
        ended = not later and all((job.folder / FAILED).exists() for job in jobs)
        again = ended or self._retry_failed
        report = self._journal.event
        results = run_jobs(jobs, runner or self._runner, report=report, retry_failed=again)
        self._journal.end()
        return _Stage(
            [result for result in results if result.state == "done"],
            [result for result in results if result.state == "failed"],
        )

    # ---- a round

    def _round(self, round_: RoundFolder, before: Sequence[RoundState]) -> RoundState:
        self._journal.round = round_.number
        self._journal.last = before[-1] if before else None
        models = self._models(before)
        limits = self._limits() if before else []
        explored = self._run("explore", self._stages.explore(round_, models, limits))
        if not explored.done:
            raise _failure(explored)
        selected = self._select(round_, models, explored)
        counts = read_json(round_.counts)
        labelled = self._label(round_, counts)
        known = [*self._labelled_before(round_), *_parts(labelled, "part")]
        if not known:
            raise RunError(f"round-1/020-select: {' '.join(counts['warnings'])}")
        self._journal.frames = self._count(known)
        end = self._end(round_, models, counts)
        trained = self._train(round_, known, before, bool(end))
        found = _Validation()
        if trained.done:
            found = self._validate(round_, _parts(labelled, HELD_OUT))
        verdict = judge(
            before, found.errors, found.runs, training_error=found.training,
            spread=spread_of(known), target=self._settings.force_error, end=end, fault=_fault(trained, found),
        )  # fmt: skip
        stages = (explored, selected, labelled, trained, found.stage)
        state = RoundState(
            round=round_.number,
            explored=counts["frames"],
            candidates=_unmastered(counts),
            labelled=self._count(_parts(labelled, "part")),
            frames=self._journal.frames,
            steps=_steps(round_),
            good=verdict.good,
            last=verdict.last,
            why=verdict.why,
            force_error=found.errors.force,
            energy_error=found.errors.energy,
            training_error=found.training,
            given_force_error=found.given.force,
            given_energy_error=found.given.energy,
            runs=found.runs.count,
            early=found.runs.early,
            hopeless=found.runs.hopeless,
            set_aside=tuple(r.job.name for stage in stages for r in stage.failed),
            seconds=round(sum(r.seconds for stage in stages for r in stage.done), 3),
        )
        if not round_.state.exists():
            self._journal.say(f"round {round_.number}: {verdict.why}")
        state.write(round_.state)
        return state

    def _end(self, round_: RoundFolder, models: Models, counts: dict[str, Any]) -> str:
        """Why no round should follow; empty: one may."""
        if models.student is not None and few_candidates(counts["frames"], _unmastered(counts)):
            return "hardly any new frame deviates by more than the lower level"
        return "it was to be the last round" if round_.number == self._settings.rounds else ""

    def _validate(self, round_: RoundFolder, held_out: Sequence[Path]) -> _Validation:
        """Errors of the round's model, over the new held-out frames and those of rounds before."""
        held_out = [*self._of_rounds_before(round_, HELD_OUT), *held_out]
        jobs = self._stages.validate(round_, held_out, self._limits())
        stage = self._run("validate", jobs)
        of_user = [folder for folder in stage.folders if folder.name.startswith(GIVEN)]
        trained = [folder for folder in stage.folders if folder.name == TRAINED]
        own = [folder for folder in stage.folders if folder not in (*of_user, *trained)]
        driven = [folder for folder in own if (folder / FRAMES).exists()]
        return _Validation(
            stage,
            errors_of(own),
            errors_of(of_user),
            runs_of(driven, self._stages.validation_steps),
            errors_of(trained).force,
        )

    def _models(self, before: Sequence[RoundState]) -> Models:
        """The last good model explores, and its deviation counts; the given one where there is none."""
        given, good = self._folder.model, [state.round for state in before if state.good]
        if not good:
            return Models(given, given, None)
        student = self._folder.round(good[-1]).model
        reference = given
        if not self._settings.distils and len(good) > 1:
            reference = self._folder.round(good[-2]).model
        last = before[good[-1] - 1]
        return Models(given if last.hopeless else student, reference, student, last.force_error)

    def _limits(self) -> list[Path]:
        """How near atoms may be: as in the structures and in the runs of the first round."""
        runs = sorted(self._folder.round(1).explore.glob("*/done.json"))
        return self._stages.limits([path.parent / FRAMES for path in runs])

    def _select(self, round_: RoundFolder, models: Models, explored: _Stage) -> _Stage:
        known = self._labelled_before(round_)
        job = self._stages.select(round_, models, explored.folders, known, self._limits())
        selected = self._run("select", [job])
        if selected.failed:
            raise _failure(selected)
        return selected

    def _label(self, round_: RoundFolder, counts: dict[str, Any]) -> _Stage:
        held_out = counts["held_out"]
        jobs = self._stages.label(round_, counts["chosen"] - held_out, held_out)
        labelled = self._run("label", jobs)
        if jobs and not labelled.done:
            raise _failure(labelled)
        return labelled

    def _train(
        self,
        round_: RoundFolder,
        known: Sequence[Path],
        before: Sequence[RoundState],
        final: bool,
    ) -> _Stage:
        good = [state.round for state in before if state.good]
        start = None
        if good:
            folder = self._folder.round(good[-1])
            start = folder.train / f"{CHECKPOINT}-{_steps(folder)}.pt"
        self._write_input(round_, known, before, final)
        return self._run("train", [self._stages.train(round_, known, _steps(round_), start)])

    def _write_input(
        self,
        round_: RoundFolder,
        known: Sequence[Path],
        before: Sequence[RoundState],
        final: bool,
    ) -> None:
        """The training's input, unless there is one: a person may have changed it."""
        path, training = round_.train / INPUT, self._settings.training
        if path.exists():
            return
        rates = training.learning_rate
        if self._settings.distils and any(state.good for state in before):
            rates = (max(_GOES_ON * rates[0], rates[1]), rates[1])
        setbacks = sum(not state.good for state in before)
        first, last = (rate * 0.5**setbacks for rate in rates)
        content = training_input(
            self._model_section(round_, known),
            steps=training.final_steps if final else training.steps,
            rates=(first, last),
            batch=training.batch,
            seed=self._settings.seed + round_.number - 1,
            pretrained=not self._settings.distils,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")

    def _model_section(self, round_: RoundFolder, known: Sequence[Path]) -> dict[str, Any]:
        """The student's, with neighbours counted in the first round's frames, or the pretrained one's."""
        if self._inputs.pretrained is not None:
            return self._inputs.pretrained
        if round_.number > 1:
            return read_json(self._folder.round(1).train / INPUT)["model"]
        assert self._settings.student is not None
        needs = Needs(self._inputs.elements)
        systems = [StructureSystem(str(path), needs) for path in known]
        where = f"{self._settings.source}: student"
        return student_model(self._settings.student, self._inputs.elements, systems, where)

    # ---- what is labelled

    def _labelled_before(self, round_: RoundFolder) -> list[Path]:
        """Files of frames that earlier rounds trained on."""
        given = [Path(name) for name in self._settings.data]
        return [*given, *self._of_rounds_before(round_, "part")]

    def _of_rounds_before(self, round_: RoundFolder, prefix: str) -> list[Path]:
        found = []
        for number in range(1, round_.number):
            folders = self._folder.round(number).label.glob(f"{prefix}-*")
            files = [folder / LABELLED for folder in folders if (folder / LABELLED).exists()]
            found += sorted(files, key=lambda path: int(path.parent.name.rpartition("-")[2]))
        return found

    def _count(self, files: Sequence[Path]) -> int:
        """Frames in files of labelled frames."""
        given = [path for path in files if path.name != LABELLED]
        own = [
            read_json(path.with_suffix(".json"))["labelled"] for path in files if path not in given
        ]
        needs = Needs(self._inputs.elements)
        return sum(own) + sum(len(StructureSystem(str(path), needs)) for path in given)


@dataclass(frozen=True)
class _Validation:
    """How a round's model compares with labels."""

    stage: _Stage = field(default_factory=lambda: _Stage([], []))
    errors: Errors = field(default_factory=lambda: Errors(None, None))
    given: Errors = field(default_factory=lambda: Errors(None, None))  # of the user's frames
    runs: Runs = field(default_factory=lambda: Runs(0, 0, 0, ()))
    training: float | None = None  # the force error of the frames trained on, eV/angstrom


def _fault(trained: _Stage, found: _Validation) -> str:
    """Why nothing is known of a model; empty: something is."""
    if not trained.done:
        return "the training failed"
    lost = found.stage.failed and found.errors.force is None
    return "nothing is known of its errors: its validation failed" if lost else ""


def _failure(stage: _Stage) -> RunError:
    """The error of a stage without which the run can't go on."""
    first = stage.failed[0]
    return RunError(
        f"{first.job.name}: {first.message.rstrip('.')}; see stdout there, and give the same command "
        "again to go on."
    )


def _parts(stage: _Stage, prefix: str) -> list[Path]:
    """The labelled frames of the jobs that are called so."""
    return [folder / LABELLED for folder in stage.folders if folder.name.startswith(prefix)]


def _unmastered(counts: dict[str, Any]) -> int:
    return counts["candidate"] + counts["failed"]


def _steps(round_: RoundFolder) -> int:
    """Those of the input, which a person may have changed."""
    return read_json(round_.train / INPUT)["training"]["numb_steps"]
