"""From DeePMD-kit's serialized tree to the configuration and tensor names of its checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ModelError, UnsupportedModelError
from .contents import Source
from .keys import Keys

Tensors = dict[str, np.ndarray]
_LAYER_NAMES = {"w": "matrix", "b": "bias", "idt": "idt"}
_ATTENTION = {
    "attn2g_map": ("mapqk",),
    "attn2_mh_apply": ("mapv", "head_map"),
    "attn2_ev_apply": ("head_map",),
    "loc_attn": ("mapq", "mapkv", "head_map"),
}


def tree_source(tree: Any) -> Source:
    """The one model of a `.dp`, `.yaml` or `.pt2` file."""
    top = Keys(tree, "file")
    model = Keys(top.take("model"), "model")
    model.only("@class", "Model", reason="it is no model that dpa2md knows")
    _version(model, 2)
    model.only("type", "standard", reason="only standard models are supported")
    tensors: Tensors = {}
    _variables(model, ("out_bias", "out_std"), "atomic_model.", tensors)
    config = {
        key: model.take(key, None)
        for key in ("type_map", "atom_exclude_types", "pair_exclude_types", "rcond",
                    "preset_out_bias", "type")
    }  # fmt: skip
    config["descriptor"] = _descriptor(model.take("descriptor"), tensors)
    config["fitting_net"] = _fitting(model.take("fitting"), tensors)
    model.ignore("data_stat_protect")
    model.finish()
    script = top.take("model_def_script", None)  # the training's configuration, kept for its notes
    config["info"] = script.get("info") if isinstance(script, dict) else None
    return Source({k: v for k, v in config.items() if v is not None}, tensors)


def _version(keys: Keys, newest: int) -> int:
    version = keys.integer("@version", 1)
    if version > newest:
        raise UnsupportedModelError(
            f"The file has {keys.name('@version')} = {version} and dpa2md knows {newest}; "
            "update dpa2md."
        )
    return version


def _variables(keys: Keys, names: tuple[str, ...], prefix: str, tensors: Tensors) -> None:
    """Arrays of a node; `null` means that there is none."""
    variables = Keys(keys.take("@variables"), keys.name("@variables"))
    for name in names:
        array = variables.take(name, None)
        if isinstance(array, np.ndarray):
            tensors[prefix + name] = array
        elif array is not None:
            raise ModelError(f"{variables.name(name)} in the file is no array; it is damaged.")
    variables.finish()


def _descriptor(value: Any, tensors: Tensors) -> dict[str, Any]:
    node = dict(value) if isinstance(value, dict) else value
    keys = Keys(node, "descriptor")
    kind = keys.text("type", "missing")
    prefix = "atomic_model.descriptor."
    _refuse_compressed(keys)
    version = keys.integer("@version", 1)
    parts = Keys({k: node[k] for k in node if k in _PARTS}, "descriptor")
    config = {k: v for k, v in node.items() if k not in _PARTS and not k.startswith("@")}
    config.pop("compress", None)
    config.setdefault("use_tebd_bias", True)  # the class of older files always had it
    _type_embedding(parts.take("type_embedding", {}), config, prefix, tensors)
    _same_precision(node, config.get("precision", "float64"))
    if kind == "dpa2":
        _version(keys, 4)
        config["repinit"] = config.pop("repinit_args", None)
        config["repformer"] = config.pop("repformer_args", None)
        if version < 3 and isinstance(config["repformer"], dict):
            config["repformer"] |= dict.fromkeys(
                ("use_sqrt_nnei", "g1_out_conv", "g1_out_mlp"), False
            )
        _dpa2_tensors(parts, config, prefix, tensors)
    else:
        _version(keys, 4)
        _embedding_block(parts, prefix + "se_atten.", tensors)
        attention = parts.take("attention_layers", {})
        if isinstance(attention, dict) and attention.get("attention_layers"):
            raise UnsupportedModelError("The model is DPA-1 with attention; not supported.")
    parts.finish()
    return config


_PARTS = (
    "@variables", "type_embedding", "g1_shape_tranform", "tebd_transform", "repinit_variable",
    "repformers_variable", "repinit_three_body_variable", "embeddings", "embeddings_strip",
    "attention_layers", "env_mat",
)  # fmt: skip


def _dpa2_tensors(parts: Keys, config: dict[str, Any], prefix: str, tensors: Tensors) -> None:
    for name in ("g1_shape_tranform", "tebd_transform"):
        node = parts.take(name, None)
        if node is not None and node.get("@class") != "Identity":
            _layer(node, prefix + name, tensors)
    _embedding_block(
        Keys(parts.take("repinit_variable"), "repinit_variable"), prefix + "repinit.", tensors, True
    )
    three_body = parts.take("repinit_three_body_variable", None)
    if three_body is not None:
        keys = Keys(three_body, "repinit_three_body_variable")
        _embedding_block(keys, prefix + "repinit_three_body.", tensors, True)
    keys = Keys(parts.take("repformers_variable"), "repformers_variable")
    _env_mat(keys)
    _statistics(keys, prefix + "repformers.", tensors)
    _layer(keys.take("g2_embd"), prefix + "repformers.g2_embd", tensors)
    block = config["repformer"] if isinstance(config["repformer"], dict) else {}
    block = block | {key: config[key] for key in ("smooth", "precision", "ntypes") if key in config}
    layers = keys.take("repformer_layers")
    for index, layer in enumerate(layers if isinstance(layers, list) else []):
        last = index == len(layers) - 1
        name = f"{prefix}repformers.layers.{index}."
        _repformer_layer(layer, block, last, name, tensors)
    keys.finish()


def _embedding_block(keys: Keys, prefix: str, tensors: Tensors, whole: bool = False) -> None:
    """Statistics and nets of repinit, three-body repinit or DPA-1."""
    _refuse_compressed(keys)
    _env_mat(keys)
    _statistics(keys, prefix, tensors)
    _collection(keys.take("embeddings"), prefix + "filter_layers.", tensors)
    strip = keys.take("embeddings_strip", None)
    if strip is not None:
        _collection(strip, prefix + "filter_layers_strip.", tensors)
    if whole:
        keys.finish()


def _refuse_compressed(keys: Keys) -> None:
    if keys.take("compress", None) is not None:
        raise UnsupportedModelError(
            "The model is compressed, which dpa2md reads from .pth files only; convert the file that "
            "it was compressed from."
        )


def _statistics(keys: Keys, prefix: str, tensors: Tensors) -> None:
    found: Tensors = {}
    _variables(keys, ("davg", "dstd"), "", found)
    for name, ours in (("davg", "mean"), ("dstd", "stddev")):
        if name in found:
            tensors[prefix + ours] = found[name]


def _env_mat(keys: Keys) -> None:
    env_mat = Keys(keys.take("env_mat", {}), "env_mat")
    env_mat.only("use_exp_switch", False, reason="the exponential switch is not supported")
    env_mat.ignore("rcut", "rcut_smth", "protection")  # the descriptor's own values count
    env_mat.finish()


def _type_embedding(value: Any, config: dict[str, Any], prefix: str, tensors: Tensors) -> None:
    keys = Keys(value, "type_embedding")
    _repeats(keys, config, ("ntypes", "use_econf_tebd", "use_tebd_bias", "type_map"))
    activation = keys.text("activation_function", "Linear").lower()
    neuron = keys.widths("neuron")
    if activation not in ("linear", "none") or len(neuron) != 1 or keys.flag("resnet_dt", False):
        raise UnsupportedModelError(
            "The model's type embedding is not one linear layer; only that is supported."
        )
    keys.ignore("@class", "@version", "precision", "trainable", "padding")
    _network(keys.take("embedding"), prefix + "type_embedding.embedding.embedding_net.", tensors)
    keys.finish()


def _collection(value: Any, prefix: str, tensors: Tensors) -> None:
    keys = Keys(value, "networks")
    networks = keys.take("networks")
    if keys.integer("ndim", 0, least=0) != 0 or not isinstance(networks, list):
        raise UnsupportedModelError("The model has one net for each element; not supported.")
    if len(networks) != 1:
        raise ModelError("The file should have one net where it has several; it is damaged.")
    keys.ignore("@class", "@version", "ntypes", "network_type")
    keys.finish()
    _network(networks[0], prefix + "networks.0.", tensors)


def _network(value: Any, prefix: str, tensors: Tensors) -> None:
    keys = Keys(value, "network")
    layers = keys.take("layers")
    if not isinstance(layers, list):
        raise ModelError("A net in the file has no list of layers; it is damaged.")
    final = len(layers) - 1 if keys.has("out_dim") else -1
    activation = str(keys.take("activation_function", "tanh")).lower()
    for index, layer in enumerate(layers):
        linear_end = index == final
        expected = ("none", "linear") if linear_end else (activation,)
        _layer(layer, f"{prefix}layers.{index}", tensors, expected, resnet=not linear_end)
    keys.ignore(
        "@class", "@version", "in_dim", "out_dim", "neuron", "resnet_dt", "bias", "bias_out",
        "precision",
    )  # fmt: skip
    keys.finish()


def _layer(
    value: Any,
    prefix: str,
    tensors: Tensors,
    activations: tuple[str, ...] = ("none", "linear"),
    resnet: bool = False,
) -> None:
    """One dense layer, which must apply the activation and the skip that its place implies."""
    keys = Keys(value, prefix)
    activation = str(keys.take("activation_function", None)).lower()
    if activation not in activations or keys.flag("resnet", resnet) != resnet:
        raise UnsupportedModelError(
            f"The layer {prefix} has the activation {activation!r:.40} or a skip connection "
            "that its place in the model does not have; refused."
        )
    found: Tensors = {}
    _variables(keys, tuple(_LAYER_NAMES), "", found)
    for name, array in found.items():
        tensors[f"{prefix}.{_LAYER_NAMES[name]}"] = array
    keys.ignore("@class", "@version", "bias", "use_timestep", "precision", "trainable")
    keys.finish()


def _repformer_layer(
    value: Any, block: dict[str, Any], last: bool, prefix: str, tensors: Tensors
) -> None:
    """One layer, whose switches must repeat the block's; the last one updates g1 only."""
    keys = Keys(value, "repformer_layer")
    pair_updates = dict.fromkeys(("update_g2_has_g1g1", "update_g2_has_attn", "update_h2"), False)
    _repeats(keys, block | pair_updates if last else block, tuple(block))
    _repeats(keys, {"update_chnnl_2": not last, "sel": [block.get("nsel")]})
    keys.ignore("@class", "@version", "trainable_ln")
    for name in ("linear1", "linear2", "g1_self_mlp", "proj_g1g2", "proj_g1g1g2"):
        node = keys.take(name, None)
        if node is not None:
            _layer(node, prefix + name, tensors)
    for name, maps in _ATTENTION.items():
        node = keys.take(name, None)
        if node is None:
            continue
        inner = Keys(node, name)
        for linear in maps:
            _layer(inner.take(linear), f"{prefix}{name}.{linear}", tensors)
        inner.only("attnw_shift", 20.0, reason="only 20 is supported")
        size = "attn1" if name == "loc_attn" else "attn2"
        repeated = {"has_gate": "attn2_has_gate", "smooth": "smooth", "head_num": size + "_nhead",
                    "hidden_dim": size + "_hidden"}  # fmt: skip
        _repeats(inner, {k: block[v] for k, v in repeated.items() if v in block})
        inner.ignore("@class", "@version", "input_dim", "precision")
        inner.finish()
    node = keys.take("attn2_lm", None)
    if node is not None:
        inner = Keys(node, "attn2_lm")
        found: Tensors = {}
        _variables(inner, ("w", "b"), "", found)
        inner.only("eps", block.get("ln_eps", 1e-5), 1e-5, reason="it differs from ln_eps")
        inner.ignore("@class", "@version", "trainable", "precision")
        inner.finish()
        tensors |= {f"{prefix}attn2_lm.{_LAYER_NAMES[k]}": array for k, array in found.items()}
    variables = Keys(keys.take("@variables", {}), "repformer_layer.@variables")
    for name in ("g1_residual", "g2_residual", "h2_residual"):
        arrays = variables.take(name, [])
        for index, array in enumerate(arrays if isinstance(arrays, list) else [arrays]):
            if not isinstance(array, np.ndarray):
                raise ModelError(f"The layer's {name} holds no array; the file is damaged.")
            tensors[f"{prefix}{name}.{index}"] = array
    variables.finish()
    keys.finish()


def _repeats(keys: Keys, config: dict[str, Any], names: tuple[str, ...] = ()) -> None:
    """Settings that DeePMD-kit writes twice must agree; where one is missing the other counts."""
    for name in names or tuple(config):
        if keys.has(name) and name in config and keys.take(name) != config[name]:
            raise ModelError(
                f"{keys.name(name)} in the file differs from the same setting one level higher; "
                "the file is inconsistent."
            )
        keys.ignore(name)


def _same_precision(node: Any, expected: Any) -> None:
    """Every part of the descriptor or the fitting net must have the precision of the whole."""
    if isinstance(node, list):
        for entry in node:
            _same_precision(entry, expected)
    elif isinstance(node, dict):
        if node.get("precision", expected) != expected:
            raise ModelError(
                f"Parts of the model have the precision {node['precision']!r:.20} and others "
                f"{expected!r:.20}; the file is inconsistent."
            )
        for entry in node.values():
            _same_precision(entry, expected)


def _fitting(value: Any, tensors: Tensors) -> dict[str, Any]:
    node = dict(value) if isinstance(value, dict) else value
    keys = Keys(node, "fitting")
    _version(keys, 4)
    prefix = "atomic_model.fitting_net."
    _variables(
        keys,
        ("bias_atom_e", "case_embd", "fparam_avg", "fparam_inv_std", "aparam_avg",
         "aparam_inv_std"),
        prefix, tensors,
    )  # fmt: skip
    _collection(keys.take("nets"), prefix + "filter_layers.", tensors)
    _same_precision(node, node.get("precision", "float64"))
    return {k: v for k, v in node.items() if k != "nets" and not k.startswith("@")}
