"""The converter: right records from every format, and a refusal by name for everything else."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
from checkpoints import dpa1_config, dpa2_config, make_tensors, write_checkpoint, write_model
from dpa2md.cli_convert import add_parser
from dpa2md.convert import convert, list_heads, load_records
from dpa2md.econf import ELEMENTS, configuration_table
from dpa2md.errors import HeadError, ModelError, UnsupportedModelError
from dpa2md.model_file import read_model

GOLDEN = Path(os.environ.get("DPA2MD_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden"))
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="DPA2MD_GOLDEN_DIR names no directory with DeePMD-kit's files"
)
EXACT = 1e-14  # two float64 evaluations of a layer with below 20 inputs of order 1


@pytest.fixture
def load(tmp_path):
    """Records of a model given by its configuration and tensors."""

    def run(config, tensors=None, **options):
        tensors = make_tensors(config) if tensors is None else tensors
        return load_records(write_model(tmp_path / "model.pt", config, tensors), **options)

    return run


def weights(records):
    return {name: value for name, value in records.items() if not name.startswith("meta.")}


def assert_same(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    for name in first:
        assert type(first[name]) is type(second[name]), name
        if isinstance(first[name], np.ndarray):
            assert first[name].dtype == second[name].dtype, name
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        else:
            assert first[name] == second[name], name


# What is converted --------------------------------------------------------------------------------


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


# What is refused ----------------------------------------------------------------------------------

SECTIONS = {
    "model": (),
    "descriptor": ("descriptor",),
    "descriptor.repinit": ("descriptor", "repinit"),
    "descriptor.repformer": ("descriptor", "repformer"),
    "fitting_net": ("fitting_net",),
}


def changed(config, section, **values):
    config = copy.deepcopy(config)
    target = config
    for key in SECTIONS[section]:
        target = target[key]
    target |= values
    return config


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


# Older files --------------------------------------------------------------------------------------


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


# Heads and elements -------------------------------------------------------------------------------


@pytest.fixture
def two_heads(tmp_path):
    water, rock = dpa2_config(), dpa2_config()
    water["fitting_net"]["neuron"] = [4]
    water["model_branch_alias"] = ["Wet", "h2o"]
    params = {
        "model_dict": {"Water": water, "ROCK": rock | {"descriptor": "shared:1"}},
        "shared_dict": {"shared": rock["descriptor"]},
    }
    tensors = {}
    for name, config in (("Water", water), ("ROCK", rock)):
        tensors |= {f"model.{name}.{key}": value for key, value in make_tensors(config).items()}
    return write_checkpoint(tmp_path / "heads.pt", params, tensors)


def test_heads_are_found_by_name_case_and_alias(two_heads):
    assert list_heads(two_heads) == ["Water", "ROCK"]
    for name in ("Water", "water", "Wet", "H2O"):
        records = load_records(two_heads, head=name)
        assert records["meta.head"] == "Water" and records["fitting.net.layers"] == 2
    assert load_records(two_heads, head="rock")["fitting.net.layers"] == 4


@pytest.mark.parametrize("head", [None, "Air", ""])
def test_other_heads_are_refused_with_a_list(two_heads, head):
    with pytest.raises(HeadError, match="Water, ROCK"):
        load_records(two_heads, head=head)


def test_single_models_have_no_heads(load, tmp_path):
    with pytest.raises(HeadError, match="single head"):
        load(dpa2_config(), head="Water")
    assert list_heads(tmp_path / "model.pt") == []


@pytest.mark.parametrize("one_side", [False, True])
def test_elements_are_kept_in_the_order_asked_for(load, one_side):
    config = changed(dpa2_config(), "model", pair_exclude_types=[[0, 2]])
    config = changed(config, "descriptor.repinit", tebd_input_mode="strip", type_one_side=one_side)
    full = load(config)
    few = load(config, elements=["Si", "O"])
    assert few["model.elements"] == "Si\nO"
    np.testing.assert_array_equal(few["type_embedding"], full["type_embedding"][[2, 0]])
    table = full["repinit.strip_table"]
    table = table[:, [2, 0]] if one_side else table[[2, 0]][:, [2, 0]]
    np.testing.assert_array_equal(few["repinit.strip_table"], table)
    assert few["three_body.strip_table"].shape[:2] == (2, 2)
    assert few["model.pair_exclude"].tolist() == [[0, 1], [1, 0]]
    for name in ("repinit.dstd", "three_body.dstd", "repformer.dstd", "fitting.bias_atom_e",
                 "fitting.out_bias"):  # fmt: skip
        np.testing.assert_array_equal(few[name], full[name][[2, 0]])
    for name in ("repinit.net.0.w", "fitting.net.0.w", "repformer.0.linear1.w"):
        np.testing.assert_array_equal(few[name], full[name])


@pytest.mark.parametrize("elements, words", [(["O", "Xe"], "Xe"), ([], "once"),
                                             (["O", "O"], "once")])  # fmt: skip
def test_wrong_elements_are_refused(load, elements, words):
    with pytest.raises(ModelError, match=words):
        load(dpa2_config(), elements=elements)


# Files and the command ----------------------------------------------------------------------------


def test_convert_writes_beside_the_source_and_reads_its_own_files(tmp_path):
    source = write_model(tmp_path / "water.pt", dpa2_config(), make_tensors(dpa2_config()))
    output = convert(source)
    assert output == tmp_path / "water.dpa2"
    assert_same(read_model(output), load_records(source))
    again = convert(output, tmp_path / "few.dpa2", elements=["H"])
    assert_same(read_model(again), load_records(source, elements=["H"]))
    with pytest.raises(ModelError, match="replace the source"):
        convert(output)


def test_a_refused_model_leaves_no_file(tmp_path):
    config = changed(dpa2_config(), "model", spin={})
    source = write_model(tmp_path / "spin.pt", config, make_tensors(dpa2_config()))
    with pytest.raises(ModelError, match="spin.pt"):
        convert(source)
    assert list(tmp_path.iterdir()) == [source]


def test_the_command(tmp_path, capsys, two_heads):
    import argparse

    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())

    def run(*words):
        args = parser.parse_args(["convert", *map(str, words)])
        status = args.run(args)
        return status, *capsys.readouterr()

    assert run(two_heads, "--list-heads") == (0, "Water\nROCK\n", "")
    output = tmp_path / "out.dpa2"
    status, text, _ = run(two_heads, "-o", output, "--head", "wet", "--elements", "H, O")
    assert status == 0 and "dpa2, float64, H O, head Water" in text and output.exists()
    status, _, errors = run(two_heads)
    assert status == 1 and "--head" in errors and len(errors.splitlines()) == 1
    assert run(tmp_path / "none.pt")[0] == 1
    assert run(__file__)[2].count(".pth") == 1


# DeePMD-kit's own files ---------------------------------------------------------------------------


@needs_golden
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.pt")), ids=lambda path: path.name)
def test_every_golden_checkpoint_converts(path):
    for head in list_heads(path) or [None]:
        records = load_records(path, head)
        assert records["model.kind"] == ("dpa1" if "student" in path.name else "dpa2")


@needs_golden
@pytest.mark.parametrize("name", ["medium-like.pth", "medium-like.dp", "medium-like.yaml",
                                  "strip.pth", "student-se_atten_v2.pth"])  # fmt: skip
def test_all_formats_give_the_same_records(name):
    if name.endswith(".dp"):
        pytest.importorskip("h5py")
    if name.endswith(".yaml"):
        pytest.importorskip("yaml")
    path = GOLDEN / name
    assert_same(load_records(path), load_records(path.with_suffix(".pt")))


@needs_golden
@pytest.mark.parametrize("name", ["strip", "student-se_atten_v2"])
def test_compressed_files_hold_the_same_type_table(name):
    """DeePMD-kit stored T when it compressed the model; the converter evaluates the same net."""
    plain = load_records(GOLDEN / f"{name}.pt")["repinit.strip_table"]
    stored = load_records(GOLDEN / f"{name}-compressed.pth")["repinit.strip_table"]
    np.testing.assert_allclose(plain, stored, atol=EXACT)
