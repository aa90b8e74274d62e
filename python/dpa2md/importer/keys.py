"""Strict reading of a configuration: every key is taken, known to be harmless, or refused."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..errors import ModelError, UnsupportedModelError

REQUIRED = object()
MAX_DEPTH = 60
LARGEST_SIZE = 1_000_000  # of any width, count or number of neighbours


class Keys:
    """One dictionary of a configuration. `finish` refuses what was never taken."""

    def __init__(self, data: Any, where: str):
        if not isinstance(data, dict):
            raise ModelError(f"{where} of the configuration should be a dictionary; refused.")
        self._data = data
        self._where = where
        self._left = set(data)

    def name(self, key: str) -> str:
        """The key as messages show it."""
        return f"{self._where}.{key}"

    def has(self, key: str) -> bool:
        """Whether the file has the key; does not count as taking it."""
        return key in self._data

    def take(self, key: str, default: Any = REQUIRED) -> Any:
        """The value of `key`, or the default where the file doesn't have it."""
        self._left.discard(key)
        if key in self._data:
            return self._data[key]
        if default is REQUIRED:
            raise ModelError(f"The configuration lacks {self.name(key)}; the file is incomplete.")
        return default

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        """A value that is true or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def integer(self, key: str, default: Any = REQUIRED, least: int = 1) -> int:
        """An integer from `least` to `LARGEST_SIZE`."""
        value = self.take(key, default)
        if type(value) is not int or not least <= value <= LARGEST_SIZE:
            raise self._wrong(key, value, f"an integer from {least} to {LARGEST_SIZE}")
        return value

    def number(self, key: str, default: Any = REQUIRED, least: float = 0.0) -> float:
        """A finite number of at least `least`."""
        value = self.take(key, default)
        if type(value) not in (int, float) or not (least <= value < math.inf):
            raise self._wrong(key, value, f"a finite number of at least {least:g}")
        return float(value)

    def text(self, key: str, default: Any = REQUIRED) -> str:
        """A text."""
        value = self.take(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "text")
        return value

    def choice(self, key: str, options: tuple[str, ...], default: Any = REQUIRED) -> str:
        """One of several texts; another one is an unsupported model."""
        value = self.text(key, default)
        if value not in options:
            raise UnsupportedModelError(
                f"The model has {self.name(key)} = {value!r:.60}, and dpa2md computes only "
                f"{' or '.join(options)}."
            )
        return value

    def widths(self, key: str, default: Any = REQUIRED) -> list[int]:
        """A non-empty list of layer widths."""
        value = self.take(key, default)
        if (
            not isinstance(value, list)
            or not 0 < len(value) <= 1000
            or any(type(width) is not int or not 0 < width <= LARGEST_SIZE for width in value)
        ):
            raise self._wrong(key, value, "a list of layer widths")
        return value

    def only(self, key: str, *allowed: Any, reason: str) -> None:
        """Refuse any value of `key` but those allowed; a missing key is fine."""
        value = self.take(key, allowed[0])
        if not any(value is one or (type(value) is type(one) and value == one) for one in allowed):
            raise UnsupportedModelError(
                f"The model has {self.name(key)} = {value!r:.60}: {reason}."
            )

    def ignore(self, *names: str) -> None:
        """Mark keys that can't change an energy or a force."""
        self._left.difference_update(names)

    def finish(self) -> None:
        """Refuse the model when a key is left that nobody asked for."""
        # names with an underscore in front are comments, which DeePMD-kit drops too
        for key in sorted(key for key in map(str, self._left) if not key.startswith("_")):
            raise UnsupportedModelError(
                f"The configuration's key {self.name(key[:60])} is not known to this version "
                "of dpa2md, so the model is refused instead of being computed wrongly."
            )

    def _wrong(self, key: str, value: Any, expected: str) -> ModelError:
        return ModelError(
            f"The configuration has {self.name(key)} = {value!r:.60}, which should be {expected}."
        )


def plain(tree: Any, budget: int, known: tuple[type, ...] = ()) -> Any:
    """Copy a tree of dictionaries, lists, tuples, text and numbers; refuse anything else.

    `budget` bounds the number of entries, because a small file can refer to one list many times.
    """
    left = budget

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise ModelError("The configuration in the file is nested without end; refused.")
        if value is None or type(value) in (str, int, float, bool) or isinstance(value, known):
            return value
        if type(value) is dict:
            return {_text(key): copy(entry, depth + 1) for key, entry in value.items()}
        if type(value) in (list, tuple):
            return [copy(entry, depth + 1) for entry in value]
        raise ModelError(f"The configuration holds a {type(value).__name__}; refused.")

    return copy(tree, 0)


def _text(key: Any) -> str:
    if type(key) is not str:
        raise ModelError(f"The configuration has the key {key!r:.60}, which is no text; refused.")
    return key


def type_indices(value: Any, count: int, name: str) -> list[int]:
    """Check a list of element indices of the type map."""
    if value is None:
        return []
    if not isinstance(value, list) or any(
        type(index) is not int or not 0 <= index < count for index in value
    ):
        raise ModelError(f"The configuration's {name} should list indices of the type map.")
    return value


def type_pairs(value: Any, count: int, name: str) -> list[tuple[int, int]]:
    """Check a list of pairs of element indices."""
    if value is None:
        return []
    pairs: list[tuple[int, int]] = []
    for pair in value if isinstance(value, list) else [value]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ModelError(f"The configuration's {name} should list pairs of element indices.")
        first, second = type_indices(pair, count, name)
        pairs.append((first, second))
    return pairs


def first_lines(items: Iterable[str], count: int = 40) -> str:
    """Names for a message, shortened when there are many."""
    names = list(items)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
