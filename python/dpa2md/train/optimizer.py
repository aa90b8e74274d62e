"""The settings of a training's optimizer, as DeePMD-kit 3.2's PyTorch trainer passes them on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._core import adam_step


@dataclass(frozen=True)
class Optimizer:
    """Adam, or AdamW, whose decay is apart from the gradient.

    With the gradient g, the rate r and the step t = 1, 2, ... the moments of a parameter x are
    ``m = beta1 m + (1 - beta1) g`` and ``v = beta2 v + (1 - beta2) g^2``, and
    ``x -= r m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon)``. Before that, weight decay adds
    ``weight_decay x`` to g in Adam, and multiplies x by ``1 - r weight_decay`` in AdamW. A parameter that
    has no gradient in a step keeps x, m, v and its t.
    """

    kind: str  #: Adam or AdamW
    beta1: float
    beta2: float
    weight_decay: float
    epsilon: float = 1e-8  #: torch's; no key of the input changes it


def clip_factor(norm: float, most: float) -> float:
    """What a gradient is multiplied by before a step, for `gradient_max_norm`.

    Parameters
    ----------
    norm
        Length of the gradient by all parameters together.
    most
        The length that longer ones are cut to (a millionth below); 0: none is.
    """
    return min(1.0, most / (norm + 1e-6)) if most > 0 else 1.0  # 1e-6 is torch's


class Adam:
    """Steps of an optimizer along a flat vector, in float64.

    Attributes
    ----------
    mean, square
        The moments m and v, (size,).
    """

    def __init__(self, settings: Optimizer, size: int):
        self.settings = settings
        self.mean, self.square = np.zeros(size), np.zeros(size)

    def step(
        self,
        vector: np.ndarray,
        part: slice,
        gradient: np.ndarray,
        rate: float,
        count: int,
        *,
        factor: float = 1.0,
        threads: int = 1,
    ) -> None:
        """Change a part of the vector, in place.

        Parameters
        ----------
        vector
            All parameters, (size,).
        part
            Those that are changed.
        gradient
            By these, (part,).
        rate
            The learning rate.
        count
            How many steps these parameters have had, with this one.
        factor
            What the gradient is multiplied by first.
        threads
            0: one for each processor. The numbers are the same.
        """
        its = self.settings
        adam_step(
            vector[part],
            self.mean[part],
            self.square[part],
            gradient,
            rate,
            its.beta1,
            its.beta2,
            its.epsilon,
            its.weight_decay,
            its.kind == "AdamW",
            factor,
            count,
            threads,
        )
