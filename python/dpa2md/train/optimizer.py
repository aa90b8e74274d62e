"""The settings of a training's optimizer, as DeePMD-kit 3.2's PyTorch trainer passes them on."""

from __future__ import annotations

from dataclasses import dataclass


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
