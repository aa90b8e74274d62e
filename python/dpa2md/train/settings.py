"""A training's input: DeePMD-kit's own file, unchanged, as typed settings.

Keys, names and defaults are those of DeePMD-kit 3.2's PyTorch trainer. What dpa2md can't do is
refused by its name before anything starts; what only concerns speed or printing is read over.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .data_settings import DataSettings, read_data
from .input_file import read_input
from .loss import EnergyLoss
from .loss_settings import read_loss
from .model_settings import SINGLE, Share, read_model
from .optimizer import Optimizer
from .schedule import Schedule, read_schedule
from .sections import Key, fill, shown, table, unknown, without_comments
from .training_keys import MULTI_TASK, OPTIMIZERS, SINGLE_TASK, TASK_DATA, TRAINING, VALIDATING

_WARMUP = ("warmup_steps", "warmup_ratio", "warmup_start_factor")
_MANY_STEPS = 1_000_000
_SECTIONS = ("model", "learning_rate", "optimizer", "loss", "loss_dict", "training", "validating")


@dataclass(frozen=True)
class Length:
    """How long to train; one of the three is given."""

    steps: int | None = None
    epochs: float | None = None
    epochs_of: dict[str, float] | None = None  #: of each task


@dataclass(frozen=True)
class Run:
    """The training section without its data; files are relative to the working directory."""

    length: Length
    task_weights: dict[str, float] | None  #: of several tasks; None: by their number of systems
    seed: int | None  #: None: any
    curve_file: str
    curve_steps: int  #: between two lines of the curve
    curve_averages: bool  #: lines have averages since the line before
    save_prefix: str
    save_dir: str | None
    save_steps: int  #: between two checkpoints
    max_checkpoints: int
    checkpoint_ratio: float | None  #: in place of max_checkpoints: part of all that the run writes
    max_gradient: float  #: longer gradients are cut to this norm; 0: none is
    change_bias: bool  #: fit the energy bias anew after the last step
    pointer: str | None = (
        "checkpoint"  #: the file that names the newest checkpoint; None: none does
    )

    def checkpoints_kept(self, steps: int) -> int:
        """How many checkpoints stay, for a run of that many steps."""
        if self.checkpoint_ratio is None:
            return self.max_checkpoints
        return math.ceil(self.checkpoint_ratio * math.ceil(steps / self.save_steps))


@dataclass(frozen=True)
class Task:
    """A model, its data and its loss; of several tasks, one of them."""

    name: str
    model: dict[str, Any]  #: complete, as checkpoints store it; nsel and sel may still be "auto"
    loss: EnergyLoss
    training: DataSettings
    validation: DataSettings | None


@dataclass(frozen=True)
class Settings:
    """A whole input."""

    source: str  #: the file's name in messages
    tasks: tuple[Task, ...]
    shared: dict[str, Any] | None  #: model.shared_dict; None: one task
    shares: tuple[Share, ...]  #: parts of several tasks with the same parameters
    learning_rate: dict[str, Any]  #: the section as it was written, without comments
    optimizer: Optimizer
    run: Run
    notes: tuple[str, ...]  #: what was given and is done differently, each as a sentence

    @property
    def multi_task(self) -> bool:
        """Whether the input has tasks with names."""
        return self.shared is not None

    def schedule(self, steps: int) -> Schedule:
        """The learning rate of a run of that many steps; InputError as `read_schedule`."""
        return read_schedule(self.learning_rate, steps, f"{self.source}: learning_rate")

    def model_params(self, models: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any]:
        """What a checkpoint of DeePMD-kit has as model_params.

        Parameters
        ----------
        models
            The tasks' models by name, with counted numbers of neighbours; None: as they were read.
        """
        models = {task.name: task.model for task in self.tasks} if models is None else dict(models)
        if not self.multi_task:
            return models[SINGLE]
        return {"model_dict": models, "shared_dict": self.shared}


def read_settings(
    path: str | os.PathLike, change: Callable[[Any], dict[str, Any]] | None = None
) -> Settings:
    """The settings in an input file of DeePMD-kit's PyTorch trainer, JSON or YAML.

    Parameters
    ----------
    change
        Gives the section model that is taken, from that of the file (or an empty one).

    Raises
    ------
    InputError
        When the file can't be read, or for a key that is unknown, missing, wrong or not supported;
        one sentence that names the key.
    """
    data = read_input(Path(path), "DeePMD-kit's input.json")
    if change is not None:
        data = dict(table(data, os.fspath(path)))
        data["model"] = change(without_comments(data.get("model", {})))
    return settings_of(data, os.fspath(path))


def settings_of(data: Any, source: str = "input") -> Settings:
    """The settings in an input that has been read.

    Parameters
    ----------
    source
        What the input is called in messages.

    Raises
    ------
    InputError
        As `read_settings`.
    """
    data = without_comments(table(data, source))
    _check_sections(data, source)
    notes: list[str] = []
    _modernize(data, source, notes)
    model = read_model(data["model"], f"{source}: model")
    where = f"{source}: training"
    run = fill(
        data["training"], TRAINING | (SINGLE_TASK if model.shared is None else MULTI_TASK), where
    )
    names = list(model.tasks)
    parts = _parts(data, run, None if model.shared is None else names, source)
    notes += [
        f"{part.where.removeprefix(f'{source}: ')}.stat_file is neither read nor written: the "
        "statistics are made anew."
        for part in parts
        if "stat_file" in part.data
    ]
    settings = Settings(
        source=source,
        tasks=tuple(
            _task(name, model.tasks[name], part) for name, part in zip(names, parts, strict=True)
        ),
        shared=model.shared,
        shares=model.shares,
        learning_rate=data["learning_rate"],
        optimizer=_optimizer(data.get("optimizer", {}), f"{source}: optimizer"),
        run=_run(run, names, where),
        notes=tuple(notes),
    )
    # refused now, not after the data are read: a number of epochs is taken for many steps
    settings.schedule(settings.run.length.steps or _MANY_STEPS)
    return settings


@dataclass(frozen=True)
class _Part:
    """What a task has besides its model."""

    where: str  #: of the data, in messages
    data: dict[str, Any]
    loss: EnergyLoss


def _parts(
    data: Mapping[str, Any], run: dict[str, Any], names: list[str] | None, source: str
) -> list[_Part]:
    """Data and losses of the tasks with the given names; None: of a single task."""
    where = f"{source}: training"
    if names is None:
        loss = read_loss(data.get("loss", {}), f"{source}: loss")
        return [_Part(where, run, loss)]
    sections = _of_tasks(run["data_dict"], names, f"{where}.data_dict")
    losses = _of_tasks(data.get("loss_dict"), names, f"{source}: loss_dict")
    out = []
    for name in names:
        place = f"{where}.data_dict.{name}"
        loss = read_loss(losses[name], f"{source}: loss_dict.{name}")
        out.append(_Part(place, fill(sections[name], TASK_DATA, place), loss))
    return out


def _check_sections(data: dict[str, Any], source: str) -> None:
    nvnmd = data.pop("nvnmd", None)
    if isinstance(nvnmd, dict) and nvnmd.get("enable"):
        raise InputError(f"{source}: nvnmd is not supported; leave the section out.")
    for name in data:
        if name not in _SECTIONS:
            raise unknown(source, name, _SECTIONS)
    for name in ("model", "learning_rate", "training"):
        if name not in data:
            raise InputError(f"{source}: the section {name} is missing; add it.")
        table(data[name], f"{source}: {name}")
    multi = "model_dict" in data["model"]
    wrong, right = ("loss", "loss_dict") if multi else ("loss_dict", "loss")
    if wrong in data:
        raise InputError(
            f"{source}: {wrong} is for {'one task' if multi else 'several tasks'}; write {right}."
        )
    fill(data.get("validating", {}), VALIDATING, f"{source}: validating")


def _modernize(data: dict[str, Any], source: str, notes: list[str]) -> None:
    """Move keys of older versions to where DeePMD-kit 3.2 has them, as it does itself."""
    run, rate = data["training"], data["learning_rate"]
    if "systems" in run:
        raise InputError(
            f"{source}: training.systems is of DeePMD-kit 1; move systems and batch_size into "
            "training.training_data."
        )
    if run.pop("numb_test", None) is not None:
        notes.append("training.numb_test has no effect since DeePMD-kit 2.")
    for key in [key for key in _WARMUP if key in run]:
        if key in rate:
            raise InputError(
                f"{source}: {key} stands in training and in learning_rate; leave the first out."
            )
        rate[key] = run.pop(key)
        notes.append(f"training.{key} is read as learning_rate.{key}.")
    known = {key for keys in OPTIMIZERS.values() for key in keys} | {"opt_type"}
    for key in [key for key in run if key in known or key.startswith(("kf_", "muon_"))]:
        name = "type" if key == "opt_type" else key
        table(data.setdefault("optimizer", {}), f"{source}: optimizer")[name] = run.pop(key)
        notes.append(f"training.{key} is read as optimizer.{name}.")


def _of_tasks(value: Any, names: list[str], where: str) -> dict[str, Any]:
    """A table with an entry for each task and no other."""
    found = table(value, where)
    for name in names:
        if name not in found:
            raise InputError(f"{where} lacks the task {name} of model.model_dict; add it.")
        table(found[name], f"{where}.{name}")
    for name in found:
        if name not in names:
            raise unknown(where, name, names)
    return found


def _task(name: str, model: dict[str, Any], part: _Part) -> Task:
    held_out = part.data["validation_data"]
    place = f"{part.where}.validation_data"
    return Task(
        name=name,
        model=model,
        loss=part.loss,
        training=read_data(part.data["training_data"], f"{part.where}.training_data"),
        validation=None if held_out is None else read_data(held_out, place, validation=True),
    )


def _optimizer(section: Any, where: str) -> Optimizer:
    kind = table(section, where).get("type", "Adam")
    if not isinstance(kind, str) or kind not in OPTIMIZERS:
        raise InputError(
            f"{where}.type = {shown(kind)} is not supported; dpa2md has Adam and AdamW: set it to "
            "Adam."
        )
    keys: Mapping[str, Key] = OPTIMIZERS[kind]
    filled = fill(section, keys, where)
    for key in ("adam_beta1", "adam_beta2"):
        if not filled[key] < 1:
            raise InputError(f"{where}.{key} = {filled[key]} should be less than 1.")
    return Optimizer(
        kind=kind,
        beta1=float(filled["adam_beta1"]),
        beta2=float(filled["adam_beta2"]),
        weight_decay=float(filled["weight_decay"]),
    )


def _run(run: Mapping[str, Any], names: list[str], where: str) -> Run:
    ratio = run["ckpt_keep_ratio"]
    if ratio is not None and not 0 < ratio < 1:
        raise InputError(f"{where}.ckpt_keep_ratio = {ratio} should be between 0 and 1.")
    weights = _by_task(run.get("model_prob"), names, f"{where}.model_prob")
    if weights and sum(weights.values()) <= 0:
        raise InputError(f"{where}.model_prob has no task above 0; raise one.")
    return Run(
        length=_length(run, names, where),
        task_weights=weights,
        seed=run.get("seed"),
        curve_file=run["disp_file"],
        curve_steps=run["disp_freq"],
        curve_averages=run["disp_avg"],
        save_prefix=run["save_ckpt"],
        save_dir=run["save_dir"],
        save_steps=run["save_freq"],
        max_checkpoints=run["max_ckpt_keep"],
        checkpoint_ratio=ratio,
        max_gradient=float(run.get("gradient_max_norm", 0.0)),
        change_bias=run["change_bias_after_training"],
    )


def _length(run: Mapping[str, Any], names: list[str], where: str) -> Length:
    epochs_of = _by_task(run.get("num_epoch_dict"), names, f"{where}.num_epoch_dict")
    length = Length(run.get("numb_steps"), run.get("numb_epoch"), epochs_of)
    if sum(value is not None for value in vars(length).values()) != 1:
        other = "num_epoch_dict" if "data_dict" in run else "numb_epoch"
        raise InputError(f"{where} should have either numb_steps or {other}; give one of them.")
    if epochs_of and run.get("model_prob"):
        raise InputError(
            f"{where} has num_epoch_dict and model_prob; leave model_prob out, it follows from the "
            "former."
        )
    for epochs in (length.epochs, *(epochs_of or {}).values()):
        if epochs is not None and epochs <= 0:
            raise InputError(f"{where}: a number of epochs = {epochs} should be above 0.")
    return length


def _by_task(value: Any, names: list[str], where: str) -> dict[str, float] | None:
    """A number for each task; None where there is no table or an empty one."""
    if not value:
        return None
    for name in value:
        if name not in names:
            raise unknown(where, name, names)
    for name in names:
        number = value.get(name)
        if type(number) not in (int, float) or not 0 <= number < math.inf:
            raise InputError(f"{where}.{name} = {shown(number)} should be a number from 0 on.")
    return {name: float(value[name]) for name in names}
