"""Which frames a step has: as often as DeePMD-kit draws them, and the same after a restart."""

from __future__ import annotations

import json
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpa2md.errors import InputError
from dpa2md.train.data import (
    Batch,
    Needs,
    Source,
    TrainingData,
    batch_sizes,
    open_systems,
    probabilities,
    run_length,
)
from dpa2md.train.data_settings import read_data
from dpa2md.train.draws import Draws
from dpa2md.train.settings import settings_of

from tests.golden import training_inputs
from tests.support.paths import ROOT
from tests.support.training_data import example, write_npy

DEEPMD = json.loads((ROOT / "tests" / "golden" / "training_inputs.json").read_text())
FRAMES = {"OHH": 7, "OHHOHH": 3, "CHHHH": 12}


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    return [
        write_npy(tmp_path / f"{k}-{elements}", example(elements, frames, seed=k), sets=2)
        for k, (elements, frames) in enumerate(FRAMES.items())
    ]


def source(folders: list[Path], seed: int = 1, stream: int = 1, **section: Any) -> Source:
    settings = read_data({"systems": list(map(str, folders))} | section, "training_data")
    systems = open_systems(settings, Needs(("H", "C", "O")))
    return Source(systems, settings, seed, stream)


# ---- what DeePMD-kit makes of the rules


@pytest.mark.parametrize("case", DEEPMD["draws"], ids=lambda case: str(case["rule"]))
def test_systems_are_drawn_as_often_as_in_deepmd(case):
    """Its own probabilities; 1e-14 is some rounding errors."""
    weights = read_data({"systems": "x"} | case["rule"], "training_data").weights
    found = probabilities(weights, training_inputs.BATCHES, "training_data")
    np.testing.assert_allclose(found, case["probabilities"], rtol=1e-14, atol=0)


@pytest.mark.parametrize("case", DEEPMD["draws"], ids=lambda case: str(case["rule"]))
def test_an_epoch_is_as_long_as_in_deepmd(case, tmp_path):
    folders = [
        write_npy(tmp_path / str(k), example("O", count))
        for k, count in enumerate(training_inputs.BATCHES)
    ]
    assert source(folders, batch_size=1, **case["rule"]).epoch == case["epoch"]


@pytest.mark.parametrize("case", DEEPMD["runs"], ids=lambda case: str(case["training"]))
def test_runs_are_as_long_as_in_deepmd(case):
    data = deepcopy(training_inputs.inputs()["two_tasks" if len(case["epochs"]) > 1 else "water"])
    for key in ("numb_steps", "model_prob"):
        data["training"].pop(key, None)
    data["training"] |= case["training"]
    epochs, systems = list(case["epochs"].values()), list(case["systems"].values())
    steps, found = run_length(settings_of(data), epochs, systems)
    assert steps == case["steps"]
    wanted = [1.0] if case["probabilities"] is None else case["probabilities"]
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


@pytest.mark.parametrize(
    ("rule", "sizes"),
    [
        (4, [4, 4, 4]),
        ([1, 2, 3], [1, 2, 3]),
        ("auto", [11, 6, 7]),  # 33 atoms of 3, 36 of 6, 35 of 5: at least 32
        ("auto:30", [10, 5, 6]),
        ("max:14", [4, 2, 2]),
        ("max:4", [1, 1, 1]),
        ("filter:14", [4, 2, 2]),
    ],
)
def test_frames_of_a_batch(rule, sizes, folders):
    found = source(folders, batch_size=rule)
    assert found.sizes == sizes
    assert found.batches == [-(-n // size) for n, size in zip(FRAMES.values(), sizes, strict=True)]


# ---- what is drawn


@pytest.mark.parametrize("rule", [1, 2, [3, 2, 5], "auto:12"])
def test_every_epoch_of_a_system_has_each_frame_once(rule, folders):
    """In batches of the size of the rule, but the last; in another order each time."""
    found = source(folders, batch_size=rule, auto_prob="prob_uniform")
    seen: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}
    for index in range(200):
        chosen = found.chosen(index)
        (system,) = {system for system, _ in chosen}
        seen[system].append([frame for _, frame in chosen])
    for system, frames in enumerate(FRAMES.values()):
        each, size = found.batches[system], found.sizes[system]
        epochs = [seen[system][k : k + each] for k in range(0, len(seen[system]) - each + 1, each)]
        assert len(epochs) > 3
        orders = set()
        for epoch in epochs:
            assert [len(batch) for batch in epoch[:-1]] == [size] * (each - 1)
            order = [frame for batch in epoch for frame in batch]
            assert sorted(order) == list(range(frames))
            orders.add(tuple(order))
        assert len(orders) > 1


def test_draws_are_as_often_as_their_probabilities():
    """Of n draws those with the probability p scatter by sqrt(n p (1 - p)); five of these."""
    p = np.array([0.1, 0.0, 0.6, 0.3])
    draws = Draws(p, seed=3, stream=0)
    counts = np.bincount([draws.at(k)[0] for k in range(20_000)], minlength=4)
    assert (np.abs(counts - 20_000 * p) <= 5 * np.sqrt(20_000 * p * (1 - p))).all()


def test_draws_count_what_came_before():
    """By a count of our own, also across the chunks of draws, forward and backward."""
    draws = Draws([1, 2], seed=5, stream=0)
    before = Counter()
    found = []
    for k in range(3000):
        choice, count = draws.at(k)
        assert count == before[choice]
        before[choice] += 1
        found.append((choice, count))
    for k in (2999, 1024, 1023, 0, 2500):
        assert draws.at(k) == found[k]
        assert Draws([1, 2], seed=5, stream=0).at(k) == found[k]


def test_seeds_and_streams_draw_differently():
    def first(seed: int, stream: int) -> tuple[int, ...]:
        draws = Draws([1, 1], seed, stream)
        return tuple(draws.at(k)[0] for k in range(64))

    assert len({first(seed, stream) for seed in (0, 1, 2**64 - 1) for stream in range(3)}) == 9


def test_numbers_are_the_same_with_every_numpy():
    """Computed here from Philox's raw words: a double is a word's upper 53 bits."""
    bits = np.random.Philox(
        key=np.array([7, 2], np.uint64), counter=np.array([0, 0, 1, 0], np.uint64)
    )
    words = bits.random_raw(1024)
    halves = (words >> np.uint64(11)) * 2.0**-53 >= 0.5
    draws = Draws([1, 1], seed=7, stream=2)
    assert [draws.at(1024 + k)[0] for k in range(1024)] == halves.astype(int).tolist()


def test_mixed_batches_have_frames_of_any_system(folders):
    found = source(folders, batch_size="mixed:4")
    chosen = [found.chosen(k) for k in range(110)]
    assert all(len(pairs) == 4 for pairs in chosen)
    assert any(len({system for system, _ in pairs}) == 3 for pairs in chosen)
    # each system: all its frames, before any comes again
    frames = [k for pairs in chosen for system, k in pairs if system == 2]
    assert sorted(frames[:12]) == sorted(frames[12:24]) == list(range(12))
    batch = found.batch(0)
    assert batch.natoms.tolist() == [[3, 6, 5][system] for system, _ in chosen[0]]
    assert found.epoch == 6  # 22 frames


def test_a_batch_is_made_of_the_chosen_frames(folders):
    found = source(folders, batch_size=2)
    for index in range(10):
        batch = found.batch(index)
        energies = [found.systems[s].frame(k).energy for s, k in found.chosen(index)]
        np.testing.assert_array_equal(batch.energy.values, energies)


# ---- whole inputs


def inputs(folders: list[Path], name: str) -> dict[str, Any]:
    text = json.dumps(training_inputs.inputs()[name]).replace('"O", "H"', '"O", "H", "C"')
    for k, folder in enumerate((*folders, folders[0])):
        text = text.replace(f"data_{k}", str(folder))
    return json.loads(text)


def drawn_batch(data: TrainingData, step: int) -> tuple[int, Batch]:
    task, number = data.draw(step)
    return task, data.tasks[task].training.batch(number)


@pytest.mark.parametrize("name", ["water", "two_tasks"])
def test_a_restart_draws_what_would_have_come(name, folders):
    settings = settings_of(inputs(folders, name))
    whole = TrainingData(settings, seed=11)
    steps = [drawn_batch(whole, step) for step in range(40)]
    again = TrainingData(settings, seed=11)
    for step in (25, 26, 39, 3):
        task, batch = drawn_batch(again, step)
        assert task == steps[step][0]
        np.testing.assert_array_equal(batch.positions, steps[step][1].positions)
        np.testing.assert_array_equal(batch.forces.values, steps[step][1].forces.values)
    other = TrainingData(settings, seed=12)
    assert any(
        not np.array_equal(drawn_batch(other, k)[1].energy.values, steps[k][1].energy.values)
        for k in range(5)
    )


def test_tasks_are_drawn_by_their_weights(folders):
    """wet 1, dry 3: each of them goes through its own frames."""
    settings = settings_of(inputs(folders, "two_tasks"))
    data = TrainingData(settings, seed=2)
    np.testing.assert_allclose(data.task_probabilities, [0.25, 0.75], rtol=1e-15)
    drawn = [drawn_batch(data, step) for step in range(400)]
    counts = np.bincount([task for task, _ in drawn])
    assert abs(counts[0] - 100) < 5 * np.sqrt(400 * 0.25 * 0.75)
    for task, source in enumerate(t.training for t in data.tasks):
        own = [batch for t, batch in drawn if t == task]
        for k, batch in enumerate(own[:10]):
            np.testing.assert_array_equal(batch.positions, source.batch(k).positions)


def test_validation_has_its_own_batches(folders):
    """numb_btch of them for each validation, going on where the last one stopped."""
    data = TrainingData(settings_of(inputs(folders, "water")), seed=4)
    (task,) = data.tasks
    assert task.validation is not None and task.validation_batches == 4
    seen = [task.validation.batch(4 * number + k) for number in range(2) for k in range(4)]
    energies = np.concatenate([batch.energy.values for batch in seen])
    # seven frames, one a batch: each comes once before the eighth batch
    assert len(set(energies[:7])) == 7
    assert not np.array_equal(
        energies[:7], [task.training.batch(k).energy.values[0] for k in range(7)]
    )


def test_the_sections_of_the_input_are_named_where_they_do_not_fit(folders):
    def refused(words: str, **section: Any) -> None:
        with pytest.raises(InputError) as error:
            source(folders, **section)
        text = str(error.value)
        assert text.startswith("training_data.") and words in text and text.endswith("."), text

    refused("batch_size lists 2 numbers, and there are 3 systems", batch_size=[1, 2])
    refused("sys_probs lists 2 numbers, and there are 3 systems", sys_probs=[0.5, 0.5])
    refused("sys_probs: 0.5 is left over", sys_probs=[0.25, 0.25, 0])
    refused("nothing is left for the negative ones", sys_probs=[0.5, 0.5, -1])
    refused("the block 2:4", auto_prob="prob_sys_size;0:2:1;2:4:1")
    refused("the block 1:3", auto_prob="prob_sys_size;0:2:1;1:3:1")
    refused("gives no system a weight", auto_prob="prob_sys_size;0:3:0")


def test_bad_data_end_before_the_first_step(folders):
    """In the validation data, too."""
    path = folders[2] / "set.001" / "force.npy"
    forces = np.load(path)
    forces[1, 4] = np.nan
    np.save(path, forces)
    data = inputs(folders, "water")
    for section in ("training_data", "validation_data"):
        single = deepcopy(data)
        single["training"]["training_data"]["systems"] = [str(folders[0])]
        single["training"][section]["systems"] = [str(folders[2])]
        with pytest.raises(InputError, match=r"set.001/force.npy, frame 1: .* not finite"):
            TrainingData(settings_of(single), seed=0)


def test_sizes_are_counted_in_atoms_of_the_largest_frame():
    class System:
        natoms = 40

    rule = read_data({"systems": "x", "batch_size": "auto:100"}, "training_data").batch
    assert batch_sizes([System()], rule, "") == [3]  # type: ignore[list-item]
