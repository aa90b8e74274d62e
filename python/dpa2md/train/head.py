"""A task in its training: its losses, and its steps."""

from __future__ import annotations

import math

import numpy as np

from .._core import CoreError
from ..errors import RunError
from .checkpoint import State
from .core_model import CoreModel
from .data import Source, TaskSource
from .loss import LossResult
from .losses import batch_loss
from .optimizer import clip_factor
from .ranks import ALONE, Ranks
from .settings import Task
from .shares import heads_of, stretches
from .systems import Batch


class Head:
    """One task.

    Parameters
    ----------
    task
        Of the input.
    source
        Its data.
    state
        Of the whole training; steps change it.
    first_rate
        The learning rate that prefactors of the loss are relative to.
    threads
        Of the core; 0: one for each processor.
    ranks
        That make the steps together.
    """

    def __init__(
        self,
        task: Task,
        source: TaskSource,
        state: State,
        first_rate: float,
        threads: int,
        ranks: Ranks = ALONE,
    ):
        self.name = task.name
        self.source = source
        self._loss, self._state, self._first_rate = task.loss, state, first_rate
        self._model = heads_of(state.model)[self.name]
        self._stretches = stretches(state.model)[self.name]
        self._core = CoreModel(self._model, sorted(source.elements), threads)
        self._excluded = np.array(self._model.model.atom_exclude, dtype=int)
        self._threads, self._ranks = threads, ranks

    def train(
        self, number: int, rate: float, max_gradient: float
    ) -> tuple[float, dict[str, float]]:
        """Make one step, with the mean of the ranks' gradients.

        Parameters
        ----------
        number
            Of the task's batch.
        rate
            The learning rate.
        max_gradient
            The length that longer gradients are cut to; 0: none is.

        Returns
        -------
        loss, deviations
            Of this rank's batch, before the step.

        Raises
        ------
        RunError
            When the loss or its gradient isn't finite; nothing has changed then.
        """
        with self._ranks.together():
            found, own_gradient = self._look(number, rate)
        gradient = self._ranks.mean(own_gradient)
        factor = clip_factor(_length(gradient), max_gradient) if max_gradient else 1.0
        state = self._state
        state.steps[self.name] += 1
        for part in self._stretches:
            count = sum(state.steps[head] for head in part.heads)
            own = gradient[part.own]
            state.adam.step(
                state.vector, part.whole, own, rate, count, factor=factor, threads=self._threads
            )
        return found.value, found.shown

    def _look(self, number: int, rate: float) -> tuple[LossResult, np.ndarray]:
        """A batch's loss and its gradient by the head's parameters; RunError unless both are finite."""
        self._load()
        training = self.source.training
        found = self._evaluate(training.batch(number), rate, training, number)
        gradient = self._core.gradient(found)
        if not (math.isfinite(found.value) and math.isfinite(_length(gradient))):
            what = "gradient" if math.isfinite(found.value) else "loss"
            raise self._not_finite(what, training, number)
        return found, gradient

    def errors(self, rate: float) -> dict[str, float]:
        """The deviations of the next batch, with the parameters that there are now."""
        self._load()
        training, index = self.source.training, self._state.steps[self.name]
        return self._evaluate(training.batch(index), rate, training, index).shown

    def memory(self) -> tuple[int, int]:
        """Bytes that the core holds for a step of the next batch, but for scratch; and its atoms."""
        batch = self.source.training.batch(self._state.steps[self.name])
        self._load()
        return self._core.memory(batch), len(batch.types)

    def validate(self, rate: float, number: int) -> dict[str, float] | None:
        """Those of held-out frames, in the mean by atoms as in DeePMD-kit; None without such."""
        source = self.source
        if source.validation is None:
            return None
        self._load()
        sums: dict[str, float] = {}
        atoms = 0
        first = number * source.validation_batches
        for index in range(first, first + source.validation_batches):
            batch = source.validation.batch(index)
            atoms += len(batch.types)
            found = self._evaluate(batch, rate, source.validation, index)
            for name, value in found.shown.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch.types)
        return {name: value / atoms for name, value in sums.items()}

    def _load(self) -> None:
        """Give the state's parameters to the core."""
        for part in self._stretches:
            self._model.set_flat(self._state.vector[part.whole], part.own)
        self._core.load()

    def _evaluate(self, batch: Batch, rate: float, source: Source, index: int) -> LossResult:
        try:
            results = self._core.compute(batch, self._loss.virial.active)
        except CoreError:
            raise self._not_finite("result", source, index) from None
        return batch_loss(self._loss, rate / self._first_rate, results, batch, self._excluded)

    def _not_finite(self, what: str, source: Source, index: int) -> RunError:
        """The error about a batch of the current parameters."""
        step = sum(self._state.steps.values()) + 1
        places = [source.systems[system].place(frame) for system, frame in source.chosen(index)]
        return RunError(
            f"step {step}, {', '.join(places)}: the {what} is not finite; lower start_lr, set "
            "gradient_max_norm, or leave the frame out, and go on from the last checkpoint."
        )


def _length(vector: np.ndarray) -> float:
    # not np.dot: threads of a BLAS would wait actively beside those of the core
    return math.sqrt(float(np.einsum("i,i->", vector, vector)))
