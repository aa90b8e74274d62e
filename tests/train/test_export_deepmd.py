"""Exported files in DeePMD-kit itself: the same energies, and trainings that go on from them.

Needs DPA2MD_DEEPMD, a Python interpreter that has DeePMD-kit 3.2 (and h5py and PyYAML).
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from dpa2md.engine import Engine
from dpa2md.importer.torch_zip import TorchZip
from dpa2md.importer.unpickle import read_pickle
from dpa2md.model_file import write_model
from dpa2md.train.energy_bias import set_energy_bias
from dpa2md.train.export import AdamState, export_model, write_checkpoint
from dpa2md.train.initial import initial_tensors
from dpa2md.train.multi_task import MultiTaskModel
from dpa2md.train.parameters import TrainableModel
from dpa2md.train.statistics import set_statistics

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.deepmd_kit import run_deepmd
from tests.train.statistics_frames import Frame

NAMES = [
    "full", "strip_one_side", "se_atten_v2", "dpa1_one_side", "electron_configuration_4",
    "random_06", "fparam_aparam_case", "all_exclusions",
]  # fmt: skip
EVALUATE = str(Path(__file__).with_name("evaluate_with_deepmd.py"))


def test_deepmd_evaluates_exported_models(tmp_path):
    """Weights that no file of DeePMD-kit's has, as .dp, .yaml and .pt, of one and of two heads."""
    models, index = {}, {}
    for name in NAMES:
        golden = MODELS[name]
        model = TrainableModel.read(golden.write(tmp_path))
        model.set_flat(model.flat() * 1.01)
        for suffix in (".dp", ".pt", *([".yaml"] if name == "full" else [])):
            file = f"exported_{name}{suffix}"
            export_model(model, tmp_path / file)
            models[file] = (golden, model)
            index[file] = {"used": golden.types_used, "head": None}
    golden = MODELS["two_heads.Water_B"]
    both = MultiTaskModel.read(golden.write(tmp_path))
    both.set_flat(both.flat() * 1.01)
    write_checkpoint(both, tmp_path / "both.pt")
    models["both.pt"] = (golden, both.heads["Water_B"])
    index["both.pt"] = {"used": golden.types_used, "head": "Water_B"}

    (tmp_path / "index.json").write_text(json.dumps(index))
    run_deepmd(EVALUATE, "index.json", "results.npz", folder=tmp_path)
    theirs = np.load(tmp_path / "results.npz")
    structure = STRUCTURES["five_elements"]
    for file, (golden, model) in models.items():
        write_model(tmp_path / "ours.dpa2", model.records())
        ours = Engine(tmp_path / "ours.dpa2", threads=1).compute(
            structure.positions,
            golden.types(structure),
            cell=structure.cell,
            pbc=structure.pbc,
            fparam=golden.fparam(),
            aparam=golden.aparam(structure),
        )
        # float64 on both sides: rounding of sums of some thousand terms
        assert float(theirs[f"{file}/energy"]) == pytest.approx(ours.energy, rel=1e-10), file
        if not file.endswith(".pt"):  # DeePMD-kit's numpy backend, which has no forces
            continue
        scale = np.abs(ours.forces).max()
        assert np.abs(theirs[f"{file}/forces"] - ours.forces).max() < 1e-10 * scale, file
        scale = np.abs(ours.virial).max()
        assert np.abs(theirs[f"{file}/virial"] - ours.virial).max() < 1e-10 * scale, file


# ---- trainings

INPUT = {
    "model": {
        "type_map": ["O", "H", "Na"],
        "descriptor": {"type": "se_atten_v2", "rcut": 5.0, "rcut_smth": 0.5, "sel": 60,
                       "neuron": [3, 6], "axis_neuron": 2, "tebd_dim": 4, "attn_layer": 0,
                       "precision": "float64"},
        "fitting_net": {"neuron": [6, 6], "precision": "float64"},
    },
    "learning_rate": {"type": "exp", "decay_steps": 60, "start_lr": 1e-3, "stop_lr": 1e-5},
    "loss": {"type": "ener", "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000,
             "limit_pref_f": 10, "start_pref_v": 0, "limit_pref_v": 0},
    "training": {"training_data": {"systems": ["system"], "batch_size": 2}, "numb_steps": 4,
                 "seed": 10, "disp_freq": 1, "save_freq": 2},
}  # fmt: skip


def write_system(folder: Path) -> list[Frame]:
    """Six frames of 15 atoms with energies and forces of no meaning."""
    rng = np.random.default_rng(1)
    (folder / "set.000").mkdir(parents=True)
    types = np.array([0, 1, 2] * 5)
    (folder / "type.raw").write_text("\n".join(map(str, types)))
    (folder / "type_map.raw").write_text("O\nH\nNa\n")
    sites = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(2)])[:15] * 2.7
    coord = sites + rng.normal(scale=0.2, size=(6, 15, 3))
    for name, array in {
        "coord": coord.reshape(6, 45),
        "box": np.tile(8.1 * np.eye(3).ravel(), (6, 1)),
        "energy": rng.normal(size=6) - 90.0,
        "force": rng.normal(size=(6, 45)),
    }.items():
        np.save(folder / "set.000" / f"{name}.npy", array)
    cell, energies = 8.1 * np.eye(3), np.load(folder / "set.000" / "energy.npy")
    return [
        Frame(x, types, cell, np.ones(3), energy=float(energy))
        for x, energy in zip(coord, energies, strict=True)
    ]


def check_statistics(model: TrainableModel, frames: list[Frame]) -> None:
    """What `dp train` computed before its first step is what we compute."""
    new = TrainableModel(model.config, initial_tensors(model.config, 1))
    set_statistics(new, frames)
    set_energy_bias(new, frames)
    for name, array in model.tensors.items():
        if name.endswith(("mean", "stddev", "out_bias", "out_std")):
            # sums of some hundred terms in another order
            assert np.allclose(array, new.tensors[name], rtol=1e-11, atol=1e-12), name


def train(folder: Path, name: str, *options: str) -> str:
    training = INPUT["training"] | {"save_ckpt": name}
    (folder / "input.json").write_text(json.dumps(INPUT | {"training": training}))
    return run_deepmd("-m", "deepmd", "--pt", "train", "input.json", "--skip-neighbor-stat",
                      *options, folder=folder)  # fmt: skip


def test_deepmd_goes_on_from_a_checkpoint(tmp_path):
    """A restart from our copy of a checkpoint takes the same steps, bit for bit, as one from the
    original; and what was not trained yet can be initialised and fine-tuned from it."""
    frames = write_system(tmp_path / "system")
    train(tmp_path, "first")
    original = tmp_path / "first-2.pt"
    model = TrainableModel.read(original)
    check_statistics(model, frames)
    with closing(TorchZip(original)) as archive:
        found = read_pickle(archive)
        names = [
            n for n in model.tensors if "compress" in n or n.endswith((".matrix", ".bias", ".idt"))
        ]
        moments = np.zeros((2, model.size))
        for p in model.parameters:
            entry = found["optimizer"]["state"][names.index(p.name)]
            for row, key in enumerate(("exp_avg", "exp_avg_sq")):
                moments[row, p.offset : p.end] = entry[key].numpy().ravel()
        step = found["model"]["_extra_state"]["train_infos"]["step"]
        (group,) = found["optimizer"]["param_groups"]
    adam = AdamState(2, *moments, lr=group["lr"], first_lr=group["initial_lr"])
    write_checkpoint(model, tmp_path / "ours.pt", step=step, adam=adam)
    train(tmp_path, "theirs", "--restart", "first-2.pt")
    train(tmp_path, "again", "--restart", "ours.pt")
    theirs, again = (
        TrainableModel.read(tmp_path / f"{n}-4.pt").flat() for n in ("theirs", "again")
    )
    assert np.array_equal(theirs, again) and not np.array_equal(theirs, model.flat())

    export_model(model, tmp_path / "plain.pt")
    assert "Change output bias" in train(tmp_path, "tuned", "--finetune", "plain.pt")
    assert "Saved model to" in train(tmp_path, "initialised", "--init-model", "ours.pt")
