"""What a deviation costs: squared, absolute, or Huber's, with derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Penalty(Protocol):
    """A function of a deviation, for arrays of any shape."""

    def value(self, deviation: np.ndarray) -> np.ndarray:
        """The cost of each."""

    def slope(self, deviation: np.ndarray) -> np.ndarray:
        """The derivative of each cost; 0 in a kink."""


@dataclass(frozen=True)
class Squared:
    """``x^2``."""

    def value(self, deviation: np.ndarray) -> np.ndarray:
        """The cost of each."""
        return deviation**2

    def slope(self, deviation: np.ndarray) -> np.ndarray:
        """The derivative of each cost."""
        return 2 * deviation


@dataclass(frozen=True)
class Absolute:
    """``|x|``."""

    def value(self, deviation: np.ndarray) -> np.ndarray:
        """The cost of each."""
        return np.abs(deviation)

    def slope(self, deviation: np.ndarray) -> np.ndarray:
        """The derivative of each cost; 0 in the kink."""
        return np.sign(deviation)


@dataclass(frozen=True)
class Huber:
    """``x^2 / 2`` up to `delta`, from there on a straight line."""

    delta: float

    def value(self, deviation: np.ndarray) -> np.ndarray:
        """The cost of each."""
        size = np.abs(deviation)
        line = self.delta * (size - self.delta / 2)
        return np.where(size <= self.delta, deviation**2 / 2, line)

    def slope(self, deviation: np.ndarray) -> np.ndarray:
        """The derivative of each cost."""
        return np.clip(deviation, -self.delta, self.delta)


SQUARED = Squared()
ABSOLUTE = Absolute()
