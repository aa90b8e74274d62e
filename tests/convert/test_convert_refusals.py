"""The converter refuses by name what it does not understand, and nothing else."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from dpa2md.errors import ModelError, UnsupportedModelError

from tests.support.checkpoints import (
    SECTIONS,
    assert_same,
    changed,
    dpa1_config,
    dpa2_config,
    make_tensors,
    records_of,
)


@pytest.fixture
def load(tmp_path):
    """Records of a model given by its configuration and tensors."""
    return functools.partial(records_of, tmp_path)


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_keys_are_refused_by_name(load, section):
    with pytest.raises(UnsupportedModelError, match=rf"{section}\.brand_new"):
        load(changed(dpa2_config(), section, brand_new=1))


@pytest.mark.parametrize(
    "section, values",
    [
        ("model", {"type": "linear_ener"}),
        ("model", {"spin": {"use_spin": [True]}}),
        ("model", {"use_srtab": "zbl.tab"}),
        ("model", {"bridging_method": "ZBL"}),
        ("model", {"modifier": {"type": "dipole_charge"}}),
        ("descriptor", {"type": "dpa3"}),
        ("descriptor", {"type": "hybrid"}),
        ("descriptor", {"type": "se_e2_a"}),
        ("descriptor", {"precision": "bfloat16"}),
        ("descriptor.repinit", {"tebd_input_mode": "dot_residual_s"}),
        ("descriptor.repformer", {"update_style": "res_layer"}),
        ("descriptor.repformer", {"activation_function": "mish"}),
        ("fitting_net", {"type": "dipole"}),
        ("fitting_net", {"mixed_types": False}),
    ],
)
def test_unsupported_models_are_refused_by_name(load, section, values):
    (key,) = values
    word = "descriptor is" if (section, key) == ("descriptor", "type") else key
    with pytest.raises(UnsupportedModelError, match=word):
        load(changed(dpa2_config(), section, **values), make_tensors(dpa2_config()))


@pytest.mark.parametrize("key, value", [("attn_layer", 2), ("lmax", 2), ("attn_mask", True)])
def test_unsupported_dpa1_is_refused(load, key, value):
    config = dpa1_config()
    config["descriptor"][key] = value
    with pytest.raises(UnsupportedModelError, match=key):
        load(config)
    del config["descriptor"]["attn_layer"]  # the class default is two layers
    with pytest.raises(UnsupportedModelError, match="attn_layer = 2"):
        load(config)


@pytest.mark.parametrize(
    "section, values",
    [
        ("descriptor.repinit", {"nsel": 0}),
        ("descriptor.repinit", {"nsel": "auto"}),
        ("descriptor.repinit", {"rcut": float("inf")}),
        ("descriptor.repinit", {"rcut_smth": 7.0}),
        ("descriptor.repinit", {"neuron": []}),
        ("descriptor.repinit", {"neuron": [10**9]}),
        ("descriptor.repinit", {"axis_neuron": 50}),
        ("descriptor.repinit", {"nsel": 12}),
        ("descriptor.repinit", {"resnet_dt": 1}),
        ("descriptor", {"exclude_types": [[0, 9]]}),
        ("descriptor", {"repinit": []}),
        ("model", {"type_map": ["O", "O", "H"]}),
        ("model", {"atom_exclude_types": [-1]}),
        ("fitting_net", {"numb_fparam": 1, "default_fparam": [1.0, 2.0]}),
    ],
)
def test_impossible_values_are_refused_by_name(load, section, values):
    with pytest.raises(ModelError, match=list(values)[-1]):
        load(changed(dpa2_config(), section, **values), make_tensors(dpa2_config()))


def test_harmless_keys_are_accepted(load):
    config = changed(
        dpa2_config(), "model", info={"observed_type": ["H"]}, model_branch_alias=[],
        data_stat_nbatch=10, finetune_head="x", bridging_method="None", srtab_add_bias=True,
    )  # fmt: skip
    config = changed(config, "descriptor", seed=1, trainable=True)
    config = changed(config, "descriptor.repformer", update_residual=0.01, ln_eps=None)
    config = changed(config, "fitting_net", seed=[1, 2], rcond=None, atom_ener=[])
    tensors = make_tensors(dpa2_config())
    assert_same(load(config, tensors), load(dpa2_config(), tensors))


def test_every_missing_tensor_is_refused_by_name(load):
    config = dpa2_config()
    tensors = make_tensors(config)
    optional = ("compress", "type_embd_data", "out_std")
    for name in tensors:
        if "_networks" in name or any(word in name for word in optional):
            continue
        twin = name.replace(".networks.", "._networks.")
        left = {key: value for key, value in tensors.items() if key not in (name, twin)}
        with pytest.raises(ModelError) as error:
            load(config, left)
        # without its first self mlp, a layer is taken for one of an older version
        assert name in str(error.value) or "layers.0" in name


def test_tensors_without_a_use_are_refused_by_name(load):
    config = dpa2_config()
    for name in ("atomic_model.descriptor.repinit.gate", "atomic_model.fitting_net.case_embd"):
        with pytest.raises(UnsupportedModelError, match=name.replace(".", r"\.")):
            load(config, make_tensors(config) | {name: np.ones(3)})
    name = "atomic_model.descriptor.repinit_three_body."
    table = {name + "compress_data.0": np.ones((3, 48)), name + "type_embd_data": np.ones((16, 8))}
    with pytest.raises(UnsupportedModelError, match="three-body block is compressed"):
        load(config, make_tensors(config) | table)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda a: a[:-1], "shape"),
        (lambda a: a[None], "shape"),
        (lambda a: np.where(a == a.flat[0], np.nan, a), "infinite or undefined"),
        (lambda a: np.zeros(a.shape, np.int64), "not real numbers"),
    ],
)
def test_wrong_tensors_are_refused_by_name(load, change, words):
    config = dpa2_config()
    tensors = make_tensors(config)
    for name in ("atomic_model.descriptor.g1_shape_tranform.matrix",
                 "atomic_model.fitting_net.bias_atom_e"):  # fmt: skip
        with pytest.raises(ModelError, match=words) as error:
            load(config, tensors | {name: change(tensors[name])})
        assert name in str(error.value)


def test_statistics_must_not_depend_on_the_slot(load):
    tensors = make_tensors(dpa2_config())
    tensors["atomic_model.descriptor.repformers.mean"][1, 3, 0] = 0.1
    with pytest.raises(UnsupportedModelError, match="slots"):
        load(dpa2_config(), tensors)
    tensors = make_tensors(dpa2_config())
    tensors["atomic_model.descriptor.repinit.stddev"][0] = 0.0
    with pytest.raises(ModelError, match="positive"):
        load(dpa2_config(), tensors)


@pytest.mark.parametrize(
    "mode, smooth, accepted", [("strip", True, True), ("strip", False, False),
                               ("concat", True, False)],
)  # fmt: skip
def test_averages_of_repinit(load, mode, smooth, accepted):
    config = changed(dpa2_config(), "descriptor", smooth=smooth)
    config = changed(config, "descriptor.repinit", tebd_input_mode=mode)
    tensors = make_tensors(config)
    tensors["atomic_model.descriptor.repinit.mean"][0] = 0.25
    if accepted:
        assert load(config, tensors)["repinit.davg"][0].tolist() == [0.25] * 4
    else:
        with pytest.raises(UnsupportedModelError, match="davg"):
            load(config, tensors)


def test_averages_of_other_blocks(load):
    tensors = make_tensors(dpa2_config())
    tensors["atomic_model.descriptor.repformers.mean"][2] = 0.5
    tensors["atomic_model.descriptor.repinit_three_body.mean"][0, :, 0] = 0.5
    assert load(dpa2_config(), tensors)["repformer.davg"][2].tolist() == [0.5] * 4
    tensors["atomic_model.descriptor.repinit_three_body.mean"][0, :, 2] = 0.5
    with pytest.raises(UnsupportedModelError, match="three-body"):
        load(dpa2_config(), tensors)


def test_twins_that_differ_are_refused(load):
    tensors = make_tensors(dpa2_config())
    name = "atomic_model.fitting_net.filter_layers._networks.0.layers.0.bias"
    tensors[name] = tensors[name] + 1.0
    with pytest.raises(ModelError, match="twin"):
        load(dpa2_config(), tensors)
