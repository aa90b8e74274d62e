"""Evaluating small nets in float64: the tables that depend on elements only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Layer = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]  # w (in, out), b (out), idt (out)


def activate(x: np.ndarray, name: str) -> np.ndarray:
    """Apply the activation called `name` in docs/model-format.md."""
    if name == "linear":
        return x
    if name == "tanh":
        return np.tanh(x)
    if name == "relu":
        return np.maximum(x, 0.0)
    if name == "relu6":
        return np.clip(x, 0.0, 6.0)
    if name == "softplus":
        return np.logaddexp(0.0, x)
    if name == "sigmoid":
        return _sigmoid(x)
    if name == "silu":
        return x * _sigmoid(x)
    if name == "gelu":  # DeePMD-kit's is the tanh form
        return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    threshold = float(name.removeprefix("silut:"))
    gate = _sigmoid(np.array(threshold))
    slope = gate + threshold * gate * (1.0 - gate)
    beyond = np.tanh(slope * (x - threshold)) + threshold * gate
    return np.where(x >= threshold, beyond, x * _sigmoid(x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def skip_kind(n_in: int, n_out: int) -> int:
    """How a layer's input is added to its output: 0 not, 1 as it is, 2 twice side by side."""
    return 1 if n_out == n_in else 2 if n_out == 2 * n_in else 0


def evaluate(layers: Sequence[Layer], x: np.ndarray, activation: str) -> np.ndarray:
    """Evaluate an embedding net on rows `x` (n, in); layers skip where widths allow.

    Returns
    -------
    float64 array (n, out)
    """
    x = np.asarray(x, dtype=np.float64)
    for w, b, idt in layers:
        y = x @ w.astype(np.float64)
        if b is not None:
            y = y + b
        y = activate(y, activation)
        if idt is not None:
            y = y * idt
        x = y + np.tile(x, skip_kind(*w.shape)) if skip_kind(*w.shape) else y
    return x
