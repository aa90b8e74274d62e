"""The model that a training starts with: a new one, or one that was trained before."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..conversion import list_heads, trained_elements
from ..errors import InputError
from ..importer.config import observed_types
from ..importer.source import named_file, open_source
from .core_model import CoreModel
from .data import TrainingData, count_neighbors
from .energy_bias import EnergyBias, change_energy_bias, set_energy_bias
from .freezing import Frozen
from .initial import initial_tensors
from .layout import precision_of
from .model_settings import SINGLE, auto_sels, with_counted_sels
from .multi_task import MultiTaskModel
from .parameters import TrainableModel, refuse_converted
from .settings import Settings
from .shares import AnyModel, heads_of
from .statistics import (
    set_parameter_statistics,
    set_shared_statistics,
    set_statistics,
)
from .systems import LabeledFrame

RANDOM = "RANDOM"  # DeePMD-kit's name of a fitting net that is new
_FITTING = "atomic_model.fitting_net."
# What DeePMD-kit's classes are given besides the keys of an input; .dp and .yaml files repeat it.
_ARGUMENTS = {
    "descriptor": ("ntypes", "type_map"),
    "fitting_net": ("ntypes", "type_map", "var_name", "dim_descrpt", "dim_out", "mixed_types"),
}


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
    configs = complete_configs(settings, data)
    for name, config in configs.items():
        config["info"] = {"observed_type": _observed(config["type_map"], data, name)}
    prepared = Prepared(_initial(settings, configs, seed))
    model = prepared.model
    if start.init_model:
        _take_over(model, start.init_model)
    elif start.finetune:
        _finetune(settings, prepared, start, frames[SINGLE], threads)
    else:
        _set_statistics(model, frames, dict(zip(frames, data.task_probabilities, strict=True)))
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
        _copy(head, theirs[name], file)
    model.set_flat(model.flat())


def _copy(mine: TrainableModel, theirs: TrainableModel, file: str, without: str = "-") -> None:
    if mine.model.elements != theirs.model.elements:
        raise InputError(
            f"{file} has another type_map; give the same one as model.type_map, or add "
            "--use-pretrain-script."
        )
    for name, tensor in mine.tensors.items():
        if name.startswith(without):
            continue
        found = theirs.tensors.get(name)
        if found is None or found.shape != tensor.shape:
            raise InputError(
                f"{file} has another model than the input: the tensor {name} differs in shape; "
                "give the same model section, or add --use-pretrain-script."
            )
        tensor[...] = found


def _finetune(
    settings: Settings,
    prepared: Prepared,
    start: Start,
    frames: Sequence[LabeledFrame],
    threads: int,
) -> None:
    model, file = prepared.model, str(start.finetune)
    assert isinstance(model, TrainableModel)
    head = start.head or settings.tasks[0].model.get("finetune_head")
    is_new = head == RANDOM
    theirs = TrainableModel.read(file, _first_head(file) if is_new else head)
    _copy(model, theirs, file, without=_FITTING if is_new else "-")
    if start.frozen is not None:
        model.freeze(start.frozen.choose([p.name for p in model.parameters]))
    if is_new:
        model.tensors["atomic_model.out_bias"][...] = 0.0
        set_parameter_statistics(model, frames)
        found = set_energy_bias(model, frames)
    else:
        found = fit_bias(model, frames, threads)
    prepared.notes += _about_bias(found, "")
    known = _pretrained_elements(theirs)
    new = [name for name in model.config["info"]["observed_type"] if name not in known]
    if new:
        prepared.notes.append(f"{file} was not trained on {', '.join(new)}.")


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


def pretrained_config(start: Start) -> dict[str, Any]:
    """The model section of the file that a training starts from, without notes about its data.

    Raises
    ------
    InputError, ModelError
        When there is none, or it needs a head.
    OSError
        When the file can't be read.
    """
    file = start.finetune or start.init_model
    if file is None:
        raise InputError(
            "--use-pretrain-script takes the model section of a pretrained model; add --finetune "
            "or --init-model with its file."
        )
    head = _first_head(file) if start.head == RANDOM else start.head
    path = Path(file)
    refuse_converted(path)
    with named_file(path), open_source(path) as contents:
        config = contents.choose(head).config
    out = {key: value for key, value in config.items() if key not in ("info", "resuming")}
    for part, arguments in _ARGUMENTS.items():
        if isinstance(section := out.get(part), dict):
            out[part] = {
                k: v for k, v in section.items() if k not in arguments and not _unset(k, v)
            }
    fitting = out.get("fitting_net")
    if isinstance(fitting, dict) and fitting.get("exclude_types") == out.get("atom_exclude_types"):
        fitting.pop("exclude_types", None)  # the same once more
    return out


def _unset(key: str, value: Any) -> bool:
    """Whether a key of a file says that there is nothing, as an input does by leaving it out."""
    return value is None or (key in ("exclude_types", "tot_ener_zero") and not value)


def _first_head(file: str) -> str | None:
    heads = list_heads(file)
    return heads[0] if heads else None
