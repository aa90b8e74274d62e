"""The records of the repformer block: one matrix after another, layer by layer."""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedModelError
from .descriptor_config import Repformer
from .neighbour_block import Records, list_records, statistics
from .weights import Weights


def repformer_records(block: Repformer, count: int, weights: Weights) -> Records:
    """The records `repformer.*`; `count` is the number of elements."""
    records = list_records("repformer", block, *statistics(block, count, weights))
    for name in (
        "nlayers", "g1_dim", "g2_dim", "axis", "direct_dist", "has_conv", "has_grrg", "has_drrd",
        "has_g1_attn", "has_g1g1", "has_g2_attn", "update_h2", "attn1_hidden", "attn1_nhead",
        "attn2_hidden", "attn2_nhead", "attn2_gate", "use_sqrt_nnei", "g1_out_conv", "g1_out_mlp",
    ):  # fmt: skip
        records[f"repformer.{name}"] = int(getattr(block, name))
    records["repformer.update_style"] = block.update_style
    records["repformer.ln_eps"] = block.ln_eps
    records["repformer.g2_embd.w"] = weights.take("g2_embd.matrix", 1, block.g2_dim)
    records["repformer.g2_embd.b"] = weights.take("g2_embd.bias", block.g2_dim)
    for index in range(block.nlayers):
        last = index == block.nlayers - 1
        layer = _layer_records(block, last, weights.scope(f"layers.{index}"))
        records |= {f"repformer.{index}.{name}": array for name, array in layer.items()}
    return records


def _layer_records(block: Repformer, last: bool, weights: Weights) -> Records:
    """One repformer layer; the last one updates g1 only."""
    g1, g2 = block.g1_dim, block.g2_dim
    in_mlp = block.axis * (g2 * block.has_grrg + g1 * block.has_drrd)
    in_mlp += 0 if block.g1_out_mlp else g1
    in_mlp += g2 if block.has_conv and not block.g1_out_conv else 0
    if in_mlp == 0:
        raise UnsupportedModelError("The model's repformer layers have no input to g1; refused.")
    records: Records = {}

    def linear(name: str, original: str, n_in: int, n_out: int, bias: bool) -> None:
        records[f"{name}.w"] = weights.take(f"{original}.matrix", n_in, n_out)
        if bias:
            records[f"{name}.b"] = weights.take(f"{original}.bias", n_out)

    linear("linear1", "linear1", in_mlp, g1, bias=True)
    if block.g1_out_mlp:
        linear("g1_self", "g1_self_mlp", g1, g1, bias=True)
    if block.has_conv:
        widths = (g2, g1) if block.g1_out_conv else (g1, g2)
        linear("conv", "proj_g1g2", *widths, bias=False)
    if block.has_g1_attn:
        nhead, hidden = block.attn1_nhead, block.attn1_hidden
        linear("attn1.q", "loc_attn.mapq", g1, hidden * nhead, bias=False)
        linear("attn1.kv", "loc_attn.mapkv", g1, (hidden + g1) * nhead, bias=False)
        linear("attn1.head", "loc_attn.head_map", g1 * nhead, g1, bias=True)
    if not last:
        linear("linear2", "linear2", g2, g2, bias=True)
        if block.has_g1g1:
            linear("g1g1", "proj_g1g1g2", g1, g2, bias=False)
        nhead = block.attn2_nhead
        if block.has_g2_attn or block.update_h2:
            width = 2 * block.attn2_hidden * nhead
            linear("attn2.qk", "attn2g_map.mapqk", g2, width, bias=False)
        if block.has_g2_attn:
            linear("attn2.v", "attn2_mh_apply.mapv", g2, g2 * nhead, bias=False)
            linear("attn2.head", "attn2_mh_apply.head_map", g2 * nhead, g2, bias=True)
            records["attn2.ln.w"] = weights.take("attn2_lm.matrix", g2)
            records["attn2.ln.b"] = weights.take("attn2_lm.bias", g2)
        if block.update_h2:
            linear("attn2.h2_head", "attn2_ev_apply.head_map", nhead, 1, bias=False)
    if block.update_style == "res_residual":
        records |= _residual_records(block, last, weights)
    return records


def _residual_records(block: Repformer, last: bool, weights: Weights) -> Records:
    """The learned factors of the updates, one row for each in the order in which they are added."""
    updates_g2 = not last
    counts = {
        "g1": (1 + block.g1_out_mlp + (block.has_conv and block.g1_out_conv) + block.has_g1_attn),
        "g2": updates_g2 * (1 + block.has_g1g1 + block.has_g2_attn),
        "h2": updates_g2 * block.update_h2,
    }
    widths = {"g1": block.g1_dim, "g2": block.g2_dim, "h2": 1}
    return {
        f"{name}_residual": np.stack(
            [weights.take(f"{name}_residual.{k}", widths[name]) for k in range(count)]
        )
        for name, count in counts.items()
        if count
    }
