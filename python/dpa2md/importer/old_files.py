"""Older checkpoints in today's form: their keys renamed, missing switches read off the tensors.

`records` checks every shape afterwards, so a wrong guess here ends in a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UnsupportedModelError
from .torch_zip import Tensor

Tensors = Mapping[str, Tensor | np.ndarray]

_DESCRIPTOR = "atomic_model.descriptor."
_TEBD_BIAS = _DESCRIPTOR + "type_embedding.embedding.embedding_net.layers.0.bias"
_SINCE_VERSION_3 = ("g1_out_mlp", "g1_out_conv", "use_sqrt_nnei")  # came together
_RENAMED = {"activation": "activation_function", "axis_dim": "axis_neuron"}


def modernise(config: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Bring a configuration and the tensors of one head up to date.

    Raises
    ------
    ModelError
        When an old file uses what today's DeePMD-kit computes differently.
    """
    descriptor = config.get("descriptor")
    if not isinstance(descriptor, dict):
        return config, tensors
    descriptor = dict(descriptor)
    if descriptor.get("type") == "dpa2" and "repinit" not in descriptor:
        descriptor = _nested(descriptor)
        tensors = _renamed(tensors, config.get("type_map"))
    if "use_tebd_bias" not in descriptor:  # older files have the bias, but not the switch
        descriptor["use_tebd_bias"] = _TEBD_BIAS in tensors
    repformer = descriptor.get("repformer")
    if isinstance(repformer, dict) and not any(name in repformer for name in _SINCE_VERSION_3):
        new = _DESCRIPTOR + "repformers.layers.0.g1_self_mlp.matrix" in tensors
        descriptor["repformer"] = repformer | dict.fromkeys(_SINCE_VERSION_3, new)
    return config | {"descriptor": descriptor}, tensors


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """In early 2024 all keys stood side by side: `repinit_rcut`, `repformer_axis_dim`, ..."""
    flat = dict(flat)
    for key, harmless in (
        ("repformer_do_bn_mode", "no"),
        ("repformer_add_type_ebd_to_seq", False),
        ("repformer_update_h2", False),
    ):
        if flat.pop(key, harmless) != harmless:
            raise UnsupportedModelError(
                f"The model is from early 2024 and has descriptor.{key} switched on, which "
                "DeePMD-kit computed differently then; it is not supported."
            )
    flat.pop("repformer_bn_momentum", None)
    blocks: dict[str, dict[str, Any]] = {"repinit": {}, "repformer": {}}
    rest = {}
    for key, value in flat.items():
        block, _, name = key.partition("_")
        if block in blocks:
            blocks[block][_RENAMED.get(name, name)] = value
        elif key == "tebd_dim":
            blocks["repinit"][key] = value
        else:
            rest[key] = value
    return rest | blocks


def _renamed(tensors: Tensors, type_map: Any) -> Tensors:
    """torch's own layers called a matrix `weight`, dense ones with the output first."""
    renamed: dict[str, Tensor | np.ndarray] = {}
    for name, tensor in tensors.items():
        if name.startswith(("descriptor.", "fitting_net.")):
            name = "atomic_model." + name
        if name.endswith(".weight") and not name.endswith("type_embedding.embedding.weight"):
            name = name.removesuffix("weight") + "matrix"
            if isinstance(tensor, Tensor):
                tensor = Tensor(
                    tensor.storage, tensor.offset, tensor.shape[::-1], tensor.stride[::-1]
                )
        renamed[name] = tensor
    if not any(name.startswith("atomic_model.out_") for name in renamed):
        count = len(type_map) if isinstance(type_map, list) else 0
        renamed["atomic_model.out_bias"] = np.zeros((1, count, 1))  # all was in bias_atom_e
    return renamed
