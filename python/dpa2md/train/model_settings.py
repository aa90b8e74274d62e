"""The model section of a training's input, completed and checked, with its shared parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, ModelError
from ..importer.config import read_config
from .model_keys import DESCRIPTORS, FITTING, MODEL, REPFORMER, REPINIT
from .sections import fill, shown, table

SINGLE = "Default"  # what DeePMD-kit calls the only task of a model
SHAREABLE = ("type_map", "descriptor", "fitting_net")  # by a name in shared_dict
_LEVELS = {"type_map": (0,), "descriptor": (0, 1), "fitting_net": (0,)}
_AUTO_RATIO = 1.1  # DeePMD-kit's, where sel is "auto" without a number


@dataclass(frozen=True)
class Share:
    """A part of several tasks' models that has the same parameters."""

    task: str
    part: str  #: descriptor or fitting_net
    name: str  #: in model.shared_dict
    level: int  #: 0: all parameters (of a fitting net not its energy bias); 1: the type embedding


@dataclass(frozen=True)
class ModelSection:
    """The models of all tasks, as checkpoints store them in ``model_params``."""

    tasks: dict[str, dict[str, Any]]  #: by name; a single task is called `SINGLE`
    shared: dict[str, Any] | None = None  #: model.shared_dict as it was written; None: one task
    shares: tuple[Share, ...] = ()  #: those with the lowest level first, as DeePMD-kit links them

    @property
    def params(self) -> dict[str, Any]:
        """What DeePMD-kit stores as model_params."""
        if self.shared is None:
            return self.tasks[SINGLE]
        return {"model_dict": self.tasks, "shared_dict": self.shared}


def read_model(section: Any, where: str) -> ModelSection:
    """The model section with DeePMD-kit's defaults.

    A key next to ``model_dict`` holds for each task that hasn't got it. A text in the place of a
    type_map, a descriptor or a fitting_net names an entry of ``shared_dict``; ``name:1`` shares
    less.

    Parameters
    ----------
    section
        As it was read, without comments.
    where
        What it is called in messages.

    Raises
    ------
    InputError
        When a key is unknown, missing or has a value that can't be used.
    """
    section = deepcopy(table(section, where))
    if "model_dict" not in section:
        return ModelSection({SINGLE: _complete(section, where)})
    tasks = table(section.pop("model_dict"), f"{where}.model_dict")
    shared = table(section.pop("shared_dict", {}), f"{where}.shared_dict")
    if not tasks or "RANDOM" in tasks:
        raise InputError(
            f"{where}.model_dict should have one entry for each task, none of them called RANDOM."
        )
    shares: list[Share] = []
    complete = {}
    for task, model in tasks.items():
        name = f"{where}.model_dict.{task}"
        model = deepcopy(section) | table(model, name)
        shares += _expand(model, shared, task, name)
        complete[task] = _complete(model, name)
    maps = [model["type_map"] for model in complete.values()]
    if any(one != maps[0] for one in maps):
        raise InputError(
            f"{where}.model_dict: the tasks have different type_maps; write one into shared_dict "
            "and name it in each task."
        )
    shares.sort(key=lambda share: share.level)
    return ModelSection(complete, shared, tuple(shares))


def _expand(model: dict[str, Any], shared: Mapping[str, Any], task: str, where: str) -> list[Share]:
    """Put what is in shared_dict in the place of its names."""
    shares = []
    for part in SHAREABLE:
        reference = model.get(part)
        if not isinstance(reference, str):
            continue
        name, _, level = reference.partition(":")
        if name not in shared:
            raise InputError(
                f"{where}.{part} = {reference!r:.60}: model.shared_dict has no entry {name!r:.60}; "
                "add it, or write the section itself."
            )
        if level not in ("", *map(str, _LEVELS[part])):
            raise InputError(
                f"{where}.{part} = {reference!r:.60}: a {part} can be shared at level "
                f"{' or '.join(map(str, _LEVELS[part]))}, as DeePMD-kit does."
            )
        model[part] = deepcopy(shared[name])
        if part != "type_map":
            shares.append(Share(task, part, name, int(level or 0)))
    return shares


def _complete(model: Any, where: str) -> dict[str, Any]:
    """One model with all defaults, checked as far as it can be before the data are read."""
    if isinstance(fitting := model.get("fitting_net"), dict):
        _all_trainable(fitting)
    filled = fill(model, MODEL, where)
    filled["descriptor"] = _descriptor(filled["descriptor"], f"{where}.descriptor")
    filled["fitting_net"] = fill(filled["fitting_net"], FITTING, f"{where}.fitting_net")
    model = deepcopy(filled)
    if auto_sels(filled, where):
        for path, _, rcut in _sels(filled):
            # any numbers in the order that the cutoffs ask for: the counted ones come later
            _put(model, path, int(1000 * rcut))
    check_model(model, where)
    return filled


def _all_trainable(fitting: dict[str, Any]) -> None:
    """DeePMD-kit's list with a value for each layer is one value where all are true."""
    layers = fitting.get("trainable")
    if isinstance(layers, list) and all(one is True for one in layers):
        fitting["trainable"] = True


def _descriptor(section: dict[str, Any], where: str) -> dict[str, Any]:
    kind = section.get("type")
    if not isinstance(kind, str) or kind not in DESCRIPTORS:
        raise InputError(
            f"{where}.type = {shown(kind)} is not supported; dpa2md trains dpa2, and dpa1 "
            "(se_atten, se_atten_v2) with attn_layer 0."
        )
    filled = fill(section, DESCRIPTORS[kind], where)
    if filled["type"] == "dpa1":
        filled["type"] = "se_atten"
    if kind == "dpa2":
        filled["repinit"] = fill(filled["repinit"], REPINIT, f"{where}.repinit")
        filled["repformer"] = fill(filled["repformer"], REPFORMER, f"{where}.repformer")
    return filled


def check_model(model: dict[str, Any], where: str) -> None:
    """Refuse a complete model that dpa2md can't compute.

    Raises
    ------
    InputError
        Naming the key.
    """
    try:
        read_config(model)
    except ModelError as error:
        raise InputError(f"{where}: {error}") from None


@dataclass(frozen=True)
class AutoSel:
    """A number of neighbours that is counted in the data: ``"auto"`` or ``"auto:1.2"``."""

    path: tuple[str, ...]  #: in the descriptor
    rcut: float  #: angstrom
    ratio: float  #: of room to the neighbours that were found

    def room(self, neighbors: int) -> int:
        """DeePMD-kit's number for the most neighbours that an atom has: a multiple of four."""
        return 4 * ((int(neighbors * self.ratio) + 3) // 4)


def auto_sels(model: Mapping[str, Any], where: str = "model") -> list[AutoSel]:
    """The numbers of neighbours that are to be counted.

    Raises
    ------
    InputError
        For a text that is no such rule.
    """
    return [
        AutoSel(path, float(rcut), _ratio(value, ".".join((where, "descriptor", *path))))
        for path, value, rcut in _sels(model)
        if isinstance(value, str)
    ]


def _sels(model: Mapping[str, Any]) -> list[tuple[tuple[str, ...], Any, float]]:
    """Where a descriptor has its numbers of neighbours, each with its cutoff."""
    descriptor = model["descriptor"]
    if descriptor["type"] != "dpa2":
        return [(("sel",), descriptor["sel"], descriptor["rcut"])]
    repinit, repformer = descriptor["repinit"], descriptor["repformer"]
    return [
        (("repinit", "nsel"), repinit["nsel"], repinit["rcut"]),
        (("repinit", "three_body_sel"), repinit["three_body_sel"], repinit["three_body_rcut"]),
        (("repformer", "nsel"), repformer["nsel"], repformer["rcut"]),
    ]


def _put(model: dict[str, Any], path: tuple[str, ...], room: int) -> None:
    """Write a number of neighbours into a model's descriptor."""
    section = model["descriptor"]
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = room


def _ratio(rule: str, name: str) -> float:
    word, colon, number = rule.partition(":")
    try:
        ratio = float(number) if colon else _AUTO_RATIO
    except ValueError:
        ratio = math.nan
    if word != "auto" or not 1.0 <= ratio < math.inf:
        raise InputError(f'{name} = {rule!r:.60} should be a number, "auto", or "auto:1.2".')
    return ratio


def with_counted_sels(
    model: dict[str, Any], neighbors: Callable[[float], int], where: str = "model"
) -> dict[str, Any]:
    """A model with numbers in the place of ``"auto"``.

    Parameters
    ----------
    neighbors
        The most neighbours that an atom of the data has within a cutoff (angstrom).

    Raises
    ------
    InputError
        When the model can't be computed with these numbers.
    """
    slots = auto_sels(model, where)
    if not slots:
        return model
    model = deepcopy(model)
    counts = {rcut: neighbors(rcut) for rcut in {slot.rcut for slot in slots}}
    for slot in slots:
        _put(model, slot.path, slot.room(counts[slot.rcut]))
    check_model(model, where)
    return model
