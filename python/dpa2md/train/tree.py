"""The tree that DeePMD-kit's classes serialize to, which its backends share: of `.dp` and `.yaml`.

The inverse of `importer.tree`. Below "@variables" are arrays, everything else is plain JSON.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..importer.descriptor_config import EmbeddingBlock, Repformer
from .layout import precision_of
from .parameters import TrainableModel

Node = dict[str, Any]
_DESCRIPTOR = "atomic_model.descriptor."
_FITTING = "atomic_model.fitting_net."


def model_tree(model: TrainableModel) -> Node:
    """The whole file: the model, the configuration it came from, and the smallest distance."""
    distance = model.tensors["min_nbor_dist"]
    return {
        "software": "dpa2md",
        "model": _Writer(model).model(),
        "model_def_script": model.config,
        "@variables": {"min_nbor_dist": distance} if distance >= 0 else {},
    }


class _Writer:
    def __init__(self, model: TrainableModel):
        self.tensors = model.tensors
        self.settings = model.model
        self.config = model.config
        self.count = len(self.settings.elements)
        self.descriptor = self.settings.descriptor
        self.trainable = self.config["descriptor"].get("trainable", True)

    def array(self, name: str) -> np.ndarray | None:
        """A tensor in the type that DeePMD-kit has it in; None where there is none."""
        found = self.tensors.get(name)
        return None if found is None else found.astype(precision_of(name, self.settings))

    def variables(self, prefix: str, **names: str) -> dict[str, np.ndarray | None]:
        return {key: self.array(prefix + name) for key, name in names.items()}

    def model(self) -> Node:
        return {
            "@class": "Model",
            "@version": 2,
            "type": "standard",
            "type_map": self.settings.elements,
            "atom_exclude_types": self.settings.atom_exclude,
            "pair_exclude_types": [list(pair) for pair in self.settings.pair_exclude],
            "rcond": self.config.get("rcond"),
            "preset_out_bias": self.config.get("preset_out_bias"),
            "@variables": self.variables("atomic_model.", out_bias="out_bias", out_std="out_std"),
            "descriptor": self.dpa2() if self.descriptor.kind == "dpa2" else self.dpa1(),
            "fitting": self.fitting(),
        }

    # ---- nets

    def layer(
        self, name: str, activation: str = "none", resnet: bool = False, trainable: bool = True
    ) -> Node:
        variables = self.variables(f"{name}.", w="matrix", b="bias", idt="idt")
        return {
            "@class": "Layer",
            "@version": 2,
            "bias": variables["b"] is not None,
            "use_timestep": variables["idt"] is not None,
            "activation_function": activation,
            "resnet": resnet,
            "precision": precision_of(f"{name}.matrix", self.settings),
            "trainable": trainable and self.trainable,
            "@variables": variables,
        }

    def embedding_net(
        self, name: str, neuron: list[int], activation: str, resnet_dt: bool = False
    ) -> Node:
        layers = [
            self.layer(f"{name}layers.{k}", activation, resnet=True) for k in range(len(neuron))
        ]
        return {
            "@class": "EmbeddingNetwork",
            "@version": 2,
            "in_dim": len(layers[0]["@variables"]["w"]),
            "neuron": neuron,
            "activation_function": activation,
            "resnet_dt": resnet_dt,
            "bias": layers[0]["bias"],
            "precision": layers[0]["precision"],
            "layers": layers,
        }

    def collection(self, kind: str, net: Node) -> Node:
        return {
            "@class": "NetworkCollection",
            "@version": 1,
            "ndim": 0,
            "ntypes": self.count,
            "network_type": kind,
            "networks": [net],
        }

    # ---- descriptor

    def common(self) -> Node:
        descriptor = self.descriptor
        return {
            "@class": "Descriptor",
            "ntypes": self.count,
            "concat_output_tebd": descriptor.concat_tebd,
            "precision": descriptor.precision,
            "exclude_types": [list(pair) for pair in descriptor.exclude],
            "env_protection": descriptor.env_protection,
            "trainable": self.trainable,
            "use_econf_tebd": descriptor.use_econf_tebd,
            "use_tebd_bias": descriptor.use_tebd_bias,
            "type_map": self.settings.elements,
            "type_embedding": self.type_embedding(),
        }

    def type_embedding(self) -> Node:
        neuron = [self.descriptor.tebd_dim]
        name = _DESCRIPTOR + "type_embedding.embedding.embedding_net."
        return {
            "@class": "TypeEmbedNet",
            "@version": 2,
            "ntypes": self.count,
            "neuron": neuron,
            "resnet_dt": False,
            "precision": self.descriptor.precision,
            "activation_function": "Linear",
            "trainable": self.trainable,
            "padding": True,
            "use_econf_tebd": self.descriptor.use_econf_tebd,
            "use_tebd_bias": self.descriptor.use_tebd_bias,
            "type_map": self.settings.elements,
            "embedding": self.embedding_net(name, neuron, "Linear"),
        }

    def block(self, name: str, block: EmbeddingBlock, protection: float = 0.0) -> Node:
        """Nets and statistics of repinit, of its three-body part or of DPA-1."""
        start = _DESCRIPTOR + name
        found = {
            "embeddings": self.filter(f"{start}.filter_layers", block),
            "env_mat": _env_mat(block.rcut, block.rcut_smth, protection),
            "@variables": self.variables(f"{start}.", davg="mean", dstd="stddev"),
        }
        if block.mode == "strip":
            found["embeddings_strip"] = self.filter(f"{start}.filter_layers_strip", block)
        return found

    def filter(self, name: str, block: EmbeddingBlock) -> Node:
        net = self.embedding_net(
            f"{name}.networks.0.", block.neuron, block.activation, block.resnet_dt
        )
        return self.collection("embedding_network", net)

    def dpa1(self) -> Node:
        config, block = self.config["descriptor"], self.descriptor.repinit
        is_v2 = config["type"] == "se_atten_v2"
        attention = {
            "dotr": config.get("attn_dotr", True),
            "scaling_factor": config.get("scaling_factor", 1.0),
            "normalize": config.get("normalize", True),
            "temperature": config.get("temperature"),
            "trainable_ln": config.get("trainable_ln", True),
            "ln_eps": config.get("ln_eps") or 1e-5,
        }
        hidden = config.get("attn", 128)
        found = self.common() | {
            "type": "se_atten_v2" if is_v2 else "dpa1",
            "@version": 2,
            "rcut": block.rcut,
            "rcut_smth": block.rcut_smth,
            "sel": config["sel"] if isinstance(config["sel"], list) else [config["sel"]],
            "neuron": block.neuron,
            "axis_neuron": block.axis,
            "tebd_dim": self.descriptor.tebd_dim,
            "set_davg_zero": config.get("set_davg_zero", True),
            "attn": hidden,
            "attn_layer": 0,
            "attn_dotr": attention["dotr"],
            "attn_mask": False,
            "activation_function": block.activation,
            "resnet_dt": block.resnet_dt,
            **{key: value for key, value in attention.items() if key != "dotr"},
            "type_one_side": block.one_side,
            "spin": None,
            "attention_layers": {
                "@class": "NeighborGatedAttention",
                "@version": 1,
                "layer_num": 0,
                "nnei": block.nsel,
                "embed_dim": block.neuron[-1],
                "hidden_dim": hidden,
                "do_mask": False,
                **attention,
                "precision": self.descriptor.precision,
                "attention_layers": [],
            },
        }
        if not is_v2:
            found["tebd_input_mode"] = block.mode
            found["smooth_type_embedding"] = self.descriptor.smooth
        protection = 0.0 if is_v2 else self.descriptor.env_protection
        return found | self.block("se_atten", block, protection)

    def dpa2(self) -> Node:
        descriptor, config = self.descriptor, self.config["descriptor"]
        repformer = descriptor.repformer
        assert repformer is not None
        found = self.common() | {
            "type": "dpa2",
            "@version": 3,
            "smooth": descriptor.smooth,
            "add_tebd_to_repinit_out": descriptor.add_tebd,
            "repinit_args": self.repinit_args(config["repinit"]),
            "repformer_args": self.repformer_args(repformer, config["repformer"]),
            "g1_shape_tranform": {"@class": "Identity", "@version": 1},
            "repinit_variable": self.block("repinit", descriptor.repinit),
            "repformers_variable": self.repformers(repformer, config["repformer"]),
        }
        for name in ("g1_shape_tranform", "tebd_transform"):
            if f"{_DESCRIPTOR}{name}.matrix" in self.tensors:
                found[name] = self.layer(_DESCRIPTOR + name)
        if descriptor.three_body is not None:
            block = self.block("repinit_three_body", descriptor.three_body)
            found["repinit_three_body_variable"] = block
        return found

    def repinit_args(self, config: Node) -> Node:
        block = self.descriptor.repinit
        return {
            "rcut": block.rcut,
            "rcut_smth": block.rcut_smth,
            "nsel": block.nsel,
            "neuron": block.neuron,
            "axis_neuron": block.axis,
            "tebd_dim": self.descriptor.tebd_dim,
            "tebd_input_mode": block.mode,
            "set_davg_zero": config.get("set_davg_zero", True),
            "activation_function": block.activation,
            "resnet_dt": block.resnet_dt,
            "type_one_side": block.one_side,
            "use_three_body": self.descriptor.three_body is not None,
            "three_body_neuron": config.get("three_body_neuron", [2, 4, 8]),
            "three_body_sel": config.get("three_body_sel", 40),
            "three_body_rcut": config.get("three_body_rcut", 4.0),
            "three_body_rcut_smth": config.get("three_body_rcut_smth", 0.5),
        }

    def repformer_args(self, block: Repformer, config: Node) -> Node:
        return _repformer_switches(block) | {
            "nsel": block.nsel,
            "nlayers": block.nlayers,
            "update_residual": config.get("update_residual", 0.001),
            "update_residual_init": config.get("update_residual_init", "norm"),
            "set_davg_zero": config.get("set_davg_zero", True),
            "trainable_ln": config.get("trainable_ln", True),
        }

    def repformers(self, block: Repformer, config: Node) -> Node:
        name = _DESCRIPTOR + "repformers."
        return {
            "g2_embd": self.layer(name + "g2_embd"),
            "repformer_layers": [
                self.repformer_layer(f"{name}layers.{k}.", block, config, k == block.nlayers - 1)
                for k in range(block.nlayers)
            ],
            "env_mat": _env_mat(block.rcut, block.rcut_smth),
            "@variables": self.variables(name, davg="mean", dstd="stddev"),
        }

    def repformer_layer(self, name: str, block: Repformer, config: Node, last: bool) -> Node:
        """One layer; the last one updates g1 only."""
        found = _repformer_switches(block) | {
            "@class": "RepformerLayer",
            "@version": 2,
            "sel": [block.nsel],
            "ntypes": self.count,
            "update_chnnl_2": not last,
            "smooth": self.descriptor.smooth,
            "precision": self.descriptor.precision,
            "trainable_ln": config.get("trainable_ln", True),
        }
        del found["direct_dist"]
        if last:
            found |= dict.fromkeys(("update_g2_has_g1g1", "update_g2_has_attn", "update_h2"), False)
        for linear in ("linear1", "linear2", "g1_self_mlp", "proj_g1g2", "proj_g1g1g2"):
            if f"{name}{linear}.matrix" in self.tensors:
                found[linear] = self.layer(name + linear)
        found |= self.attention(name, block, config)
        if block.update_style == "res_residual":
            found["@variables"] = {
                kind: [self.array(key) for key in self.tensors if key.startswith(f"{name}{kind}.")]
                for kind in ("g1_residual", "g2_residual", "h2_residual")
            }
        return found

    def attention(self, name: str, block: Repformer, config: Node) -> Node:
        """The attention nodes that a layer has."""
        smooth = {"smooth": self.descriptor.smooth, "attnw_shift": 20.0}
        heads = {"input_dim": block.g2_dim, "head_num": block.attn2_nhead}
        gate = {"has_gate": block.attn2_gate, "hidden_dim": block.attn2_hidden}
        g1 = {"input_dim": block.g1_dim, "head_num": block.attn1_nhead}
        known: tuple[tuple[str, str, tuple[str, ...], Node], ...] = (
            ("attn2g_map", "Atten2Map", ("mapqk",), heads | gate | smooth),
            ("attn2_mh_apply", "Atten2MultiHeadApply", ("mapv", "head_map"), heads),
            ("attn2_ev_apply", "Atten2EquiVarApply", ("head_map",), heads),
            ("loc_attn", "LocalAtten", ("mapq", "mapkv", "head_map"),
             g1 | {"hidden_dim": block.attn1_hidden} | smooth),
        )  # fmt: skip
        precision = {"precision": self.descriptor.precision}
        found = {}
        for attribute, kind, maps, settings in known:
            if f"{name}{attribute}.{maps[0]}.matrix" in self.tensors:
                linears = {key: self.layer(f"{name}{attribute}.{key}") for key in maps}
                found[attribute] = {"@class": kind, "@version": 1, **settings, **precision}
                found[attribute] |= linears
        if f"{name}attn2_lm.matrix" in self.tensors:
            found["attn2_lm"] = {
                "@class": "LayerNorm",
                "@version": 1,
                "eps": block.ln_eps,
                "trainable": config.get("trainable_ln", True),
                **precision,
                "@variables": self.variables(f"{name}attn2_lm.", w="matrix", b="bias"),
            }
        return found

    # ---- fitting net

    def fitting(self) -> Node:
        fitting, config = self.settings.fitting, self.config.get("fitting_net", {})
        net = self.fitting_net(config)
        return {
            "@class": "Fitting",
            "@version": 4,
            "type": "ener",
            "var_name": "energy",
            "ntypes": self.count,
            "dim_descrpt": self.descriptor_width(net["in_dim"]),
            "neuron": fitting.neuron,
            "resnet_dt": fitting.resnet_dt,
            "numb_fparam": fitting.nfparam,
            "numb_aparam": fitting.naparam,
            "dim_case_embd": fitting.ncase,
            "default_fparam": config.get("default_fparam"),
            "activation_function": fitting.activation,
            "precision": fitting.precision,
            "mixed_types": True,
            "nets": self.collection("fitting_network", net),
            "rcond": config.get("rcond"),
            "exclude_types": self.settings.atom_exclude,
            "@variables": {
                name: self.array(_FITTING + name)
                for name in ("bias_atom_e", "case_embd", "fparam_avg", "fparam_inv_std",
                             "aparam_avg", "aparam_inv_std")
            },
            "type_map": self.settings.elements,
            "tot_ener_zero": False,
            "trainable": [layer["trainable"] for layer in net["layers"]],
            "layer_name": None,
            "use_aparam_as_mask": fitting.aparam_is_mask,
            "spin": None,
            "dim_out": 1,
            "atom_ener": config.get("atom_ener"),
        }  # fmt: skip

    def fitting_net(self, config: Node) -> Node:
        fitting = self.settings.fitting
        flag = config.get("trainable", True)
        trainable = all(flag) if isinstance(flag, list) else flag
        name, count = f"{_FITTING}filter_layers.networks.0.layers.", len(fitting.neuron)
        layers = [self.layer(f"{name}{k}", fitting.activation, resnet=True) for k in range(count)]
        layers.append(self.layer(f"{name}{count}"))
        for layer in layers:
            layer["trainable"] = trainable
        return {
            "@class": "FittingNetwork",
            "@version": 1,
            "in_dim": len(layers[0]["@variables"]["w"]),
            "out_dim": 1,
            "neuron": fitting.neuron,
            "activation_function": fitting.activation,
            "resnet_dt": fitting.resnet_dt,
            "precision": fitting.precision,
            "bias_out": True,
            "layers": layers,
        }

    def descriptor_width(self, inputs: int) -> int:
        fitting = self.settings.fitting
        others = fitting.nfparam + fitting.ncase
        return inputs - others - (0 if fitting.aparam_is_mask else fitting.naparam)


def _env_mat(rcut: float, rcut_smth: float, protection: float = 0.0) -> Node:
    return {
        "rcut": rcut,
        "rcut_smth": rcut_smth,
        "protection": protection,
        "use_exp_switch": False,
    }


def _repformer_switches(block: Repformer) -> Node:
    """What block and layers repeat."""
    return {
        "rcut": block.rcut,
        "rcut_smth": block.rcut_smth,
        "g1_dim": block.g1_dim,
        "g2_dim": block.g2_dim,
        "axis_neuron": block.axis,
        "direct_dist": block.direct_dist,
        "update_g1_has_conv": block.has_conv,
        "update_g1_has_drrd": block.has_drrd,
        "update_g1_has_grrg": block.has_grrg,
        "update_g1_has_attn": block.has_g1_attn,
        "update_g2_has_g1g1": block.has_g1g1,
        "update_g2_has_attn": block.has_g2_attn,
        "update_h2": block.update_h2,
        "attn1_hidden": block.attn1_hidden,
        "attn1_nhead": block.attn1_nhead,
        "attn2_hidden": block.attn2_hidden,
        "attn2_nhead": block.attn2_nhead,
        "attn2_has_gate": block.attn2_gate,
        "activation_function": block.activation,
        "update_style": block.update_style,
        "use_sqrt_nnei": block.use_sqrt_nnei,
        "g1_out_conv": block.g1_out_conv,
        "g1_out_mlp": block.g1_out_mlp,
        "ln_eps": block.ln_eps,
    }
