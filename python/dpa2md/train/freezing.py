"""Which parameters keep their values in a fine-tuning, by patterns of their names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import InputError

_FEW = 3  # names that a sentence lists
_BEFORE = "model.Default."  # what checkpoints of a single head have in front of every name


@dataclass(frozen=True)
class Frozen:
    """Parameters that match one of `patterns` and none of `free`, as `fnmatch` has it.

    Names are those of a checkpoint's state dict, with or without `model.Default.`.
    """

    patterns: tuple[str, ...]
    free: tuple[str, ...] = ()

    def choose(self, names: Sequence[str]) -> set[str]:
        """The names among a model's that are frozen.

        Raises
        ------
        InputError
            For a pattern that matches nothing, and when nothing is left to train.
        """
        frozen = self._matching("--freeze", self.patterns, names)
        frozen -= self._matching("--free", self.free, names)
        if len(frozen) == len(names):
            raise InputError(
                "--freeze leaves no parameter to train; freeze fewer, as with '*descriptor*'."
            )
        return frozen

    def _matching(self, option: str, patterns: Sequence[str], names: Sequence[str]) -> set[str]:
        out: set[str] = set()
        for pattern in patterns:
            found = [n for n in names if any(fnmatchcase(f, pattern) for f in (n, _BEFORE + n))]
            if not found:
                raise InputError(
                    f"{option} {pattern} matches no parameter; the nearest are "
                    f"{', '.join(_nearest(pattern, names))}; * stands for any text."
                )
            out.update(found)
        return out


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """Names that have the pattern in them, or else look like it."""
    text = pattern.strip("*").lower()
    within = [name for name in names if text in name.lower()]
    return within[:_FEW] or difflib.get_close_matches(pattern, names, _FEW, 0.0)
