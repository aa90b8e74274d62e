"""Trained models as DeePMD-kit's own files: `.dp`, `.yaml`, and `.pt` training checkpoints."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import whole_file
from ..errors import ModelError
from .layout import is_parameter, precision_of
from .multi_task import MultiTaskModel
from .parameters import TrainableModel
from .shares import heads_of
from .torch_file import write_torch
from .tree import model_tree

FORMATS = ".dp, .yaml, .yml and .pt"


@dataclass(frozen=True)
class AdamState:
    """Adam after a step; `mean` and `square` are along the flat vector of the model, (size,).

    `count` is the number of steps taken, of each parameter where they differ. `lr` is the learning rate of the next step and `first_lr`
    that of the first.
    """

    count: int | list[int]
    mean: np.ndarray
    square: np.ndarray
    lr: float
    first_lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decoupled: bool = False  # AdamW


def export_model(model: TrainableModel, path: str | os.PathLike) -> None:
    """Write one head as a model file that DeePMD-kit reads.

    Parameters
    ----------
    model
        The model.
    path
        The file; its extension says the format. A `.pt` is a checkpoint without optimizer: for
        `dp --pt freeze`, `--init-model` and `--finetune`.

    Raises
    ------
    ModelError
        When the extension is unknown, or h5py or PyYAML is missing.
    OSError
        When the file can't be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".dp":
        _write_hdf5(path, model_tree(model))
    elif suffix in (".yaml", ".yml"):
        _write_yaml(path, model_tree(model))
    elif suffix == ".pt":
        write_checkpoint(model, path)
    else:
        raise ModelError(
            f"{path}: the extension {path.suffix!r} is none that models are exported to; "
            f"known are {FORMATS}."
        )


def write_checkpoint(
    model: TrainableModel | MultiTaskModel,
    path: str | os.PathLike,
    step: int = 0,
    adam: AdamState | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write a training checkpoint as `dp --pt train` writes it.

    Parameters
    ----------
    model
        One head, or all of them.
    path
        The `.pt` file.
    step
        The number of the last step, counted from 0, as DeePMD-kit writes it. Its `--restart`
        takes that step once more.
    adam
        The optimizer, without which `--restart` is not possible (`--init-model` and `--finetune`
        are).
    more
        Entries beside DeePMD-kit's `model` and `optimizer`, which it does not look at.

    Raises
    ------
    OSError
        When the file can't be written.
    """
    heads = heads_of(model)
    state: OrderedDict[str, Any] = OrderedDict()
    infos = {"lr": 0.0 if adam is None else float(adam.lr), "step": step}
    params = model.params if isinstance(model, MultiTaskModel) else model.config
    state["_extra_state"] = {"model_params": params, "train_infos": infos}
    arrays: dict[tuple[str, str], np.ndarray] = {}
    for (head, name), place in _owners(model).items():
        one = heads[head]
        if place not in arrays:
            arrays[place] = one.tensors[name].astype(precision_of(name, one.model))
        state[f"model.{head}.{name}"] = arrays[place]
        if ".networks." in name:  # every net is registered twice
            twin = name.replace(".networks.", "._networks.")
            state[f"model.{head}.{twin}"] = arrays[place]
    optimizer = {} if adam is None else _optimizer(model, adam)
    write_torch(path, {"model": state, "optimizer": optimizer, **(more or {})})


def _owners(model: TrainableModel | MultiTaskModel) -> dict[tuple[str, str], tuple[str, str]]:
    """Every tensor as head and name, with the one that it is the same as; in the file's order."""
    if isinstance(model, MultiTaskModel):
        return {
            (head, name): model.links.get((head, name), (head, name))
            for head, one in model.heads.items()
            for name in one.tensors
        }
    return {("Default", name): ("Default", name) for name in model.tensors}


def optimizer_numbers(model: TrainableModel | MultiTaskModel) -> list[int]:
    """The numbers that torch's optimizer gives to `model.parameters`.

    It numbers all parameters of the file, those that are not trained as well.
    """
    places = dict.fromkeys(_owners(model).values())
    numbered = [place for place in places if is_parameter(place[1]) or "compress_" in place[1]]
    numbers = {place: number for number, place in enumerate(numbered)}
    if isinstance(model, TrainableModel):
        return [numbers["Default", p.name] for p in model.parameters]
    return [numbers[_split(p.name)] for p in model.parameters]


def _split(name: str) -> tuple[str, str]:
    head, _, inner = name.partition(".")
    return head, inner


def _optimizer(model: TrainableModel | MultiTaskModel, adam: AdamState) -> dict[str, Any]:
    """The state of torch's Adam."""
    owners = dict.fromkeys(_owners(model).values())
    total = sum(is_parameter(name) or "compress_" in name for _, name in owners)
    counts = adam.count
    if isinstance(counts, int):
        counts = [counts] * len(model.parameters)
    state = {}
    for p, number, count in zip(model.parameters, optimizer_numbers(model), counts, strict=True):
        name, one = p.name, model
        if isinstance(one, MultiTaskModel):
            head, name = _split(p.name)
            one = one.heads[head]
        moments = (vector[p.offset : p.end].reshape(p.shape) for vector in (adam.mean, adam.square))
        mean, square = (moment.astype(precision_of(name, one.model)) for moment in moments)
        t = np.array(count, dtype=np.float32)
        state[number] = {"step": t, "exp_avg": mean, "exp_avg_sq": square}
    group = {
        "lr": float(adam.lr),
        "betas": tuple(map(float, adam.betas)),
        "eps": 1e-8,
        "weight_decay": float(adam.weight_decay),
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": False,
        "decoupled_weight_decay": adam.decoupled,
        "initial_lr": float(adam.first_lr),
        "params": list(range(total)),
    }
    return {"state": {k: state[k] for k in sorted(state)}, "param_groups": [group]}


def _write_hdf5(path: Path, tree: dict[str, Any]) -> None:
    try:
        import h5py
    except ImportError:
        raise ModelError(
            f"{path}: writing a .dp file needs the Python package h5py; install it."
        ) from None
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        count = 0

        def keep(array: np.ndarray) -> str:
            nonlocal count
            name = f"variable_{count:04d}"
            file.create_dataset(name, data=array)
            count += 1
            return f"/{name}"

        file.attrs["json"] = json.dumps(_replace(tree, keep), separators=(",", ":"))


def _write_yaml(path: Path, tree: dict[str, Any]) -> None:
    try:
        import yaml
    except ImportError:
        raise ModelError(
            f"{path}: writing a .yaml model needs the Python package pyyaml; install it."
        ) from None
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yaml.dump(_replace(tree, _written_out), file, Dumper=dumper)


def _written_out(array: np.ndarray) -> dict[str, Any]:
    return {
        "@class": "np.ndarray",
        "@is_variable": True,
        "@version": 1,
        "dtype": array.dtype.name,
        "value": array.tolist(),
    }


def _replace(tree: Any, function: Any) -> Any:
    """A copy of the tree with every array replaced."""
    if isinstance(tree, dict):
        return {key: _replace(value, function) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_replace(value, function) for value in tree]
    return function(tree) if isinstance(tree, np.ndarray) else tree
