"""Activations, embedding nets and the tables of compressed models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def activation(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """An activation function by its name in a model file."""
    if name.startswith("silut:"):
        return silut(float(name.split(":")[1]))
    return {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0.0),
        "relu6": lambda x: np.clip(x, 0.0, 6.0),
        "softplus": lambda x: np.logaddexp(0.0, x),
        "sigmoid": sigmoid,
        "silu": lambda x: x * sigmoid(x),
        "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "linear": lambda x: x,
    }[name]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def silut(threshold: float) -> Callable[[np.ndarray], np.ndarray]:
    """silu below the threshold, beyond it tanh(slope (x - T)) + silu(T) with silu's slope at T."""
    s = sigmoid(np.array(threshold))
    slope, value = s * (1 + threshold * (1 - s)), threshold * s
    return lambda x: np.where(
        x < threshold, x * sigmoid(x), np.tanh(slope * (x - threshold)) + value
    )


def net(m: dict[str, Any], name: str, x: np.ndarray, linear_last: bool = False) -> np.ndarray:
    """Layers y = act(x W + b) [* idt] [+ x, or (x, x)]."""
    act = activation(m[f"{name}.activation"])
    layers = int(m[f"{name}.net.layers"])
    for k in range(layers):
        y = x @ m[f"{name}.net.{k}.w"] + m.get(f"{name}.net.{k}.b", 0.0)
        if linear_last and k == layers - 1:
            return y
        y = act(y) * m.get(f"{name}.net.{k}.idt", 1.0)
        skip = int(m[f"{name}.net.skip"][k])
        x = y if skip == 0 else y + np.concatenate([x] * skip, axis=-1)
    return x


def quintic_table(m: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """A compressed net: quintic pieces in fine cells, then coarse ones, linear beyond the ends; (..., ng)."""
    table = m["repinit.table"]
    lower, upper, most, fine, coarse = (float(v) for v in m["repinit.table_info"])
    first_coarse = int((upper - lower) / fine)
    inside = np.clip(x, lower, most)
    in_fine = inside < upper
    place = np.where(in_fine, (inside - lower) / fine, (inside - upper) / coarse)
    cell = np.floor(place).astype(int)
    cell = np.where(in_fine, cell, cell + first_coarse)
    cell = np.minimum(cell, len(table) - 1)
    start = np.where(
        cell < first_coarse, lower + cell * fine, upper + (cell - first_coarse) * coarse
    )
    c = table[cell].reshape(*x.shape, -1, 6)
    u = (inside - start)[..., None]
    value = sum(c[..., k] * u**k for k in range(6))
    slope = sum(k * c[..., k] * u ** (k - 1) for k in range(1, 6))
    return value + slope * (x - inside)[..., None]
