"""The models of the parity suite: one configuration a case, as the `model` section of DeePMD-kit.

`CASES` covers every switch of DPA-2 that changes a number: each varied alone from a base, about a
third mixed at random. The networks are tiny, so that the whole suite stays small; what is tested is
arithmetic, not physics.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from .bases import DPA1, ELEMENTS_118, FULL, GENERATION_2_0, MEDIUM, merge


@dataclass(frozen=True)
class Case:
    """One model. `model`: configuration. `used`: the types that structures are mapped to.
    `nonzero_davg`: blocks whose radial davg is not zero. `uneven_dstd`: dstd differs over x, y, z.
    `give_fparam`: False leaves frame parameters to the model's default. `normalized`: the
    configuration is completed with the defaults of the training input, as `dp train` writes it.
    `scales`: factors for the random values of tensors, by parts of their names. `dense`: the graph
    route of the exportable backend is switched off."""

    model: dict
    used: tuple[int, ...]
    nonzero_davg: tuple[str, ...] = ()
    uneven_dstd: bool = False
    give_fparam: bool = True
    normalized: bool = False
    heads: dict[str, dict] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    dense: bool = False


CASES: dict[str, Case] = {}


def _add(name: str, base: dict, *changes: dict, used: tuple[int, ...] | None = None, **options):
    model = merge(base, *changes)
    assert name not in CASES
    CASES[name] = Case(model, used or tuple(range(len(model["type_map"]))), **options)


def _repinit(**keys) -> dict:
    return {"descriptor": {"repinit": keys}}


def _repformer(**keys) -> dict:
    return {"descriptor": {"repformer": keys}}


def _descriptor(**keys) -> dict:
    return {"descriptor": keys}


def _fitting(**keys) -> dict:
    return {"fitting_net": keys}


def _elements(*names: str) -> dict:
    return {"type_map": list(names)}


FLOAT32 = merge(_descriptor(precision="float32"), _fitting(precision="float32"))
STRIP = _repinit(tebd_input_mode="strip")
THREE = _elements("O", "H", "Na")


def _add_generations() -> None:
    wide = _repformer(g1_dim=32, g2_dim=16, nlayers=3, axis_neuron=4)
    _add("medium", MEDIUM, wide, normalized=True)
    _add("full", FULL, _repformer(g1_dim=16, nlayers=3))
    _add("small", MEDIUM, wide, _repformer(update_g2_has_attn=False), normalized=True)
    _add("large", MEDIUM, wide, _repformer(nlayers=5), normalized=True)
    _add("generation_2_0", FULL, wide, GENERATION_2_0)
    _add(
        "published_cutoffs",
        MEDIUM,
        _repinit(rcut=6.0, nsel=145, three_body_rcut_smth=3.5),
        _repformer(rcut=4.0, rcut_smth=3.5, nsel=45),
    )
    _add("five_elements", MEDIUM, _elements("O", "H", "Na", "Cl", "Fe"))
    _add("all_118_elements", MEDIUM, _elements(*ELEMENTS_118), used=(0, 25, 91), normalized=True)


def _add_repformer() -> None:
    for switch in ("conv", "grrg", "drrd", "attn"):
        _add(f"no_g1_{switch}", FULL, _repformer(**{f"update_g1_has_{switch}": False}))
    for switch in ("g1g1", "attn"):
        _add(f"no_g2_{switch}", FULL, _repformer(**{f"update_g2_has_{switch}": False}))
    for conv, mlp in ((False, True), (True, False), (False, False)):
        name = f"conv_{'outside' if conv else 'inside'}_mlp_{'outside' if mlp else 'inside'}"
        _add(name, FULL, _repformer(g1_out_conv=conv, g1_out_mlp=mlp))
    _add(
        "no_conv_all_inside",
        FULL,
        _repformer(g1_out_conv=False, g1_out_mlp=False, update_g1_has_conv=False),
    )
    _add("g2_unused", FULL, _repformer(update_g1_has_conv=False, update_g1_has_grrg=False))
    _add("mean_over_neighbours", FULL, _repformer(use_sqrt_nnei=False))
    for style in ("res_avg", "res_incr", "res_residual"):
        if style != "res_residual":
            _add(style, FULL, _repformer(update_style=style, nlayers=3))
        _add(f"{style}_h2", FULL, _repformer(update_style=style, update_h2=True, nlayers=3))
    _add("h2_without_g2_attention", FULL, _repformer(update_h2=True, update_g2_has_attn=False))
    _add("no_gate", FULL, _repformer(attn2_has_gate=False))
    _add("no_gate_h2", FULL, _repformer(attn2_has_gate=False, update_h2=True, attn2_nhead=3))
    _add("direct_distance", FULL, _repformer(direct_dist=True))
    _add("direct_distance_h2", FULL, _repformer(direct_dist=True, update_h2=True))
    _add("g1_attention_3_heads", FULL, _repformer(attn1_nhead=3, attn1_hidden=5))
    for heads in (1, 3, 4):
        _add(f"g2_attention_{heads}_heads", FULL, _repformer(attn2_nhead=heads, attn2_hidden=3))
    _add("wider_axes", FULL, _repinit(axis_neuron=5), _repformer(axis_neuron=4, g2_dim=5))
    _add("axes_of_one", FULL, _repinit(axis_neuron=1), _repformer(axis_neuron=1))
    _add("one_layer", FULL, _repformer(nlayers=1))
    _add("layer_norm_eps", MEDIUM, _repformer(ln_eps=1e-2))
    _add("layer_norm_fixed", MEDIUM, _repformer(trainable_ln=False))
    _add("not_smooth", FULL, _descriptor(smooth=False), _repformer(update_h2=True))
    _add("not_smooth_mean", FULL, _descriptor(smooth=False), _repformer(use_sqrt_nnei=False))
    _add("not_smooth_strip", MEDIUM, _descriptor(smooth=False), STRIP)


def _add_repinit() -> None:
    one_side = _repinit(type_one_side=True)
    _add("strip", MEDIUM, STRIP)
    _add("one_side", MEDIUM, one_side)
    _add("strip_one_side", MEDIUM, STRIP, one_side)
    _add("strip_first_width_1", MEDIUM, STRIP, _repinit(neuron=[1, 4, 8]))
    _add("strip_first_width_2", MEDIUM, STRIP, _repinit(neuron=[2, 4, 8], resnet_dt=True))
    _add("repinit_dt_equal_and_doubled", MEDIUM, _repinit(neuron=[8, 8, 16], resnet_dt=True))
    _add("repinit_equal_without_dt", MEDIUM, _repinit(neuron=[6, 6, 9]))
    _add("repinit_dt_strip", MEDIUM, STRIP, _repinit(neuron=[6, 6, 12], resnet_dt=True))
    _add("skip_on_input", MEDIUM, _repinit(neuron=[9, 9, 18]))
    _add("skip_on_input_doubled", MEDIUM, _repinit(neuron=[18, 18], resnet_dt=True))
    _add("skip_on_input_one_side", MEDIUM, one_side, _repinit(neuron=[5, 10]))
    _add("no_three_body", MEDIUM, _repinit(use_three_body=False))
    _add(
        "short_three_body",
        MEDIUM,
        _repinit(three_body_rcut=3.0, three_body_rcut_smth=2.0, three_body_sel=20),
    )
    _add(
        "three_body_skips",
        MEDIUM,
        _repinit(three_body_neuron=[9, 9, 18], resnet_dt=True),
    )
    _add("three_body_strip_skips", MEDIUM, STRIP, _repinit(three_body_neuron=[1, 2, 2, 5]))
    _add("tebd_into_repformer", FULL, _descriptor(add_tebd_to_repinit_out=True))
    _add("no_output_tebd", MEDIUM, _descriptor(concat_output_tebd=False))
    _add("tebd_bias", MEDIUM, _descriptor(use_tebd_bias=True))
    _add("tebd_bias_strip", MEDIUM, STRIP, _descriptor(use_tebd_bias=True), THREE)
    _add("identity_tebd_skip", MEDIUM, _elements("O", "H", "Na", "Cl"))
    econf = _descriptor(use_econf_tebd=True, repinit={"tebd_dim": 8})
    eight = ("O", "H", "Na", "Cl", "Fe", "U", "Au", "La")
    for n in (2, 4, 8):
        _add(f"electron_configuration_{n}", MEDIUM, econf, _elements(*eight[:n]))
        _add(f"tebd_8_of_{n}", MEDIUM, _repinit(tebd_dim=8), _elements(*eight[:n]))
    _add("env_protection", FULL, _descriptor(env_protection=0.05))
    _add(
        "env_protection_direct", FULL, _descriptor(env_protection=0.1), _repformer(direct_dist=True)
    )
    _add("identity_g1", MEDIUM, _repinit(neuron=[3, 6], axis_neuron=2, use_three_body=False))
    _add(
        "identity_g1_three_body",
        MEDIUM,
        _repinit(neuron=[2, 4, 8], axis_neuron=1, three_body_neuron=[2, 4]),
    )


def _add_exclusions_and_statistics() -> None:
    pairs = [[0, 1]]
    _add("descriptor_exclude", FULL, _descriptor(exclude_types=pairs))
    _add(
        "descriptor_exclude_same", MEDIUM, THREE, STRIP, _descriptor(exclude_types=[[1, 1], [0, 2]])
    )
    _add("fitting_exclude", MEDIUM, _fitting(exclude_types=[1]))
    _add("pair_exclude", FULL, {"pair_exclude_types": pairs})
    _add("pair_exclude_same", MEDIUM, THREE, {"pair_exclude_types": [[0, 0], [1, 2]]})
    _add("atom_exclude", FULL, {"atom_exclude_types": [1]})
    _add(
        "all_exclusions",
        FULL,
        THREE,
        {"pair_exclude_types": [[0, 2]], "atom_exclude_types": [2]},
        _descriptor(exclude_types=[[1, 1]]),
    )
    _add("davg_strip", MEDIUM, STRIP, nonzero_davg=("repinit", "repinit_three_body", "repformers"))
    _add(
        "davg_strip_exclude",
        MEDIUM,
        STRIP,
        _descriptor(exclude_types=pairs),
        nonzero_davg=("repinit",),
    )
    _add("davg_repformer", FULL, nonzero_davg=("repformers", "repinit_three_body"))
    _add("davg_repformer_h2", FULL, _repformer(update_h2=True), nonzero_davg=("repformers",))
    _add("uneven_dstd", FULL, uneven_dstd=True)


def _add_fitting() -> None:
    for resnet_dt in (True, False):
        end = "" if resnet_dt else "_without_dt"
        for name, neuron in {
            "equal": [12, 12, 12],
            "doubled": [8, 16, 32],
            "input": [16, 16],
        }.items():
            _add(f"fitting_{name}{end}", MEDIUM, _fitting(neuron=neuron, resnet_dt=resnet_dt))
    _add("fitting_input_doubled", MEDIUM, _fitting(neuron=[32, 32]))
    _add("fitting_other_widths", MEDIUM, _fitting(neuron=[10, 7, 13]))
    _add("fparam", MEDIUM, _fitting(numb_fparam=2))
    _add("aparam", MEDIUM, _fitting(numb_aparam=3))
    _add("fparam_aparam_case", MEDIUM, _fitting(numb_fparam=2, numb_aparam=1, dim_case_embd=3))
    _add("aparam_as_mask", MEDIUM, _fitting(numb_aparam=1, use_aparam_as_mask=True))
    default = _fitting(numb_fparam=2, default_fparam=[0.3, -0.8])
    _add("default_fparam", MEDIUM, default, give_fparam=False, normalized=True)
    _add("default_fparam_given", MEDIUM, default)
    _add("case_embedding", MEDIUM, _fitting(dim_case_embd=4))
    _add("atom_ener", MEDIUM, _fitting(atom_ener=[-1.5, None]))
    _add(
        "atom_ener_fparam", MEDIUM, _fitting(atom_ener=[None, 0.7], numb_fparam=1, dim_case_embd=2)
    )


def _add_activations() -> None:
    names = ["gelu", "relu6", "softplus", "silu", "silut:2.0", "sigmoid", "linear", "relu", "none"]
    names += ["gelu_tf", "silut", "custom_silu:1.5", "Tanh"]
    for i, name in enumerate(names):
        fitting, repformer = names[(i + 4) % len(names)], names[(i + 9) % len(names)]
        _add(
            f"activation_{name.replace(':', '_')}",
            FULL,
            _repinit(activation_function=name),
            _repformer(activation_function=repformer),
            _fitting(activation_function=fitting),
        )


def _add_students() -> None:
    v2 = {"type": "se_atten_v2"}
    _add("dpa1", DPA1, normalized=True)
    _add(
        "dpa1_one_side",
        DPA1,
        _descriptor(type_one_side=True, resnet_dt=True, neuron=[5, 10, 10], axis_neuron=4),
    )
    _add(
        "dpa1_strip",
        DPA1,
        _descriptor(tebd_input_mode="strip", type_one_side=True, rcut=4.5, rcut_smth=2.0),
    )
    _add(
        "dpa1_davg",
        DPA1,
        _descriptor(tebd_input_mode="strip", concat_output_tebd=False),
        nonzero_davg=("se_atten",),
    )
    _add(
        "se_atten_not_smooth",
        DPA1,
        {"descriptor": {"type": "se_atten", "stripped_type_embedding": True}},
        _descriptor(smooth_type_embedding=False, exclude_types=[[0, 0]]),
    )
    _add("se_atten_v2", DPA1, {"descriptor": v2}, normalized=True)
    _add(
        "se_atten_v2_one_side",
        DPA1,
        {"descriptor": v2},
        _descriptor(type_one_side=True, sel=[40, 50]),
    )
    _add(
        "se_atten_v2_econf",
        DPA1,
        {"descriptor": v2},
        _descriptor(use_econf_tebd=True, tebd_dim=8, env_protection=0.02),
        _elements("O", "H", "Na", "Cl"),
        {"pair_exclude_types": [[0, 3]]},
    )
    _add("se_atten_v2_float32", DPA1, {"descriptor": v2}, FLOAT32)


def _add_precisions() -> None:
    _add("medium_float32", MEDIUM, FLOAT32, normalized=True)
    _add("full_float32", FULL, FLOAT32)
    _add("strip_float32", MEDIUM, STRIP, FLOAT32)
    _add("generation_2_0_float32", FULL, GENERATION_2_0, FLOAT32)
    _add(
        "not_smooth_h2_float32",
        FULL,
        _descriptor(smooth=False),
        _repformer(update_h2=True),
        FLOAT32,
    )
    _add("descriptor_64_fitting_32", FULL, _fitting(precision="float32", numb_fparam=1))
    _add(
        "descriptor_32_fitting_64", FULL, _descriptor(precision="float32"), _fitting(numb_aparam=1)
    )


def _add_heads() -> None:
    """Two heads over one descriptor and one fitting net, told apart by a case embedding."""
    fitting = {**MEDIUM["fitting_net"], "dim_case_embd": 2}
    shared = {"types": ["O", "H"], "descriptor": MEDIUM["descriptor"], "fitting": fitting}
    head = {"type_map": "types", "descriptor": "descriptor", "fitting_net": "fitting"}
    heads = {"Water_A": head, "Water_B": {**head, "model_branch_alias": ["second"]}}
    model = {"shared_dict": shared, "model_dict": heads}
    CASES["two_heads"] = Case(copy.deepcopy(model), (0, 1), heads=heads)


def _add_random(count: int) -> None:
    """Switches thrown by a seed, within what DeePMD-kit's constructors accept."""
    rng = np.random.RandomState(20240817)

    def coin(*values):
        return values[rng.randint(len(values))]

    for i in range(count):
        smooth, mode = coin(True, True, False), coin("concat", "strip")
        activations = ("tanh", "tanh", "gelu", "silut:3.0", "softplus", "sigmoid")
        repinit = {
            "tebd_input_mode": mode,
            "type_one_side": coin(True, False),
            "resnet_dt": coin(True, False),
            "neuron": coin([4, 8, 16], [6, 6, 12], [8, 8, 16], [2, 4, 8], [5, 7]),
            "axis_neuron": int(rng.randint(1, 5)),
            "tebd_dim": coin(4, 8),
            "activation_function": coin(*activations),
            "use_three_body": coin(True, True, False),
            "three_body_neuron": coin([2, 4, 8], [3, 3, 6]),
        }
        if coin(True, False):
            repinit |= {"three_body_rcut": 3.2, "three_body_rcut_smth": 2.0, "three_body_sel": 28}
        repformer = {key: coin(True, False) for key in RANDOM_SWITCHES} | {
            "attn1_nhead": int(rng.randint(1, 4)),
            "attn2_nhead": int(rng.randint(1, 5)),
            "axis_neuron": int(rng.randint(1, 5)),
            "nlayers": int(rng.randint(2, 4)),
            "g1_dim": coin(8, 10, 12),
            "g2_dim": coin(6, 8),
            "update_style": coin("res_avg", "res_incr", "res_residual"),
            "activation_function": coin(*activations),
        }
        if not (repformer["update_g1_has_drrd"] and repformer["update_g1_has_conv"]):
            repformer["update_g1_has_grrg"] = True  # so that g2 is read and linear1 has an input
        descriptor = {
            "smooth": smooth,
            "concat_output_tebd": coin(True, False),
            "add_tebd_to_repinit_out": coin(True, False),
            "use_tebd_bias": coin(True, False),
            "use_econf_tebd": coin(True, False),
            "env_protection": coin(0.0, 0.0, 0.03),
            "exclude_types": coin([], [], [[0, 1]], [[1, 1]]),
        }
        fitting = {
            "neuron": coin([12, 12, 12], [8, 16, 16], [16, 16, 32], [24]),
            "resnet_dt": coin(True, False),
            "activation_function": coin(*activations),
            "numb_fparam": coin(0, 0, 2),
            "numb_aparam": coin(0, 0, 1),
            "dim_case_embd": coin(0, 0, 3),
        }
        model = {
            "pair_exclude_types": coin([], [], [[0, 0]]),
            "atom_exclude_types": coin([], [], [], [1]),
        }
        if coin(True, False, False):
            fitting["atom_ener"] = [0.4, None]
        davg = ["repformers"] * coin(0, 1)
        if smooth and mode == "strip" and coin(True, False):
            davg.append("repinit")
        _add(
            f"random_{i:02d}",
            MEDIUM,
            {"descriptor": {"repinit": repinit, "repformer": repformer, **descriptor}},
            {"fitting_net": fitting},
            model,
            coin(_elements("O", "H"), _elements("Si", "O", "Al"), _elements("H", "C", "N", "O")),
            coin({}, {}, {}, FLOAT32),
            nonzero_davg=tuple(davg),
            normalized=coin(True, False),
        )


RANDOM_SWITCHES = (
    *(f"update_g1_has_{name}" for name in ("conv", "grrg", "drrd", "attn")),
    *("update_g2_has_g1g1", "update_g2_has_attn", "update_h2", "attn2_has_gate", "direct_dist"),
    *("use_sqrt_nnei", "g1_out_conv", "g1_out_mlp"),
)

_add_generations()
_add_repformer()
_add_repinit()
_add_exclusions_and_statistics()
_add_fitting()
_add_activations()
_add_students()
_add_precisions()
_add_heads()
_add_random(31)
