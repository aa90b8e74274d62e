"""Programs that train: this one and DeePMD-kit's, with the same input and the same data."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from typing import Protocol

from ..errors import RunError
from .training_input import CHECKPOINT, DATA

INPUT, MODEL = "input.json", "model.dpa2"


@dataclass(frozen=True)
class Start:
    """What a training starts from, as both programs' option and file."""

    option: str  #: --init-model or --finetune
    file: str  #: relative to the training's folder
    head: str | None = None  #: of the file

    def words(self) -> list[str]:
        """For a command line."""
        branch = ["--model-branch", self.head] if self.head else []
        return [self.option, self.file, *branch]


@dataclass(frozen=True)
class Task:
    """A training in its folder, which has the input."""

    frames: tuple[str, ...]  #: files of labelled frames, relative to the folder
    steps: int
    start: Start | None  #: None: a new model

    @property
    def checkpoint(self) -> str:
        """The last checkpoint."""
        return f"{CHECKPOINT}-{self.steps}.pt"


class Trainer(Protocol):
    """A program that trains a model from input.json and the folder data."""

    def check(self) -> None:
        """Refuse a program that isn't there. RunError."""

    def commands(self, task: Task) -> tuple[str, ...]:
        """Shell lines that leave model.dpa2, and go on from a checkpoint where there is one."""


class OwnTrainer:
    """``dpa2md train``."""

    def check(self) -> None:
        """It is there."""

    def commands(self, task: Task) -> tuple[str, ...]:
        """As `Trainer`."""
        return _commands(task, f"dpa2md train {INPUT} --quiet", ())


class DeepmdTrainer:
    """``dp --pt train`` of DeePMD-kit."""

    def check(self) -> None:
        """Refuse where there is no `dp`."""
        if shutil.which("dp") is None:
            raise RunError(
                "trainer: deepmd needs the command dp; install it with pip install 'dpa2md[deepmd]'."
            )

    def commands(self, task: Task) -> tuple[str, ...]:
        """As `Trainer`."""
        # Without the thresholds a third of the time is page faults. Numbers of neighbours stand in
        # the input already.
        settings = (
            "export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000",
            "export NUM_WORKERS=0 DP_INTER_OP_PARALLELISM_THREADS=1",
            "export DP_INTRA_OP_PARALLELISM_THREADS=${OMP_NUM_THREADS:-1}",
        )
        return _commands(task, f"dp --pt train {INPUT} --skip-neighbor-stat", settings)


TRAINERS: dict[str, Trainer] = {"dpa2md": OwnTrainer(), "deepmd": DeepmdTrainer()}


def _commands(task: Task, train: str, settings: tuple[str, ...]) -> tuple[str, ...]:
    first = f"{train} {shlex.join(task.start.words())}" if task.start else train
    begin_or_go_on = (
        f"if [ ! -e checkpoint ]; then\n  {first}",
        f'elif [ ! -e {task.checkpoint} ]; then\n  {train} --restart "$(cat checkpoint)"\nfi',
    )
    return (
        f"[ -e {DATA} ] || dpa2md systems {shlex.join(task.frames)} -o {DATA}",
        *settings,
        "\n".join(begin_or_go_on),
        f"dpa2md convert {task.checkpoint} -o {MODEL}",
    )
