"""Checkpoints of a training: DeePMD-kit's own `.pt`, with what a restart to the bit needs beside it.

DeePMD-kit reads the entries `model` and `optimizer`, rounded to the model's precision. The entry
`dpa2md` has the same in float64, the seed, and the number of steps of each task.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import whole_file
from ..errors import InputError, ModelError
from ..importer.source import named_file
from ..importer.torch_zip import Tensor, TorchZip
from ..importer.unpickle import read_pickle
from .export import AdamState, optimizer_numbers, write_checkpoint
from .layout import precision_of
from .optimizer import Adam, Optimizer
from .preparation import read_any
from .schedule import Schedule
from .shares import AnyModel, heads_of, steps_of_parameters, stretches

_ENTRY = "dpa2md"
_VECTORS = ("parameters", "mean", "square")


@dataclass
class State:
    """Where a training stands after a step."""

    model: AnyModel
    vector: np.ndarray  #: the parameters, float64, ahead of those in `model`
    adam: Adam
    steps: dict[str, int]  #: that each task has had
    seed: int
    averages: dict[str, dict[str, float]] = field(default_factory=dict)  #: sums since the last line
    sections: dict[str, Any] = field(default_factory=dict)  #: of the input, to compare

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return sum(self.steps.values())


class Checkpoints:
    """The files of a training.

    Parameters
    ----------
    prefix
        As in the input: `model.ckpt` makes `model.ckpt-100.pt`, and `model.ckpt.pt`, a link to the
        newest.
    folder
        Of the files with numbers; None: that of the prefix.
    keep
        How many of the run's stay. Those of other runs are not touched, unlike in DeePMD-kit.
    pointer
        The file that names the newest; None: none is written.
    after
        Of a run that goes on: its step, up to which files are its own; None: a new run.
    """

    def __init__(
        self,
        prefix: str,
        folder: str | None,
        keep: int,
        pointer: str | None,
        after: int | None = None,
    ):
        self._prefix = Path(prefix)
        self._folder = Path(folder) if folder is not None else self._prefix.parent
        self._keep = keep
        self._pointer = pointer
        self._own = [] if after is None else [step for step in self._found() if step <= after]

    def prepare(self) -> None:
        """Make the folders. OSError."""
        for folder in (self._folder, self._prefix.parent):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise InputError(f"{folder}: this folder can't be written to; name another one.")

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self._folder / f"{self._prefix.name}-{step}.pt"

    def write(self, state: State, schedule: Schedule) -> Path:
        """Write the state; the files are whole at any time, and older ones go.

        Raises
        ------
        OSError
            When a file can't be written.
        """
        path = self.path(state.step)
        write_state(state, path, schedule)
        _link(path, self._prefix.with_name(self._prefix.name + ".pt"))
        if self._pointer is not None:
            with whole_file(self._pointer) as temporary:
                temporary.write_text(str(path), encoding="utf-8")
        self._own = sorted({*self._own, state.step})
        while len(self._own) > self._keep:
            self.path(self._own.pop(0)).unlink(missing_ok=True)
        return path

    def _found(self) -> list[int]:
        """Steps with a file."""
        numbers = [
            path.name.removeprefix(f"{self._prefix.name}-").removesuffix(".pt")
            for path in self._folder.glob(f"{glob.escape(self._prefix.name)}-*.pt")
        ]
        return sorted(int(number) for number in numbers if number.isdecimal())


def _link(target: Path, name: Path) -> None:
    temporary = name.with_name(f".tmp.{os.getpid()}.{name.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, name.parent))
    os.replace(temporary, name)


def write_state(state: State, path: str | os.PathLike, schedule: Schedule) -> None:
    """Write one checkpoint. OSError when it can't be written."""
    state.model.set_flat(state.vector)
    settings = state.adam.settings
    note = {
        "version": 1,
        "seed": state.seed,
        "steps": dict(state.steps),
        "averages": state.averages,
        "sections": state.sections,
    }
    own: dict[str, Any] = {"note": json.dumps(note)}
    takes_all = [name for name, head in heads_of(state.model).items() if head.all_neighbors]
    if takes_all:  # which DeePMD-kit's PyTorch backend has no word for
        own["all_neighbors"] = takes_all
    if not _is_exact(state.model):
        own |= dict(zip(_VECTORS, (state.vector, state.adam.mean, state.adam.square), strict=True))
    write_checkpoint(
        state.model,
        path,
        max(state.step - 1, 0),
        AdamState(
            count=steps_of_parameters(state.model, state.steps),
            mean=state.adam.mean,
            square=state.adam.square,
            lr=schedule.rate(state.step),
            first_lr=schedule.start,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            decoupled=settings.kind == "AdamW",
        ),
        {_ENTRY: own},
    )


def _is_exact(model: AnyModel) -> bool:
    """Whether DeePMD-kit's tensors are float64 already."""
    return all(
        precision_of(p.name, head.model) == "float64"
        for head in heads_of(model).values()
        for p in head.parameters
    )


def read_state(path: str | os.PathLike, optimizer: Optimizer, multi_task: bool) -> State:
    """The state in a checkpoint, of dpa2md or of DeePMD-kit.

    Parameters
    ----------
    path
        The file; `.pt` may be left out.
    optimizer
        As the input has it.
    multi_task
        Whether the input has several tasks.

    Raises
    ------
    InputError, ModelError
        When it is no checkpoint of such a training.
    OSError
        When it can't be read.
    """
    path = Path(path)
    if not path.exists() and path.with_name(path.name + ".pt").exists():
        path = path.with_name(path.name + ".pt")
    model = read_any(path, multi_task)
    with named_file(path), closing(TorchZip(path)) as archive:
        found = read_pickle(archive)
        own = _own(found)
        if own is not None:
            note = json.loads(own["note"])
        adam = Adam(optimizer, model.size)
        vector = model.flat()
        counts = _read_adam(found.get("optimizer"), model, adam, path)
        if own is not None and "parameters" in own:
            vector, adam.mean, adam.square = (_vector(own[name], model.size) for name in _VECTORS)
    if own is None:
        return State(model, vector, adam, _steps(model, counts, path), -1)
    return State(
        model, vector, adam, note["steps"], note["seed"], note["averages"], note["sections"]
    )


def _own(found: Any) -> Mapping[str, Any] | None:
    if not isinstance(found, dict) or "model" not in found:
        raise ModelError("This is no checkpoint of a training; give a file model.ckpt-STEP.pt.")
    return found.get(_ENTRY)


def _vector(value: Any, size: int) -> np.ndarray:
    array = np.array(value.numpy() if isinstance(value, Tensor) else value, dtype=float)
    if array.shape != (size,):
        raise ModelError("The checkpoint's parameters are not those of its model; it is damaged.")
    return array


def _read_adam(optimizer: Any, model: AnyModel, adam: Adam, path: Path) -> list[int]:
    """Fill in the moments; returns the steps that each parameter has had."""
    states = optimizer.get("state") if isinstance(optimizer, dict) else None
    if not states:
        raise InputError(
            f"{path} has no state of an optimizer, so that a training can't go on; start a new one "
            "with --init-model."
        )
    counts = []
    for p, number in zip(model.parameters, optimizer_numbers(model), strict=True):
        entry = states.get(number)
        if entry is None:  # no step of its task yet
            counts.append(0)
            continue
        for name, vector in (("exp_avg", adam.mean), ("exp_avg_sq", adam.square)):
            moment = entry[name].numpy()
            if moment.size != p.end - p.offset:
                raise ModelError(
                    "The optimizer's state is not that of the model; start anew with --init-model."
                )
            vector[p.offset : p.end] = moment.ravel()
        counts.append(int(entry["step"].numpy()))
    return counts


def _steps(model: AnyModel, counts: list[int], path: Path) -> dict[str, int]:
    """The steps of each head, from those of parameters that no other head has."""
    of_entry = np.repeat(counts, [p.end - p.offset for p in model.parameters])
    steps = {}
    for head, parts in stretches(model).items():
        alone = [part for part in parts if part.heads == {head}]
        if not alone:
            raise InputError(
                f"{path}: how many steps the task {head} had is not known, since it shares all "
                "of its parameters; start anew with --init-model."
            )
        steps[head] = int(of_entry[alone[0].whole].max())
    return steps
