"""Inputs of trainings: as DeePMD-kit's examples, and those that leave out all they can."""

from __future__ import annotations

from typing import Any


def _dpa2() -> dict[str, Any]:
    """The descriptor of DeePMD-kit's water example, smaller."""
    return {
        "type": "dpa2",
        "repinit": {
            "tebd_dim": 8, "rcut": 6.0, "rcut_smth": 0.5, "nsel": 120, "neuron": [12, 25, 50],
            "axis_neuron": 8, "activation_function": "tanh", "three_body_sel": 40,
            "three_body_rcut": 4.0, "three_body_rcut_smth": 3.5, "use_three_body": True,
        },
        "repformer": {
            "rcut": 4.0, "rcut_smth": 3.5, "nsel": 40, "nlayers": 3, "g1_dim": 64, "g2_dim": 16,
            "attn2_hidden": 16, "attn2_nhead": 2, "attn1_hidden": 64, "attn1_nhead": 2,
            "axis_neuron": 4, "update_h2": False, "update_g1_has_attn": False,
            "update_g2_has_g1g1": False, "update_g2_has_attn": True, "update_style": "res_residual",
            "update_residual": 0.01, "update_residual_init": "norm", "attn2_has_gate": True,
        },
        "precision": "float32",
        "add_tebd_to_repinit_out": False,
        "seed": 1,
        "_comment": "that's all",
    }  # fmt: skip


def _fitting() -> dict[str, Any]:
    return {"neuron": [120, 120, 120], "resnet_dt": True, "precision": "float32", "seed": 1}


def _single(descriptor: dict[str, Any], fitting: dict[str, Any], **training: Any) -> dict[str, Any]:
    model = {"type_map": ["O", "H"], "descriptor": descriptor, "fitting_net": fitting}
    return {
        "_comment": "that's all",
        "model": model,
        "learning_rate": {"start_lr": 0.001},
        "training": {"training_data": {"systems": ["data_0"]}, "numb_steps": 10} | training,
    }


def water() -> dict[str, Any]:
    """One task, with all sections."""
    data = _single(_dpa2(), _fitting())
    data["learning_rate"] = {
        "type": "exp",
        "decay_steps": 60,
        "start_lr": 0.0007,
        "stop_lr": 1.5e-5,
        "_comment": "that's all",
    }
    data["loss"] = {"type": "ener", "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000,
                    "limit_pref_f": 10, "start_pref_v": 0, "limit_pref_v": 0}  # fmt: skip
    data["training"] = {
        "training_data": {"systems": ["data_0", "data_1", "data_2"], "batch_size": 1},
        "validation_data": {"systems": ["data_3"], "batch_size": 1, "numb_btch": 4},
        "numb_steps": 4600,
        "gradient_max_norm": 1.0,
        "seed": 10,
        "disp_file": "lcurve.out",
        "disp_freq": 50,
        "save_freq": 200,
        "_comment": "that's all",
    }
    return data


def two_tasks() -> dict[str, Any]:
    """Tasks that share a descriptor, one of them only the type embedding, and a fitting net."""
    data = _single(_dpa2(), _fitting())
    fitting = _fitting() | {"dim_case_embd": 2}
    task = {"type_map": "elements", "fitting_net": "fit"}
    data["model"] = {
        "pair_exclude_types": [[0, 1]],
        "shared_dict": {"elements": ["O", "H"], "dpa2": _dpa2(), "fit": fitting, "_comment": "x"},
        "model_dict": {
            "wet": task | {"descriptor": "dpa2:1"},
            "dry": task | {"descriptor": "dpa2", "pair_exclude_types": []},
        },
    }
    data["loss_dict"] = {"wet": {"type": "ener"}, "dry": {"start_pref_v": 1}}
    data["training"] = {
        "model_prob": {"wet": 1, "dry": 3},
        "data_dict": {
            "wet": {"training_data": {"systems": ["data_0"]}, "stat_file": "wet.hdf5"},
            "dry": {
                "training_data": {"systems": ["data_1"]},
                "validation_data": {"systems": "data_3"},
            },
        },
        "numb_steps": 100,
    }
    return data


def _short_dpa2() -> dict[str, Any]:
    block = {"rcut_smth": 0.5}
    return {"type": "dpa2", "repinit": block | {"rcut": 6, "nsel": "auto"},
            "repformer": block | {"rcut": 4, "nsel": "auto:1.5"},
            "repformer_add_type_ebd_to_seq": True}  # fmt: skip


def inputs() -> dict[str, dict[str, Any]]:
    """Each by name, made anew."""
    old = _single({"type": "se_atten_v2", "attn_layer": 0, "sel": 60}, {"n_neuron": [8]})
    old["training"] |= {"opt_type": "AdamW", "warmup_steps": 5, "numb_test": 10, "stop_batch": 7}
    del old["training"]["numb_steps"]
    return {
        "water": water(),
        "two_tasks": two_tasks(),
        "short_dpa2": _single(_short_dpa2(), {}),
        "short_dpa1": _single({"type": "dpa1", "attn_layer": 0, "smooth_type_embdding": True}, {}),
        "short_se_atten": _single({"type": "se_atten", "attn_layer": 0, "sel": [20, 40]}, {}),
        "short_se_atten_v2": _single({"type": "se_atten_v2", "attn_layer": 0}, {}),
        "old_keys": old,
    }


# Batches in each of four systems, and rules by which they are drawn.
BATCHES = [1, 4, 10, 25]
RULES: list[dict[str, Any]] = [
    {"auto_prob": "prob_uniform"},
    {"auto_prob": "prob_sys_size"},
    {"auto_prob": "prob_sys_size;0:2:0.5;2:4:0.5"},
    {"auto_prob": "prob_sys_size;1:2:1;2:4:3"},
    {"sys_probs": [0.1, 0.2, 0.3, 0.4]},
    {"sys_probs": [0.5, -1, 0.0, -1]},
]
# Runs: the training section, batches of an epoch and number of systems of each task.
_EPOCHS, _SYSTEMS = {"wet": 240, "dry": 7}, {"wet": 3, "dry": 1}
RUNS: list[dict[str, Any]] = [
    {"training": training, "epochs": _EPOCHS, "systems": _SYSTEMS}
    for training in (
        {"numb_steps": 100},
        {"numb_steps": 100, "model_prob": {"wet": 1, "dry": 4}},
        {"num_epoch_dict": {"wet": 0.5, "dry": 20.1}},
    )
] + [
    {"training": {"numb_epoch": 1.3}, "epochs": {"Default": 7}, "systems": {"Default": 2}},
    {"training": {"numb_steps": 9}, "epochs": {"Default": 7}, "systems": {"Default": 2}},
]
