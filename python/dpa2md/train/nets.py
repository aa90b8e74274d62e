"""Gradients of the small nets that depend on elements only (type embedding, strip nets)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..importer.nets import Layer, activate, skip_kind


def slope(x: np.ndarray, name: str) -> np.ndarray:
    """The derivative of the activation called `name` in docs/model-format.md, at `x`."""
    if name == "linear":
        return np.ones_like(x)
    if name == "tanh":
        return 1.0 - np.tanh(x) ** 2
    if name == "relu":
        return (x > 0.0).astype(float)
    if name == "relu6":
        return ((x > 0.0) & (x < 6.0)).astype(float)
    gate = activate(x, "sigmoid")
    if name == "softplus":
        return gate
    if name == "sigmoid":
        return gate * (1.0 - gate)
    if name == "silu":
        return gate * (1.0 + x * (1.0 - gate))
    if name == "gelu":
        scale = np.sqrt(2.0 / np.pi)
        t = np.tanh(scale * (x + 0.044715 * x**3))
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t**2) * scale * (1.0 + 3 * 0.044715 * x**2)
    threshold = np.array(float(name.removeprefix("silut:")))
    steep = slope(threshold, "silu")
    beyond = steep * (1.0 - np.tanh(steep * (x - threshold)) ** 2)
    return np.where(x >= threshold, beyond, slope(x, "silu"))


def backward(
    layers: Sequence[Layer], x: np.ndarray, activation: str, gradient: np.ndarray
) -> tuple[list[Layer], np.ndarray]:
    """The reverse of `importer.nets.evaluate`.

    Parameters
    ----------
    layers
        The net.
    x
        Its inputs, (n, in).
    activation
        The activation's name in docs/model-format.md.
    gradient
        With respect to the outputs, (n, out).

    Returns
    -------
    list, array
        The gradient with respect to the layers (shaped as they are) and to the inputs, (n, in).
    """
    inputs, sums = [], []
    for w, b, idt in layers:
        z = x @ w if b is None else x @ w + b
        inputs.append(x)
        sums.append(z)
        y = activate(z, activation) * (1.0 if idt is None else idt)
        x = y + np.tile(x, skip_kind(*w.shape)) if skip_kind(*w.shape) else y
    found: list[Layer] = []
    for (w, b, idt), x, z in zip(reversed(layers), reversed(inputs), reversed(sums), strict=True):
        inner = gradient if idt is None else gradient * idt
        inner = inner * slope(z, activation)
        found.append(
            (
                x.T @ inner,
                None if b is None else inner.sum(axis=0),
                None if idt is None else (gradient * activate(z, activation)).sum(axis=0),
            )
        )
        copies = skip_kind(*w.shape)
        below = inner @ w.T
        for k in range(copies):
            below = below + gradient[:, k * len(w) : (k + 1) * len(w)]
        gradient = below
    return found[::-1], gradient
