"""Sections of a training's input: known keys, kinds, defaults, and sentences for the others."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

ABSENT = object()  # the default of a key that stays away where it isn't given
REQUIRED = object()
_FEW = 8  # names that a sentence lists
_KINDS = {
    "integer": lambda v: type(v) is int,
    "number": lambda v: type(v) in (int, float) and math.isfinite(v),
    "true or false": lambda v: isinstance(v, bool),
    "text": lambda v: isinstance(v, str),
    "list": lambda v: isinstance(v, list),
    "table": lambda v: isinstance(v, dict),
    "null": lambda v: v is None,
}


@dataclass(frozen=True)
class Key:
    """A key of a section as DeePMD-kit 3.2's input schema knows it."""

    kinds: str  #: of `_KINDS`, joined by " | "
    default: Any = ABSENT  #: what a training has where the key isn't given
    aliases: tuple[str, ...] = ()  #: other names, which become this one
    least: float | None = None  #: the smallest number
    only: tuple[Any, ...] = ()  #: the values that dpa2md supports; empty: all
    remedy: str = ""  #: what to do about another value

    def check(self, name: str, value: Any) -> None:
        """Refuse a value of the wrong kind, too small, or not supported.

        Raises
        ------
        InputError
            Naming the key.
        """
        kinds = self.kinds.split(" | ")
        if not any(_KINDS[kind](value) for kind in kinds):
            raise InputError(f"{name} = {shown(value)} should be {' or '.join(kinds)}.")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if self.least is not None and number and value < self.least:
            raise InputError(f"{name} = {value} should be at least {self.least:g}.")
        if self.only and not any(type(value) is type(v) and value == v for v in self.only):
            raise InputError(f"{name} = {shown(value)} is not supported; {self.remedy}.")


def table(value: Any, where: str) -> dict[str, Any]:
    """A section as a dictionary.

    Raises
    ------
    InputError
        When it is something else.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where} = {shown(value)} should be a table of keys and values.")
    return value


def fill(value: Any, keys: Mapping[str, Key], where: str) -> dict[str, Any]:
    """A section with the names and defaults of DeePMD-kit's schema, each value checked.

    Parameters
    ----------
    value
        The section as it was read, without comments.
    keys
        All that the section may have.
    where
        What the section is called in messages, as in ``input.json: model.descriptor``.

    Raises
    ------
    InputError
        For a key that is unknown, missing, given twice, or has a value that can't be used.
    """
    names = {alias: name for name, key in keys.items() for alias in (name, *key.aliases)}
    filled: dict[str, Any] = {}
    for given, entry in table(value, where).items():
        if given not in names:
            raise unknown(where, given, names)
        name = names[given]
        if name in filled:
            raise InputError(f"{where} has {name} twice, also as {given}; leave one out.")
        keys[name].check(f"{where}.{given}", entry)
        filled[name] = entry
    for name, key in keys.items():
        if name not in filled and key.default is REQUIRED:
            raise InputError(f"{where} lacks {name}; add it.")
        if name not in filled and key.default is not ABSENT:
            key.check(f"{where}.{name}", key.default)  # DeePMD-kit's may be what dpa2md hasn't got
            filled[name] = deepcopy(key.default)
    return filled


def unknown(where: str, given: Any, names: Iterable[str]) -> InputError:
    """The error about a key that nobody knows, with the nearest one that is known."""
    known = list(names)
    near = difflib.get_close_matches(str(given), known, n=1)
    remedy = "leave it out."
    if near:
        remedy = f"did you mean {near[0]}?"
    elif len(known) <= _FEW:
        remedy = f"known are {', '.join(known)}."
    return InputError(f"{where}.{given!s:.60} is no key that is known here; {remedy}")


def without_comments(value: Any) -> Any:
    """A copy of the input without the keys that start with an underscore, at any depth."""
    if isinstance(value, dict):
        return {k: without_comments(v) for k, v in value.items() if not str(k).startswith("_")}
    return [without_comments(v) for v in value] if isinstance(value, list) else value


def shown(value: Any) -> str:
    """A value as part of a sentence."""
    text = {True: "true", False: "false", None: "null"}[value] if _is_word(value) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)
