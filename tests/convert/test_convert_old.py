"""Checkpoints of older versions of DeePMD-kit."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
from dpa2md.errors import UnsupportedModelError

from tests.support.checkpoints import assert_same, dpa2_config, make_tensors, records_of

EXACT = 1e-14  # two float64 evaluations of a layer with below 20 inputs of order 1


@pytest.fixture
def load(tmp_path):
    """Records of a model given by its configuration and tensors."""
    return functools.partial(records_of, tmp_path)


def old_config():
    config = dpa2_config()
    config["descriptor"]["repinit"] |= {"use_three_body": False}
    config["descriptor"]["repformer"] |= {
        "update_h2": False, "update_style": "res_avg", "g1_out_mlp": False, "g1_out_conv": False,
        "use_sqrt_nnei": False,
    }  # fmt: skip
    return config


def old_tensors(config):
    tensors = make_tensors(config)
    name = "atomic_model.descriptor."
    rows = config["descriptor"]["repinit"]["neuron"][-1] * 2
    tensors = {k: v for k, v in tensors.items() if "three_body" not in k}
    tensors[name + "g1_shape_tranform.matrix"] = tensors[name + "g1_shape_tranform.matrix"][:rows]
    return tensors


@pytest.mark.parametrize("switch", ["g1_out_mlp", "use_tebd_bias"])
def test_switches_of_older_files_are_read_off_the_tensors(load, switch):
    config = old_config()
    tensors = old_tensors(config)
    expected = load(config, tensors)
    for key in ("g1_out_mlp", "g1_out_conv", "use_sqrt_nnei"):
        del config["descriptor"]["repformer"][key]
    assert_same(load(config, tensors), expected)
    layer = "atomic_model.descriptor.type_embedding.embedding.embedding_net.layers.0."
    tensors[layer + "bias"] = np.arange(4.0)
    shifted = load(config, tensors)["type_embedding"]
    np.testing.assert_allclose(shifted, expected["type_embedding"] + np.arange(4.0), atol=EXACT)


def flat(config):
    """The configuration as it was written in early 2024."""
    config = copy.deepcopy(config)
    descriptor = config["descriptor"]
    repinit, repformer = descriptor.pop("repinit"), descriptor.pop("repformer")
    for key in ("g1_out_mlp", "g1_out_conv", "use_sqrt_nnei"):
        del repformer[key]
    for key in [key for key in repinit if "three_body" in key]:
        del repinit[key]
    descriptor["tebd_dim"] = repinit.pop("tebd_dim")
    repformer["axis_dim"] = repformer.pop("axis_neuron")
    descriptor |= {f"repinit_{key}": value for key, value in repinit.items()}
    descriptor |= {f"repformer_{key}": value for key, value in repformer.items()}
    descriptor |= {"repformer_do_bn_mode": "no", "repformer_add_type_ebd_to_seq": False,
                   "repinit_activation": "tanh"}  # fmt: skip
    return config


def test_checkpoints_of_early_2024(load):
    config = old_config()
    tensors = old_tensors(config)
    expected = load(config, tensors)
    name = "atomic_model.descriptor."
    old = {k: v for k, v in tensors.items() if "_networks" not in k and "type_embedding" not in k}
    old[name + "type_embedding.embedding.weight"] = np.vstack(
        [expected["type_embedding"], np.zeros(4)]
    )
    for key in [key for key in old if "attn2_lm.matrix" in key or "g1_shape" in key]:
        old[key.replace("matrix", "weight")] = old.pop(key).T.copy()
    assert_same(load(flat(config), old), expected)
    for key in ("out_bias", "out_std"):
        del old["atomic_model." + key]
    old = {key.removeprefix("atomic_model."): value for key, value in old.items()}
    assert load(flat(config), old)["fitting.out_bias"].tolist() == [0.0] * 3


@pytest.mark.parametrize("key, value", [("do_bn_mode", "uniform"), ("update_h2", True)])
def test_what_was_computed_differently_in_early_2024_is_refused(load, key, value):
    config = flat(old_config())
    config["descriptor"]["repformer_" + key] = value
    with pytest.raises(UnsupportedModelError, match=f"repformer_{key}"):
        load(config, old_tensors(old_config()))
