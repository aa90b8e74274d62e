"""Inputs of trainings: read as DeePMD-kit does, or refused in a sentence that names the key."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from dpa2md.errors import InputError
from dpa2md.train.data_settings import BatchRule, Block, Weights
from dpa2md.train.loss_settings import read_loss
from dpa2md.train.model_settings import auto_sels, with_counted_sels
from dpa2md.train.optimizer import Optimizer
from dpa2md.train.sections import without_comments
from dpa2md.train.settings import Length, read_settings, settings_of

from tests.golden import training_inputs
from tests.support.paths import ROOT

DEEPMD = json.loads((ROOT / "tests" / "golden" / "training_inputs.json").read_text())["inputs"]
INPUTS = training_inputs.inputs()


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a path as in model.descriptor.rcut; None takes the key away."""
    data = deepcopy(data)
    *sections, last = path.split(".")
    section = data
    for key in sections:
        section = section.setdefault(key, {})
    if value is None:
        del section[last]
    else:
        section[last] = value
    return data


# ---- what DeePMD-kit makes of it


@pytest.mark.parametrize("name", DEEPMD)
def test_the_model_is_what_deepmd_makes_of_it(name):
    """Its own program filled in the defaults: what a checkpoint would have as model_params."""
    settings = settings_of(INPUTS[name])
    wanted = DEEPMD[name]["input"]
    # DeePMD-kit leaves comments where it knows no keys
    assert settings.model_params() == without_comments(wanted["model"])
    assert settings.learning_rate.items() <= wanted["learning_rate"].items()


@pytest.mark.parametrize("name", DEEPMD)
def test_the_run_is_what_deepmd_makes_of_it(name):
    settings, wanted = settings_of(INPUTS[name]), DEEPMD[name]["input"]
    run, training = settings.run, wanted["training"]
    assert settings.multi_task == ("model_dict" in wanted["model"])
    assert run.length == Length(steps=training["numb_steps"])
    assert (run.seed, run.curve_file) == (training.get("seed"), training["disp_file"])
    assert (run.curve_steps, run.save_steps) == (training["disp_freq"], training["save_freq"])
    assert (run.save_prefix, run.save_dir) == (training["save_ckpt"], training["save_dir"])
    assert run.max_checkpoints == training["max_ckpt_keep"]
    assert run.max_gradient == training.get("gradient_max_norm", 0)
    assert run.change_bias == training["change_bias_after_training"]
    adam = wanted["optimizer"]
    assert settings.optimizer == Optimizer(
        adam["type"], adam["adam_beta1"], adam["adam_beta2"], adam["weight_decay"]
    )
    for task in settings.tasks:
        data = training["data_dict"][task.name] if settings.multi_task else training
        loss = wanted["loss_dict"][task.name] if settings.multi_task else wanted.get("loss", {})
        assert task.loss == read_loss(loss, "loss")
        assert list(task.training.systems) == data["training_data"]["systems"]
        assert task.training.patterns == data["training_data"]["rglob_patterns"]
        assert (task.validation is None) == (data["validation_data"] is None)
        if task.validation:
            assert task.validation.batches == data["validation_data"]["numb_btch"]


def test_shared_parts_are_linked_as_in_deepmd():
    """The task that shares most comes first: the others get its parameters."""
    settings = settings_of(INPUTS["two_tasks"])
    for name, links in DEEPMD["two_tasks"]["links"].items():
        found = [(s.task, s.part, s.level) for s in settings.shares if s.name == name]
        assert found == [(k["model_key"], k["shared_type"], k["shared_level"]) for k in links]
    assert len(settings.shares) == sum(
        map(len, (li for li in DEEPMD["two_tasks"]["links"].values()))
    )
    assert settings.run.task_weights == {"wet": 1.0, "dry": 3.0}


def test_a_key_beside_the_tasks_holds_for_those_without_it():
    wet, dry = settings_of(INPUTS["two_tasks"]).tasks
    assert (wet.model["pair_exclude_types"], dry.model["pair_exclude_types"]) == ([[0, 1]], [])


def test_what_is_done_differently_is_told():
    assert settings_of(INPUTS["water"]).notes == ()
    assert len(settings_of(INPUTS["two_tasks"]).notes) == 1
    assert "training.data_dict.wet.stat_file" in settings_of(INPUTS["two_tasks"]).notes[0]
    old = " ".join(settings_of(INPUTS["old_keys"]).notes)
    for words in ("numb_test", "learning_rate.warmup_steps", "optimizer.type"):
        assert words in old


def test_the_input_is_left_as_it_was():
    data = deepcopy(INPUTS["two_tasks"])
    settings_of(data)
    assert data == INPUTS["two_tasks"]


# ---- rules


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (3, BatchRule("frames", (3,))),
        ([1, 2, 4], BatchRule("frames", (1, 2, 4))),
        ("auto", BatchRule("auto", atoms=32)),
        ("auto:100", BatchRule("auto", atoms=100)),
        ("max:100", BatchRule("max", atoms=100)),
        ("filter:100", BatchRule("filter", atoms=100)),
        ("mixed:4", BatchRule("mixed", (4,))),
    ],
)
def test_batch_rules(given, wanted):
    data = changed(INPUTS["water"], "training.training_data.batch_size", given)
    assert settings_of(data).tasks[0].training.batch == wanted


def test_probability_rules():
    def weights(key: str, value: Any) -> Weights:
        data = changed(INPUTS["water"], f"training.training_data.{key}", value)
        return settings_of(data).tasks[0].training.weights

    assert weights("auto_prob", "prob_uniform") == Weights(uniform=True)
    assert weights("auto_prob", "prob_sys_size") == Weights()
    blocks = (Block(0, 2, 0.5), Block(2, 3, 0.25))
    assert weights("auto_prob", "prob_sys_size;0:2:0.5;2:3:0.25") == Weights(blocks=blocks)
    assert weights("sys_weights", [0.5, -1, 0.25]) == Weights(given=(0.5, -1.0, 0.25))


def test_lengths():
    water = changed(INPUTS["water"], "training.numb_steps", None)
    epochs = settings_of(changed(water, "training.num_epochs", 2.5))
    assert epochs.run.length == Length(epochs=2.5)
    tasks = changed(INPUTS["two_tasks"], "training.numb_steps", None)
    del tasks["training"]["model_prob"]
    tasks["training"]["num_epoch_dict"] = {"dry": 1, "wet": 2}
    assert settings_of(tasks).run.length == Length(epochs_of={"wet": 2.0, "dry": 1.0})


def test_checkpoints_that_stay():
    """DeePMD-kit keeps the last ceil(ratio * ceil(steps / save_freq))."""
    run = settings_of(INPUTS["water"]).run
    assert run.checkpoints_kept(4600) == 5
    ratio = settings_of(changed(INPUTS["water"], "training.ckpt_keep_ratio", 0.3)).run
    assert ratio.checkpoints_kept(4601) == 8  # of 24


def test_counted_sels():
    """DeePMD-kit: the most neighbours times 1.1 or the number given, rounded up to fours."""
    model = settings_of(INPUTS["short_dpa2"]).tasks[0].model
    assert [(slot.path[-1], slot.rcut) for slot in auto_sels(model)] == [("nsel", 6), ("nsel", 4)]
    counted = with_counted_sels(model, {6.0: 100, 4.0: 29}.__getitem__)["descriptor"]
    assert (counted["repinit"]["nsel"], counted["repformer"]["nsel"]) == (112, 44)  # 110, 43.5
    assert counted["repinit"]["three_body_sel"] == 40
    assert model["descriptor"]["repinit"]["nsel"] == "auto"
    same = settings_of(INPUTS["water"]).tasks[0].model
    assert with_counted_sels(same, {}.__getitem__) is same
    # three-body's 40 is then more than repinit's 16
    with pytest.raises(InputError, match="numbers of neighbours"):
        with_counted_sels(changed({"m": model}, "m.descriptor.repinit.use_three_body", True)["m"],
                          {6.0: 12, 4.0: 8}.__getitem__)  # fmt: skip


# ---- files


def test_yaml_and_json(tmp_path):
    yaml = pytest.importorskip("yaml")
    (tmp_path / "input.json").write_text(json.dumps(INPUTS["water"]))
    (tmp_path / "input.yaml").write_text(yaml.safe_dump(INPUTS["water"]))
    one, other = (read_settings(tmp_path / f"input.{end}") for end in ("json", "yaml"))
    assert (one.tasks[0].model, one.run) == (other.tasks[0].model, other.run)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.json", None, "can't be read"),
        ("a.json", b"{", "no JSON"),
        ("a.json", b"\xff\xfe\x00", "no text"),
        ("a.json", b"[1]", "should be a table"),
        ("a.yaml", b"a: [", "no YAML"),
        ("a.json", b"[" * 100000, "no JSON"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    refused(lambda: read_settings(path), str(path), words)


# ---- refusals


def refused(read: Any, *words: str) -> None:
    with pytest.raises(InputError) as error:
        read()
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text and text[-1] in ".?"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.tensorboard", True),
        ("training.profiling", True),
        ("training.enable_profiler", True),
        ("training.zero_stage", 1),
        ("training.enable_ema", True),
        ("training.mixed_precision", {"compute_prec": "float16"}),
        ("training.acc_freq", 2),
        ("training.stat_file_mode", "read"),
        ("training.training_data.min_pair_dist", 0.5),
        ("training.training_data.set_prefix", "part"),
        ("validating.full_validation", True),
        ("optimizer.type", "LKF"),
        ("optimizer.type", "HybridMuon"),
        ("optimizer.type", ["Adam"]),
        ("loss.type", "tensor"),
        ("loss.type", "ener_spin"),
        ("loss.type", "ener_hess"),
        ("model.spin", {"use_spin": [True, False]}),
        ("model.use_srtab", "zbl.tab"),
        ("model.bridging_method", "ZBL"),
        ("model.type", "pairtab"),
        ("model.type", "linear_ener"),
        ("model.modifier", {"type": "dipole_charge"}),
        ("model.type_embedding", {"neuron": [8]}),
        ("model.compress", {}),
        ("model.lora", {"rank": 8}),
        ("model.descriptor.type", "hybrid"),
        ("model.descriptor.type", "dpa3"),
        ("model.descriptor.trainable", False),
        ("model.descriptor.repformer.trainable_ln", False),
        ("model.fitting_net.type", "dipole"),
        ("model.fitting_net.trainable", [True, True, True, False]),
    ],
)
def test_what_is_not_supported_is_refused_by_name(key, value):
    data = changed(INPUTS["water"], key, value)
    remedies = (";", ": set", " as ", "leave", "with ")
    refused(lambda: settings_of(data), key, "not supported")
    with pytest.raises(InputError) as error:
        settings_of(data)
    assert any(words in str(error.value) for words in remedies)


def test_attention_is_refused_where_it_is_the_default_too():
    for value in (2, None):
        data = changed(INPUTS["short_dpa1"], "model.descriptor.attn_layer", value)
        refused(lambda data=data: settings_of(data), "descriptor.attn_layer = 2", "attn_layer to 0")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.numb_stepps", 3, "did you mean numb_steps?"),
        ("trainin", {}, "did you mean training?"),
        ("model.descriptor.repinit.axis_neurons", 3, "did you mean axis_neuron?"),
        ("model.descriptor.repformer.update_g1_has_att", True, "did you mean update_g1_has_attn?"),
        ("model.fitting_net.zzz", 3, "leave it out"),
        ("training.training_data.batchsize", 3, "did you mean batch_size?"),
        ("training.validation_data.min_pair_dist", 0.0, "no key that is known"),
        ("optimizer.beta1", 0.9, "did you mean adam_beta1?"),
        ("validating.validation_frq", 10, "did you mean validation_freq?"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(key, value, words):
    refused(lambda: settings_of(changed(INPUTS["water"], key, value)), key, words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model", None, "section model is missing"),
        ("model.type_map", None, "lacks type_map"),
        ("model.type_map", ["O", "O"], "type_map"),
        ("model.descriptor", [], "model.descriptor"),
        ("model.descriptor.type", None, "descriptor.type"),
        ("model.descriptor.repinit.rcut", None, "lacks rcut"),
        ("model.descriptor.repinit.rcut", "6", "should be number"),
        ("model.descriptor.repinit.rcut", float("nan"), "should be number"),
        ("model.descriptor.repinit.nsel", "automatic", '"auto"'),
        ("model.descriptor.repinit.nsel", "auto:0.5", '"auto:1.2"'),
        ("model.descriptor.repinit.nsel", 0, "at least 1"),
        ("model.descriptor.repinit.nsel", 30, "numbers of neighbours"),
        ("model.descriptor.repinit.neuron", [0], "neuron"),
        ("model.descriptor.precision", "float16", "float64 and float32"),
        ("model.fitting_net.activation_function", "swish", "activation_function"),
        ("training", None, "section training is missing"),
        ("training.training_data", None, "lacks training_data"),
        ("training.training_data.systems", [], "at least"),
        ("training.training_data.batch_size", "auto:x", "filter:N"),
        ("training.training_data.batch_size", "auto:0", "filter:N"),
        ("training.training_data.batch_size", "mix:100", "filter:N"),
        ("training.training_data.batch_size", [1, 0], "at least 1"),
        ("training.training_data.batch_size", True, "should be integer or list or text"),
        ("training.training_data.auto_prob", "prob_sys_size;0:4", "from, to, weight"),
        ("training.training_data.auto_prob", "prob_sys_size;4:4:1", "from, to, weight"),
        ("training.training_data.auto_prob", "prob_sizes", "prob_uniform"),
        ("training.training_data.sys_probs", [0.7, 0.7], "more than 1"),
        ("training.training_data.sys_probs", ["a"], "should list numbers"),
        ("training.training_data.sys_probs", [], "should list numbers"),
        ("training.numb_steps", None, "numb_steps or numb_epoch"),
        ("training.numb_steps", 1e6, "should be integer"),
        ("training.numb_steps", 0, "at least 1"),
        ("training.stop_batch", 5, "numb_steps twice"),
        ("training.num_epoch", 5, "either numb_steps or numb_epoch"),
        ("training.seed", -1, "at least 0"),
        ("training.disp_freq", 0, "at least 1"),
        ("training.ckpt_keep_ratio", 1.5, "between 0 and 1"),
        ("training.systems", ["a"], "training.training_data"),
        ("training.warmup_steps", 5, ""),
        ("learning_rate", None, "section learning_rate is missing"),
        ("loss_dict", {}, "write loss"),
        ("nvnmd", {"enable": True}, "nvnmd"),
        ("optimizer.adam_beta2", 1.0, "less than 1"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(key, value, words):
    data = changed(INPUTS["water"], key, value)
    if key == "training.warmup_steps":
        data["learning_rate"]["warmup_steps"], words = 3, "warmup_steps"
    refused(lambda: settings_of(data, "my.json"), "my.json", words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.model_dict", {}, "one entry for each task"),
        ("model.model_dict.RANDOM", {}, "RANDOM"),
        ("model.model_dict.wet.descriptor", "dpa3", "no entry 'dpa3'"),
        ("model.model_dict.wet.descriptor", "dpa2:2", "level 0 or 1"),
        ("model.model_dict.wet.fitting_net", "fit:1", "level 0"),
        ("model.model_dict.wet.type_map", ["O", "H", "C"], "different type_maps"),
        ("loss", {}, "write loss_dict"),
        ("loss_dict.wet", None, "lacks the task wet"),
        ("loss_dict.moist", {}, "known are wet, dry"),
        ("training.data_dict.dry", None, "lacks the task dry"),
        ("training.data_dict.dry.system", [], "no key that is known"),
        ("training.model_prob.wet", None, "model_prob.wet"),
        ("training.model_prob.dri", 1, "did you mean dry?"),
        ("training.model_prob", {"wet": 0, "dry": 0}, "no task above 0"),
        ("training.numb_steps", None, "numb_steps or num_epoch_dict"),
        ("training.num_epoch", 3, "no key that is known"),
        ("training.num_epoch_dict", {"wet": 1, "dry": 1}, "either numb_steps or num_epoch_dict"),
    ],
)
def test_wrong_tasks_are_refused(key, value, words):
    refused(lambda: settings_of(changed(INPUTS["two_tasks"], key, value)), words)
