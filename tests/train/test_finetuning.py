"""Fine-tunings of seconds: the bias, frozen parameters, the report, and refusals."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from dpa2md.cli import main
from dpa2md.cli.finetune import _request
from dpa2md.engine import Engine
from dpa2md.errors import InputError
from dpa2md.importer.config import read_config
from dpa2md.train import finetuning, train
from dpa2md.train.data import open_systems
from dpa2md.train.data_settings import BatchRule, DataSettings, Part, Weights
from dpa2md.train.export import export_model
from dpa2md.train.finetuning import Report, finetune
from dpa2md.train.freezing import Frozen
from dpa2md.train.model_settings import read_model
from dpa2md.train.parameters import TrainableModel
from dpa2md.train.preparation import Start
from dpa2md.train.settings import settings_of
from dpa2md.train.systems import Needs
from dpa2md.train.trainer import Trainer
from dpa2md.train.type_maps import is_statistic, with_elements

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.paths import ROOT
from tests.support.tiny_training import DPA1, double, repelling, single, write_anew
from tests.support.training_data import Example, write_extxyz

SHIFT = 1200.0  # eV a frame: another zero of energy
STRONGER = 1.5  # the new data's repulsion in that of the old ones
FEW: dict[str, Any] = {"start_lr": 0.005, "threads": 1}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A model that knows the weaker repulsion well."""
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder / train(single(folder, DPA1, numb_steps=300, disp_freq=300), threads=1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_anew(tmp_path / "new", labelled(10, seed=20))
    write_anew(tmp_path / "kept", labelled(6, seed=30))
    return tmp_path


def labelled(frames: int, seed: int) -> Example:
    data = repelling(frames, seed, STRONGER)
    return data.having(energy=data.arrays["energy"] + SHIFT)


def errors_by_engine(path: str | Path, frames: Example) -> tuple[float, float]:
    """Energy, meV/atom, and force, eV/angstrom, frame by frame."""
    engine = Engine(path, threads=1)
    types = engine.types(frames.elements)
    energies, forces = [], []
    arrays = [frames.arrays[k] for k in ("coord", "box", "energy", "force")]
    for x, box, energy, force in zip(*arrays, strict=True):
        found = engine.compute(x, types, cell=box, pbc=[1, 1, 1])
        energies.append(1000 * (found.energy - energy) / len(types))
        forces.append(found.forces - force)
    return float(np.sqrt(np.mean(np.square(energies)))), float(np.sqrt(np.mean(np.square(forces))))


@pytest.mark.quick
def test_errors_fall(pretrained):
    """The bias alone repairs the energy; the steps repair the forces."""
    kept = labelled(6, seed=30)
    zero_shot, old_forces = errors_by_engine(pretrained, kept)
    report = finetune(pretrained, ["new"], "tuned.dpa2", validation=["kept"], steps=150, **FEW)
    before, after = report.before, report.after
    assert zero_shot > 0.9e3 * SHIFT / 12  # 100 eV an atom
    assert before.energy_rmse_mev_per_atom < 1e-3 * zero_shot
    # the bias changes no force, but the pretrained checkpoint is in float32 all the same
    assert before.force_rmse_ev_per_angstrom == pytest.approx(old_forces, rel=1e-4)
    assert after.force_rmse_ev_per_angstrom < 0.5 * old_forces
    assert after.energy_rmse_mev_per_atom < before.energy_rmse_mev_per_atom
    # float32 energies of 1164 eV are rounded by 6e-5 eV, 5e-3 meV an atom
    energy, force = errors_by_engine("tuned.dpa2", kept)
    assert after.energy_rmse_mev_per_atom == pytest.approx(energy, abs=0.01)
    assert after.force_rmse_ev_per_angstrom == pytest.approx(force, rel=1e-4)
    assert (report.training_frames, report.held_out_frames, report.steps) == (10, 6, 150)


def test_files(folder, pretrained):
    report = finetune(pretrained, ["new"], "tuned.dpa2", steps=3, **FEW)
    assert (report.training_frames, report.held_out_frames) == (9, 1)
    assert {p.name for p in folder.iterdir()} == {
        "new", "kept", "tuned.dpa2", "tuned.json", "tuned.lcurve.out", "tuned-3.pt", "tuned.pt",
    }  # fmt: skip
    written = json.loads(Path("tuned.json").read_text())
    assert "after the energy bias was changed" in written["before"].pop("note")
    assert written["after"] == vars(report.after) and written["before"] == vars(report.before)
    assert written["checkpoint"] == "tuned-3.pt"
    # the checkpoint is the tuned model
    kept = labelled(6, seed=30)
    assert errors_by_engine("tuned.pt", kept) == errors_by_engine("tuned.dpa2", kept)


def test_all_neighbors_stay_all(tmp_path):
    """A model of DeePMD-kit's graph route keeps what it takes where atoms have more neighbours than sel."""
    golden, crowded = MODELS["graph"], STRUCTURES["overfull"]
    old = golden.write(tmp_path)
    expected = golden.expected("overfull")
    atoms = Atoms(golden.symbols(crowded), crowded.positions, cell=crowded.cell, pbc=crowded.pbc)
    atoms.calc = SinglePointCalculator(
        atoms, energy=float(expected["energy"]), forces=expected["forces"]
    )
    write("frames.extxyz", [atoms, atoms])
    finetune(old, ["frames.extxyz"], "tuned.dpa2", steps=1, start_lr=1e-12, threads=1)
    for path in ("tuned.dpa2", "tuned.pt"):
        engine = Engine(path, threads=1, precision="float64")
        assert engine.all_neighbors
        (found,) = engine.compute_atoms([atoms])
        # float32 forces of a model in float64; a step of 1e-13 of each parameter
        np.testing.assert_allclose(found.forces, expected["forces"], rtol=0, atol=1e-6)
    assert TrainableModel.read("tuned.pt").all_neighbors  # and that of a restart


def test_frozen_parameters_keep_their_bits(pretrained):
    old = TrainableModel.read(pretrained)
    report = finetune(
        pretrained, ["new"], "tuned.dpa2", steps=3, freeze=["*"], free=["*fitting_net*"], **FEW
    )
    new = TrainableModel.read("tuned.pt")
    frozen = 0
    for p in old.parameters:
        same = old.tensors[p.name].tobytes() == new.tensors[p.name].tobytes()
        assert same == (".descriptor." in p.name), p.name
        frozen += same * (p.end - p.offset)
    assert report.frozen_parameters == frozen > 0
    assert report.parameters == old.size - frozen


def test_a_chosen_head_and_a_new_one(folder):
    data = double(folder, numb_steps=4)
    Path("old").mkdir()
    data["training"]["save_ckpt"] = "old/model"
    old = train(data, threads=1)
    strong = TrainableModel.read(old, "strong")
    for name, options in (("same", {"head": "Strong"}), ("new", {"new_head": True})):
        finetune(old, ["kept"], f"{name}.dpa2", steps=1, start_lr=1e-9, threads=1, **options)
        tuned = TrainableModel.read(f"{name}.pt")
        for p in tuned.parameters:
            # a step of 1e-10 is less than a float32's last digit of most numbers
            near = np.abs(tuned.tensors[p.name] - strong.tensors[p.name]).max() < 1e-6
            assert near == (name == "same" or ".descriptor." in p.name), p.name
        assert tuned.head is None
        assert tuned.config["info"]["observed_type"] == ["H", "C", "O"]


@pytest.mark.parametrize("suffix", [".dp", ".yaml"])
def test_other_formats(pretrained, suffix):
    pytest.importorskip("h5py" if suffix == ".dp" else "yaml")
    export_model(TrainableModel.read(pretrained), f"old{suffix}")
    reports = [
        finetune(file, ["new"], "tuned.dpa2", steps=2, **FEW)
        for file in (pretrained, f"old{suffix}")
    ]
    assert reports[0].after == reports[1].after


def test_a_model_whose_layers_were_frozen(folder):
    """All of the parameters of a golden checkpoint with trainable_ln = false are trained."""
    with zipfile.ZipFile(ROOT / "tests" / "golden" / "models.zip") as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("layer_norm_fixed.pt"))
        Path("old.pt").write_bytes(archive.read(name))
    model = TrainableModel.read("old.pt")
    elements = [model.model.elements[k % len(model.model.elements)] for k in range(12)]
    data = repelling(3)
    data.elements[:] = elements
    write_anew(folder / "new", data)
    report = finetune("old.pt", ["new"], "tuned.dpa2", steps=1, threads=1)
    assert report.frozen_parameters == 0 and report.parameters == model.size


def test_files_of_structures(pretrained):
    """Held-out frames are the same whatever the format of the data."""
    write_extxyz(Path("new.extxyz"), labelled(10, seed=20))
    both = [
        finetune(pretrained, [data], "tuned.dpa2", steps=1, held_out=0.3, **FEW)
        for data in ("new", "new.extxyz")
    ]
    assert both[0].held_out_frames == 3
    # text has fewer digits
    for name in vars(both[0].before):
        one, other = (getattr(report.before, name) for report in both)
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("some", [True, False])
def test_virials_that_a_few_frames_have(pretrained, some):
    """They are trained on, though the first frame has none."""
    write_extxyz(Path("new.extxyz"), labelled(4, seed=20).without("virial"))
    with open("new.extxyz", "a") as file:
        others = labelled(2, seed=21)
        file.write(
            write_extxyz(Path("o.extxyz"), others if some else others.without("virial")).read_text()
        )
    finetune(pretrained, ["new.extxyz"], "tuned.dpa2", steps=1, held_out=0.3, **FEW)
    assert ("rmse_v_val" in Path("tuned.lcurve.out").read_text()) == some


def test_parts_of_frames():
    """Every frame is in one part; the seed decides in which."""
    write_anew(Path("other"), repelling(5))
    needs = Needs(("H", "C", "O"))

    def part(seed: int, held_out: bool) -> list[str]:
        data = DataSettings(
            "data", ("new", "other"), None, BatchRule("auto", atoms=32), Weights(),
            part=Part(0.4, seed, held_out),
        )  # fmt: skip
        return [s.place(k) for s in open_systems(data, needs) for k in range(len(s))]

    assert len(part(1, True)) == 6
    assert len({*part(1, True), *part(1, False)}) == 15
    assert part(1, True) == part(1, True) != part(2, True)


def test_elements_that_the_pretrained_data_never_saw(folder):
    data = single(folder, numb_steps=1)
    data["model"]["type_map"] = ["H", "C", "O", "Na"]
    data["training"]["save_ckpt"] = "old"
    old = train(data, threads=1)
    new = labelled(4, seed=1)
    new.elements[3] = "Na"
    write_anew(folder / "new", new)
    request = finetuning.Request(str(old), ("new",), Path("tuned.dpa2"), steps=1)
    notes = finetuning.Finetuning(request, 1).trainer.notes
    assert f"{old} was not trained on Na." in notes


def test_another_type_map(folder, pretrained):
    """A new element, and known ones in another order: only what is new is drawn anew."""
    old = TrainableModel.read(pretrained)
    new = labelled(4, seed=1)
    new.elements[3] = "Na"
    write_anew(folder / "new", new)
    elements = ["O", "Na", "H", "C"]
    request = finetuning.Request(
        str(pretrained), ("new",), Path("tuned.dpa2"), type_map=tuple(elements), steps=1
    )
    trainer = finetuning.Finetuning(request, 1).trainer
    assert any("lacks Na: the type embedding" in note for note in trainer.notes)
    assert not any("was not trained on" in note for note in trainer.notes)
    model = trainer.state.model
    moved = with_elements(old, elements, request.seed, "Default")
    fresh = single(folder)
    fresh["model"]["type_map"] = elements
    fresh["training"]["training_data"] = {"systems": ["new"], "batch_size": 4}
    fresh["training"]["validation_data"] = None
    statistics = Trainer(settings_of(fresh), threads=1).state.model.tensors
    for name, tensor in model.tensors.items():
        expected = moved[name]
        if is_statistic(name):
            assert np.array_equal(tensor[[0, 2, 3]], expected[[0, 2, 3]])
            # a tenth of 4 frames is held out
            assert tensor[1] == pytest.approx(statistics[name][1], rel=0.1)
            assert not np.isclose(tensor[1, :, 0], 1.0).any() or name.endswith("mean")
        elif "out_bias" not in name and "out_std" not in name:
            assert np.array_equal(tensor, expected.astype(np.float32)), name
    assert tune(str(pretrained), "new", "--type-map", "O,H,C", "-o", "tuned.dpa2") == 2


def test_a_cut_type_map(folder, pretrained):
    """The tuned model has what the data have; its forces before the first step stay."""
    reports = [
        finetune(pretrained, ["new"], f"{name}.dpa2", type_map=elements, steps=1, **FEW)
        for name, elements in (("same", ()), ("turned", ("O", "C", "H")))
    ]
    # float32, sums of elements in another order
    for name in vars(reports[0].before):
        one, other = (getattr(report.before, name) for report in reports)
        assert one == pytest.approx(other, rel=1e-4)
    assert TrainableModel.read("turned.pt").model.elements == ["O", "C", "H"]


# ---- the command


def tune(*arguments: str) -> int:
    return main(["finetune", *arguments, "--threads", "1"])


def test_the_command(pretrained, capsys):
    assert tune(str(pretrained), "new", "--steps", "4", "--lr", "1e-4", "-o", "tuned.dpa2") == 0
    out = capsys.readouterr().out
    assert "data: 1 systems, 9 frames of 12 atoms" in out
    assert "learning rate 1.0e-05 to" not in out  # 4 steps have no warmup
    assert "errors of a held-out frame:" in out
    assert "before, with the energy bias changed" in out
    assert "wrote tuned.dpa2, tuned.json, tuned-4.pt" in out


def test_defaults_are_those_of_python():
    from dpa2md.cli import build_parser

    args = build_parser().parse_args(["finetune", "a.pt", "new", "-o", "b.dpa2"])
    assert _request(args) == finetuning.Request("a.pt", ("new",), Path("b.dpa2"))


def test_stopped(pretrained, monkeypatch, capsys):
    """All files and the report are of the steps that were made."""
    run = finetuning.Finetuning.run

    def stop(self: finetuning.Finetuning, callback: Any) -> Report:
        return run(self, lambda step: self.trainer.stop() if step.step == 2 else None)

    monkeypatch.setattr(finetuning.Finetuning, "run", stop)
    assert tune(str(pretrained), "new", "--steps", "9", "-o", "tuned.dpa2") == 130
    assert "stopped after 2 steps" in capsys.readouterr().out
    assert json.loads(Path("tuned.json").read_text())["steps"] == 2
    assert Path("tuned-2.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--freeze", "descriptor"], "descriptor matches no parameter; the nearest are atomic_model.d"),
        (["--freeze", "*fitting*", "--free", "nothing*"], "--free nothing* matches no parameter"),
        (["--freeze", "*"], "--freeze leaves no parameter to train"),
        (["--free", "*"], "add --freeze"),
        (["--head", "Water"], "single head"),
        (["--steps", "0"], "--steps is 0"),
        (["--lr", "0"], "--lr is 0"),
        (["--lr", "1e-4", "--stop-lr", "1e-3"], "--stop-lr is 0.001"),
        (["--held-out", "1"], "--held-out is 1.0"),
        (["--held-out", "0.99"], "new: 10 of 10 frames would be held out, and none left"),
        (["--held-out", "0.2", "--validation", "kept"], "exclude each other"),
        (["--validation", "gone"], "gone: there is no such"),
        (["--batch", "many"], "batch_size = 'many' should be"),
        (["-o", "tuned.pt"], "tuned.pt: the tuned model's name ends in .dpa2"),
        (["-o", "gone/tuned.dpa2"], "gone: there is no such folder"),
        (["-o", "taken.dpa2"], "taken.json exists; add --overwrite"),
    ],
)  # fmt: skip
def test_refused_before_anything_starts(folder, pretrained, capsys, arguments, message):
    Path("taken.json").touch()
    before = sorted(folder.iterdir())
    assert tune(str(pretrained), "new", "-o", "tuned.dpa2", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dpa2md finetune: ") and message in line
    assert sorted(folder.iterdir()) == before


def test_models_and_data_that_are_refused(folder, pretrained, capsys):
    def refused(*arguments: str) -> str:
        assert tune(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    Path("tuned-7.pt").write_bytes(pretrained.read_bytes())
    assert "would replace the pretrained model" in refused("tuned-7.pt", "new", "-o", "tuned.dpa2")
    assert tune("tuned-7.pt", "new", "-o", "one.dpa2", "--steps", "1", "--quiet") == 0
    capsys.readouterr()
    assert "can't be trained" in refused("one.dpa2", "new", "-o", "two.dpa2")
    assert "gone.pt" in refused("gone.pt", "new", "-o", "two.dpa2")
    new = labelled(4, seed=1)
    new.elements[3] = "Na"
    write_anew(folder / "new", new)
    assert "Na is no element of the model's type_map" in refused(
        str(pretrained), "new", "-o", "two.dpa2"
    )
    write_anew(folder / "new", labelled(1, seed=1))
    assert "1 of 1 frame would be held out" in refused(str(pretrained), "new", "-o", "two.dpa2")


def test_patterns():
    names = ["atomic_model.descriptor.a", "atomic_model.fitting_net.b"]
    assert Frozen(("model.Default.*.a",)).choose(names) == {names[0]}
    with pytest.raises(InputError, match=r"nearest are atomic_model.fitting_net.b; \*"):
        Frozen(("*FITTING_NET",)).choose(names)


@pytest.mark.parametrize("name", ["dpa1_davg", "dpa1_strip", "dpa1_one_side"])
def test_a_section_that_leaves_settings_out(name, tmp_path):
    """DeePMD-kit's class was called without its input's defaults; tuning keeps what the class takes."""
    with zipfile.ZipFile(ROOT / "tests" / "golden" / "models.zip") as models:
        models.extract(f"{name}.pt", tmp_path)
    section = finetuning.pretrained_section(Start(finetune=str(tmp_path / f"{name}.pt")))
    assert section["descriptor"]["smooth_type_embedding"] is True
    (complete,) = read_model(section, "section").tasks.values()
    assert read_config(complete).descriptor.smooth
