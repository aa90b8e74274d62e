"""The learning rate of every step, as DeePMD-kit 3.2's schedules exp, cosine and wsd give it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import InputError
from .sections import REQUIRED, Key, fill, shown, table

_DEFAULT_STOP = 5e-8  # of the last rate, where the input has neither stop_lr nor stop_lr_ratio
_LEAST_STOP = 1e-10  # that an exponential decay can aim at


class Decay(Protocol):
    """What the rate does once the warmup is over."""

    def rate(self, step: int) -> float:
        """The rate, `step` steps after the warmup."""


@dataclass(frozen=True)
class Exponential:
    """``start * factor^(step / every)``, in stairs or smoothly, never below `stop`."""

    start: float
    stop: float
    every: int
    factor: float
    smooth: bool

    def rate(self, step: int) -> float:
        """The rate, `step` steps after the warmup."""
        power = step / self.every if self.smooth else step // self.every
        return max(self.start * self.factor**power, self.stop)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` to `stop` in `steps` steps, then `stop`."""

    start: float
    stop: float
    steps: int

    def rate(self, step: int) -> float:
        """The rate, `step` steps after the warmup."""
        return _along_cosine(self.start, self.stop, min(1.0, step / self.steps))


@dataclass(frozen=True)
class Stable:
    """`start` for `stable` steps, then down to `stop` in `steps` steps: the schedule wsd."""

    start: float
    stop: float
    stable: int
    steps: int
    shape: str  #: inverse_linear, cosine or linear

    def rate(self, step: int) -> float:
        """The rate, `step` steps after the warmup."""
        part = min(1.0, max(0.0, (step - self.stable) / self.steps))
        if self.shape == "inverse_linear":
            return 1 / (part / self.stop + (1 - part) / self.start)
        if self.shape == "cosine":
            return _along_cosine(self.start, self.stop, part)
        return self.start + (self.stop - self.start) * part


@dataclass(frozen=True)
class Multiple:
    """Another decay, with all rates multiplied by a factor."""

    factor: float
    decay: Decay

    def rate(self, step: int) -> float:
        """The rate, `step` steps after the warmup."""
        return self.factor * self.decay.rate(step)


@dataclass(frozen=True)
class Schedule:
    """The learning rate from the first step to the last."""

    start: float  #: after the warmup; the loss's prefactors are those of the start at this rate
    warmup_start: float  #: of the first step of the warmup
    warmup_steps: int
    decay: Decay

    def rate(self, step: int) -> float:
        """The learning rate of a step; the first is 0."""
        if step < self.warmup_steps:
            return self.warmup_start + (self.start - self.warmup_start) * step / self.warmup_steps
        return self.decay.rate(step - self.warmup_steps)

    def times(self, factor: float) -> Schedule:
        """The schedule with all rates multiplied by a factor."""
        start, warmup_start = factor * self.start, factor * self.warmup_start
        return Schedule(start, warmup_start, self.warmup_steps, Multiple(factor, self.decay))


_COMMON = {
    "type": Key("text", "exp"),
    "start_lr": Key("number", REQUIRED),
    "stop_lr": Key("number | null", None, least=0.0),
    "stop_lr_ratio": Key("number | null", None, least=0.0),
    "warmup_steps": Key("integer", 0, least=0),
    "warmup_ratio": Key("number | null", None, least=0.0),
    "warmup_start_factor": Key("number", 0.0, least=0.0),
    "scale_by_worker": Key("text", "linear"),  # see `factor_of_ranks`
}
_KEYS = {
    "exp": _COMMON
    | {
        "decay_steps": Key("integer", 5000, least=1),
        "decay_rate": Key("number | null", None),
        "smooth": Key("true or false", False),
    },
    "cosine": _COMMON,
    "wsd": _COMMON
    | {"decay_phase_ratio": Key("number", 0.1), "decay_type": Key("text", "inverse_linear")},
}
_SHAPES = ("inverse_linear", "cosine", "linear")
_OF_RANKS = {"linear": lambda ranks: float(ranks), "sqrt": math.sqrt, "none": lambda ranks: 1.0}


def read_schedule(section: Mapping[str, Any], steps: int, where: str) -> Schedule:
    """The schedule that the section learning_rate of an input describes.

    Parameters
    ----------
    section
        The section as it was written, without comments.
    steps
        How many steps the whole training has.
    where
        What the section is called in messages, as in ``input.json: learning_rate``.

    Raises
    ------
    InputError
        For a key that is unknown or missing, or a value that no schedule can have; one sentence.
    """
    kind = table(section, where).get("type", "exp")
    if kind not in tuple(_KEYS):
        raise InputError(
            f"{where}.type = {shown(kind)} is not supported; dpa2md has exp, cosine and wsd: set it to exp."
        )
    keys = fill(section, _KEYS[kind], where)
    if keys["scale_by_worker"] not in _OF_RANKS:
        given = shown(keys["scale_by_worker"])
        raise InputError(f"{where}.scale_by_worker = {given} should be {' or '.join(_OF_RANKS)}.")
    start = float(keys["start_lr"])
    if start <= 0:
        raise InputError(f"{where}.start_lr = {shown(keys['start_lr'])} should be above 0.")
    stop = _stop(keys, where)
    warmup = _warmup_steps(keys, steps, where)
    left = steps - warmup
    decay: Decay
    if kind == "exp":
        decay = _exponential(keys, start, stop, left, where)
    elif kind == "cosine":
        decay = Cosine(start, stop, left)
    else:
        decay = _stable(keys, start, stop, steps, left, where)
    return Schedule(start, keys["warmup_start_factor"] * start, warmup, decay)


def factor_of_ranks(section: Mapping[str, Any], ranks: int) -> float:
    """What scale_by_worker makes of the learning rate of several processes.

    Where it is not written, nothing: its default is `linear`, which DeePMD-kit's TensorFlow trainer
    follows, and the PyTorch trainer, whose input is read here, never looks at it.
    """
    return _OF_RANKS[section.get("scale_by_worker", "none")](ranks)


def _stop(keys: Mapping[str, Any], where: str) -> float:
    stop, ratio = keys["stop_lr"], keys["stop_lr_ratio"]
    if stop is not None and ratio is not None:
        raise InputError(f"{where} has stop_lr and stop_lr_ratio; leave one out.")
    if ratio is not None:
        return keys["start_lr"] * ratio
    return _DEFAULT_STOP if stop is None else float(stop)


def _warmup_steps(keys: Mapping[str, Any], steps: int, where: str) -> int:
    warmup, ratio = keys["warmup_steps"], keys["warmup_ratio"]
    if warmup and ratio is not None:
        raise InputError(f"{where} has warmup_steps and warmup_ratio; leave one out.")
    if ratio is not None:
        warmup = int(ratio * steps)
    if warmup >= steps:
        raise InputError(
            f"{where}: a warmup of {warmup} steps leaves none of the training's {steps}; shorten it."
        )
    return warmup


def _exponential(
    keys: Mapping[str, Any], start: float, stop: float, steps: int, where: str
) -> Exponential:
    """With DeePMD-kit's choice of the stairs' length where a stair would be the whole training."""
    every, factor = keys["decay_steps"], keys["decay_rate"]
    if factor is None:
        if every >= steps:
            every = 100 if steps // 10 > 100 else steps // 100 + 1
        factor = math.exp(math.log(max(stop, _LEAST_STOP) / start) / (steps / every))
    elif not 0 < factor <= 1:
        raise InputError(f"{where}.decay_rate = {factor} should be above 0 and at most 1.")
    return Exponential(start, stop, every, float(factor), keys["smooth"])


def _stable(
    keys: Mapping[str, Any], start: float, stop: float, steps: int, left: int, where: str
) -> Stable:
    ratio, shape = keys["decay_phase_ratio"], keys["decay_type"]
    if stop <= 0:
        raise InputError(f"{where}: the last rate is 0, which wsd can't reach; raise it.")
    if not 0 < ratio <= 1:
        raise InputError(f"{where}.decay_phase_ratio = {ratio} should be above 0 and at most 1.")
    if shape not in _SHAPES:
        raise InputError(f"{where}.decay_type = {shown(shape)} should be {' or '.join(_SHAPES)}.")
    falling = max(1, min(int(ratio * steps), left))
    return Stable(start, stop, left - falling, falling, shape)


def _along_cosine(start: float, stop: float, part: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * part)) / 2
