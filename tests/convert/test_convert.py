"""The converter: every number of a model arrives in the record that is meant for it."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from dpa2md.errors import ModelError
from dpa2md.importer.econf import ELEMENTS, configuration_table

from tests.support.checkpoints import dpa1_config, dpa2_config, make_tensors, records_of

EXACT = 1e-14  # two float64 evaluations of a layer with below 20 inputs of order 1


@pytest.fixture
def load(tmp_path):
    """Records of a model given by its configuration and tensors."""
    return functools.partial(records_of, tmp_path)


def test_every_tensor_arrives_under_its_name(load):
    config = dpa2_config()
    tensors = make_tensors(config)
    records = load(config, tensors)
    layer = "atomic_model.descriptor.repformers.layers.0."
    for ours, theirs in {
        "linear1.w": "linear1.matrix", "linear2.b": "linear2.bias", "g1_self.w":
        "g1_self_mlp.matrix", "conv.w": "proj_g1g2.matrix", "g1g1.w": "proj_g1g1g2.matrix",
        "attn2.qk.w": "attn2g_map.mapqk.matrix", "attn2.v.w": "attn2_mh_apply.mapv.matrix",
        "attn2.head.w": "attn2_mh_apply.head_map.matrix", "attn2.ln.w": "attn2_lm.matrix",
        "attn2.ln.b": "attn2_lm.bias", "attn2.h2_head.w": "attn2_ev_apply.head_map.matrix",
        "attn1.q.w": "loc_attn.mapq.matrix", "attn1.kv.w": "loc_attn.mapkv.matrix",
        "attn1.head.b": "loc_attn.head_map.bias",
    }.items():  # fmt: skip
        np.testing.assert_array_equal(records[f"repformer.0.{ours}"], tensors[layer + theirs])
    for part, rows in (("g1", 4), ("g2", 3), ("h2", 1)):
        stack = [tensors[f"{layer}{part}_residual.{r}"] for r in range(rows)]
        np.testing.assert_array_equal(records[f"repformer.0.{part}_residual"], np.stack(stack))
    assert not any(name.startswith("repformer.1.attn2") for name in records)  # the last layer
    fitting = "atomic_model.fitting_net.filter_layers.networks.0.layers."
    for k in range(4):
        w = records[f"fitting.net.{k}.w"]
        np.testing.assert_array_equal(w, tensors[f"{fitting}{k}.matrix"])
    assert records["fitting.net.skip"].tolist() == [0, 1, 2, 0]
    assert [k for k in range(4) if f"fitting.net.{k}.idt" in records] == [1, 2]
    np.testing.assert_array_equal(
        records["fitting.out_bias"], tensors["atomic_model.out_bias"].reshape(3)
    )
    np.testing.assert_array_equal(
        records["repinit.dstd"], tensors["atomic_model.descriptor.repinit.stddev"][:, 5]
    )
    assert records["model.elements"] == "O\nH\nSi" and records["model.kind"] == "dpa2"
    assert json.loads(records["meta.config"])["type_map"] == ["O", "H", "Si"]


def test_class_defaults_fill_what_the_file_leaves_out(load):
    records = load(dpa2_config())
    assert records["descriptor.smooth"] == records["descriptor.concat_tebd"] == 1
    assert records["repinit.activation"] == records["fitting.activation"] == "tanh"
    assert records["repinit.mode"] == "concat" and records["repformer.ln_eps"] == 1e-5
    assert records["repformer.attn2_gate"] == 0 and records["repformer.has_g1g1"] == 1
    student = load(dpa1_config())
    assert student["repinit.mode"] == "strip" and student["descriptor.smooth"] == 1
    assert student["model.kind"] == "dpa1" and "repformer.nsel" not in student


def test_dpa1_is_smooth_by_default_and_understands_its_old_keys(load):
    config = dpa1_config()
    config["descriptor"] |= {"type": "se_atten", "stripped_type_embedding": True, "sel": [4, 5]}
    tensors = make_tensors(config | {"descriptor": config["descriptor"] | {"sel": 9}})
    records = load(config, tensors)
    assert (records["repinit.mode"], records["repinit.nsel"]) == ("strip", 9)
    assert records["descriptor.smooth"] == 1
    config["descriptor"]["smooth_type_embedding"] = False
    assert load(config, tensors)["descriptor.smooth"] == 0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("elements, skip", [(["O", "H", "Si"], 0), (["O", "H", "Si", "C"], 1),
                                            (["O", "H"], 2)])  # fmt: skip
def test_type_embedding_has_bias_and_skip(load, elements, skip, bias):
    """A one-hot row picks a row of the matrix; with as many (half as many) elements as channels
    the one-hot itself is added (twice)."""
    config = dpa2_config()
    config["type_map"] = elements
    config["descriptor"]["use_tebd_bias"] = bias
    tensors = make_tensors(config)
    layer = "atomic_model.descriptor.type_embedding.embedding.embedding_net.layers.0."
    expected = tensors[layer + "matrix"] + (tensors[layer + "bias"] if bias else 0.0)
    expected = expected + np.tile(np.eye(len(elements)), skip) if skip else expected
    table = load(config, tensors)["type_embedding"]
    np.testing.assert_allclose(table, expected, atol=EXACT)


def test_electronic_configurations_count_electrons():
    table = configuration_table(ELEMENTS) * np.sqrt(118.0)
    np.testing.assert_allclose(np.abs(table), 1.0, atol=EXACT)
    electrons = (table > 0).sum(axis=1)
    np.testing.assert_array_equal(electrons, np.arange(1, 119))


def test_electronic_configurations_are_those_of_deepmd_kit():
    econf_embd = pytest.importorskip("deepmd.utils.econf_embd")
    theirs = econf_embd.normalized_electronic_configuration_embedding
    assert list(theirs) == ELEMENTS
    np.testing.assert_array_equal(configuration_table(ELEMENTS), [theirs[e] for e in ELEMENTS])


def test_electronic_type_embedding(load):
    config = dpa2_config()
    config["descriptor"]["use_econf_tebd"] = True
    tensors = make_tensors(config)
    matrix = tensors[
        "atomic_model.descriptor.type_embedding.embedding.embedding_net.layers.0.matrix"
    ]
    expected = configuration_table(["O", "H", "Si"]) @ matrix
    np.testing.assert_allclose(load(config, tensors)["type_embedding"], expected, atol=EXACT)
    config["type_map"][2] = "Wood"
    with pytest.raises(ModelError, match="Wood"):
        load(config, tensors)


@pytest.mark.parametrize("one_side", [False, True])
def test_strip_tables_by_hand(load, one_side):
    config = dpa2_config()
    config["descriptor"]["repinit"] |= {
        "tebd_input_mode": "strip", "type_one_side": one_side, "resnet_dt": True,
        "three_body_neuron": [3, 5],
    }  # fmt: skip
    tensors = make_tensors(config)
    records = load(config, tensors)
    tebd = records["type_embedding"]

    def net(block, x, layers):
        for k in range(layers):
            name = f"atomic_model.descriptor.{block}.filter_layers_strip.networks.0.layers.{k}."
            y = np.tanh(x @ tensors[name + "matrix"] + tensors[name + "bias"])
            y = y * tensors.get(name + "idt", 1.0)
            n_in, n_out = len(x), len(y)
            x = y + x if n_in == n_out else y + np.append(x, x) if 2 * n_in == n_out else y
        return x

    for i in range(3):
        for j in range(3):
            # the neighbour's embedding comes first
            x = tebd[j] if one_side else np.concatenate([tebd[j], tebd[i]])
            found = records["repinit.strip_table"][0 if one_side else i, j]
            np.testing.assert_allclose(found, net("repinit", x, 3), atol=EXACT)
            x = np.concatenate([tebd[i], tebd[j]])  # three-body: (t_j, t_k), table by (j, k)
            found = records["three_body.strip_table"][i, j]
            np.testing.assert_allclose(found, net("repinit_three_body", x, 2), atol=EXACT)


def compressed(config):
    """A compressed student: the table of em_0 for [0, 2], doubled once, 4 fine + 2 coarse cells."""
    tensors = make_tensors(config)
    name = "atomic_model.descriptor.se_atten."
    rng = np.random.default_rng(3)
    tensors[name + "compress_info.0"] = np.array([0.0, 2.0, 4.0, 0.5, 1.0, -1.0])
    tensors[name + "compress_data.0"] = rng.normal(size=(6, 36))
    tensors[name + "type_embd_data"] = rng.normal(size=(9, 6))
    return tensors, name


def test_compressed_models_keep_their_tables(load):
    config = dpa1_config()
    tensors, name = compressed(config)
    records = load(config, tensors)
    np.testing.assert_array_equal(records["repinit.table"], tensors[name + "compress_data.0"])
    assert records["repinit.table_info"].tolist() == [0.0, 2.0, 4.0, 0.5, 1.0]
    table = tensors[name + "type_embd_data"].reshape(3, 3, 6)[:2, :2]  # without the padding type
    np.testing.assert_array_equal(records["repinit.strip_table"], table)
    assert "repinit.net.layers" not in records
    tensors[name + "compress_data.0"] = tensors[name + "compress_data.0"][:4]
    with pytest.raises(ModelError, match="does not span"):
        load(config, tensors)


def test_precisions_are_kept(load):
    config = dpa2_config()
    config["descriptor"]["precision"] = "float32"
    records = load(config)
    assert records["model.precision"] == "float32"
    assert records["model.fitting_precision"] == "float64"
    assert records["repinit.net.0.w"].dtype == records["repinit.davg"].dtype == np.float32
    assert records["fitting.net.0.w"].dtype == records["fitting.out_bias"].dtype == np.float64
    assert records["type_embedding"].dtype == np.float64  # derived, so it keeps all digits


def test_exclusions_parameters_and_vacuum(load):
    config = dpa2_config()
    config |= {"pair_exclude_types": [[0, 1]], "atom_exclude_types": [2]}
    config["descriptor"]["exclude_types"] = [[1, 2], [0, 0]]
    config["fitting_net"] |= {
        "numb_fparam": 2, "numb_aparam": 1, "default_fparam": [0.5, 2], "dim_case_embd": 3,
        "atom_ener": [None, -1.0, None],
    }  # fmt: skip
    records = load(config)
    assert records["model.pair_exclude"].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert records["descriptor.exclude"].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert records["model.atom_exclude"].tolist() == [0, 0, 1]
    assert records["fitting.vacuum"] == 1
    assert records["fitting.default_fparam"].tolist() == [0.5, 2.0]
    assert records["fitting.case_embedding"].shape == (3,)
    assert records["fitting.net.0.w"].shape[0] == 7 + 4 + 2 + 1 + 3


def test_aparam_as_mask_is_not_an_input(load):
    config = dpa2_config()
    config["fitting_net"]["numb_aparam"] = 1
    tensors = make_tensors(dpa2_config())
    for name in ("aparam_avg", "aparam_inv_std"):
        tensors[f"atomic_model.fitting_net.{name}"] = np.ones(1)
    with pytest.raises(ModelError, match=r"layers\.0\.matrix.*shape"):
        load(config, tensors)
    config["fitting_net"]["use_aparam_as_mask"] = True
    assert not any("aparam" in name for name in load(config, tensors))


@pytest.mark.parametrize(
    "given, stored",
    [("Tanh", "tanh"), ("none", "linear"), ("gelu_tf", "gelu"), ("silut", "silut:3.0"),
     ("custom_silu:5", "silut:5.0")],
)  # fmt: skip
def test_activation_names(load, given, stored):
    config = dpa2_config()
    config["descriptor"]["repformer"]["activation_function"] = given
    assert load(config)["repformer.activation"] == stored
