"""A training: batches, losses, gradients, steps of the optimizer, the curve and the checkpoints."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .checkpoint import Checkpoints, State, read_state
from .curve import Curve, Row, TaskErrors
from .data import TrainingData
from .head import Head
from .optimizer import Adam
from .preparation import Start, check_same_model, fit_bias, prepare
from .ranks import Ranks, started_ranks
from .schedule import Schedule, factor_of_ranks
from .settings import Settings
from .shares import heads_of, tensors_of


@dataclass(frozen=True)
class Step:
    """What a callback is told after every step."""

    step: int  #: steps that are done
    steps: int  #: of the whole run
    task: str
    loss: float
    rate: float  #: the learning rate
    frames: int  #: of the batches of all ranks
    row: Row | None  #: where a line was added to the curve
    checkpoint: Path | None  #: where one was written


Callback = Callable[[Step], None]


class Trainer:
    """One training, from its input to its last checkpoint.

    Parameters
    ----------
    settings
        The input.
    start
        What it starts from.
    threads
        Of the core; 0: one for each processor.
    ranks
        That train together; None: those that mpirun has started.

    Attributes
    ----------
    ranks
        As given, or found.
    data
        Systems and batches.
    steps
        Of the whole run.
    notes
        What the user should know before it starts; sentences.

    Raises
    ------
    InputError, ModelError
        When input, data or model can't be used; one sentence.
    OSError
        When a file can't be read.
    """

    def __init__(
        self,
        settings: Settings,
        start: Start | None = None,
        threads: int = 0,
        ranks: Ranks | None = None,
    ):
        self.ranks = started_ranks() if ranks is None else ranks
        self.threads = self.ranks.threads(threads)
        self._any_seed = self.ranks.same(int.from_bytes(os.urandom(4), "little") >> 1)
        self._stopped = False
        self._saved: Path | None = None  # the last checkpoint of this run
        with self.ranks.together():
            self._read(settings, start or Start())
        self._share()

    def _read(self, settings: Settings, start: Start) -> None:
        """Read data and model, each rank for itself."""
        start.check()
        if settings.multi_task and (start.head or start.frozen):
            raise InputError(
                "--head and --freeze are for one task; write finetune_head into the tasks of "
                "model.model_dict."
            )
        self.settings = settings
        self.notes = list(settings.notes)
        self._restarted = start.restart is not None
        state = None
        if start.restart is not None:
            state = read_state(start.restart, settings.optimizer, settings.multi_task)
            configs = {name: head.config for name, head in heads_of(state.model).items()}
            check_same_model(settings, configs, start.restart)
        seed = self._seed(state)
        self.data = TrainingData(settings, seed, self.ranks)
        self.notes += self.data.notes
        self.steps = self.data.steps
        self.schedule = self._schedule()
        if state is None:
            prepared = prepare(settings, self.data, start, seed, self.threads)
            model = prepared.model
            self.notes += prepared.notes
            adam = Adam(settings.optimizer, model.size)
            state = State(
                model, model.flat(), adam, {task.name: 0 for task in settings.tasks}, seed
            )
        else:
            self._compare(state, str(start.restart))
        self.state = state
        state.seed, state.sections = seed, self._sections()
        run = settings.run
        self.checkpoints = Checkpoints(
            run.save_prefix,
            run.save_dir,
            run.checkpoints_kept(self.steps),
            run.pointer,
            state.step if self._restarted else None,
        )

    def _share(self) -> None:
        """Take over the first rank's numbers: another host may have others in the last bit."""
        state = self.state
        vectors = [state.vector, state.adam.mean, state.adam.square, *tensors_of(state.model)]
        for mine, first in zip(vectors, self.ranks.same(vectors), strict=True):
            mine[...] = first
        with self.ranks.together():
            self._heads = [
                Head(task, source, state, self.schedule.start, self.threads, self.ranks)
                for task, source in zip(self.settings.tasks, self.data.tasks, strict=True)
            ]

    def _schedule(self) -> Schedule:
        """The input's, with the factor that it wants for several ranks."""
        schedule = self.settings.schedule(self.steps)
        factor = factor_of_ranks(self.settings.learning_rate, self.ranks.size)
        if factor == 1:
            return schedule
        self.notes.append(
            f"All learning rates are multiplied by {factor:g}, as scale_by_worker says."
        )
        return schedule.times(factor)

    def _seed(self, state: State | None) -> int:
        """The input's, that of the restart, or any."""
        given = self.settings.run.seed
        if state is not None and state.seed >= 0:
            if given not in (None, state.seed):
                self.notes.append(f"The seed is {given}, and the checkpoint's was {state.seed}.")
            return state.seed if given is None else given
        if given is None:
            given = self._any_seed
            self.notes.append(f"training.seed is not given; this run has {given}.")
        return given

    def _compare(self, state: State, file: str) -> None:
        now, then = self._sections(), state.sections
        changed = [name for name in {**then, **now} if then and now.get(name) != then.get(name)]
        if changed:
            self.notes.append(f"Other than in {file}: {', '.join(changed)}.")
        if not state.sections:
            self.notes.append(f"{file} is of another program: its batches are not gone on with.")
        if state.step >= self.steps:
            raise InputError(
                f"{file} is of step {state.step}, and the run has {self.steps}; raise numb_steps "
                "to go on."
            )

    @property
    def parameters(self) -> int:
        """The numbers that are trained."""
        return self.state.model.size

    def memory(self) -> tuple[int, int]:
        """Bytes that a step takes in the core, but for scratch, and its atoms: of the largest first batch."""
        return max(head.memory() for head in self._heads)

    def stop(self) -> None:
        """End after the step that is being made, with a checkpoint; for signal handlers."""
        self._stopped = True

    def run(self, callback: Callback | None = None) -> Path:
        """Make all steps that are left; returns the last checkpoint.

        Parameters
        ----------
        callback
            Called after every step, on the first rank.

        Raises
        ------
        RunError
            When a loss or a gradient isn't finite: the last checkpoint stays.
        OSError
            When a file can't be written.
        """
        state, first = self.state, self.state.step
        curve = None
        with self.ranks.together():
            if self.ranks.first:
                self.checkpoints.prepare()
                curve = self._open_curve()
        try:
            for number in range(first, self.steps):
                self._step(number, curve, callback)
                if self.ranks.any(self._stopped):
                    break
        finally:
            if curve is not None:
                curve.close()
        with self.ranks.together():
            if self.ranks.first:
                self._end(first)
        return self.checkpoints.path(state.step)

    def _open_curve(self) -> Curve:
        after = self.state.step if self._restarted else None
        return Curve(self.settings.run.curve_file, self.settings.multi_task, after)

    def _step(self, number: int, curve: Curve | None, callback: Callback | None) -> None:
        """Make a step on all ranks; the first one, which has the curve, tells about it."""
        task, before = self.data.draw(number)
        head, rate = self._heads[task], self.schedule.rate(number)
        loss, errors = head.train(before, rate, self.settings.run.max_gradient)
        with self.ranks.together():
            if curve is not None:
                row, path = self._write(number + 1, head, errors, rate, curve)
                if callback is not None:
                    frames = head.source.training.frames(before)
                    step = Step(number + 1, self.steps, head.name, loss, rate, frames, row, path)
                    callback(step)

    def _write(
        self, done: int, head: Head, errors: dict[str, float], rate: float, curve: Curve
    ) -> tuple[Row | None, Path | None]:
        """The line and the checkpoint that are due after a step."""
        run, state = self.settings.run, self.state
        row = None
        if run.curve_averages:
            _add(state.averages.setdefault(head.name, {}), errors)
        if done == 1 or done % run.curve_steps == 0:
            row = Row(done, tuple(self._errors(head, errors, rate, done)), rate)
            state.averages.clear()
            curve.write(row)
        path = None
        if done == self.steps or done % run.save_steps == 0:
            path = self._saved = self.checkpoints.write(state, self.schedule)
        return row, path

    def _end(self, first: int) -> None:
        """What comes after the last step, of those that began with the step `first`."""
        state = self.state
        if self._saved != self.checkpoints.path(state.step):
            self.checkpoints.write(state, self.schedule)
        if self.settings.run.change_bias and state.step == self.steps > first:
            self._change_bias()

    def _errors(
        self, stepped: Head, errors: dict[str, float], rate: float, done: int
    ) -> list[TaskErrors]:
        """Of all tasks: of the batch of the step, of the next one of other tasks."""
        out = []
        for head in self._heads:
            if self.settings.run.curve_averages:
                sums = dict(self.state.averages.get(head.name, {}))
                count = sums.pop("", 0.0)
                found = {k: v / count for k, v in sums.items()} or dict.fromkeys(errors, math.nan)
            elif head is stepped:
                found = errors
            else:
                found = head.errors(rate)
            validation = head.validate(rate, done // self.settings.run.curve_steps)
            out.append(TaskErrors(head.name, found, validation))
        return out

    def _change_bias(self) -> None:
        """Fit the energy bias anew, as change_bias_after_training asks for."""
        self.state.model.set_flat(self.state.vector)
        models = heads_of(self.state.model)
        for task, source in zip(self.settings.tasks, self.data.tasks, strict=True):
            frames = source.training.sample(task.model["data_stat_nbatch"])
            fit_bias(models[task.name], frames, self.threads)
        self.checkpoints.write(self.state, self.schedule)

    def _sections(self) -> dict[str, str]:
        """What decides the steps besides the model, as texts to compare."""
        settings = self.settings
        texts = {
            "learning_rate": repr(settings.learning_rate),
            "optimizer": repr(settings.optimizer),
            "loss": repr([task.loss for task in settings.tasks]),
            "data": repr([dataclasses.astuple(task.training) for task in settings.tasks]),
            "number of steps": repr(self.steps),
        }
        return texts | ({"number of ranks": repr(self.ranks.size)} if self.ranks.size > 1 else {})


def _add(sums: dict[str, float], errors: dict[str, float]) -> None:
    """Count another step's deviations; their number is the entry without a name."""
    for name, value in {**errors, "": 1.0}.items():
        sums[name] = sums.get(name, 0.0) + value
