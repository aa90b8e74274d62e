"""Statistics of data and energy biases against DeePMD-kit's (statistics.npz)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dpa2md._core import neighbor_list
from dpa2md.engine import Engine
from dpa2md.errors import InputError
from dpa2md.model_file import write_model
from dpa2md.train.energy_bias import change_energy_bias, set_energy_bias
from dpa2md.train.initial import initial_tensors
from dpa2md.train.multi_task import MultiTaskModel
from dpa2md.train.parameters import TrainableModel
from dpa2md.train.statistics import (
    set_parameter_statistics,
    set_shared_statistics,
    set_statistics,
)

from tests.golden.suite import MODELS as GOLDEN
from tests.train.statistics_frames import MODELS, Frame, systems, with_atomic

EXPECTED = np.load(Path(__file__).parent / "statistics.npz")
ALL = [frame for frames in systems() for frame in frames]


def new_model(name: str) -> TrainableModel:
    return TrainableModel(MODELS[name], initial_tensors(MODELS[name], 1))


def check(model: TrainableModel, label: str) -> int:
    """Every statistic in the file; returns how many there are."""
    keys = [key for key in EXPECTED if key.startswith(f"{label}/")]
    for key in keys:
        ours = model.tensors[key.removeprefix(f"{label}/")]
        # sums of a thousand terms of about 1 in another order; energies are of the size of 100
        assert np.allclose(ours, EXPECTED[key], rtol=1e-11, atol=1e-11), key
    return len(keys)


@pytest.mark.parametrize("name", MODELS)
def test_statistics_of_new_models(name):
    model = new_model(name)
    set_statistics(model, ALL)
    set_energy_bias(model, ALL)
    blocks = 1 if name in ("se_atten_v2", "preset") else 3
    assert check(model, name) == 2 * blocks + 2 + (4 if name == "se_atten_v2" else 0)


def test_the_cases_are_what_they_are_for():
    """Averages are there or not, lists overflow, one element is unseen, one deviation protected."""
    start = "atomic_model.descriptor."
    assert EXPECTED[f"dpa2/{start}repinit.mean"][:3, 0, 0].all()
    assert not EXPECTED[f"zero_averages/{start}repinit.mean"].any()
    assert (EXPECTED[f"dpa2/{start}repformers.stddev"][3] == 0.1).all()
    assert EXPECTED["se_atten_v2/atomic_model.fitting_net.fparam_inv_std"][1] == 200.0
    assert EXPECTED["preset/atomic_model.out_bias"].ravel()[1:3].tolist() == [-3.25, 2.0]
    assert EXPECTED["se_atten_v2/atomic_model.out_bias"].ravel()[2] == 0.0
    descriptor = new_model("dpa2").model.descriptor
    for block in (descriptor.repinit, descriptor.three_body, descriptor.repformer):
        first, _, _ = neighbor_list(
            ALL[0].positions, ALL[0].cell, ALL[0].pbc.astype(np.intc), block.rcut
        )
        assert np.diff(first).max() > block.nsel


def test_atomic_energies_count_first():
    *first, last = systems()
    frames = [frame for frames in (*first, with_atomic(last)) for frame in frames]
    model = new_model("zero_averages")
    set_statistics(model, frames)
    set_energy_bias(model, frames)
    assert check(model, "atomic") == 8


def test_heads_that_share():
    configs = dict.fromkeys(("one", "two"), MODELS["se_atten_v2"])
    shares = [
        SimpleNamespace(task=task, part=part, name=part, level=0)
        for part in ("descriptor", "fitting_net")
        for task in configs
    ]
    model = MultiTaskModel.initial(configs, shares, 1)
    frames = dict(zip(("one", "two"), systems(), strict=False))
    set_shared_statistics(model, frames, {"one": 0.75, "two": 0.25})
    for name, one in model.heads.items():
        set_energy_bias(one, frames[name])
        assert check(one, f"heads/{name}") == 8


def test_change_of_bias(tmp_path):
    """A trained net on other energies: only what it misses is fitted, and added."""
    model = TrainableModel.read(GOLDEN["se_atten_v2"].write(tmp_path))
    write_model(tmp_path / "model.dpa2", model.records())
    engine = Engine(tmp_path / "model.dpa2", threads=1)
    frames = [*systems()[0], *systems()[2]]
    predicted = [
        engine.compute(f.positions, f.types, cell=f.cell, pbc=f.pbc).energies for f in frames
    ]
    before = model.tensors["atomic_model.out_bias"].copy()
    found = change_energy_bias(model, frames, predicted)
    after = model.tensors["atomic_model.out_bias"]
    assert np.allclose((after - before).ravel(), found.bias, rtol=0, atol=1e-12)
    assert check(model, "change") == 4


def test_change_keeps_preset_energies():
    """Where DeePMD-kit would add them once more."""
    model = new_model("preset")
    set_energy_bias(model, ALL)
    bias = model.tensors["atomic_model.out_bias"].copy()
    zeros = [bias.ravel()[frame.types] for frame in ALL]
    found = change_energy_bias(model, ALL, zeros)
    assert np.allclose(model.tensors["atomic_model.out_bias"], bias, rtol=0, atol=1e-9)
    assert np.abs(found.bias).max() < 1e-9


def test_rmse_and_ambiguity():
    model = new_model("zero_averages")
    found = set_energy_bias(model, ALL)
    bias = model.tensors["atomic_model.out_bias"].ravel()
    errors = [(f.energy - bias[f.types].sum()) / len(f.types) for f in ALL]
    assert found.rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-9)
    # 5 O 10 H and 1 O 2 H are one composition, so that two are left for three elements
    assert found.ambiguous == ["O", "H", "Na"]
    other = replace(ALL[0], types=np.array([0] * 14 + [1]))
    assert set_energy_bias(model, [*ALL, other]).ambiguous == []
    water = systems()[0]
    assert set_energy_bias(model, water).ambiguous == ["O", "H"]
    # a given energy takes the ambiguity away
    preset = new_model("preset")
    assert set_energy_bias(preset, water).ambiguous == []
    # an element that is told apart stays out of the list
    mixed = [*water, replace(water[0], types=np.append(water[0].types, 2), energy=-99.0)]
    assert set_energy_bias(model, mixed).ambiguous == ["O", "H"]


def test_default_frame_parameters_fill_gaps():
    config = MODELS["se_atten_v2"]
    fitting = config["fitting_net"] | {"default_fparam": [0.25, -1.0], "numb_aparam": 0}
    config = config | {"fitting_net": fitting}
    model = TrainableModel(config, initial_tensors(config, 1))
    set_parameter_statistics(model, [replace(ALL[0], fparam=None)] * 3)
    start = "atomic_model.fitting_net.fparam_"
    assert model.tensors[start + "avg"].tolist() == [0.25, -1.0]
    assert model.tensors[start + "inv_std"].tolist() == [200.0, 200.0]  # data_stat_protect 0.005


def test_what_is_missing_is_named():
    model = new_model("se_atten_v2")
    with pytest.raises(InputError, match="takes fparam, and frame 1 .*fparam.npy"):
        set_statistics(model, [ALL[0], replace(ALL[1], fparam=None)])
    with pytest.raises(InputError, match="takes aparam, and frame 0"):
        set_statistics(model, [replace(ALL[0], aparam=None)])
    with pytest.raises(InputError, match="no frames"):
        set_statistics(model, [])
    bare = Frame(*(getattr(ALL[0], name) for name in ("positions", "types", "cell", "pbc")))
    with pytest.raises(InputError, match="No frame has an energy"):
        set_energy_bias(model, [bare])
    config = MODELS["preset"] | {"preset_out_bias": {"energy": [1.0]}}
    model = TrainableModel(config, initial_tensors(config, 1))
    with pytest.raises(InputError, match=r"preset_out_bias\.energy .*O, H, Na, Cl"):
        set_energy_bias(model, ALL)
