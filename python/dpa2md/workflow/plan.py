"""What a run will do and how long that will take, before it starts and while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .costs import Costs
from .inputs import Inputs
from .job import Job
from .layout import RunFolder
from .settings import Settings
from .stages import FRAMES, LABELLED, Models, Stages

STAGES = ("explore", "select", "label", "train", "validate")
_START = 1.0  # seconds until a command has read its model and its frames
_INTEGRATOR = 2e-4  # seconds a step of molecular dynamics, beside forces
_REPORT_SPEED = 20.0  # seconds that the report takes to time models


@dataclass(frozen=True)
class StagePlan:
    """A stage of a round."""

    jobs: int
    what: str
    seconds: float  #: of wall time; labels by another calculator are not counted


@dataclass
class Pace:
    """How long jobs took, beside what was expected of them."""

    _took: float = 0.0  # of the stage
    _taken: float = 0.0
    _expected: float = 0.0

    def job(self, seconds: float) -> None:
        """A job of a stage has ended."""
        self._took += seconds

    def stage(self, expected: float, workers: int) -> None:
        """A stage has ended, which should have taken so many seconds, with so many jobs at a time."""
        self._taken += self._took / workers
        self._expected += expected
        self._took = 0.0

    @property
    def factor(self) -> float:
        """What is left takes so much longer than expected; 1 as long as nothing is known."""
        return self._taken / self._expected if self._taken and self._expected else 1.0


class Plan:
    """The plan of a run.

    Parameters
    ----------
    settings
        Of the run.
    costs
        On the machine where it runs.
    """

    def __init__(self, settings: Settings, costs: Costs):
        self._settings, self.costs = settings, costs
        self._conditions = len(costs.atoms) * (
            len(settings.exploration.temperatures) * max(1, len(settings.exploration.pressures))
        )
        self._atoms = sum(costs.atoms) / len(costs.atoms)  # a frame, in the mean

    @property
    def rounds(self) -> int:
        """The most that there can be."""
        return self._settings.rounds

    @property
    def workers(self) -> int:
        """Jobs at a time."""
        return self._settings.workers

    def round(self, number: int) -> Mapping[str, StagePlan]:
        """The stages of a round, if all rounds are made."""
        explore = self._explore(number)
        return {
            "explore": explore,
            "select": self._select(number),
            "label": self._label(),
            "train": self._train(number),
            "validate": self._validate(),
        }

    @property
    def seconds(self) -> float:
        """Of all rounds and the report."""
        rounds = range(1, self._settings.rounds + 1)
        return self._report + sum(s.seconds for n in rounds for s in self.round(n).values())

    @property
    def _report(self) -> float:
        """Seconds of the report: both models run for some more steps than are analysed."""
        both = self.costs.atoms[0] * (self.costs.model + self.costs.student) + 2 * _INTEGRATOR
        return 1.2 * self._settings.report_steps * both + _REPORT_SPEED

    def left(self, number: int, stage: str, part: float) -> float:
        """Seconds from a point of a round on.

        Parameters
        ----------
        stage
            Of `STAGES`; another one comes before the first round or after the last.
        part
            Of the stage, that is done.
        """
        if stage not in STAGES:
            return self._report * (1 - part) if number else self.seconds
        own = self.round(number)
        now = own[stage].seconds * (1 - part)
        later = sum(own[name].seconds for name in STAGES[STAGES.index(stage) + 1 :])
        rounds = range(number + 1, self._settings.rounds + 1)
        return (
            now
            + later
            + self._report
            + sum(s.seconds for n in rounds for s in self.round(n).values())
        )

    # ---- stages

    def _explore(self, number: int) -> StagePlan:
        exploration, cost = self._settings.exploration, self.costs
        jobs, driver = self._conditions, cost.model
        if number > 1:
            watched = cost.model / exploration.interval if self._settings.distils else 0.0
            driver = cost.student + watched
        what = f"{exploration.steps} steps, {self._size()}"
        seconds = exploration.steps * (self._atoms * driver + _INTEGRATOR) + _START
        total = self._side_by_side(jobs, seconds)
        if number == 1 and exploration.perturbed:
            jobs += len(self.costs.atoms)
            what += f"; {exploration.perturbed} perturbed copies of each structure"
        return StagePlan(jobs, what, total)

    def _frames(self, number: int) -> int:
        """That are explored in a round."""
        exploration = self._settings.exploration
        runs = self._conditions * (exploration.steps // exploration.interval + 1)
        shaken = exploration.perturbed * len(self.costs.atoms) if number == 1 else 0
        return runs + shaken

    def _select(self, number: int) -> StagePlan:
        frames, wanted = self._frames(number), self._settings.selection.frames_per_round
        each = 2 * self.costs.model + (self.costs.student if number > 1 else 0.0)
        what = f"at most {min(wanted, frames)} of {frames} frames"
        return StagePlan(1, what, _START + frames * self._atoms * each)

    def _label(self) -> StagePlan:
        wanted, label = self._settings.selection.frames_per_round, self._settings.label
        if label is None:
            seconds = _START + wanted * self._atoms * self.costs.model
            return StagePlan(1, f"{wanted} frames by the teacher", seconds)
        by = label.calculator or label.command
        jobs = -(-wanted // 10)
        return StagePlan(jobs, f"{wanted} frames by {by}: its own time comes on top", _START * jobs)

    def _train(self, number: int) -> StagePlan:
        training = self._settings.training
        steps = training.final_steps if number == self._settings.rounds else training.steps
        frames = number * self._settings.selection.frames_per_round
        what = f"{steps} steps on {frames} frames"
        if training.trainer != "dpa2md":
            what += f" by {training.trainer}: it takes longer than dpa2md, whose time this is"
        return StagePlan(1, what, _START + steps * self.costs.training)

    def _validate(self) -> StagePlan:
        exploration, cost = self._settings.exploration, self.costs
        if self._settings.label is not None:
            return StagePlan(1, "held-out frames", _START)
        steps = max(exploration.interval, exploration.steps // 4)
        checked = 3 * cost.model + cost.student  # watched, labelled, evaluated
        seconds = steps * (self._atoms * cost.student + _INTEGRATOR) + 3 * _START
        seconds += steps / exploration.interval * self._atoms * checked
        total = self._side_by_side(self._conditions, seconds)
        return StagePlan(self._conditions, f"{steps} steps with the student", total)

    def _side_by_side(self, jobs: int, seconds: float) -> float:
        """Wall time of equal jobs."""
        return -(-jobs // self._settings.workers) * seconds

    def _size(self) -> str:
        sizes = sorted(set(self.costs.atoms))
        return f"{sizes[0]} atoms" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} atoms"


def first_jobs(settings: Settings, inputs: Inputs, folder: RunFolder) -> list[Job]:
    """The jobs up to the selection of the first round, and one of each stage after it."""
    stages, round_ = Stages(settings, inputs, folder), folder.round(1)
    given = folder.model
    models = Models(given, given, None)
    explore = stages.explore(round_, models, [])
    limits = stages.limits([job.folder / FRAMES for job in explore])
    label = stages.label(round_, settings.selection.frames_per_round, 0)
    labelled = [job.folder / LABELLED for job in label]
    steps = settings.training.steps if settings.rounds > 1 else settings.training.final_steps
    return [
        stages.start(),
        *explore,
        stages.select(round_, models, [job.folder for job in explore], [], limits),
        label[0],
        stages.train(round_, labelled, steps, None),
        *stages.validate(round_, labelled, limits)[:1],
    ]
