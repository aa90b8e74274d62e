"""The jobs of every stage: which commands they run on which files."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase.io import write

from ..base.files import whole_file
from ..shipped import model_file
from .inputs import Inputs
from .job import Job
from .layout import RoundFolder, RunFolder, relative
from .settings import Label, Settings
from .trainers import INPUT, MODEL, TRAINERS, Start, Task
from .training_input import DATA

FRAMES, LABELLED, ERRORS = "frames.extxyz", "labelled.extxyz", "errors.json"
REPORT = ("report.html", "report.json")
HELD_OUT = "held-out"  # how the jobs begin that label held-out frames
TRAINED = "trained"  # the job that validates with the frames that were trained on
GIVEN = "given"  # ... that validate with frames of the user
_PART = 10  # frames of a job that labels with a calculator of the user's
_LARGE_PART = 2000  # with the teacher
_DEVIATION, _LEAST_DEVIATION = 15.0, 1.0  # the largest of hundreds of atoms, in errors; eV/angstrom
_LIMIT = 0.75  # of the teacher's smallest distances: a student learns from frames somewhat nearer
_VALIDATION = 4  # a run that validates has so much less steps than one that explores


@dataclass(frozen=True)
class Condition:
    """A structure at a temperature and a pressure."""

    structure: int
    temperature: float  #: K
    pressure: float | None  #: bar; None: constant volume

    @property
    def name(self) -> str:
        """As folders are called."""
        pressure = "" if self.pressure is None else f"-p{self.pressure:g}"
        return f"s{self.structure}-t{self.temperature:g}{pressure}"

    def words(self) -> list[str]:
        """For a command line."""
        temperature = ["--temperature", f"{self.temperature:g}"]
        if self.pressure is None:
            return ["--ensemble", "nvt", *temperature]
        return ["--ensemble", "npt", *temperature, "--pressure", f"{self.pressure:g}"]


@dataclass(frozen=True)
class Models:
    """The models that a round explores and selects with."""

    explorer: Path
    reference: Path  #: what the model is compared with: the teacher, or the model before
    student: Path | None  #: whose deviation from the reference counts; None: there is none yet
    error: float | None = None  #: of the student's forces, eV/angstrom


@dataclass(frozen=True)
class Drive:
    """How a model drives molecular dynamics."""

    model: Path
    seed: int  #: beside the run's
    steps: int
    limits: Sequence[Path]  #: files with smallest distances
    watch: Path | None = None  #: the model whose forces are compared
    max_deviation: float = 0.0  #: from these, eV/angstrom


class Stages:
    """Makes the jobs of a run.

    Parameters
    ----------
    settings
        The run's.
    inputs
        What they name.
    folder
        The run's.
    """

    def __init__(self, settings: Settings, inputs: Inputs, folder: RunFolder):
        self.settings, self.inputs, self.folder = settings, inputs, folder

    def _job(
        self,
        folder: Path,
        commands: Sequence[str],
        inputs: Sequence[Path],
        outputs: Sequence[str],
    ) -> Job:
        return Job(
            folder,
            tuple(commands),
            tuple(map(_file_of, inputs)),
            tuple(outputs),
            threads=self.settings.threads,
            run=self.folder.path,
        )

    def start(self) -> Job:
        """The given model as one file."""
        source, name = model_file(self.settings.model).absolute(), self.folder.model.name
        head = ["--head", self.settings.head] if self.settings.head else []
        if self.settings.distils:
            words = ["dpa2md", "convert", str(source), "-o", name, *head]
            return self._job(self.folder.start, (shlex.join(words),), (source,), (name,))
        copy = self._pretrained.name  # which trainings start from
        commands = (
            shlex.join(["cp", str(source), copy]),
            shlex.join(["dpa2md", "convert", copy, "-o", name, *head]),
        )
        return self._job(self.folder.start, commands, (source,), (copy, name))

    @property
    def _pretrained(self) -> Path:
        return self.folder.pretrained(Path(self.settings.model).suffix)

    def write_structures(self) -> None:
        """The structures to start from, where they are not there yet."""
        for index, atoms in enumerate(self.inputs.structures):
            path = self.folder.structure(index)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as temporary:
                    write(str(temporary), atoms, format="extxyz")

    def conditions(self) -> list[Condition]:
        """Of every structure, at constant volume where no pressures are given."""
        exploration = self.settings.exploration
        return [
            Condition(structure, temperature, pressure)
            for structure in range(len(self.inputs.structures))
            for temperature in exploration.temperatures
            for pressure in exploration.pressures or (None,)
        ]

    def explore(self, round_: RoundFolder, models: Models, limits: Sequence[Path]) -> list[Job]:
        """Molecular dynamics at all conditions; in the first round perturbed structures, too.

        Parameters
        ----------
        limits
            Files with smallest distances, below which a run has blown up.
        """
        drive = Drive(models.explorer, round_.number, self.settings.exploration.steps, limits)
        # Where a tuned model is far from the one before, that may be what the labels ask for.
        if self.settings.distils and models.explorer != models.reference:
            drive = dataclasses.replace(
                drive, watch=models.reference, max_deviation=self._max_deviation(models)
            )
        jobs = [self._md(round_.explore, condition, drive) for condition in self.conditions()]
        if round_.number == 1 and self.settings.exploration.perturbed:
            jobs += [self._perturbed(round_, k) for k in range(len(self.inputs.structures))]
        return jobs

    def _max_deviation(self, models: Models) -> float:
        """Beyond which a student's run has gone astray: far more than its usual error, eV/angstrom."""
        levels = self.settings.selection.levels
        upper = levels[1] if levels else 0.0
        return max(_LEAST_DEVIATION, upper, _DEVIATION * (models.error or 0.0))

    def _md(self, parent: Path, condition: Condition, drive: Drive) -> Job:
        exploration = self.settings.exploration
        folder, start = parent / condition.name, self.folder.structure(condition.structure)
        words = ["dpa2md", "explore", relative(drive.model, folder), relative(start, folder)]
        words += [*condition.words(), "--steps", str(drive.steps)]
        words += ["--timestep", f"{self.inputs.timestep:g}"]
        words += ["--interval", str(exploration.interval)]
        words += ["--seed", str(self.settings.seed * 1000 + drive.seed)]
        words += ["--max-force", f"{exploration.max_force:g}"]
        inputs = [drive.model, start, *drive.limits]
        if drive.watch is not None:
            words += ["--watch", relative(drive.watch, folder)]
            words += ["--max-deviation", f"{drive.max_deviation:.2g}"]
            inputs.append(drive.watch)
        if drive.limits:
            words += self._limit_words(drive.limits, folder)
        words += ["--quiet", "-o", FRAMES]
        return self._job(folder, (shlex.join(words),), inputs, (FRAMES,))

    def _limit_words(self, limits: Sequence[Path], folder: Path) -> list[str]:
        files = [relative(path, folder) for path in limits]
        return ["--limits", *files, "--limit-factor", f"{_LIMIT:g}"]

    def _perturbed(self, round_: RoundFolder, index: int) -> Job:
        exploration = self.settings.exploration
        folder, start = round_.explore / f"s{index}-perturbed", self.folder.structure(index)
        atoms = self.inputs.structures[index]
        strain = exploration.strain if atoms.pbc.all() and atoms.cell.rank == 3 else 0.0
        words = ["dpa2md", "explore", relative(self.folder.model, folder), relative(start, folder)]
        words += ["--perturb", str(exploration.perturbed), "--rattle", f"{exploration.rattle:g}"]
        words += ["--strain", f"{strain:g}", "--seed", str(self.settings.seed)]
        words += ["--limits", relative(start, folder), "-o", FRAMES]
        return self._job(folder, (shlex.join(words),), (self.folder.model, start), (FRAMES,))

    def select(
        self,
        round_: RoundFolder,
        models: Models,
        explored: Sequence[Path],
        known: Sequence[Path],
        limits: Sequence[Path],
    ) -> Job:
        """Frames to label, out of the explored ones.

        Parameters
        ----------
        explored
            Folders of jobs that explored.
        known
            Files of labelled frames, from which the new ones should differ.
        limits
            Files with smallest distances, below which a frame makes no sense.
        """
        selection, folder = self.settings.selection, round_.select
        frames = [path / FRAMES for path in explored]
        words = ["dpa2md", "select", *(relative(path, folder) for path in frames)]
        words += ["--teacher", relative(models.reference, folder)]
        if models.student is not None:
            words += ["--student", relative(models.student, folder)]
            if selection.levels is not None:
                lower, upper = selection.levels
                words += ["--lower", f"{lower:g}", "--upper", f"{upper:g}"]
        words += ["--max-frames", str(selection.frames_per_round)]
        if known:
            words += ["--known", *(relative(path, folder) for path in known)]
        words += self._limit_words(limits, folder)
        if self._holds_out:
            words += ["--hold-out", f"{selection.held_out_part:g}"]
        words += ["--seed", str(self.settings.seed), "-o", round_.selected.name, "--overwrite"]
        students = (models.student,) if models.student else ()
        inputs = (*frames, models.reference, *students, *known, *limits)
        # where none is chosen there are only the counts
        return self._job(folder, (shlex.join(words),), inputs, (round_.counts.name,))

    def limits(self, frames: Sequence[Path]) -> list[Path]:
        """Files that say how near atoms may be: structures to start from and runs of the given model."""
        starts = [self.folder.structure(k) for k in range(len(self.inputs.structures))]
        runs = [
            path.with_suffix(".json")
            for path in frames
            if not path.parent.name.endswith("-perturbed")
        ]
        return [*starts, *runs]

    @property
    def _holds_out(self) -> bool:
        """Whether selected frames are held out: the teacher could label any number of others."""
        return not self.labels_are_free and self.settings.selection.held_out_part > 0

    @property
    def labels_are_free(self) -> bool:
        """Whether the teacher labels."""
        return self.settings.label is None

    def label(self, round_: RoundFolder, selected: int, held_out: int) -> list[Job]:
        """Jobs that label the selected and the held-out frames, of which there are so many."""
        jobs = []
        for prefix, frames, count in (
            ("part", round_.selected, selected),
            (HELD_OUT, round_.held_out, held_out),
        ):
            size = _LARGE_PART if self.labels_are_free else _PART
            for number, first in enumerate(range(0, count, size)):
                folder = round_.label / f"{prefix}-{number}"
                name = f"{relative(frames, folder)}@{first}:{min(first + size, count)}"
                inputs = (frames, *((self.folder.model,) if self.labels_are_free else ()))
                jobs.append(
                    self._job(folder, self._label_commands(name, folder), inputs, (LABELLED,))
                )
        return jobs

    def _label_commands(self, frames: str, folder: Path) -> tuple[str, ...]:
        label = self.settings.label
        if label is None:
            words = ["dpa2md", "label", relative(self.folder.model, folder), frames]
            return (shlex.join([*words, "-o", LABELLED]),)
        return (shlex.join(["dpa2md", "label", *_labelled_by(label, frames), "-o", LABELLED]),)

    def train(
        self, round_: RoundFolder, frames: Sequence[Path], steps: int, start: Path | None
    ) -> Job:
        """A training on all labelled frames.

        Parameters
        ----------
        start
            The checkpoint of an earlier student to begin with; None: a new student, or the pretrained
            model where it is fine-tuned.
        """
        folder = round_.train
        inputs = [folder / INPUT, *frames]
        begin = None
        if not self.settings.distils:
            pretrained = self._pretrained
            begin = Start("--finetune", relative(pretrained, folder), self.settings.head)
            inputs.append(pretrained)
        elif start is not None:
            begin = Start("--init-model", relative(start, folder))
            inputs.append(start)
        task = Task(
            frames=tuple(relative(path, folder) for path in frames),
            steps=steps,
            start=begin,
            ranks=self.settings.training.ranks,
        )
        commands = TRAINERS[self.settings.training.trainer].commands(task)
        return self._job(folder, commands, tuple(inputs), (MODEL, task.checkpoint))

    def validate(
        self, round_: RoundFolder, held_out: Sequence[Path], limits: Sequence[Path]
    ) -> list[Job]:
        """Comparisons of the round's model with labels: of frames of its own molecular dynamics
        where the teacher labels them, else of held-out ones; of those that it was trained on; of
        those that the user gave.

        Parameters
        ----------
        held_out
            Labelled frames that no model was trained on.
        """
        jobs = []
        if self.labels_are_free:
            jobs = [self._validate_by_md(round_, c, limits) for c in self.conditions()]
        folder, data = round_.validate / TRAINED, round_.train / DATA
        command = self._errors(round_, relative(data, folder), folder)
        jobs.append(self._job(folder, (command,), (round_.model, data), (ERRORS,)))
        given = [Path(name) for name in self.settings.held_out]
        for prefix, files in ((HELD_OUT, held_out), (GIVEN, given)):
            for number, path in enumerate(files):
                folder = round_.validate / f"{prefix}-{number}"
                command = self._errors(round_, relative(path, folder), folder)
                jobs.append(self._job(folder, (command,), (round_.model, path), (ERRORS,)))
        return jobs

    @property
    def validation_steps(self) -> int:
        """Of a run that validates."""
        exploration = self.settings.exploration
        return max(exploration.interval, exploration.steps // _VALIDATION)

    def _validate_by_md(
        self, round_: RoundFolder, condition: Condition, limits: Sequence[Path]
    ) -> Job:
        seed = 500 + round_.number  # other velocities than those that explored
        drive = Drive(round_.model, seed, self.validation_steps, limits)
        job = self._md(round_.validate, condition, drive)
        commands = (
            *job.commands,
            *self._label_commands(FRAMES, job.folder),
            self._errors(round_, LABELLED, job.folder),
        )
        inputs = (*job.inputs, self.folder.model)
        return self._job(job.folder, commands, inputs, (FRAMES, LABELLED, ERRORS))

    def report(self, number: int) -> Job:
        """A comparison of the model of a round with the given one."""
        folder, round_ = self.folder.report_job, self.folder.round(number)
        structure, exploration = self.folder.structure(0), self.settings.exploration
        # under the names by which the page calls them
        names = [self.folder.result.name, f"{self.folder.start.name}.dpa2"]
        commands = [shlex.join(["rm", "-f", *REPORT])]  # of a job that was cut off
        for path, name in zip((round_.model, self.folder.model), names, strict=True):
            commands.append(shlex.join(["cp", relative(path, folder), name]))
        words = ["dpa2md", "report", *names]
        labels = [Path(name) for name in self.settings.held_out[:1]]
        if labels:
            words += ["--labels", relative(labels[0], folder)]
        elif labels := self._validated(round_):
            files = shlex.join([relative(path, folder) for path in labels])
            commands.append(f"cat {files} > {LABELLED}")
            words += ["--labels", LABELLED]
        words += ["--structure", relative(structure, folder)]
        words += ["--temperature", f"{exploration.temperatures[0]:g}"]
        if exploration.pressures:
            words += ["--ensemble", "npt", "--pressure", f"{exploration.pressures[0]:g}"]
        words += ["--timestep", f"{self.inputs.timestep:g}"]
        words += ["--steps", str(self.settings.report_steps), "-o", REPORT[0]]
        inputs = (round_.model, self.folder.model, structure, *labels)
        return self._job(folder, (*commands, shlex.join(words)), inputs, REPORT)

    def _validated(self, round_: RoundFolder) -> list[Path]:
        """Files of labelled frames that no model was trained on."""
        own = sorted(round_.validate.glob(f"*/{LABELLED}"))
        return own or sorted(self.folder.path.glob(f"round-*/030-label/{HELD_OUT}-*/{LABELLED}"))

    def _errors(self, round_: RoundFolder, frames: str, folder: Path) -> str:
        words = ["dpa2md", "eval", relative(round_.model, folder), frames, "--json"]
        return f"{shlex.join(words)} > {ERRORS}"


def _file_of(path: Path) -> Path:
    """The file of a name that may have an index, as in frames.extxyz@0:10."""
    name, at, _ = str(path).rpartition("@")
    return Path(name) if at and not path.exists() and Path(name).exists() else path


def _labelled_by(label: Label, frames: str) -> list[str]:
    """The words of a command that say which frames are labelled, and by what."""
    if label.command is not None:
        return [frames, "--command", label.command]
    assert label.calculator is not None
    arguments = ["--arguments", json.dumps(dict(label.arguments))] if label.arguments else []
    return [label.calculator, frames, *arguments]
