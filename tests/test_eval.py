"""`dpa2md eval`: results of many structures, errors against labels, DeePMD-kit's npy systems."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.stress import voigt_6_to_full_3x3_stress
from dpa2md import evaluate
from dpa2md.cli import main
from dpa2md.comparison import pair_up
from dpa2md.deepmd_data import read_folder
from dpa2md.errors import RunError
from dpa2md.reading import read_structures
from small_models import crystal


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


# ---- DeePMD-kit's npy systems


def npy_system(folder, frames: list[Atoms], sets: int = 2) -> None:
    """What DeePMD-kit would have on disk for structures of the same atoms."""
    elements = list(dict.fromkeys(frames[0].get_chemical_symbols()))
    folder.mkdir()
    (folder / "type_map.raw").write_text("\n".join(elements))
    types = [elements.index(s) for s in frames[0].get_chemical_symbols()]
    np.savetxt(folder / "type.raw", types, fmt="%d")
    for k, part in enumerate(np.array_split(np.arange(len(frames)), sets)):
        where = folder / f"set.{k:03d}"
        where.mkdir()
        chosen = [frames[i] for i in part]
        np.save(where / "coord.npy", [a.positions.ravel() for a in chosen])
        np.save(where / "box.npy", [a.cell.array.ravel() for a in chosen])
        np.save(where / "energy.npy", [a.get_potential_energy() for a in chosen])
        np.save(where / "force.npy", [a.get_forces().ravel() for a in chosen])
        virial = [-a.get_volume() * a.get_stress(voigt=False).ravel() for a in chosen]
        np.save(where / "virial.npy", virial)


def test_npy_system(frames, model, tmp_path, capsys):
    npy_system(tmp_path / "system", frames[:3])
    found = read_structures("system")
    assert len(found) == 3
    for atoms, wanted in zip(found, frames, strict=False):
        assert atoms.get_chemical_symbols() == wanted.get_chemical_symbols()
        np.testing.assert_array_equal(atoms.positions, wanted.positions)
        np.testing.assert_array_equal(atoms.cell.array, wanted.cell.array)
        assert atoms.get_potential_energy() == wanted.get_potential_energy()
        np.testing.assert_array_equal(atoms.get_forces(), wanted.get_forces())
        np.testing.assert_allclose(atoms.get_stress(), wanted.get_stress(), rtol=1e-12)
    assert main(["eval", str(model), "system", "--json"]) == 0
    table = errors(capsys)
    assert table["energy"]["MAE"] == pytest.approx(0.01, abs=1e-9)
    assert table["force O"]["largest"] < 1e-9


def test_npy_without_a_cell_and_with_parameters(tmp_path):
    folder = tmp_path / "system"
    (folder / "set.000").mkdir(parents=True)
    (folder / "type_map.raw").write_text("O H")
    (folder / "type.raw").write_text("0\n1\n")
    (folder / "nopbc").touch()
    for name, values in (("coord", [[0, 0, 0, 0, 0, 1.0]]), ("fparam", [[7.0]]),
                         ("aparam", [[1.0, 2.0]]), ("energy", [[-3.0]])):  # fmt: skip
        np.save(folder / "set.000" / f"{name}.npy", values)
    (atoms,) = read_folder(folder)
    assert not atoms.pbc.any() and atoms.cell.rank == 0
    assert atoms.info["fparam"] == [7.0] and atoms.arrays["aparam"].tolist() == [[1.0], [2.0]]
    assert atoms.get_potential_energy() == -3.0
    # mixed types: each frame has its own, and -1 fills up
    np.save(folder / "set.000" / "real_atom_types.npy", [[1, -1]])
    (atoms,) = read_folder(folder)
    assert atoms.get_chemical_symbols() == ["H"] and atoms.arrays["aparam"].tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "type.raw").unlink(), "type.raw"),
        (lambda f: (f / "type_map.raw").unlink(), "type_map.raw is missing"),
        (lambda f: (f / "type_map.raw").write_text("O"), "no element in type_map.raw"),
        (lambda f: (f / "type_map.raw").write_text("Xy O H"), "damaged"),
        (lambda f: (f / "type.raw").write_text("0 1"), "damaged"),
        (lambda f: (f / "type.raw").write_text("zero"), "damaged"),
        (lambda f: (f / "set.000" / "coord.npy").unlink(), "damaged"),
        (lambda f: (f / "set.000" / "coord.npy").write_bytes(b"\x93NUMPY"), "damaged"),
        (lambda f: np.save(f / "set.000" / "box.npy", np.eye(3)), "damaged"),
        (lambda f: np.save(f / "set.000" / "energy.npy", np.zeros(9)), "9 frames"),
        (lambda f: np.save(f / "set.000" / "box.npy", [print, print], allow_pickle=True),
         "damaged"),
    ],
)  # fmt: skip
def test_damaged_npy_systems_are_refused(frames, tmp_path, damage, words):
    npy_system(tmp_path / "system", frames[:3])
    damage(tmp_path / "system")
    with pytest.raises(RunError, match=words) as error:
        read_structures("system")
    assert str(error.value).count("\n") == 0


def test_an_empty_folder_is_no_system(tmp_path):
    with pytest.raises(RunError, match="npy format"):
        read_structures(tmp_path)
