"""Programs that train: this one and DeePMD-kit's, with the same input and the same data."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
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
    ranks: int = 1  #: processes that train together

    @property
    def checkpoint(self) -> str:
        """The last checkpoint."""
        return f"{CHECKPOINT}-{self.steps}.pt"


class Trainer(Protocol):
    """A program that trains a model from input.json and the folder data."""

    def check(self, ranks: int) -> None:
        """Refuse where a program isn't there that so many processes need. RunError."""

    def commands(self, task: Task) -> tuple[str, ...]:
        """Shell lines that leave model.dpa2, and go on from a checkpoint where there is one."""


class OwnTrainer:
    """``dpa2md train``."""

    def check(self, ranks: int) -> None:
        """Refuse several processes where there is no `mpirun` or no mpi4py."""
        if ranks == 1:
            return
        if not _is_there("mpirun") or importlib.util.find_spec("mpi4py") is None:
            raise RunError(
                f"ranks: {ranks} needs mpirun and mpi4py; install them with pip install "
                "'dpa2md[mpi]' mpich, or set it to 1."
            )

    def commands(self, task: Task) -> tuple[str, ...]:
        """As `Trainer`."""
        start = f"mpirun -n {task.ranks} " if task.ranks > 1 else ""
        return _commands(task, f"{start}dpa2md train {INPUT} --quiet", ())


class DeepmdTrainer:
    """``dp --pt train`` of DeePMD-kit."""

    def check(self, ranks: int) -> None:
        """Refuse where there is no `dp`, or for several processes no `torchrun`."""
        for program in ("dp", "torchrun")[: 1 if ranks == 1 else 2]:
            if not _is_there(program):
                raise RunError(
                    f"trainer: deepmd needs the command {program}; install it with pip install "
                    "'dpa2md[deepmd]'."
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
        start = f"torchrun --nproc_per_node {task.ranks} --no-python " if task.ranks > 1 else ""
        return _commands(task, f"{start}dp --pt train {INPUT} --skip-neighbor-stat", settings)


TRAINERS: dict[str, Trainer] = {"dpa2md": OwnTrainer(), "deepmd": DeepmdTrainer()}


def _is_there(program: str) -> bool:
    """Whether jobs find a program: in this environment, which may not be active, or on the PATH."""
    own = str(Path(sys.executable).parent)
    return shutil.which(program, path=f"{own}{os.pathsep}{os.environ.get('PATH', '')}") is not None


def _commands(task: Task, train: str, settings: tuple[str, ...]) -> tuple[str, ...]:
    first = f"{train} {shlex.join(task.start.words())}" if task.start else train
    begin_or_go_on = (
        f"if [ ! -e checkpoint ]; then\n  {first}",
        f'elif [ ! -e {task.checkpoint} ]; then\n  {train} --restart "$(cat checkpoint)"\nfi',
    )
    return (
        f"[ -e {DATA} ] || dpa2md systems {shlex.join(task.frames)} -o {DATA}",
        *_threads(task.ranks),
        *settings,
        "\n".join(begin_or_go_on),
        f"dpa2md convert {task.checkpoint} -o {MODEL}",
    )


def _threads(ranks: int) -> tuple[str, ...]:
    """A shell line that divides the job's threads among several ranks."""
    if ranks == 1:
        return ()
    each = f"$((OMP_NUM_THREADS > {ranks} ? OMP_NUM_THREADS / {ranks} : 1))"
    return (f'[ -z "${{OMP_NUM_THREADS:-}}" ] || export OMP_NUM_THREADS={each}',)
