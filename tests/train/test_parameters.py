"""Raw tensors, records and gradients: every number of every record, against finite differences."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from dpa2md.conversion import load_records
from dpa2md.errors import ModelError
from dpa2md.importer.nets import activate
from dpa2md.train.initial import initial_tensors
from dpa2md.train.multi_task import MultiTaskModel
from dpa2md.train.nets import slope
from dpa2md.train.parameters import TrainableModel

from tests.golden.bases import ELEMENTS_118, MEDIUM, merge
from tests.golden.configs import CASES, STRIP
from tests.golden.suite import MODELS
from tests.support.checkpoints import write_model

# Every kind of configuration whose records are made of tensors in another way.
KINDS = [
    "medium", "full", "one_side", "strip", "strip_one_side", "strip_first_width_2",
    "repinit_dt_strip", "tebd_bias", "tebd_bias_strip", "identity_tebd_skip", "tebd_8_of_4",
    "tebd_8_of_8", "electron_configuration_2", "electron_configuration_8",
    "three_body_strip_skips", "tebd_into_repformer", "no_three_body", "conv_inside_mlp_inside",
    "res_residual_h2", "res_avg_h2", "identity_g1", "one_layer", "fitting_doubled",
    "fparam_aparam_case", "atom_ener", "dpa1", "dpa1_one_side", "dpa1_strip", "se_atten_v2",
    "se_atten_v2_econf", "strip_float32", "se_atten_v2_float32", "davg_strip",
    "two_heads.Water_B",
]  # fmt: skip

NAMED = json.loads((Path(__file__).parent / "named_parameters.json").read_text())
ACTIVATIONS = [
    "linear",
    "tanh",
    "relu",
    "relu6",
    "softplus",
    "sigmoid",
    "silu",
    "gelu",
    "silut:2.0",
]


def read(name: str, folder) -> TrainableModel:
    return TrainableModel.read(MODELS[name].write(folder), MODELS[name].head)


def float_records(model: TrainableModel) -> dict[str, np.ndarray]:
    """The records that the importer makes, those of floating point."""
    found = {}
    for name, value in model.records().items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            found[name] = value.astype(np.float64)
    return found


@pytest.mark.parametrize("name", sorted(MODELS))
def test_records_are_the_importers(name, tmp_path):
    """Reading a model and giving its records changes no bit, and every float record is one of
    parameters or one of statistics."""
    path = MODELS[name].write(tmp_path)
    records = load_records(path, MODELS[name].head)
    model = TrainableModel.read(path, MODELS[name].head)
    ours = model.records()
    assert set(ours) == {key for key in records if not key.startswith("meta.")}
    for key, value in ours.items():
        assert np.array_equal(value, records[key]), key
    trained = model.trained_records()
    for key, value in trained.items():
        assert value.shape == records[key].shape
        # the records are rounded to the model's precision: half a unit in the last place
        assert np.allclose(value, records[key], rtol=6e-8, atol=1e-30), key
    words = ("davg", "dstd", "bias_atom_e", "out_bias", "fparam", "aparam", "case_embedding")
    words += ("rcut", "env_protection", "ln_eps")
    for key, value in records.items():
        if isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind == "f":
            assert (key in trained) != any(word in key for word in words), key


@pytest.mark.parametrize("name", KINDS)
def test_gradient_against_differences(name, tmp_path):
    """Along random directions of the parameters: the change of sum(g * record) over all records."""
    model = read(name, tmp_path)
    exact = TrainableModel(in_double(model.config), model.tensors)
    rng = np.random.default_rng(7)
    before = exact.flat()
    records = exact.trained_records()
    weights = {key: rng.normal(size=value.shape) for key, value in records.items()}
    gradient = exact.pull(weights)
    assert gradient.shape == (exact.size,)

    def value(vector: np.ndarray) -> float:
        exact.set_flat(vector)
        found = float_records(exact)
        return sum(np.sum(weights[key] * found[key]) for key in weights)

    step = 1e-3
    for _ in range(3):
        direction = rng.normal(size=exact.size) * np.abs(before).clip(0.1)
        samples = [value(before + k * step * direction) for k in (-2, -1, 1, 2)]
        difference = (samples[0] - 8 * samples[1] + 8 * samples[2] - samples[3]) / (12 * step)
        # truncation of the fourth order; the values are about 10 and rounded to 1e-15 of them
        assert difference == pytest.approx(gradient @ direction, rel=1e-6, abs=1e-7)
    # every parameter has a gradient
    assert np.count_nonzero(gradient) == exact.size


def in_double(config: dict) -> dict:
    parts = {key: config[key] | {"precision": "float64"} for key in ("descriptor", "fitting_net")}
    return config | parts


@pytest.mark.parametrize("name", ["tebd_bias_strip", "strip_one_side", "se_atten_v2_econf"])
def test_present_elements(name, tmp_path):
    """With gradients for present elements only, the other rows need not be computed."""
    model = read(name, tmp_path)
    rng = np.random.default_rng(3)
    present = [0, len(model.model.elements) - 1]
    absent = np.setdiff1d(np.arange(len(model.model.elements)), present)
    records = model.trained_records()
    gradients = {}
    for key, value in records.items():
        gradients[key] = rng.normal(size=value.shape)
        if "strip_table" in key:
            gradients[key][:, absent] = 0.0
            if len(value) > 1:
                gradients[key][absent] = 0.0
    # sums of some hundred terms of about 1, in another order
    assert np.allclose(model.pull(gradients, present), model.pull(gradients), rtol=0, atol=1e-12)
    model.set_flat(model.flat() * 1.25)
    some, every = model.trained_records(present), model.trained_records()
    for key, value in every.items():
        if "strip_table" not in key:
            assert np.array_equal(some[key], value)
            continue
        first = slice(None) if len(value) == 1 else present
        # sums over rows of a matrix product may be in another order
        assert np.allclose(some[key][first][:, present], value[first][:, present], rtol=1e-13)
        assert not len(absent) or not np.allclose(some[key][:, absent], value[:, absent])


def test_large_strip_table_is_cheap():
    """118 elements: the rows of two present elements cost no more than a small model's."""
    config = merge(MEDIUM, STRIP, {"type_map": ELEMENTS_118})
    config = merge(config, {"descriptor": {"repinit": {"neuron": [25, 50, 100]}}})
    model = TrainableModel(config, initial_tensors(config, 1))
    gradients = {key: np.ones_like(value) for key, value in model.trained_records().items()}
    start = time.process_time()
    for _ in range(10):
        model.pull(gradients, [0, 7])
        model.trained_records([0, 7])
    # 0.01 s a step measured; a whole table takes 0.3 s and more
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes(name):
    x = np.linspace(-4.03, 7.01, 200)  # no point is a corner of relu or relu6
    step = 1e-5
    difference = (activate(x + step, name) - activate(x - step, name)) / (2 * step)
    # second order in the step; the third derivative is below 10
    assert np.allclose(slope(x, name), difference, atol=1e-9)


@pytest.mark.parametrize("label", NAMED)
def test_parameters_are_those_of_deepmd(label):
    """Names, shapes and order of what DeePMD-kit's modules give as parameters to be trained."""
    name, part, trainable = NAMED[label]["case"], NAMED[label]["part"], NAMED[label]["trainable"]
    config = CASES[name].model
    if part:
        config = merge(config, {part: {"trainable": trainable}})
    model = TrainableModel(config, initial_tensors(config, 1))
    expected = [(name, tuple(shape)) for name, shape in NAMED[label]["parameters"]]
    assert [(p.name, p.shape) for p in model.parameters] == expected


def test_trainable_of_the_parts(tmp_path):
    model = read("medium", tmp_path)
    descriptor = {p.name for p in model.parameters if ".descriptor." in p.name}
    fitting = {p.name for p in model.parameters if ".fitting_net." in p.name}
    assert descriptor and fitting and len(descriptor | fitting) == len(model.parameters)

    def trained(part: str, value) -> set[str]:
        config = model.config | {part: model.config[part] | {"trainable": value}}
        return {p.name for p in TrainableModel(config, model.tensors).parameters}

    assert trained("descriptor", False) == fitting
    assert trained("fitting_net", False) == descriptor
    assert trained("fitting_net", [True, True, True, True]) == fitting | descriptor
    # DeePMD-kit trains all layers or none: one false counts for all
    assert trained("fitting_net", [True, True, True, False]) == descriptor
    with pytest.raises(ModelError, match=r"fitting_net\.trainable = 'yes'"):
        trained("fitting_net", "yes")


def test_frozen_parts_have_no_gradient(tmp_path):
    whole = read("tebd_bias_strip", tmp_path)
    part = whole.config["descriptor"] | {"trainable": False}
    model = TrainableModel(whole.config | {"descriptor": part}, whole.tensors)
    rng = np.random.default_rng(0)
    gradients = {k: rng.normal(size=v.shape) for k, v in whole.trained_records().items()}
    full = whole.pull(gradients)
    start = next(p.offset for p in whole.parameters if ".fitting_net." in p.name)
    assert np.array_equal(model.pull(gradients), full[start:])


def test_wrong_arguments(tmp_path):
    model = read("medium", tmp_path)
    with pytest.raises(ValueError, match="repinit.davg is no record"):
        model.pull({"repinit.davg": np.zeros((2, 4))})
    with pytest.raises(ValueError, match="shape"):
        model.set_flat(np.zeros(3))
    (tmp_path / "x.dpa2").write_bytes(b"")
    with pytest.raises(ModelError, match="x.dpa2: .*converted from"):
        TrainableModel.read(tmp_path / "x.dpa2")


def test_compressed_models_are_refused(tmp_path):
    config = {
        "type_map": ["O", "H"],
        "descriptor": {"type": "se_atten_v2", "rcut": 6.0, "rcut_smth": 0.5, "sel": 9,
                       "neuron": [3, 6], "axis_neuron": 2, "tebd_dim": 2, "attn_layer": 0},
        "fitting_net": {"neuron": [4]},
    }  # fmt: skip
    tensors = {"atomic_model.descriptor.se_atten.type_embd_data": np.ones((9, 6))}
    path = write_model(tmp_path / "small.pt", config, tensors)
    with pytest.raises(ModelError, match=r"small\.pt: The model is compressed.*compressed from"):
        TrainableModel.read(path)


# ---- several heads


def test_heads_of_a_checkpoint(tmp_path):
    path = MODELS["two_heads.Water_A"].write(tmp_path)
    model = MultiTaskModel.read(path)
    one = TrainableModel.read(path, "Water_A")
    other = TrainableModel.read(path, "Water_B")
    assert list(model.heads) == ["Water_A", "Water_B"]
    # descriptor and fitting net are shared whole
    assert model.size == one.size == other.size
    assert np.array_equal(model.flat(), one.flat())
    vector = np.arange(model.size, dtype=float)
    model.set_flat(vector)
    for head in model.heads.values():
        assert np.array_equal(head.flat(), vector)
    # statistics are the same array; biases and case embeddings are not
    a, b = (model.heads[head].tensors for head in ("Water_A", "Water_B"))
    assert (
        a["atomic_model.descriptor.repinit.stddev"] is b["atomic_model.descriptor.repinit.stddev"]
    )
    assert a["atomic_model.out_bias"] is not b["atomic_model.out_bias"]
    assert not np.array_equal(
        a["atomic_model.fitting_net.case_embd"], b["atomic_model.fitting_net.case_embd"]
    )


@dataclass(frozen=True)
class Share:
    task: str
    part: str
    name: str
    level: int = 0


def test_heads_with_own_fitting_nets():
    configs = dict.fromkeys(("one", "two", "three"), MEDIUM)
    shares = [Share(head, "descriptor", "common") for head in ("one", "two")]
    shares.append(Share("three", "descriptor", "common", 1))
    model = MultiTaskModel.initial(configs, shares, 5)
    one, two, three = (model.heads[name] for name in ("one", "two", "three"))
    fitting = sum(p.end - p.offset for p in one.parameters if ".fitting_net." in p.name)
    embedding = 2 * 4
    assert model.size == 2 * one.size + fitting - embedding
    rng = np.random.default_rng(1)
    gradients = {k: rng.normal(size=v.shape) for k, v in two.trained_records().items()}
    total = model.pull("two", gradients)
    # what two shares with one is one's; its own fitting net comes after one's whole vector
    own = two.pull(gradients)
    assert np.array_equal(total[: one.size - fitting], own[:-fitting])
    assert np.array_equal(total[one.size : one.size + fitting], own[-fitting:])
    assert not total[one.size - fitting : one.size].any()
    assert not total[one.size + fitting :].any()
    # level 1 shares the type embedding only
    name = "atomic_model.descriptor.type_embedding.embedding.embedding_net.layers.0.matrix"
    assert np.array_equal(one.tensors[name], three.tensors[name])
    name = "atomic_model.descriptor.repinit.filter_layers.networks.0.layers.0.matrix"
    assert np.array_equal(one.tensors[name], two.tensors[name])
    assert not np.array_equal(one.tensors[name], three.tensors[name])
