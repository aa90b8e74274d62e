"""The model section of DeePMD-kit 3.2's training input: keys and defaults.

The defaults of the input differ from those of DeePMD-kit's classes, which `importer.config` uses
for checkpoints: DPA-1's neuron is 10, 20, 40 here and 25, 50, 100 there, for example. They are
filled in, so that nothing is left to a class.
"""

from __future__ import annotations

from .sections import ABSENT, REQUIRED, Key

_TRAINABLE = "dpa2md trains all parameters; leave the key out"


def _flag(default: bool) -> Key:
    return Key("true or false", default)


def _count(default: object, least: int = 1) -> Key:
    return Key("integer", default, least=least)


def _only(kinds: str, default: object, *values: object, remedy: str) -> Key:
    return Key(kinds, default, only=values, remedy=remedy)


def _refused(remedy: str) -> Key:
    """A key that may only be null."""
    return Key("table | list | text | number | true or false | null", only=(None,), remedy=remedy)


_SEED = Key("integer | null")
_ACTIVATION = Key("text", "tanh")
_PRECISION = Key("text", "default")

MODEL = {
    "type": _only("text", "standard", "standard", remedy="dpa2md trains only standard models"),
    "type_map": Key("list", REQUIRED),
    "descriptor": Key("table", REQUIRED),
    "fitting_net": Key("table", REQUIRED),
    "data_stat_nbatch": _count(10),
    "data_stat_protect": Key("number", 0.01, least=0.0),
    "data_bias_nsample": _count(10),
    "pair_exclude_types": Key("list", []),
    "atom_exclude_types": Key("list", []),
    "preset_out_bias": Key("table | null", None),
    "srtab_add_bias": _flag(True),
    "finetune_head": Key("text"),
    "model_branch_alias": Key("list", []),
    "info": Key("table", {}),
    "bridging_method": _only(
        "text", "None", "None", "NONE", "none", "",
        remedy="dpa2md has no ZBL or other analytical potential; leave the key out",
    ),
    "bridging_r_inner": Key("number", 0.5),
    "bridging_r_outer": Key("number", 0.8),
    "use_srtab": _refused("dpa2md has no ZBL tables; leave it out, with smin_alpha and sw_*"),
    "smin_alpha": Key("number"),
    "sw_rmin": Key("number"),
    "sw_rmax": Key("number"),
    "spin": _refused("dpa2md trains no spin models; train it with DeePMD-kit"),
    "modifier": _refused("dpa2md changes no data before training; train it with DeePMD-kit"),
    "type_embedding": _refused("it is the descriptor's: set descriptor.tebd_dim instead"),
    "compress": _refused("dpa2md makes its own tables after training; leave it out"),
    "lora": _refused("dpa2md trains all parameters; leave it out"),
}  # fmt: skip

_DESCRIPTOR = {
    "type": Key("text", REQUIRED),
    "precision": _PRECISION,
    "exclude_types": Key("list", []),
    "env_protection": Key("number", 0.0, least=0.0),
    "trainable": _only("true or false", True, True, remedy=_TRAINABLE),
    "seed": _SEED,
    "concat_output_tebd": _flag(True),
    "use_econf_tebd": _flag(False),
    "use_tebd_bias": _flag(False),
}

DPA2 = _DESCRIPTOR | {
    "repinit": Key("table", REQUIRED),
    "repformer": Key("table", REQUIRED),
    "smooth": _flag(True),
    "add_tebd_to_repinit_out": Key(
        "true or false", False, aliases=("repformer_add_type_ebd_to_seq",)
    ),
}

REPINIT = {
    "rcut": Key("number", REQUIRED),
    "rcut_smth": Key("number", REQUIRED),
    "nsel": Key("integer | text", REQUIRED, least=1),
    "neuron": Key("list", [25, 50, 100]),
    "axis_neuron": _count(16),
    "tebd_dim": _count(8),
    "tebd_input_mode": Key("text", "concat"),
    "set_davg_zero": _flag(True),
    "activation_function": _ACTIVATION,
    "type_one_side": _flag(False),
    "resnet_dt": _flag(False),
    "use_three_body": _flag(False),
    "three_body_neuron": Key("list", [2, 4, 8]),
    "three_body_rcut": Key("number", 4.0),
    "three_body_rcut_smth": Key("number", 0.5),
    "three_body_sel": Key("integer | text", 40, least=1),
}

REPFORMER = {
    "rcut": Key("number", REQUIRED),
    "rcut_smth": Key("number", REQUIRED),
    "nsel": Key("integer | text", REQUIRED, least=1),
    "nlayers": _count(3),
    "g1_dim": _count(128),
    "g2_dim": _count(16),
    "axis_neuron": _count(4),
    "direct_dist": _flag(False),
    "update_g1_has_conv": _flag(True),
    "update_g1_has_drrd": _flag(True),
    "update_g1_has_grrg": _flag(True),
    "update_g1_has_attn": _flag(True),
    "update_g2_has_g1g1": _flag(True),
    "update_g2_has_attn": _flag(True),
    "use_sqrt_nnei": _flag(True),
    "g1_out_conv": _flag(True),
    "g1_out_mlp": _flag(True),
    "update_h2": _flag(False),
    "attn1_hidden": _count(64),
    "attn1_nhead": _count(4),
    "attn2_hidden": _count(16),
    "attn2_nhead": _count(4),
    "attn2_has_gate": _flag(False),
    "activation_function": _ACTIVATION,
    "update_style": Key("text", "res_avg"),
    "update_residual": Key("number", 0.001),
    "update_residual_init": _only(
        "text", "norm", "norm", "const", remedy="write norm or const, as in DeePMD-kit"
    ),
    "set_davg_zero": _flag(True),
    "trainable_ln": _only("true or false", True, True, remedy=_TRAINABLE),
    "ln_eps": Key("number | null", None),
}

SE_ATTEN_V2 = _DESCRIPTOR | {
    "sel": Key("integer | list | text", "auto", least=1),
    "rcut": Key("number", 6.0),
    "rcut_smth": Key("number", 0.5),
    "neuron": Key("list", [10, 20, 40]),
    "axis_neuron": Key("integer", 4, aliases=("n_axis_neuron",), least=1),
    "lmax": Key("integer"),
    "activation_function": _ACTIVATION,
    "resnet_dt": _flag(False),
    "type_one_side": _flag(False),
    "attn": _count(128),
    "attn_layer": _only(
        "integer", 2, 0, remedy="dpa2md has DPA-1 without attention layers; set attn_layer to 0"
    ),
    "attn_dotr": _flag(True),
    "attn_mask": _flag(False),
    "set_davg_zero": _flag(False),
    "trainable_ln": _only("true or false", True, True, remedy=_TRAINABLE),
    "ln_eps": Key("number | null", None),
    "tebd_dim": _count(8),
    "scaling_factor": Key("number", 1.0),
    "normalize": _flag(True),
    "temperature": Key("number"),
}

SE_ATTEN = SE_ATTEN_V2 | {
    "set_davg_zero": _flag(True),
    "stripped_type_embedding": Key("true or false | null", None),
    "smooth_type_embedding": Key("true or false", False, aliases=("smooth_type_embdding",)),
    "tebd_input_mode": Key("text", "concat"),
}

FITTING = {
    "type": _only("text", "ener", "ener", remedy="dpa2md trains energies; set it to ener"),
    "numb_fparam": _count(0, 0),
    "numb_aparam": _count(0, 0),
    "default_fparam": Key("list | null", None),
    "dim_case_embd": _count(0, 0),
    "neuron": Key("list", [120, 120, 120], aliases=("n_neuron",)),
    "activation_function": _ACTIVATION,
    "precision": _PRECISION,
    "resnet_dt": _flag(True),
    "trainable": _only("true or false | list", True, True, remedy=_TRAINABLE),
    "rcond": Key("number | null", None),
    "seed": _SEED,
    "atom_ener": Key("list", []),
    "layer_name": Key("list", ABSENT),
    "use_aparam_as_mask": _flag(False),
}

DESCRIPTORS = {"dpa2": DPA2, "se_atten": SE_ATTEN, "dpa1": SE_ATTEN, "se_atten_v2": SE_ATTEN_V2}
