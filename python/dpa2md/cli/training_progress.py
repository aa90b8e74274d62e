"""How far a training is: lines of the curve on the screen, and a moving line."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from .progress import Line, clock

if TYPE_CHECKING:
    from ..report.training import LivePicture
    from ..train.curve import Row
    from ..train.trainer import Step


class TrainingProgress:
    """Reports a training; its `report` is the callback of a `Trainer`.

    Parameters
    ----------
    multi_task
        Whether errors have the tasks' names.
    table, bar
        Show lines of the curve (on stdout), the moving line (on stderr).
    picture
        Of the curve, which is drawn again from time to time; None: none is.
    """

    def __init__(
        self, multi_task: bool, *, table: bool, bar: bool, picture: LivePicture | None = None
    ):
        self._multi_task, self._table, self._bar = multi_task, table, bar
        self._picture = picture
        self._began = time.perf_counter()
        self._done = self._frames = 0
        self._drawn = 0.0
        self._loss: float | None = None  # in the mean of some dozen steps
        self._line = Line()

    def report(self, step: Step) -> None:
        """Show a step."""
        self._done += 1
        self._frames += step.frames
        self._loss = step.loss if self._loss is None else 0.95 * self._loss + 0.05 * step.loss
        if step.row is not None and self._table:
            self._line.wipe()
            print(self._row(step.row), flush=True)
        if self._picture is not None and step.row is not None:
            self._picture.update()
        now = time.perf_counter()
        if self._bar and (now - self._drawn > 0.2 or step.step == step.steps):
            self._drawn = now
            self._line.draw(step.step, step.steps, *self._pieces(step, now))

    def finish(self) -> None:
        """End the moving line, and draw the picture a last time."""
        self._line.wipe()
        if self._picture is not None and self._done and sys.exc_info()[0] is None:
            self._picture.draw()

    def speed(self) -> str:
        """Throughput so far, as text."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        return f"{self._done / seconds:.1f} steps/s, {self._frames / seconds:.1f} frames/s"

    def _pieces(self, step: Step, now: float) -> tuple[list[str], list[str]]:
        left = (now - self._began) / self._done * (step.steps - step.step)
        needed = [f"{step.step}/{step.steps}", f"ETA {clock(left)}"]
        return needed, [f"loss {self._loss:.3g}", f"lr {step.rate:.1e}", self.speed()]

    def _row(self, row: Row) -> str:
        """One line: errors as training/held out."""
        parts = [f"step {row.step}"]
        for task in row.tasks:
            if self._multi_task:
                parts.append(task.name)
            for name, value in sorted(task.training.items()):
                held_out = "" if task.validation is None else f"/{task.validation[name]:.2e}"
                parts.append(f"{name} {value:.2e}{held_out}")
        return "  ".join([*parts, f"lr {row.rate:.1e}"])
