"""Random choices that a restart at any step makes again: functions of a seed and a number.

DeePMD-kit draws a system by its probability, then frames of it in a random order that is made anew
when all had their turn. The same is done here with generators that are numbered, so that no state
needs to be kept. Only uniform doubles of Philox are used, which are the same in every version of
numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_CHUNK = 1024  # choices that are made at a time


def _uniform(seed: int, stream: int, words: tuple[int, int, int], count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of a generator of its own for each seed, stream and three words."""
    keys = np.array([seed % 2**64, stream], dtype=np.uint64)
    counter = np.array([0, *words], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=keys, counter=counter)).random(count)


class Draws:
    """Which of several things is drawn when.

    Parameters
    ----------
    probabilities
        Of each thing; they are made to add up to 1.
    seed, stream
        Different streams of a seed are independent.
    """

    def __init__(self, probabilities: Sequence[float] | np.ndarray, seed: int, stream: int):
        self._limits = np.cumsum(probabilities) / np.sum(probabilities)
        self._limits[-1] = np.inf
        self._seed, self._stream = seed, stream
        self._chunk, self._choices = -1, np.zeros(0, int)
        self._before = np.zeros(len(self._limits), int)  # draws of each thing before the chunk

    def at(self, index: int) -> tuple[int, int]:
        """What draw number `index` gives, and how often the same came before."""
        chunk, k = divmod(index, _CHUNK)
        if chunk != self._chunk:
            self._go_to(chunk)
        choice = int(self._choices[k])
        earlier = int((self._choices[:k] == choice).sum())
        return choice, int(self._before[choice]) + earlier

    def _go_to(self, chunk: int) -> None:
        if chunk < self._chunk:
            self._chunk, self._choices = -1, np.zeros(0, int)
            self._before[:] = 0
        while self._chunk < chunk:
            self._before += np.bincount(self._choices, minlength=len(self._before))
            self._chunk += 1
            numbers = _uniform(self._seed, self._stream, (0, self._chunk, 0), _CHUNK)
            self._choices = np.searchsorted(self._limits, numbers, side="right")


def order(frames: int, epoch: int, system: int, seed: int, stream: int) -> np.ndarray:
    """The order of a system's frames in one of its epochs."""
    return np.argsort(_uniform(seed, stream, (system + 1, epoch, 0), frames), kind="stable")
