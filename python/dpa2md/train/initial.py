"""Random tensors for a model that was never trained, distributed as DeePMD-kit draws them.

The distributions are those of DeePMD-kit 3.2.0's PyTorch backend; the numbers are not its own.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ..errors import ModelError
from ..importer.config import Model, read_config
from .layout import is_parameter, make_tensors, neutral


def initial_tensors(config: dict[str, Any], seed: int, head: str = "") -> dict[str, np.ndarray]:
    """All tensors of one head, as they are before any statistics and any training.

    Parameters
    ----------
    config
        The `model` section of a training input (of one head), as checkpoints carry it.
    seed
        Any integer. Each tensor is drawn from its own stream (Philox), which `seed`, `head` and the
        tensor's name choose: another tensor in the model changes no other one.
    head
        The head's name, so that heads with nets of their own differ.

    Returns
    -------
    dict
        Name below `model.<head>.` to a float64 array, in the order of DeePMD-kit's state dict.

    Raises
    ------
    ModelError
        When the configuration describes no model that dpa2md can compute.
    """
    model = read_config(config)
    residual = _residual_init(config)

    def make(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return _initial(name, shape, model, residual, _stream(seed, head, name))

    return make_tensors(model, make)


def new_embedding(seed: int, head: str, element: str, width: int) -> np.ndarray:
    """What the type embedding gives, (width,), for an element that a pretrained model lacks.

    Uniform between 0 and 1, as in DeePMD-kit. `seed`, `head` and the element choose the numbers.
    """
    return _stream(seed, head, f"embedding of {element}").random(width)


def _stream(seed: int, head: str, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\n{head}\n{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _residual_init(config: dict[str, Any]) -> tuple[float, str]:
    """Size and kind of the residual vectors; DeePMD-kit's class defaults where a key is absent."""
    repformer = config["descriptor"].get("repformer", {})
    size = repformer.get("update_residual", 0.001)
    kind = repformer.get("update_residual_init", "norm")
    if type(size) not in (int, float) or not 0 <= size < np.inf or kind not in ("norm", "const"):
        raise ModelError(
            "The configuration's descriptor.repformer has update_residual = "
            f"{size!r:.30} and update_residual_init = {kind!r:.30}, which should be a number of at "
            "least 0, and norm or const."
        )
    return float(size), kind


def _initial(
    name: str,
    shape: tuple[int, ...],
    model: Model,
    residual: tuple[float, str],
    rng: np.random.Generator,
) -> np.ndarray:
    if not is_parameter(name):
        return neutral(name, shape, model)
    parts = name.split(".")
    kind = parts[-1]
    if "attn2_lm" in parts:  # a layer norm that changes nothing
        return np.ones(shape) if kind == "matrix" else np.zeros(shape)
    if parts[-2].endswith("_residual"):
        size, how = residual
        return size * (rng.standard_normal(shape) if how == "norm" else np.ones(shape))
    if kind == "idt":
        return 0.1 + 0.001 * rng.standard_normal(shape)
    if kind == "bias":
        return rng.standard_normal(shape)
    if "g1_shape_tranform" in parts:
        bound = np.sqrt(6.0 / sum(shape))
        return rng.uniform(-bound, bound, shape)
    return rng.standard_normal(shape) / np.sqrt(sum(shape))
