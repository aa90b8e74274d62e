"""The descriptor's part of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ModelError, UnsupportedModelError
from .keys import REQUIRED, Keys, type_pairs
from .values import activation, precision


@dataclass(frozen=True)
class EmbeddingBlock:
    """repinit, three-body repinit or DPA-1: a neighbour list and an embedding net."""

    rcut: float
    rcut_smth: float
    nsel: int
    neuron: list[int]
    activation: str
    mode: str
    resnet_dt: bool
    one_side: bool = False
    axis: int = 0


@dataclass(frozen=True)
class Repformer:
    """The repformer block; angstrom, and DeePMD-kit's names."""

    rcut: float
    rcut_smth: float
    nsel: int
    nlayers: int
    g1_dim: int
    g2_dim: int
    axis: int
    activation: str
    update_style: str
    ln_eps: float
    attn1_hidden: int
    attn1_nhead: int
    attn2_hidden: int
    attn2_nhead: int
    attn2_gate: bool
    direct_dist: bool
    has_conv: bool
    has_grrg: bool
    has_drrd: bool
    has_g1_attn: bool
    has_g1g1: bool
    has_g2_attn: bool
    update_h2: bool
    use_sqrt_nnei: bool
    g1_out_conv: bool
    g1_out_mlp: bool


@dataclass(frozen=True)
class Descriptor:
    """A DPA-2 descriptor, or a DPA-1 one without the parts that only DPA-2 has."""

    kind: str  # dpa2 or dpa1
    precision: str
    smooth: bool
    concat_tebd: bool
    env_protection: float
    exclude: list[tuple[int, int]]
    tebd_dim: int
    use_econf_tebd: bool
    use_tebd_bias: bool
    repinit: EmbeddingBlock
    three_body: EmbeddingBlock | None = None
    repformer: Repformer | None = None
    add_tebd: bool = False


def _cutoffs(
    keys: Keys, prefix: str = "", defaults: tuple[Any, Any] = (REQUIRED, REQUIRED)
) -> dict[str, Any]:
    rcut = keys.number(prefix + "rcut", defaults[0])
    rcut_smth = keys.number(prefix + "rcut_smth", defaults[1])
    if not rcut_smth < rcut <= 1000.0:
        raise ModelError(
            f"The configuration has {keys.name(prefix + 'rcut')} = {rcut:g} and "
            f"{prefix}rcut_smth = {rcut_smth:g}, which make no switching range."
        )
    return {"rcut": rcut, "rcut_smth": rcut_smth}


def read_descriptor(value: Any, elements: list[str]) -> Descriptor:
    """Settings of a descriptor that dpa2md can compute; ModelError for any other."""
    keys = Keys(value, "descriptor")
    kind = keys.text("type", "missing")
    if kind == "dpa2":
        return _dpa2(keys, elements)
    if kind in ("dpa1", "se_atten", "se_atten_v2"):
        return _dpa1(keys, kind, elements)
    raise UnsupportedModelError(
        f"The model's descriptor is {kind!r:.40}; dpa2md computes dpa2, and dpa1, se_atten and "
        "se_atten_v2 without attention layers."
    )


def _common(keys: Keys, elements: list[str]) -> dict[str, Any]:
    """What DPA-2 and DPA-1 have in common at the descriptor's top level."""
    keys.only("ntypes", len(elements), reason="the type map has another number of elements")
    keys.only("type_map", elements, None, reason="it differs from the model's type map")
    keys.ignore("trainable", "seed")
    return {
        "precision": precision(keys),
        "concat_tebd": keys.flag("concat_output_tebd", True),
        "env_protection": keys.number("env_protection", 0.0),
        "exclude": type_pairs(
            keys.take("exclude_types", []), len(elements), "descriptor.exclude_types"
        ),
        "use_econf_tebd": keys.flag("use_econf_tebd", False),
        "use_tebd_bias": keys.flag("use_tebd_bias", False),
    }


def _dpa2(keys: Keys, elements: list[str]) -> Descriptor:
    common = _common(keys, elements)
    inner = Keys(keys.take("repinit"), "descriptor.repinit")
    tebd_dim = inner.integer("tebd_dim", 8)
    shared: dict[str, Any] = {
        "activation": activation(inner),
        "mode": inner.choice("tebd_input_mode", ("concat", "strip"), "concat"),
        "resnet_dt": inner.flag("resnet_dt", False),
    }
    repinit = EmbeddingBlock(
        nsel=inner.integer("nsel"),
        neuron=inner.widths("neuron", [25, 50, 100]),
        one_side=inner.flag("type_one_side", False),
        axis=inner.integer("axis_neuron", 16),
        **_cutoffs(inner),
        **shared,
    )
    _check_axis(inner, repinit.axis, repinit.neuron[-1])
    three_body = None
    if inner.flag("use_three_body", False):
        three_body = EmbeddingBlock(
            nsel=inner.integer("three_body_sel", 40),
            neuron=inner.widths("three_body_neuron", [2, 4, 8]),
            **_cutoffs(inner, "three_body_", (4.0, 0.5)),
            **shared,
        )
    inner.ignore(
        "set_davg_zero", "three_body_neuron", "three_body_sel", "three_body_rcut",
        "three_body_rcut_smth",
    )  # fmt: skip
    inner.finish()
    descriptor = Descriptor(
        kind="dpa2",
        smooth=keys.flag("smooth", True),
        add_tebd=keys.flag("add_tebd_to_repinit_out", False),
        tebd_dim=tebd_dim,
        repinit=repinit,
        three_body=three_body,
        repformer=_repformer(keys.take("repformer")),
        **common,
    )
    keys.finish()
    _check_lists(descriptor)
    return descriptor


def _repformer(value: Any) -> Repformer:
    keys = Keys(value, "descriptor.repformer")
    ln_eps = 1e-5 if keys.take("ln_eps", None) is None else keys.number("ln_eps")
    repformer = Repformer(
        nsel=keys.integer("nsel"),
        nlayers=keys.integer("nlayers", 3),
        g1_dim=keys.integer("g1_dim", 128),
        g2_dim=keys.integer("g2_dim", 16),
        axis=keys.integer("axis_neuron", 4),
        activation=activation(keys),
        update_style=keys.choice(
            "update_style", ("res_avg", "res_incr", "res_residual"), "res_avg"
        ),
        ln_eps=ln_eps,
        attn1_hidden=keys.integer("attn1_hidden", 64),
        attn1_nhead=keys.integer("attn1_nhead", 4),
        attn2_hidden=keys.integer("attn2_hidden", 16),
        attn2_nhead=keys.integer("attn2_nhead", 4),
        attn2_gate=keys.flag("attn2_has_gate", False),
        direct_dist=keys.flag("direct_dist", False),
        has_conv=keys.flag("update_g1_has_conv", True),
        has_grrg=keys.flag("update_g1_has_grrg", True),
        has_drrd=keys.flag("update_g1_has_drrd", True),
        has_g1_attn=keys.flag("update_g1_has_attn", True),
        has_g1g1=keys.flag("update_g2_has_g1g1", True),
        has_g2_attn=keys.flag("update_g2_has_attn", True),
        update_h2=keys.flag("update_h2", False),
        use_sqrt_nnei=keys.flag("use_sqrt_nnei", True),
        g1_out_conv=keys.flag("g1_out_conv", True),
        g1_out_mlp=keys.flag("g1_out_mlp", True),
        **_cutoffs(keys),
    )
    keys.ignore("update_residual", "update_residual_init", "set_davg_zero", "trainable_ln")
    keys.finish()
    _check_axis(keys, repformer.axis, min(repformer.g1_dim, repformer.g2_dim))
    return repformer


def _dpa1(keys: Keys, kind: str, elements: list[str]) -> Descriptor:
    attention = keys.integer("attn_layer", 2, least=0)
    if attention != 0:
        raise UnsupportedModelError(
            f"The model's descriptor is {kind} with attn_layer = {attention}; "
            "dpa2md computes DPA-1 only without attention (attn_layer = 0)."
        )
    keys.only("lmax", 1, reason="only lmax = 1 is supported")
    keys.only("spin", None, reason="spin models are not supported")
    keys.only("attn_mask", False, None, reason="it is not implemented by DeePMD-kit either")
    if kind == "se_atten_v2":
        mode, smooth = "strip", True
        keys.only("tebd_input_mode", "strip", reason="se_atten_v2 always has strip")
        keys.only("smooth_type_embedding", True, reason="se_atten_v2 is always smooth")
    else:
        mode = keys.choice("tebd_input_mode", ("concat", "strip"), "concat")
        smooth = keys.flag("smooth_type_embedding", True)
    stripped = keys.take("stripped_type_embedding", None)
    if stripped is not None:
        if not isinstance(stripped, bool):
            raise ModelError("descriptor.stripped_type_embedding should be true or false.")
        mode = "strip" if stripped else "concat"
    keys.ignore(
        "set_davg_zero", "attn", "attn_dotr", "scaling_factor", "normalize", "temperature",
        "trainable_ln", "ln_eps",
    )  # fmt: skip
    repinit = EmbeddingBlock(
        nsel=_sel(keys),
        neuron=keys.widths("neuron", [25, 50, 100]),
        activation=activation(keys),
        mode=mode,
        resnet_dt=keys.flag("resnet_dt", False),
        one_side=keys.flag("type_one_side", False),
        axis=keys.integer("axis_neuron", 16),
        **_cutoffs(keys),
    )
    _check_axis(keys, repinit.axis, repinit.neuron[-1])
    descriptor = Descriptor(
        kind="dpa1",
        smooth=smooth,
        tebd_dim=keys.integer("tebd_dim", 8),
        repinit=repinit,
        **_common(keys, elements),
    )
    keys.finish()
    return descriptor


def _sel(keys: Keys) -> int:
    """DPA-1's number of neighbour slots: an integer, or a list whose sum counts."""
    if isinstance(keys.take("sel"), list):
        return sum(keys.widths("sel"))
    return keys.integer("sel")


def _check_axis(keys: Keys, axis: int, width: int) -> None:
    if axis > width:
        raise ModelError(
            f"The configuration has {keys.name('axis_neuron')} = {axis}, wider than "
            f"the {width} channels it is cut from."
        )


def _check_lists(descriptor: Descriptor) -> None:
    """DeePMD-kit's own conditions: the shorter lists are prefixes of repinit's."""
    repinit, repformer, three_body = descriptor.repinit, descriptor.repformer, descriptor.three_body
    assert repformer is not None
    lists = [(repformer.rcut, repformer.nsel), (repinit.rcut, repinit.nsel)]
    if three_body is not None:
        lists.append((three_body.rcut, three_body.nsel))
    lists.sort()
    sizes = [nsel for _, nsel in lists]
    if repinit.rcut <= repformer.rcut or repinit.nsel <= repformer.nsel or sizes != sorted(sizes):
        raise ModelError(
            "The configuration's cutoffs and numbers of neighbours (nsel) are not in the same "
            "order, or repinit's are not the largest, which DeePMD-kit does not allow either."
        )
