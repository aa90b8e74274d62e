"""Models that have one stage of another model, or one update of a layer: what is left of it when the rest is cut off."""

from __future__ import annotations

from typing import Any

import numpy as np

Records = dict[str, Any]
OF_PAIRS = ("linear2", "g1g1", "attn2", "g2_residual", "h2_residual")  # the last layer has none


def stages(m: Records) -> dict[str, Records]:
    """By name: repinit and the three-body block alone, the first layers, every update of g1 and of g2 alone."""
    if m["model.kind"] == "dpa1":
        return {"repinit": m}
    found = {"repinit": repinit_alone(m)}
    if "three_body.rcut" in m:
        found["three_body"] = three_body_alone(m)
    layers = int(m["repformer.nlayers"])
    found |= {f"{n} layers": first_layers(m, n) for n in range(1, layers + 1)}
    if m["repformer.update_style"] == "res_residual":
        found |= updates(first_layers(m, 1), "g1_residual", g1_updates(m))
        if layers > 1:
            found |= updates(first_layers(m, 2), "g2_residual", g2_updates(m))
    return found


def repinit_alone(m: Records) -> Records:
    """A DPA-1 model, whose fitting net reads [D | types]."""
    out = {
        name: value
        for name, value in m.items()
        if name.partition(".")[0] not in ("three_body", "repformer", "g1_transform")
        and name != "tebd_transform"
    }
    out["model.kind"] = "dpa1"
    before, after = int(m["repformer.g1_dim"]), ng(m, "repinit") * int(m["repinit.axis"])
    weight = m["fitting.net.0.w"]
    first = np.random.default_rng(7).normal(size=(after, weight.shape[1]))
    out["fitting.net.0.w"] = np.concatenate([first, weight[before:]])
    return out


def three_body_alone(m: Records) -> Records:
    """One layer after g1 that D is left out of."""
    out = first_layers(m, 1)
    out["g1_transform"] = m["g1_transform"].copy()
    out["g1_transform"][: -ng(m, "three_body")] = 0
    return out


def first_layers(m: Records, count: int) -> Records:
    """The repformers' first layers."""

    def kept(name: str) -> bool:
        block, number, *rest = (*name.split("."), "")
        if block != "repformer" or not number.isdigit():
            return True
        return int(number) < count - 1 or (int(number) < count and rest[0] not in OF_PAIRS)

    return {name: value for name, value in m.items() if kept(name)} | {
        "repformer.nlayers": np.int64(count)
    }


def updates(m: Records, residual: str, names: list[str]) -> dict[str, Records]:
    """Each update of layer 0 without the others."""
    of = f"repformer.0.{residual}"
    found = {}
    for k, name in enumerate(names):
        alone = np.zeros_like(m[of])
        alone[k] = m[of][k]
        found[name] = m | {of: alone}
    return found


def g1_updates(m: Records) -> list[str]:
    """In the order of the rows of g1_residual."""
    has = {name: bool(m[f"repformer.{name}"]) for name in ("g1_out_mlp", "has_conv", "has_g1_attn")}
    outside = has["has_conv"] and bool(m["repformer.g1_out_conv"])
    wanted = {
        "self": has["g1_out_mlp"],
        "conv": outside,
        "linear1": True,
        "attn1": has["has_g1_attn"],
    }
    return [name for name, there in wanted.items() if there]


def g2_updates(m: Records) -> list[str]:
    """In the order of the rows of g2_residual."""
    there = {"g1g1": m["repformer.has_g1g1"], "attn2": m["repformer.has_g2_attn"]}
    return ["linear2", *(name for name, has in there.items() if has)]


def ng(m: Records, block: str) -> int:
    """Channels of an embedding."""
    last = int(m[f"{block}.net.layers"]) - 1
    return int(m[f"{block}.net.{last}.w"].shape[1])
