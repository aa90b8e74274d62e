"""`dpa2md eval`: results of many structures, errors against labels, the files that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.stress import voigt_6_to_full_3x3_stress
from dpa2md import evaluate
from dpa2md.cli import main
from dpa2md.comparison import pair_up

from tests.support.small_models import crystal


@pytest.fixture
def frames(model, tmp_path, monkeypatch):
    """Four structures whose labels are the model's values, but for known errors; in frames.xyz."""
    monkeypatch.chdir(tmp_path)
    structures = [crystal(seed=k) for k in range(3)] + [crystal((1, 1, 1))]
    for atoms, result in zip(structures, evaluate(model, structures, threads=1), strict=True):
        forces = result["forces"].copy()
        forces[atoms.symbols == "H"] += [0.3, 0.0, 0.0]
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=result["energy"] - 0.01 * len(atoms),
            forces=forces,
            stress=result["stress"] + 2.0,
        )
    write("frames.xyz", structures)
    return structures


def errors(capsys) -> dict[str, dict]:
    return {row["quantity"]: row for row in json.loads(capsys.readouterr().out)["errors"]}


def test_error_table(model, frames, capsys):
    """Known errors come out as their MAE, RMSE and mean."""
    assert main(["eval", str(model), "frames.xyz", "--threads", "1", "--json"]) == 0
    table = errors(capsys)
    # extended XYZ holds positions and forces to 1e-8, multiplied by the forces' stiffness
    near = {"abs": 1e-5}
    energy, hydrogen, oxygen = table["energy"], table["force H"], table["force O"]
    assert energy["values"] == 4
    for name in ("MAE", "RMSE", "largest", "mean"):
        assert energy[name] == pytest.approx(0.01, **near)
    assert hydrogen["MAE"] == pytest.approx(0.1, **near)
    assert hydrogen["RMSE"] == pytest.approx(0.3 / np.sqrt(3), **near)
    assert hydrogen["mean"] == pytest.approx(-0.1, **near)
    assert oxygen["largest"] == pytest.approx(0, **near)
    assert table["force"]["MAE"] == pytest.approx(0.1 / 3, **near)
    # of all six of Voigt's numbers, which are nine components
    assert table["stress"]["values"] == 9 * 4
    assert table["stress"]["mean"] == pytest.approx(-2, **near)
    volume = [a.get_volume() / len(a) for a in frames]
    assert table["virial"]["mean"] == pytest.approx(2 * np.mean(volume), rel=1e-5)


def test_output_holds_the_models_values(model, frames, capsys):
    command = ["eval", str(model), "frames.xyz", "-o", "out.extxyz", "--threads", "1"]
    assert main(command) == 0
    assert "wrote out.extxyz" in capsys.readouterr().out
    for atoms, result in zip(read("out.extxyz", ":"), evaluate(model, frames), strict=True):
        assert atoms.get_potential_energy() == pytest.approx(result["energy"], abs=1e-5)
        np.testing.assert_allclose(atoms.get_forces(), result["forces"], atol=1e-4)
        np.testing.assert_allclose(atoms.get_stress(), result["stress"], atol=1e-4)
    assert main(command) == 2
    assert "out.extxyz exists; add --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_without_labels(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("bare.xyz", [crystal((1, 1, 1), seed=k) for k in range(12)])
    assert main(["eval", str(model), "bare.xyz"]) == 0
    out = capsys.readouterr().out
    assert "12 structures" in out and "and 2 more" in out
    assert main(["eval", str(model), "bare.xyz@2:4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["structures"] == 2
    assert main(["eval", str(model), "bare.xyz", "--plot", "p.png", "-o", "out.extxyz"]) == 2
    assert "no labels to compare with; leave out --plot" in capsys.readouterr().err
    assert not (tmp_path / "out.extxyz").exists()  # said before any work is done


def test_plot(model, frames, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["eval", str(model), "frames.xyz", "--plot", "parity.png"]) == 0
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")


def test_some_labels_are_missing(model):
    """Structures count for the labels that they have; a molecule has no stress."""
    molecule = Atoms("OH2", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]])
    whole = crystal((1, 1, 1))
    results = evaluate(model, [molecule, whole, whole])
    molecule.calc = SinglePointCalculator(molecule, energy=1.0)
    full = voigt_6_to_full_3x3_stress(results[1]["stress"])
    whole.calc = SinglePointCalculator(whole, stress=np.zeros(6))
    whole.calc.results["stress"] = full  # as some readers leave it
    pairs = {p.name: p for p in pair_up([molecule, whole, crystal((1, 1, 1))], results)}
    assert set(pairs) == {"energy", "total energy", "stress", "virial", "total virial"}
    assert len(pairs["energy"].label) == 1 and len(pairs["stress"].label) == 9
    # the model's virial is symmetric but for rounding
    np.testing.assert_allclose(pairs["stress"].label, pairs["stress"].model, rtol=1e-9, atol=1e-12)


def test_nan_is_no_label(model, frames, capsys):
    """What is nan doesn't count, and JSON has none."""
    for atoms in frames[:2]:
        atoms.calc.results["forces"][0, 0] = np.nan  # of Si
    frames[2].calc.results["energy"] = np.nan
    write("nan.extxyz", frames)
    assert main(["eval", str(model), "nan.extxyz", "-o", "out.extxyz", "--json"]) == 0
    table = {r["quantity"]: r for r in strict_json(capsys)["errors"]}
    count = sum(map(len, frames))
    assert table["energy"]["values"] == 3 and table["force"]["values"] == 3 * count - 2
    assert table["force Si"]["values"] == count - 2 and table["force H"]["values"] == count
    assert table["energy"]["MAE"] == pytest.approx(0.01, abs=1e-5)
    assert table["force H"]["RMSE"] == pytest.approx(0.3 / np.sqrt(3), abs=1e-5)


def strict_json(capsys) -> dict:
    """What was printed, without the words that Python's JSON allows and JSON does not."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in JSON")

    return json.loads(capsys.readouterr().out, parse_constant=refuse)


@pytest.mark.parametrize(
    "command",
    [
        ("relax", "--steps", "1", "--threads", "1"),  # a volume, which a molecule has not
        ("check", "--nve-steps", "0"),  # tests that are skipped
    ],
)
def test_json_without_nan(model, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("molecule.xyz", Atoms("OH2", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]]))
    main([command[0], str(model), "molecule.xyz", *command[1:], "--json"])
    found = strict_json(capsys)
    assert None in (
        found.values() if command[0] == "relax" else [c["measured"] for c in found["checks"]]
    )


def test_stress_and_virial_count_nine_components(model):
    """As dp test counts them: an error in xy is one in yx, too."""
    atoms = crystal((1, 1, 1))
    (result,) = evaluate(model, [atoms])
    error = np.array([[0.3, 0.0, 0.5], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    label = -(result["virial"] + error) / atoms.get_volume()
    atoms.calc = SinglePointCalculator(atoms, stress=label)
    rows = {p.name: p.errors() for p in pair_up([atoms], [result])}
    near = {"rel": 1e-9}
    for name, unit in (
        ("total virial", 1.0),
        ("virial", len(atoms)),
        ("stress", atoms.get_volume()),
    ):
        assert rows[name]["values"] == 9
        assert rows[name]["MAE"] == pytest.approx(1.3 / 9 / unit, **near)
        assert rows[name]["RMSE"] == pytest.approx(np.sqrt(0.59 / 9) / unit, **near)


def test_energies_in_total(model, frames, capsys):
    assert main(["eval", str(model), "frames.xyz", "--threads", "1", "--json"]) == 0
    total = errors(capsys)["total energy"]
    assert total["unit"] == "eV" and total["values"] == 4
    assert total["largest"] == pytest.approx(0.01 * max(map(len, frames)), abs=1e-5)


def test_shift(model, frames, capsys):
    """Constants of the elements by which the labels are off are found, and only the rest is an error."""
    constants, rest = {"H": 3.0, "O": -20.0, "Si": 0.5}, [0.02, -0.02, 0.02, -0.02, 0.0]
    structures = [crystal(seed=k) for k in range(5)]
    del structures[1][[0, 1]], structures[2][[1, 4, 7]], structures[3][[2, 5]], structures[4][[0]]
    for atoms, result in zip(structures, evaluate(model, structures), strict=True):
        off = sum(constants[s] for s in atoms.symbols)
        atoms.calc = SinglePointCalculator(atoms, energy=result["energy"] - off)
    write("shifted.extxyz", structures)
    command = ["eval", str(model), "shifted.extxyz", "--shift", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shift"] == pytest.approx(constants, abs=1e-5)  # positions are rounded to 1e-8
    assert {r["quantity"]: r["largest"] < 1e-5 for r in found["errors"]} == {
        "energy": True,
        "total energy": True,
    }
    # what no constants can explain stays: the residual of a least-squares fit, made here by projection
    counts = np.array([[list(a.symbols).count(e) for e in constants] for a in structures], float)
    for atoms, more in zip(structures, rest, strict=True):
        atoms.calc.results["energy"] -= more
    write("shifted.extxyz", structures)
    assert main(command) == 0
    left = np.array(rest) - counts @ np.linalg.pinv(counts) @ rest
    row = errors(capsys)["total energy"]
    assert row["RMSE"] == pytest.approx(np.sqrt(np.mean(left**2)), abs=1e-5)
    # two energies, three elements in two compositions: nothing would be left to compare
    assert main(["eval", str(model), "shifted.extxyz@:2", "--shift"]) == 0
    assert "the energies are not shifted" in capsys.readouterr().err


def test_labels_stay_beside_the_results(model, frames, capsys):
    """The output has the model's values under plain names only; the labels are what is compared again."""
    for atoms in frames:
        virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
        atoms.info.update(virial=virial, my_note="kept")
        del atoms.calc.results["stress"]
    write("virial.extxyz", frames)
    for k, name in enumerate(("one.extxyz", "two.xyz", "three.traj")):
        source = ("virial.extxyz", "one.extxyz", "two.xyz")[k]
        assert main(["eval", str(model), source, "-o", name, "--json"]) == 0
        table = errors(capsys)
        assert table["energy"]["MAE"] == pytest.approx(0.01, abs=1e-5)
        assert table["force H"]["MAE"] == pytest.approx(0.1, abs=1e-5)
        assert table["force H"]["values"] == sum(map(len, frames))
        assert table["stress"]["mean"] == pytest.approx(-2, abs=1e-5)
        for atoms, result in zip(read(name, ":"), evaluate(model, frames), strict=True):
            assert atoms.get_potential_energy() == pytest.approx(result["energy"], abs=1e-5)
            assert "virial" not in atoms.info and atoms.info["my_note"] == "kept"
            assert atoms.info["label_energy"] == pytest.approx(
                result["energy"] - 0.01 * len(atoms), abs=1e-5
            )
            assert np.shape(atoms.info["label_stress"]) == (9,)


@pytest.mark.parametrize(
    "name", ["out.cif", "out.vasp", "CONTCAR", "out", "out.xyz.gz", "out.json", "out.lmp"]
)
def test_formats_that_hold_no_results(name, model, frames, capsys):
    """Nothing is written under a name that stands for something else."""
    assert main(["eval", str(model), "frames.xyz", "-o", name]) == 2
    error = capsys.readouterr().err
    assert f"{name}: a file of this name can't hold energies and forces" in error
    assert not list(frames[0].info) and sorted(p.name for p in Path.cwd().iterdir()) == [
        "frames.xyz"
    ]


def test_detail_files(model, frames):
    """The files of dp test -d of DeePMD-kit 3.2: names, headers, and the order of the columns."""
    bare = Atoms("OH2", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]])
    write("frames.xyz", [*frames, bare])
    assert main(["eval", str(model), "frames.xyz", "-d", "det", "--precision", "float64"]) == 0
    read_back = read("frames.xyz", ":")
    results = evaluate(model, read_back, precision="float64")
    found = {p.name: np.loadtxt(p) for p in Path.cwd().glob("det.*")}
    nine = [a + b for a in "xyz" for b in "xyz"]
    columns = {
        "e": ["e"],
        "e_peratom": ["e"],
        "f": ["fx", "fy", "fz"],
        "v": [f"v{ab}" for ab in nine],
        "v_peratom": [f"v{ab}" for ab in nine],
        "s": [f"s{ab}" for ab in nine],
    }
    assert set(found) == {f"det.{name}.out" for name in columns}
    for name, wanted in columns.items():
        head = Path(f"det.{name}.out").read_text().splitlines()[0]
        unit = " (eV/Å³)" if name == "s" else ""
        both = " ".join(f"{who}_{column}" for who in ("data", "pred") for column in wanted)
        assert head == f"# frames.xyz{unit}: {both}"
    n = np.array([[len(a)] for a in read_back])
    energies = np.array([[np.nan, r["energy"]] for r in results])
    energies[:4, 0] = [a.get_potential_energy() for a in read_back[:4]]
    np.testing.assert_allclose(found["det.e.out"], energies, rtol=1e-14)
    np.testing.assert_allclose(found["det.e_peratom.out"], energies / n, rtol=1e-14)
    forces = np.concatenate([r["forces"] for r in results])
    np.testing.assert_allclose(found["det.f.out"][:, 3:], forces, rtol=1e-14)
    labels = np.concatenate([a.get_forces() for a in read_back[:4]])
    np.testing.assert_array_equal(found["det.f.out"][: len(labels), :3], labels)
    assert np.isnan(found["det.f.out"][len(labels) :, :3]).all()  # the molecule has no labels
    virial = np.array([r["virial"].ravel() for r in results])
    np.testing.assert_allclose(found["det.v.out"][:, 9:], virial, rtol=1e-14)
    np.testing.assert_allclose(found["det.v_peratom.out"][:, 9:], virial / n, rtol=1e-14)
    for k, atoms in enumerate(read_back[:4]):
        stress = atoms.get_stress(voigt=False).ravel()
        np.testing.assert_allclose(found["det.s.out"][k, :9], stress, rtol=1e-12)
        np.testing.assert_allclose(
            found["det.v.out"][k, :9], -atoms.get_volume() * stress, rtol=1e-12
        )
    assert main(["eval", str(model), "frames.xyz", "-d", "det"]) == 2  # nothing is replaced
    write("bare.xyz", bare)
    assert main(["eval", str(model), "bare.xyz", "-d", "other"]) == 2
    assert not list(Path.cwd().glob("other*"))


def test_a_single_structure_is_a_list_of_one(model):
    """Iterating over it would give its atoms."""
    atoms = crystal((1, 1, 1))
    (result,) = evaluate(model, atoms)
    assert result["energy"] == evaluate(model, [atoms])[0]["energy"]
    for wrong in ("frames.xyz", Path("frames.xyz"), [atoms, "frames.xyz"], [atoms[0]]):
        with pytest.raises(TypeError, match=r"read it first|structure \d is a (str|Atom); give"):
            evaluate(model, wrong)
