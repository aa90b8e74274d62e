"""The data sections of a training's input: which systems, how many frames, how often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .sections import Key, fill, shown

_RULES = ("auto", "mixed", "max", "filter")
_AUTO_ATOMS = 32  # DeePMD-kit's "auto"

DATA = {
    "systems": Key("text | list", "."),
    "rglob_patterns": Key("list | null", None),
    "batch_size": Key("integer | list | text", "auto", least=1),
    "auto_prob": Key("text", "prob_sys_size", aliases=("auto_prob_style",)),
    "sys_probs": Key("list | null", None, aliases=("sys_weights",)),
    "set_prefix": Key(
        "text", only=("set",), remedy="rename the folders to set.000 and so on, and leave it out"
    ),
}
TRAINING_DATA = DATA | {
    "min_pair_dist": Key(
        "number", 0.0, only=(0.0, 0), remedy="remove such frames from the data, and leave it out"
    ),
}
VALIDATION_DATA = DATA | {"numb_btch": Key("integer", 1, aliases=("numb_batch",), least=1)}


@dataclass(frozen=True)
class BatchRule:
    """How many frames a batch has.

    By the rule: ``frames`` of each system (`sizes`: one, or one for each system); ``auto``, the
    fewest frames with at least `atoms` atoms; ``max``, the most frames with at most `atoms` atoms,
    but one at least; ``filter``, the same without systems of more atoms; ``mixed``, `sizes` frames
    of any systems.
    """

    rule: str
    sizes: tuple[int, ...] = ()
    atoms: int = 0


@dataclass(frozen=True)
class Block:
    """Systems from `start` to before `end`, which together have a share of `weight`."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Weights:
    """How often each system is drawn: by the first that is given, else by its batches."""

    given: tuple[
        float, ...
    ] = ()  #: for each system; negative: its part of the rest, by its batches
    uniform: bool = False
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Part:
    """One of two parts of all frames, which are told apart at random."""

    fraction: float  #: of the frames that are held out, between 0 and 1; one frame at least
    seed: int
    held_out: bool  #: whether it is these, or the others


@dataclass(frozen=True)
class DataSettings:
    """The data of one task, for training or for validation."""

    where: str  #: the section's name in messages
    systems: tuple[
        str, ...
    ]  #: folders, HDF5 files, structure files; relative to the working directory
    patterns: tuple[str, ...] | None  #: of the systems below the folders; None: all of them
    batch: BatchRule
    weights: Weights
    batches: int = 1  #: drawn for one validation
    part: Part | None = None  #: None: all frames


def read_data(section: Any, where: str, validation: bool = False) -> DataSettings:
    """One ``training_data`` or ``validation_data`` section.

    Raises
    ------
    InputError
        When a key is unknown, missing or has a value that can't be used.
    """
    data = fill(section, VALIDATION_DATA if validation else TRAINING_DATA, where)
    systems = data["systems"]
    patterns = data["rglob_patterns"]
    return DataSettings(
        where=where,
        systems=_texts([systems] if isinstance(systems, str) else systems, f"{where}.systems"),
        patterns=None if patterns is None else _texts(patterns, f"{where}.rglob_patterns"),
        batch=_batch_rule(data["batch_size"], f"{where}.batch_size"),
        weights=_weights(data, where),
        batches=data.get("numb_btch", 1),
    )


def _texts(value: list[Any], name: str) -> tuple[str, ...]:
    if not value or not all(isinstance(text, str) and text for text in value):
        raise InputError(f"{name} = {shown(value)} should list one text at least.")
    return tuple(value)


def _batch_rule(value: int | list[Any] | str, name: str) -> BatchRule:
    if isinstance(value, int):
        return BatchRule("frames", (value,))
    if isinstance(value, list):
        if not value or any(type(size) is not int or size < 1 for size in value):
            raise InputError(f"{name} = {shown(value)} should list numbers of at least 1.")
        return BatchRule("frames", tuple(value))
    rule, _, number = value.partition(":")
    if value == "auto":
        return BatchRule("auto", atoms=_AUTO_ATOMS)
    if rule not in _RULES or not number.isdecimal() or int(number) < 1:
        raise InputError(
            f'{name} = {value!r:.60} should be a number of frames, a list of them, "auto", '
            '"auto:N", "mixed:N", "max:N" or "filter:N".'
        )
    if rule == "mixed":
        return BatchRule("mixed", (int(number),))
    return BatchRule(rule, atoms=int(number))


def _weights(data: dict[str, Any], where: str) -> Weights:
    """DeePMD-kit's order: sys_probs before auto_prob."""
    given = data["sys_probs"]
    if given is not None:
        if not given or any(type(p) not in (int, float) or not math.isfinite(p) for p in given):
            raise InputError(f"{where}.sys_probs = {shown(given)} should list numbers.")
        if sum(p for p in given if p > 0) > 1 + 1e-8:  # DeePMD-kit's tolerance
            raise InputError(f"{where}.sys_probs add up to more than 1; make them smaller.")
        return Weights(given=tuple(map(float, given)))
    rule, *blocks = data["auto_prob"].split(";")
    name = f"{where}.auto_prob"
    if rule == "prob_uniform" and not blocks:
        return Weights(uniform=True)
    if rule != "prob_sys_size":
        raise InputError(
            f'{name} = {data["auto_prob"]!r:.60} should be "prob_uniform", "prob_sys_size" '
            'or, with blocks of systems, "prob_sys_size;0:4:0.3;4:8:0.7".'
        )
    return Weights(blocks=tuple(_block(text, name) for text in blocks))


def _block(text: str, name: str) -> Block:
    try:
        start, end, weight = text.split(":")
        block = Block(int(start), int(end), float(weight))
    except ValueError:
        block = Block(0, 0, 0.0)
    if not 0 <= block.start < block.end or not 0 <= block.weight < math.inf:
        raise InputError(
            f'{name}: the block {text!r:.40} should be as "0:4:0.3": from, to, weight.'
        )
    return block
