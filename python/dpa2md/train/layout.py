"""Which tensors a model has: their names as in DeePMD-kit's checkpoints, their shapes, their order.

Names are those below `model.<head>.` of a state dict. What the model computes with is asked of the
importer, which takes every tensor by name and shape; this module knows the rest: tensors that only
a checkpoint has, and the order in which DeePMD-kit registers all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..importer.config import Model
from ..importer.records import build_records
from ..importer.weights import Weights

Make = Callable[[str, tuple[int, ...]], np.ndarray]

_FITTING = "atomic_model.fitting_net."
_DESCRIPTOR = "atomic_model.descriptor."
# Attributes in the order in which DeePMD-kit's modules come to have them.
_ORDER = (
    "min_nbor_dist", "atomic_model", "out_bias", "out_std", "descriptor", "se_atten", "repinit",
    "repinit_three_body", "repformers", "mean", "stddev", "type_embd_data",
    "bias_atom_e", "fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std", "case_embd",
    "default_fparam_tensor", "filter_layers", "filter_layers_strip", "compress_info",
    "compress_data", "networks", "g2_embd", "layers", "linear1", "linear2", "g1_self_mlp",
    "proj_g1g2", "proj_g1g1g2", "attn2g_map", "attn2_mh_apply", "attn2_lm", "attn2_ev_apply",
    "loc_attn", "mapqk", "mapv", "mapq", "mapkv", "head_map", "g1_residual", "g2_residual",
    "h2_residual", "type_embedding", "embedding", "embedding_net", "g1_shape_tranform",
    "tebd_transform", "fitting_net", "matrix", "bias", "idt",
)  # fmt: skip
_RANK = {name: rank for rank, name in enumerate(_ORDER)}
_LEARNED = {"matrix", "bias", "idt"}
_DOUBLE = {"min_nbor_dist", "out_bias", "out_std", "bias_atom_e"}  # whatever the precision
_ONE = {"stddev", "out_std", "fparam_inv_std", "aparam_inv_std"}


def is_parameter(name: str) -> bool:
    """Whether DeePMD-kit can train the tensor: weights and residual vectors, no statistics."""
    *_, parent, last = name.split(".") if "." in name else ("", name)
    return last in _LEARNED or parent.endswith("_residual")


def precision_of(name: str, model: Model) -> str:
    """The type in which DeePMD-kit keeps the tensor: "float64" or "float32"."""
    if name.split(".")[-1] in _DOUBLE:
        return "float64"
    part = model.fitting if name.startswith(_FITTING) else model.descriptor
    return part.precision


def neutral(name: str, shape: tuple[int, ...], model: Model) -> np.ndarray:
    """What DeePMD-kit's constructors give a tensor that is no parameter, before any statistics."""
    kind = name.split(".")[-1]
    if kind == "default_fparam_tensor":
        return np.array(model.fitting.default_fparam)
    return np.full(shape, -1.0 if kind == "min_nbor_dist" else float(kind in _ONE))


def make_tensors(model: Model, make: Make) -> dict[str, np.ndarray]:
    """Every tensor of a head, in DeePMD-kit's order: `make(name, shape)` gives each as float64."""
    tensors: dict[str, np.ndarray] = {}

    class Maker(Weights):
        """Weights that come to be when they are first taken."""

        def take(self, name: str, *shape: int | None) -> np.ndarray:
            full = self._prefix + name
            if full not in tensors:
                tensors[full] = make(full, tuple(size or 0 for size in shape))
            return super().take(name, *shape)

    build_records(model, Maker(tensors, used=set()))
    for name, shape in _unused_shapes(model).items():
        tensors[name] = make(name, shape)
    return {name: tensors[name] for name in sorted(tensors, key=_place)}


def _place(name: str) -> list[int]:
    return [int(part) if part.isdecimal() else _RANK[part] for part in name.split(".")]


def _unused_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Tensors of a checkpoint that change no energy."""
    shapes: dict[str, tuple[int, ...]] = {
        "min_nbor_dist": (),
        "atomic_model.out_std": (1, len(model.elements), 1),
    }
    descriptor = model.descriptor
    blocks = ["repinit" if descriptor.kind == "dpa2" else "se_atten"]
    if descriptor.three_body is not None:
        blocks.append("repinit_three_body")
    for block in blocks:  # places for a compressed model's tables
        for name in ("type_embd_data", "compress_info.0", "compress_data.0"):
            shapes[f"{_DESCRIPTOR}{block}.{name}"] = (0,)
    if model.fitting.default_fparam is not None:
        shapes[f"{_FITTING}default_fparam_tensor"] = (model.fitting.nfparam,)
    return shapes
