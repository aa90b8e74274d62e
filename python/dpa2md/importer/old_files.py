"""Older checkpoints: switches that their configuration lacks are read off the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..unpickle import Tensor

_DESCRIPTOR = "atomic_model.descriptor."
_TEBD = _DESCRIPTOR + "type_embedding.embedding.embedding_net.layers.0."


def modernise(
    config: dict[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """Add the switches that an older file leaves out; `records` checks every shape afterwards."""
    descriptor = config.get("descriptor")
    if not isinstance(descriptor, dict):
        return config, tensors
    descriptor = dict(descriptor)
    if "use_tebd_bias" not in descriptor:  # there always was a bias before there was the switch
        descriptor["use_tebd_bias"] = _TEBD + "bias" in tensors
    repformer = descriptor.get("repformer")
    if isinstance(repformer, dict):
        descriptor["repformer"] = _with_g1_switches(repformer, tensors)
    return config | {"descriptor": descriptor}, tensors


def _with_g1_switches(repformer: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Three switches came together, in descriptor version 3; before that all were off."""
    names = ("g1_out_mlp", "g1_out_conv", "use_sqrt_nnei")
    if any(name in repformer for name in names):
        return repformer
    new = _DESCRIPTOR + "repformers.layers.0.g1_self_mlp.matrix" in tensors
    return repformer | dict.fromkeys(names, new)
