"""The configuration of a model as typed settings, with DeePMD-kit's class defaults.

A key that a file leaves out has the default of the class that evaluates it, which is not always
that of the training input (DPA-1's `smooth_type_embedding`, for example).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from .descriptor_config import Descriptor, read_descriptor
from .keys import Keys, type_indices, type_pairs
from .values import activation, precision


@dataclass(frozen=True)
class Fitting:
    """The fitting net of a model."""

    neuron: list[int]
    activation: str
    resnet_dt: bool
    precision: str
    vacuum: bool
    nfparam: int
    naparam: int
    aparam_is_mask: bool
    ncase: int
    default_fparam: list[float] | None


@dataclass(frozen=True)
class Model:
    """All settings of a model; types are indices into `elements`."""

    elements: list[str]
    pair_exclude: list[tuple[int, int]]
    atom_exclude: list[int]
    descriptor: Descriptor
    fitting: Fitting


def read_config(config: dict[str, Any]) -> Model:
    """Turn one head's configuration into settings.

    Raises
    ------
    ModelError
        When a key is missing, has a wrong value, is unknown, or names an unsupported feature.
    """
    keys = Keys(config, "model")
    keys.only("type", "standard", None, reason="only standard models are supported")
    for key, what in (
        ("spin", "spin models are not supported"),
        ("use_srtab", "models bridged to a ZBL table are not supported"),
        ("modifier", "models with a modifier of the data are not supported"),
        ("type_embedding", "a type embedding of the model, outside the descriptor, is unknown"),
        ("compress", "this way of compressing a model is unknown"),
        ("models", "linear combinations of models are not supported"),
    ):
        keys.only(key, None, reason=what)
    keys.only("bridging_method", "None", "none", "NONE", "", None,
              reason="models bridged to an analytical potential are not supported")  # fmt: skip
    elements = _elements(keys.take("type_map"))
    model = Model(
        elements=elements,
        pair_exclude=type_pairs(
            keys.take("pair_exclude_types", []), len(elements), "pair_exclude_types"
        ),
        atom_exclude=type_indices(
            keys.take("atom_exclude_types", []), len(elements), "atom_exclude_types"
        ),
        descriptor=read_descriptor(keys.take("descriptor"), elements),
        fitting=_fitting(keys.take("fitting_net", {}), elements),
    )
    keys.ignore(
        "data_stat_nbatch", "data_stat_protect", "data_bias_nsample", "preset_out_bias", "rcond",
        "srtab_add_bias", "smin_alpha", "sw_rmin", "sw_rmax", "finetune_head", "model_branch_alias",
        "info", "bridging_r_inner", "bridging_r_outer", "hessian_mode", "enable_tf32",
        "use_compile", "resuming", "new_type_stat",
    )  # fmt: skip
    keys.finish()
    return model


def observed_types(config: dict[str, Any]) -> list[str]:
    """The elements that the training data had, where DeePMD-kit noted them; else an empty list.

    The note is no part of the model: what is wrong with it makes it unknown.
    """
    info, elements = config.get("info"), config.get("type_map")
    if not isinstance(info, dict) or not isinstance(elements, list):
        return []
    found = info.get("observed_type", info.get("observed-type"))
    return [name for name in elements if name in found] if isinstance(found, list) else []


def _elements(value: Any) -> list[str]:
    if (
        not isinstance(value, list)
        or not 0 < len(value) <= 1000
        or any(not isinstance(name, str) or not name.strip() or "\n" in name for name in value)
        or len(set(value)) != len(value)
    ):
        raise ModelError("The configuration's type_map should list each element's name once.")
    return value


def _fitting(value: Any, elements: list[str]) -> Fitting:
    keys = Keys(value, "fitting_net")
    keys.choice("type", ("ener",), "ener")
    keys.only("mixed_types", True, reason="one net for each element is not supported")
    keys.only("tot_ener_zero", False, None, reason="it is not supported")
    keys.only("spin", None, reason="spin models are not supported")
    keys.only("case_film_embd", False, None, reason="it is not supported")
    keys.only("ntypes", len(elements), reason="the type map has another number of elements")
    keys.only("type_map", elements, None, reason="it differs from the model's type map")
    keys.only("dim_out", 1, reason="an energy is one number")
    keys.only("var_name", "energy", reason="only energies are supported")
    # DeePMD-kit overwrites the net's exclude_types with the model's atom_exclude_types
    keys.ignore("exclude_types")
    keys.ignore("trainable", "rcond", "seed", "layer_name", "bias_atom_e", "dim_descrpt")
    atom_ener = keys.take("atom_ener", None) or []
    if not isinstance(atom_ener, list):
        raise ModelError("The configuration's fitting_net.atom_ener should be a list; refused.")
    fitting = Fitting(
        neuron=keys.widths("neuron", [128, 128, 128]),
        activation=activation(keys),
        resnet_dt=keys.flag("resnet_dt", True),
        precision=precision(keys),
        vacuum=any(energy is not None for energy in atom_ener),
        nfparam=keys.integer("numb_fparam", 0, least=0),
        naparam=keys.integer("numb_aparam", 0, least=0),
        aparam_is_mask=keys.flag("use_aparam_as_mask", False),
        ncase=keys.integer("dim_case_embd", 0, least=0),
        default_fparam=_default_fparam(keys),
    )
    keys.finish()
    return fitting


def _default_fparam(keys: Keys) -> list[float] | None:
    value = keys.take("default_fparam", None)
    count = keys.integer("numb_fparam", 0, least=0)
    if value is None or count == 0:
        return None
    if (
        not isinstance(value, list)
        or len(value) != count
        or any(type(x) not in (int, float) or not math.isfinite(x) for x in value)
    ):
        raise ModelError(
            f"The configuration's fitting_net.default_fparam should be {count} finite numbers."
        )
    return [float(x) for x in value]
