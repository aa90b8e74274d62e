"""Structures by their names: files and indices, standard input, DeePMD-kit's systems."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from dpa2md.cli import main
from dpa2md.deepmd_data import read_folder
from dpa2md.errors import RunError
from dpa2md.labels import labels_of
from dpa2md.reading import read_last_structure, read_structures

from tests.support.small_models import crystal


@pytest.fixture
def frames(tmp_path, monkeypatch) -> list[Atoms]:
    """Three structures of the same atoms with random labels, whose virials are not symmetric."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    structures = [crystal((2, 1, 1), seed=k) for k in range(3)]
    for atoms in structures:
        labels = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
        atoms.calc = SinglePointCalculator(atoms, stress=rng.normal(size=(3, 3)), **labels)
    return structures


# ---- names and indices


def test_a_file_of_the_very_name_comes_before_an_index(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("water@300K.xyz", "run@2.xyz", "a@0"):
        write(name, [Atoms("O"), Atoms("OH", [[0, 0, 0], [0, 0, 1]])], format="extxyz")
        assert [len(a) for a in read_structures(name)] == [1, 2]
        assert len(read_last_structure(name)) == 2
        assert [len(a) for a in read_structures(f"{name}@0")] == [1]
        assert [len(a) for a in read_structures(f"./{name}@-1:")] == [2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("three.xyz@3", "three.xyz: the file has structures 0 to 2; there is none at 3"),
        ("three.xyz@-4", "there is none at -4"),
        ("three.xyz@5:9", "there is none at 5:9"),
        ("three.traj@3", "the file has structures 0 to 2; there is none at 3"),
        ("one.cif@1", "one.cif: the file has a single structure, 0; there is none at 1"),
        ("system@3", "system: the file has structures 0 to 2"),
        ("three.xyz@last", "'last' is no index; write three.xyz@0:10"),
        ("none.xyz@0", "none.xyz: there is no such structure file"),
        ("none@300K.xyz", "none@300K.xyz: there is no such structure file"),
    ],
)
def test_structures_that_are_not_there(frames, name, words):
    write("three.xyz", frames)
    write("three.traj", frames)
    write("one.cif", frames[0])
    npy_system(Path("system"), frames)
    with pytest.raises(RunError, match=words) as error:
        read_structures(name)
    assert "\n" not in str(error.value)


def test_standard_input(frames, monkeypatch, model, capsys):
    write("three.xyz", frames)
    text = Path("three.xyz").read_text()
    for name, energies in (("-", [0, 1, 2]), ("-@1:", [1, 2]), ("-@-1", [2])):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        found = [atoms.get_potential_energy() for atoms in read_structures(name)]
        assert found == [frames[k].get_potential_energy() for k in energies]
    for content in ("", "no structure\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(content))
        assert main(["eval", str(model), "-"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("dpa2md eval: standard input: ") and error.count("\n") == 1


@pytest.mark.parametrize("command", ["eval", "check", "relax", "md"])
def test_a_model_and_a_structure_in_the_wrong_order(command, frames, model, capsys):
    write("three.xyz", frames)
    assert main([command, "three.xyz", str(model)]) == 2
    error = capsys.readouterr().err
    assert "give the model first, then the structure" in error and error.count("\n") == 1


# ---- DeePMD-kit's systems


def npy_system(folder: Path, frames: list[Atoms], sets: int = 2) -> None:
    """What DeePMD-kit would have on disk for structures of the same atoms."""
    elements = list(dict.fromkeys(frames[0].get_chemical_symbols()))
    folder.mkdir(parents=True)
    (folder / "type_map.raw").write_text("\n".join(elements))
    types = [elements.index(s) for s in frames[0].get_chemical_symbols()]
    np.savetxt(folder / "type.raw", types, fmt="%d")
    for k, part in enumerate(np.array_split(np.arange(len(frames)), sets)):
        where = folder / f"set.{k:03d}"
        where.mkdir()
        for name, values in deepmd_arrays([frames[i] for i in part]).items():
            np.save(where / f"{name}.npy", values)


def deepmd_arrays(frames: list[Atoms]) -> dict[str, np.ndarray]:
    return {
        "coord": np.array([a.positions.ravel() for a in frames]),
        "box": np.array([a.cell.array.ravel() for a in frames]),
        "energy": np.array([a.calc.results["energy"] for a in frames]),
        "force": np.array([a.calc.results["forces"].ravel() for a in frames]),
        "virial": np.array([-a.get_volume() * a.calc.results["stress"].ravel() for a in frames]),
    }


def assert_same(found: list[Atoms], wanted: list[Atoms]) -> None:
    assert len(found) == len(wanted)
    for atoms, other in zip(found, wanted, strict=True):
        assert atoms.get_chemical_symbols() == other.get_chemical_symbols()
        np.testing.assert_allclose(atoms.positions, other.positions, rtol=1e-15)
        np.testing.assert_allclose(atoms.cell.array, other.cell.array, rtol=1e-15)
        labels, results = labels_of(atoms), other.calc.results
        assert labels.energy == pytest.approx(results["energy"], rel=1e-15)
        np.testing.assert_allclose(labels.forces, results["forces"], rtol=1e-15)
        np.testing.assert_allclose(labels.stress, results["stress"], rtol=1e-12)


def test_npy_system(frames):
    npy_system(Path("system"), frames)
    assert_same(read_structures("system"), frames)
    assert_same(read_structures("system@1:"), frames[1:])
    assert_same([read_structures("system", -1)[-1]], frames[-1:])


def test_folders_of_systems(frames):
    """All systems below a folder, as ``dp test -s`` finds them; other folders don't matter."""
    npy_system(Path("data/b"), frames[:2])
    npy_system(Path("data/a/deep/er"), frames[2:], sets=1)
    Path("data/notes").mkdir()
    assert_same(read_structures("data"), [frames[2], *frames[:2]])


def test_raw_system(frames):
    """One text file for each array, a line for each frame, as dpdata's deepmd/raw."""
    npy_system(Path("system"), frames, sets=1)
    for path in Path("system/set.000").iterdir():
        np.savetxt(Path("system") / f"{path.stem}.raw", np.load(path), fmt="%.17g")
        path.unlink()
    Path("system/set.000").rmdir()
    assert_same(read_structures("system"), frames)


def test_hdf5_systems(frames):
    h5py = pytest.importorskip("h5py")
    with h5py.File("data.hdf5", "w") as file:
        for name, part in (("first", frames[:1]), ("more/second", frames[1:])):
            symbols = part[0].get_chemical_symbols()
            elements = sorted(set(symbols))
            group = file.create_group(name)
            group["type_map.raw"] = np.array(elements, dtype=h5py.string_dtype())
            group["type.raw"] = [elements.index(s) for s in symbols]
            for key, values in deepmd_arrays(part).items():
                group[f"set.000/{key}.npy"] = values
    assert_same(read_structures("data.hdf5"), frames)
    assert_same(read_structures("data.hdf5#/more"), frames[1:])
    assert_same(read_structures("data.hdf5#more/second@0"), frames[1:2])
    for name, words in (("data.hdf5#x", "no group x"), ("data.hdf5#/first/set.000", "no system")):
        with pytest.raises(RunError, match=words):
            read_structures(name)
    Path("cut.hdf5").write_bytes(Path("data.hdf5").read_bytes()[:100])
    with pytest.raises(RunError, match="this HDF5 file is damaged"):
        read_structures("cut.hdf5")


def test_hdf5_without_h5py(tmp_path, monkeypatch):
    (tmp_path / "data.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(RunError, match="needs h5py; install h5py"):
        read_structures(tmp_path / "data.hdf5")


def test_only_known_files_are_looked_at(frames):
    """DeePMD-kit never opens what it isn't asked for, whatever it is."""
    npy_system(Path("system"), frames, sets=1)
    folder = Path("system/set.000")
    np.save(folder / "temperature.npy", np.array(300.0))
    np.save(folder / "frame_names.npy", np.arange(5))
    np.save(folder / "objects.npy", [print], allow_pickle=True)
    (folder / "damaged.npy").write_bytes(b"\x93NUMPY")
    Path("system/set.txt").write_text("no set")
    assert_same(read_structures("system"), frames)


def test_types_stored_as_floats(frames):
    """As DeePMD-kit, which casts them; numpy makes floats of padded arrays. -1 fills up."""
    npy_system(Path("system"), frames, sets=1)
    types = np.loadtxt("system/type.raw")
    np.savetxt("system/type.raw", np.zeros(len(types)))
    mixed = np.tile(types, (3, 1))
    mixed[1, -1] = -1.0
    np.save("system/set.000/real_atom_types.npy", mixed)
    frames[1] = atoms = frames[1][:-1]
    force = np.load("system/set.000/force.npy")[1].reshape(-1, 3)[:-1]
    energy = np.load("system/set.000/energy.npy")[1]
    virial = np.load("system/set.000/virial.npy")[1].reshape(3, 3)
    stress = -virial / atoms.get_volume()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=force, stress=stress)
    assert_same(read_structures("system"), frames)
    mixed[0, 0] = 0.5
    np.save("system/set.000/real_atom_types.npy", mixed)
    with pytest.raises(RunError, match="a type that is no whole number"):
        read_structures("system")


def test_a_single_frame_without_its_dimension(frames):
    npy_system(Path("system"), frames[:1], sets=1)
    for path in Path("system/set.000").iterdir():
        np.save(path, np.load(path)[0])
    assert_same(read_structures("system"), frames[:1])


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


def test_elements_in_place_of_a_type_map(frames):
    npy_system(Path("system"), frames)
    elements = Path("system/type_map.raw").read_text().split()
    Path("system/type_map.raw").write_text("O_water H_water Si_bulk")
    with pytest.raises(RunError, match="is no element; name the types' with --elements"):
        read_structures("system")
    assert_same(read_structures("system", elements=elements), frames)
    Path("system/type_map.raw").unlink()
    assert_same(read_structures("system", elements=elements), frames)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "type.raw").unlink(), "type.raw"),
        (lambda f: (f / "type_map.raw").unlink(), "type_map.raw is missing"),
        (lambda f: (f / "type_map.raw").write_text("O"), "no element in type_map.raw"),
        (lambda f: (f / "type_map.raw").write_text("Xy O H"), "Xy is no element"),
        (lambda f: (f / "type.raw").write_text("0 1"), "damaged"),
        (lambda f: (f / "type.raw").write_text("zero"), "damaged"),
        (lambda f: (f / "type.raw").write_text(""), "damaged .*no data"),
        (lambda f: (f / "set.000" / "coord.npy").unlink(), "damaged"),
        (lambda f: (f / "set.000" / "coord.npy").write_bytes(b"\x93NUMPY"), "damaged"),
        (lambda f: (f / "set.000" / "box.npy").unlink(), "no boxes"),
        (lambda f: np.save(f / "set.000" / "coord.npy", np.array(1.0)), "damaged"),
        (lambda f: np.save(f / "set.000" / "coord.npy", ["a", "b"]), "damaged"),
        (lambda f: np.save(f / "set.000" / "box.npy", np.eye(3)), "box.npy has 3 frames"),
        (lambda f: np.save(f / "set.000" / "box.npy", np.eye(2)), "box.npy has 4 numbers"),
        (lambda f: np.save(f / "set.000" / "energy.npy", np.zeros(9)), "9 frames"),
        (lambda f: np.save(f / "set.000" / "energy.npy", np.zeros(2, complex)), "damaged"),
        (lambda f: np.save(f / "set.000" / "box.npy", [print, print], allow_pickle=True),
         "damaged"),
    ],
)  # fmt: skip
def test_damaged_npy_systems_are_refused(frames, damage, words):
    npy_system(Path("system"), frames)
    damage(Path("system"))
    with pytest.raises(RunError, match=words) as error:
        read_structures("system")
    assert str(error.value).count("\n") == 0 and str(error.value).startswith("system")


def test_an_empty_folder_is_no_system(tmp_path):
    with pytest.raises(RunError, match="npy format"):
        read_structures(tmp_path)
