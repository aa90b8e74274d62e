"""The model that a training starts with: a new one, or one that was trained before."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..conversion import trained_elements
from ..errors import InputError
from ..importer.config import observed_types
from .core_model import CoreModel
from .data import TrainingData, count_neighbors
from .energy_bias import EnergyBias, change_energy_bias, set_energy_bias
from .freezing import Frozen
from .initial import initial_tensors
from .layout import precision_of
from .model_settings import SINGLE, auto_sels, with_counted_sels
from .multi_task import MultiTaskModel
from .parameters import TrainableModel
from .pretrained import Origin, read_origins
from .settings import Settings
from .shares import AnyModel, heads_of
from .statistics import (
    set_parameter_statistics,
    set_shared_statistics,
    set_statistics,
)
from .systems import LabeledFrame
from .type_maps import is_statistic, with_elements

_FITTING = "atomic_model.fitting_net."
_CASE = _FITTING + "case_embd"


@dataclass(frozen=True)
class Start:
    """What a training starts from; one of the files at most."""

    restart: str | None = None  #: a checkpoint of a training, which goes on
    init_model: str | None = None  #: a model of the same shape, for its parameters
    finetune: str | None = None  #: the same; the energy bias is that of the new data
    head: str | None = None  #: of a pretrained model with several; RANDOM: a new fitting net
    frozen: Frozen | None = None  #: parameters that keep their values; None: none

    def check(self) -> None:
        """Refuse what contradicts itself. InputError."""
        given = [name for name in ("restart", "init_model", "finetune") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"A training starts from one file; leave out {' or '.join(given)}.")
        if self.head and not self.finetune:
            raise InputError("A head is chosen for fine-tuning; add the pretrained model.")
        if self.frozen is not None and not self.finetune:
            raise InputError("Parameters are frozen for fine-tuning; add the pretrained model.")


@dataclass
class Prepared:
    """A model before its first step."""

    model: AnyModel
    notes: list[str] = field(default_factory=list)  #: sentences


def prepare(
    settings: Settings, data: TrainingData, start: Start, seed: int, threads: int = 0
) -> Prepared:
    """A new model with its statistics, or the given one for these data.

    Parameters
    ----------
    threads
        Of the core, where the given model is evaluated; 0: one for each processor.

    Raises
    ------
    InputError, ModelError
        When model, data and input don't fit together; one sentence.
    OSError
        When a file can't be read.
    """
    frames = {
        task.name: source.training.sample(task.model["data_stat_nbatch"])
        for task, source in zip(settings.tasks, data.tasks, strict=True)
    }
    probabilities = dict(zip(frames, data.task_probabilities, strict=True))
    configs = complete_configs(settings, data)
    for name, config in configs.items():
        config["info"] = {"observed_type": _observed(config["type_map"], data, name)}
    prepared = Prepared(_initial(settings, configs, seed))
    model = prepared.model
    if start.init_model:
        _take_over(model, start.init_model)
    elif start.finetune:
        _finetune(settings, prepared, start, frames, probabilities, seed, threads)
    else:
        _set_statistics(model, frames, probabilities)
        for name, head in heads_of(model).items():
            found = set_energy_bias(head, frames[name])
            prepared.notes += _about_bias(found, name if settings.multi_task else "")
    round_tensors(model)
    prepared.notes += _unseen(model, data)
    return prepared


def complete_configs(settings: Settings, data: TrainingData) -> dict[str, dict[str, Any]]:
    """The tasks' models with numbers of neighbours that are counted in the data of all."""
    systems = [system for task in data.tasks for system in task.training.systems]
    counted: dict[float, int] = {}

    def neighbors(rcut: float) -> int:
        if rcut not in counted:
            counted[rcut] = count_neighbors(systems, rcut)
        return counted[rcut]

    return {
        task.name: dict(with_counted_sels(task.model, neighbors, f"{settings.source}: model"))
        for task in settings.tasks
    }


def round_tensors(model: AnyModel) -> None:
    """Give every tensor the precision that files keep, so that a restart has the same numbers."""
    for head in heads_of(model).values():
        for name, tensor in head.tensors.items():
            tensor[...] = tensor.astype(precision_of(name, head.model))
    model.set_flat(model.flat())


def check_same_model(
    settings: Settings, configs: Mapping[str, Mapping[str, Any]], file: str
) -> None:
    """Refuse a file whose model is not that of the input; counted numbers of neighbours may differ.

    Raises
    ------
    InputError
        Naming the key.
    """
    names = [task.name for task in settings.tasks]
    if sorted(names) != sorted(configs):
        raise InputError(
            f"{file} has the tasks {', '.join(configs)}, and {settings.source} has "
            f"{', '.join(names)}; give the input that it was trained with."
        )
    for task in settings.tasks:
        free = {slot.path for slot in auto_sels(task.model)}
        stored = configs[task.name]
        for key in ("type_map", "descriptor", "fitting_net"):
            where = _difference(task.model[key], stored.get(key), (), free)
            if where is not None:
                raise InputError(
                    f"{settings.source}: model.{'.'.join((key, *where))} is not that of {file}; "
                    "give the model section that it was trained with."
                )


def _difference(
    mine: Any, theirs: Any, path: tuple[str, ...], free: set[tuple[str, ...]]
) -> tuple[str, ...] | None:
    """Where two sections differ; a key that only one has is a default of another version."""
    if path in free or path[-1:] in (("seed",), ("trainable",)):
        return None
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in mine.keys() & theirs.keys():
            where = _difference(mine[key], theirs[key], (*path, key), free)
            if where is not None:
                return where
        return None
    return None if mine == theirs else path


# ---- new models


def _initial(settings: Settings, configs: dict[str, dict[str, Any]], seed: int) -> AnyModel:
    if settings.multi_task:
        return MultiTaskModel.initial(configs, settings.shares, seed, settings.shared)
    return TrainableModel(configs[SINGLE], initial_tensors(configs[SINGLE], seed))


def _set_statistics(
    model: AnyModel,
    frames: Mapping[str, Sequence[LabeledFrame]],
    probabilities: Mapping[str, float],
) -> None:
    if isinstance(model, MultiTaskModel):
        set_shared_statistics(model, frames, probabilities)
    else:
        set_statistics(model, frames[SINGLE])


def _about_bias(found: EnergyBias, task: str) -> list[str]:
    if not found.ambiguous:
        return []
    of = f" of {task}" if task else ""
    text = (
        f"The frames{of} don't tell the energies of {' and '.join(found.ambiguous)} apart: the "
        "model is good for their ratio in the data only. Energies of isolated atoms in "
        "model.preset_out_bias, or data of other compositions, help."
    )
    return [text]


def _observed(type_map: Sequence[str], data: TrainingData, task: str) -> list[str]:
    (source,) = (source for source in data.tasks if source.name == task)
    return [name for k, name in enumerate(type_map) if k in source.elements]


def _unseen(model: AnyModel, data: TrainingData) -> list[str]:
    elements = next(iter(heads_of(model).values())).model.elements
    seen = frozenset().union(*(task.elements for task in data.tasks))
    missing = [name for k, name in enumerate(elements) if k not in seen]
    if not missing:
        return []
    few = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if missing[6:] else "")
    return [f"No frame has {few} of the type_map: the model will know nothing of them."]


# ---- models that were trained before


def read_any(path: str | os.PathLike, multi_task: bool) -> AnyModel:
    """All heads of a file, or its only one. ModelError, OSError."""
    return MultiTaskModel.read(path) if multi_task else TrainableModel.read(path)


def _take_over(model: AnyModel, file: str) -> None:
    """All tensors of a model of the same shape."""
    theirs = heads_of(read_any(file, isinstance(model, MultiTaskModel)))
    for name, head in heads_of(model).items():
        if name not in theirs:
            raise InputError(f"{file} has no head {name}; its heads are {', '.join(theirs)}.")
        if head.model.elements != theirs[name].model.elements:
            raise InputError(
                f"{file} has another type_map; give the same one as model.type_map, or add "
                "--use-pretrain-script."
            )
        _copy(head, theirs[name].tensors, head.tensors, file)
        head.all_neighbors = theirs[name].all_neighbors
    model.set_flat(model.flat())


def _copy(
    mine: TrainableModel,
    theirs: Mapping[str, np.ndarray],
    names: Iterable[str],
    file: str,
    new: Collection[str] = (),
) -> None:
    """Take over tensors, but for the statistics of `new` elements."""
    known = [k for k, element in enumerate(mine.model.elements) if element not in new]
    for name in names:
        tensor, found = mine.tensors[name], theirs.get(name)
        if found is None or found.shape != tensor.shape:
            raise InputError(
                f"{file} has another model than the input: the tensor {name} differs in shape; "
                "give the same model section, or add --use-pretrain-script."
            )
        rows: Any = known if is_statistic(name) else ...
        tensor[rows] = found[rows]


def _finetune(
    settings: Settings,
    prepared: Prepared,
    start: Start,
    frames: Mapping[str, Sequence[LabeledFrame]],
    probabilities: Mapping[str, float],
    seed: int,
    threads: int,
) -> None:
    """Take over what each task starts from, and fit the energy biases."""
    model, file = prepared.model, str(start.finetune)
    wanted = {task.name: start.head or task.model.get("finetune_head") for task in settings.tasks}
    origins = read_origins(file, wanted, settings.multi_task)
    heads = heads_of(model)
    if any(_lacking(head, origins[name]) for name, head in heads.items()):
        _set_statistics(model, frames, probabilities)
    for name in heads:
        _take_origin(model, name, origins[name], file, seed)
    model.set_flat(model.flat())
    if start.frozen is not None:
        assert isinstance(model, TrainableModel)
        model.freeze(start.frozen.choose([p.name for p in model.parameters]))
    for name, head in heads.items():
        choice, task = origins[name].choice, name if settings.multi_task else ""
        if choice.new_fitting:
            found = _set_new_fitting(model, name, frames[name])
            prepared.notes += _about_bias(found, task)
        elif not choice.resumed:
            prepared.notes += _about_bias(fit_bias(head, frames[name], threads), task)
        prepared.notes += _about_origin(head, origins[name], file, task)


def _take_origin(model: AnyModel, name: str, origin: Origin, file: str, seed: int) -> None:
    """Copy what a head takes; what it shares with an earlier head is that one's."""
    head = heads_of(model)[name]
    theirs = with_elements(origin.model, head.model.elements, seed, name)
    links = model.links if isinstance(model, MultiTaskModel) else {}
    names = [
        tensor
        for tensor in head.tensors
        if (name, tensor) not in links
        and not (origin.choice.new_fitting and tensor.startswith(_FITTING))
    ]
    _copy(head, theirs, names, file, _lacking(head, origin))
    head.all_neighbors = origin.model.all_neighbors


def _lacking(head: TrainableModel, origin: Origin) -> list[str]:
    """The elements of the type map that the pretrained model doesn't have."""
    return [name for name in head.model.elements if name not in origin.model.model.elements]


def _set_new_fitting(model: AnyModel, name: str, frames: Sequence[LabeledFrame]) -> EnergyBias:
    """Statistics and energy bias of a head with a new fitting net."""
    head = heads_of(model)[name]
    head.tensors["atomic_model.out_bias"][...] = 0.0
    links = model.links if isinstance(model, MultiTaskModel) else {}
    if _CASE in head.tensors:
        head.tensors[_CASE][...] = 0.0  # as in DeePMD-kit, where only a new training has cases
    if not any(key == name and tensor.startswith(_FITTING) for key, tensor in links):
        set_parameter_statistics(head, frames)
    return set_energy_bias(head, frames)


def _about_origin(head: TrainableModel, origin: Origin, file: str, task: str) -> list[str]:
    """What a task starts from, and which elements its start knows nothing of."""
    notes = []
    of = f"the head {origin.choice.head} of {file}" if origin.choice.head else file
    if task and origin.choice.resumed:
        notes.append(f"{task} goes on from {of}, with its energy bias.")
    elif task and origin.choice.new_fitting:
        notes.append(f"{task} has a new fitting net, and the descriptor of {of}.")
    elif task:
        notes.append(f"{task} starts from {of}, with another energy bias.")
    lacking = _lacking(head, origin)
    if lacking:
        notes.append(
            f"The type_map of {file} lacks {', '.join(lacking)}: the type embedding starts from "
            "random numbers there, and statistics are those of the data."
        )
    known = [*_pretrained_elements(origin.model), *lacking]
    new = [name for name in head.config["info"]["observed_type"] if name not in known]
    if new:
        notes.append(f"{file} was not trained on {', '.join(new)}.")
    return notes


def _pretrained_elements(model: TrainableModel) -> list[str]:
    """The elements that the data of a model had; all where nobody knows."""
    records = model.records()
    if observed := observed_types(model.config):
        records["meta.observed_types"] = "\n".join(observed)
    return trained_elements(records) or model.model.elements


def fit_bias(model: TrainableModel, frames: Sequence[LabeledFrame], threads: int) -> EnergyBias:
    """Add to the energy bias what the model misses in the mean. InputError without energies."""
    elements = sorted({int(kind) for frame in frames for kind in np.unique(frame.types)})
    core = CoreModel(model, elements, threads)
    core.load()
    return change_energy_bias(model, frames, core.atom_energies(frames))
