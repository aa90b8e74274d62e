"""Systems of all formats as frames and batches, and data that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.io import write
from ase.neighborlist import neighbor_list
from dpa2md.errors import InputError
from dpa2md.train.data import Needs, open_systems
from dpa2md.train.data_checks import check_frames, count_neighbors, doubts
from dpa2md.train.data_settings import read_data
from dpa2md.train.systems import Batch, LabeledFrame, System

from tests.support.training_data import (
    Example,
    example,
    structures,
    write_extxyz,
    write_hdf5,
    write_mixed,
    write_npy,
    write_raw,
)

TYPE_MAP = ("H", "C", "O")
ALL = Needs(TYPE_MAP, nfparam=2, naparam=1)
FEW = Needs(TYPE_MAP)


def opened(*names: Any, needs: Needs = FEW, named: bool = False, **section: Any) -> list[System]:
    settings = read_data({"systems": list(map(str, names))} | section, "training_data")
    return open_systems(settings, needs, named)


def assert_frame(frame: LabeledFrame, data: Example, k: int, digits: float = 0.0) -> None:
    row = {name: values[k] for name, values in data.arrays.items()}
    n = len(data.elements)
    np.testing.assert_array_equal(frame.types, [TYPE_MAP.index(e) for e in data.elements])
    np.testing.assert_array_equal(frame.pbc, [int(data.periodic)] * 3)
    for value, wanted in (
        (frame.positions, row["coord"].reshape(n, 3)),
        (frame.cell, row["box"].reshape(3, 3) if data.periodic else np.zeros((3, 3))),
        (frame.energy, row["energy"]),
        (frame.forces, row["force"].reshape(n, 3)),
        (frame.atom_energies, row["atom_ener"]),
        (frame.fparam, row["fparam"]),
        (frame.aparam, row["aparam"].reshape(n, 1)),
    ):
        assert value is not None
        assert np.asarray(value).dtype == float
        np.testing.assert_allclose(value, wanted, rtol=0, atol=digits)


# ---- formats


@pytest.mark.parametrize("kind", ["npy", "npy sets", "raw", "hdf5", "mixed", "extxyz"])
def test_every_format_gives_the_same_frames(kind, tmp_path):
    data = example("OHHC", frames=4)
    digits = 0.0
    path = tmp_path / "system"
    if kind.startswith("npy"):
        write_npy(path, data, sets=3 if "sets" in kind else 1)
    elif kind == "raw":
        write_raw(path, data)
    elif kind == "hdf5":
        pytest.importorskip("h5py")
        path = write_hdf5(tmp_path / "file.hdf5", {"a/b": data})
    elif kind == "mixed":
        write_mixed(path, [data], ["O", "H", "C"])
    else:
        digits = 1e-8  # ASE writes eight decimals
        path = write_extxyz(tmp_path / "system.extxyz", data)
    (system,) = opened(path, needs=ALL)
    assert (len(system), system.natoms) == (4, 4)
    for k in range(4):
        assert_frame(system.frame(k), data, k, digits)
        virial = data.arrays["virial"][k]
        if kind == "extxyz":  # a stress is symmetric
            virial, digits = (virial + virial.T) / 2, 1e-5  # eight decimals times the volume
        np.testing.assert_allclose(system.frame(k).virial, virial, rtol=0, atol=digits)


def test_stored_numbers_of_any_kind(tmp_path):
    """float32 files, and one frame without an axis for frames, as DeePMD-kit takes them."""
    data = example(frames=1)
    folder = write_npy(tmp_path / "one", data)
    for name, values in data.arrays.items():
        np.save(folder / "set.000" / f"{name}.npy", values.ravel().astype(np.float32))
    np.save(folder / "set.000" / "energy.npy", np.float32(data.arrays["energy"][0]))
    (system,) = opened(folder, needs=ALL)
    assert len(system) == 1
    assert_frame(system.frame(0), data, 0, digits=1e-6)  # float32 of numbers below 8


def test_mixed_frames_lose_the_atoms_that_fill_them_up(tmp_path):
    water, methane = example("OHH", frames=2), example("CHHHH", frames=3, seed=1)
    write_mixed(tmp_path / "m", [water, methane], ["H", "O", "C"])
    (system,) = opened(tmp_path / "m", needs=ALL)
    assert (len(system), system.natoms) == (5, 5)
    for k in range(5):
        assert_frame(system.frame(k), water if k < 2 else methane, k if k < 2 else k - 2)


def test_structures_of_different_atoms_in_one_file(tmp_path):
    water, methane = example("OHH", frames=2), example("CHHHH", frames=1, seed=1)
    write(tmp_path / "all.extxyz", structures(water) + structures(methane))
    (system,) = opened(tmp_path / "all.extxyz", needs=ALL)
    assert (len(system), system.natoms) == (3, 5)
    assert_frame(system.frame(2), methane, 0, digits=1e-8)
    assert len(opened(f"{tmp_path}/all.extxyz@1:", needs=ALL)[0]) == 2


def test_free_systems(tmp_path):
    data = example(frames=2)
    data.periodic = False
    (npy,) = opened(write_npy(tmp_path / "free", data), needs=ALL)
    (xyz,) = opened(write_extxyz(tmp_path / "free.extxyz", data), needs=ALL)
    for k in range(2):
        assert_frame(npy.frame(k), data, k)
        assert_frame(xyz.frame(k), data, k, digits=1e-8)
        assert npy.frame(k).virial is None and xyz.frame(k).virial is None


def test_types_without_names_are_those_of_the_model(tmp_path):
    folder = write_npy(tmp_path / "a", example("OHH"))
    (folder / "type_map.raw").unlink()
    (folder / "type.raw").write_text("2 0 0")
    (system,) = opened(folder)
    np.testing.assert_array_equal(system.frame(0).types, [2, 0, 0])
    refused(lambda: opened(folder, named=True), f"{folder}: type_map.raw is missing")
    (folder / "type.raw").write_text("3 0 0")
    refused(lambda: opened(folder), f"{folder}/type.raw: the type 3 has no element")


def test_names_of_atomic_energies(tmp_path):
    """DeePMD-kit takes atomic_ener.npy for atom_ener.npy, too."""
    data = example()
    folder = write_npy(tmp_path / "a", data)
    (folder / "set.000" / "atom_ener.npy").rename(folder / "set.000" / "atomic_ener.npy")
    (system,) = opened(folder)
    np.testing.assert_array_equal(system.frame(3).atom_energies, data.arrays["atom_ener"][3])


def test_a_file_that_changed_is_read_again(tmp_path):
    folder = write_npy(tmp_path / "a", example())
    before = opened(folder)[0].frame(0).energy
    path = folder / "set.000" / "energy.npy"
    np.save(path, np.load(path) + 1)
    assert opened(folder)[0].frame(0).energy == before + 1


# ---- which systems


def test_a_folder_stands_for_all_systems_below(tmp_path):
    for name in ("b", "a/deep/er", "c_1"):
        write_npy(tmp_path / "data" / name, example())
    found = [s.name for s in opened(tmp_path / "data")]
    wanted = [str(tmp_path / "data" / name) for name in ("a/deep/er", "b", "c_1")]
    assert found == wanted
    found = [s.name for s in opened(tmp_path / "data", rglob_patterns=["c_*", "e?"])]
    assert found == [wanted[0], wanted[2]]
    refused(lambda: opened(tmp_path / "data", rglob_patterns=["x*"]), "match x*")


def test_groups_of_hdf5(tmp_path):
    pytest.importorskip("h5py")
    one, two = example("OHH"), example("CO", seed=1)
    path = write_hdf5(tmp_path / "file.hdf5", {"x/one": one, "x/two": two})
    assert [s.natoms for s in opened(path)] == [3, 2]
    assert [s.natoms for s in opened(f"{path}#/x/two")] == [2]
    assert [s.natoms for s in opened(f"{path}#x")] == [3, 2]
    refused(lambda: opened(f"{path}#/y"), "no group /y")


def test_filter_leaves_systems_out(tmp_path):
    paths = [write_npy(tmp_path / e, example(e)) for e in ("OHH", "CHHHH")]
    assert [s.natoms for s in opened(*paths, batch_size="filter:4")] == [3]
    refused(lambda: opened(*paths, batch_size="filter:2"), "training_data.batch_size", "raise it")


# ---- batches


def test_a_batch_has_its_frames_side_by_side(tmp_path):
    water, methane = example("OHH"), example("CHHHH", seed=1)
    methane.periodic = False
    names = [write_npy(tmp_path / "w", water), write_npy(tmp_path / "m", methane)]
    first, second = opened(*names, needs=ALL)
    batch = Batch.of([first.frame(1), second.frame(2), first.frame(0)])
    assert len(batch) == 3
    np.testing.assert_array_equal(batch.frame_start, [0, 3, 8, 11])
    np.testing.assert_array_equal(batch.natoms, [3, 5, 3])
    parts = [(water, 1), (methane, 2), (water, 0)]
    for name, values in (
        ("coord", batch.positions),
        ("force", batch.forces.values),
        ("aparam", batch.aparam),
    ):
        np.testing.assert_array_equal(values, np.concatenate([d.arrays[name][k] for d, k in parts]))
    np.testing.assert_array_equal(batch.fparam, [d.arrays["fparam"][k] for d, k in parts])
    np.testing.assert_array_equal(batch.energy.values, [d.arrays["energy"][k] for d, k in parts])
    np.testing.assert_array_equal(batch.types, [2, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0])
    np.testing.assert_array_equal(batch.pbc, [[1] * 3, [0] * 3, [1] * 3])
    np.testing.assert_array_equal(batch.cells[1], np.zeros((3, 3)))
    np.testing.assert_array_equal(batch.virial.known, [True, False, True])
    np.testing.assert_array_equal(batch.virial.values[1], np.zeros((3, 3)))
    for array in (batch.types, batch.frame_start, batch.pbc):
        assert array.dtype == np.intc


def test_missing_labels_are_known(tmp_path):
    data = example()
    names = [
        write_npy(tmp_path / "no_force", data.without("force", "virial")),
        write_npy(tmp_path / "no_energy", data.without("energy", "atom_ener")),
    ]
    first, second = opened(*names)
    batch = Batch.of([first.frame(0), second.frame(0)])
    for label, known in (
        (batch.energy, [True, False]),
        (batch.forces, [False, True]),
        (batch.virial, [False, True]),
        (batch.atom_energies, [True, False]),
    ):
        np.testing.assert_array_equal(label.known, known)
    np.testing.assert_array_equal(batch.forces.values[:3], np.zeros((3, 3)))
    assert batch.fparam is None and batch.aparam is None
    told = doubts([first, second], TYPE_MAP)
    assert told == [f"Without energy: {names[1]}.", f"Without forces: {names[0]}."]


def test_default_frame_parameters(tmp_path):
    needs = Needs(TYPE_MAP, nfparam=2, default_fparam=(0.5, 0.25))
    data = example().without("fparam")
    npy, xyz = opened(
        write_npy(tmp_path / "a", data), write_extxyz(tmp_path / "a.xyz", data), needs=needs
    )
    for system in (npy, xyz):
        np.testing.assert_array_equal(system.frame(0).fparam, [0.5, 0.25])


# ---- refusals


def refused(read: Any, *words: str) -> None:
    with pytest.raises(InputError) as error:
        read()
    text = str(error.value)
    assert all(str(word) in text for word in words), text
    assert "\n" not in text and text[-1] == "."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.without("box"), "set.000: box.npy is missing"),
        (lambda d: d.without("coord"), "set.000: coord.npy is missing"),
        (lambda d: d.without("energy", "force"), "neither energy.npy nor force.npy"),
        (lambda d: d.without("fparam"), "fparam.npy is missing, and the model has numb_fparam = 2"),
        (lambda d: d.without("aparam"), "aparam.npy is missing, and the model has numb_aparam = 1"),
        (lambda d: d.having(force=np.zeros((5, 4, 3))), "force.npy has 60 numbers, not 9"),
        (lambda d: d.having(energy=np.zeros(4)), "energy.npy has 4 numbers, not 1 for each of 5"),
        (lambda d: d.having(coord=np.zeros((5, 4, 3))), "coord.npy has the shape (5, 12)"),
        (lambda d: d.having(fparam=np.zeros((5, 3))), "fparam.npy has 15 numbers, not 2"),
    ],
)
def test_arrays_that_do_not_fit(change, words, tmp_path):
    folder = write_npy(tmp_path / "a", change(example()))
    refused(lambda: opened(folder, needs=ALL), folder, words)


def test_files_that_are_damaged_or_not_there(tmp_path):
    folder = write_npy(tmp_path / "a", example())
    (folder / "type.raw").write_text("0 1 0.5")
    refused(lambda: opened(folder), "type.raw: there is a type that is no whole number")
    (folder / "type.raw").write_text("")
    refused(lambda: opened(folder), f"{folder}: this system can't be read")
    (folder / "type.raw").write_text("1 0 0")
    (folder / "set.000" / "coord.npy").write_bytes(b"no npy")
    refused(lambda: opened(folder), f"{folder}: this system can't be read")
    refused(lambda: opened(tmp_path / "b"), f"{tmp_path}/b: there is no such folder or file")
    (tmp_path / "c").mkdir()
    refused(lambda: opened(tmp_path / "c"), f"{tmp_path}/c", "type.raw")
    (tmp_path / "d.xyz").write_text("no structure")
    refused(lambda: opened(tmp_path / "d.xyz"), f"{tmp_path}/d.xyz: ASE can't read")
    (tmp_path / "e.lmdb").mkdir()
    refused(lambda: opened(tmp_path / "e.lmdb"), "LMDB data are not supported; convert them")
    (folder := tmp_path / "f").mkdir()
    (folder / "type.raw").write_text("0")
    refused(lambda: opened(folder), f"{folder}: there are no frames in it")


def test_elements_that_the_model_does_not_have(tmp_path):
    data = example(["O", "H", "Na"])
    words = "Na is no element of the model's type_map (H, C, O); add it"
    npy, xyz = write_npy(tmp_path / "a", data), write_extxyz(tmp_path / "a.xyz", data)
    refused(lambda: opened(npy), f"{npy}/type.raw: {words}")
    refused(lambda: opened(xyz), f"{xyz}, structure 0: {words}")
    mixed = write_mixed(tmp_path / "m", [example(), data], ["H", "O", "Na"])
    (system,) = opened(mixed)
    place = f"{mixed}/set.001/real_atom_types.npy, frame 0: {words}"
    refused(lambda: check_frames([system]), place)


def test_an_element_that_no_atom_has_does_no_harm(tmp_path):
    folder = write_npy(tmp_path / "a", example("OHH"))
    (folder / "type_map.raw").write_text("H O Na")
    assert len(opened(folder)) == 1


def test_sets_that_are_mixed_and_others(tmp_path):
    folder = write_mixed(tmp_path / "m", [example(), example()], ["H", "O"])
    (folder / "set.001" / "real_atom_types.npy").unlink()
    refused(lambda: opened(folder), f"{folder}: some sets have real_atom_types.npy")


def test_structures_without_what_is_needed(tmp_path):
    path = tmp_path / "a.extxyz"
    data = example(frames=2)
    write_extxyz(path, data.without("energy", "force", "virial"))
    refused(lambda: opened(path), f"{path}, structure 0: it has neither an energy nor forces")
    path.unlink()
    write_extxyz(path, data.without("aparam"))
    refused(lambda: opened(path, needs=ALL), f"{path}, structure 0: aparam is missing")
    write_extxyz(path, data.having(fparam=np.zeros((2, 3))))
    refused(lambda: opened(path, needs=ALL), f"{path}, structure 0: fparam should be 2 numbers")


def _spoiled(name: str, frame: int, value: float) -> Example:
    data = example(frames=5)
    values = data.arrays[name].copy()
    values[frame].flat[0] = value
    if not values[frame].shape:
        values[frame] = value
    return data.having(**{name: values})


@pytest.mark.parametrize("name", ["coord", "box", "energy", "force", "virial", "atom_ener"])
def test_numbers_that_are_not_finite(name, tmp_path):
    for value in (np.nan, np.inf):
        folder = write_npy(tmp_path / f"{value}", _spoiled(name, 3, value), sets=2)
        place = f"{folder}/set.001/{name}.npy, frame 0: there is a number that is not finite"
        refused(lambda folder=folder: check_frames(opened(folder)), place, "leave the frame out")


def test_forces_beyond_reason(tmp_path):
    data = _spoiled("force", 2, 1234.5)
    npy, xyz = write_npy(tmp_path / "a", data), write_extxyz(tmp_path / "a.extxyz", data)
    words = "the force on atom 0 is 1234.5 eV/angstrom; leave the frame out"
    refused(lambda: check_frames(opened(npy)), f"{npy}/set.000/force.npy, frame 2: {words}")
    refused(lambda: check_frames(opened(xyz)), f"{xyz}, structure 2, forces: {words}")
    check_frames(opened(write_npy(tmp_path / "b", _spoiled("force", 2, 990.0))))


def test_cells_without_volume(tmp_path):
    data = example()
    box = data.arrays["box"].copy()
    box[4, 2] = box[4, 0] + box[4, 1]
    folder = write_npy(tmp_path / "a", data.having(box=box))
    refused(lambda: check_frames(opened(folder)), "box.npy, frame 4: the cell has no volume")


def test_atoms_that_are_too_far_away(tmp_path):
    """What the core says of positions, in this frame's numbers."""
    folder = write_npy(tmp_path / "a", _spoiled("coord", 2, 1e12))
    words = "coord.npy, frame 2: a coordinate of atom 0 is not finite or beyond 1e9 angstrom"
    refused(lambda: check_frames(opened(folder)), words)


def test_atoms_on_top_of_each_other(tmp_path):
    """Also over the boundary of the cell, and with lengths in nm."""
    data = example()
    coord = data.arrays["coord"].copy()
    coord[1, 2] = coord[1, 0] + data.arrays["box"][1, 1] + [0, 0, 0.2]
    folder = write_npy(tmp_path / "a", data.having(coord=coord))
    words = "coord.npy, frame 1: atom 0 has another one within 0.3 angstrom"
    refused(lambda: check_frames(opened(folder)), words)
    nm = data.having(coord=data.arrays["coord"] / 10, box=data.arrays["box"] / 10)
    folder = write_npy(tmp_path / "b", nm)
    refused(lambda: check_frames(opened(folder)), "coord.npy, frame 0", "convert the lengths")


def test_lengths_in_bohr_are_doubted(tmp_path):
    """A chain with O-H distances of 0.95 to 1.35 angstrom, 1.0 to 1.4 sums of covalent radii."""
    data = example("OH" * 3)
    short = data.arrays["coord"] * 0.75
    good = write_npy(tmp_path / "good", data.having(coord=short))
    bohr = data.having(coord=short / 0.529177, box=data.arrays["box"] / 0.529177)
    bad = write_npy(tmp_path / "bad", bohr)
    assert doubts(opened(good), TYPE_MAP) == []
    (doubt,) = doubts(opened(bad), TYPE_MAP)
    assert "not bohr" in doubt
    assert doubts(opened(good, bad), TYPE_MAP) == []  # not all systems


def test_atoms_that_are_alone_raise_no_doubt(tmp_path):
    data = example("O")
    data.periodic = False
    assert doubts(opened(write_npy(tmp_path / "a", data)), TYPE_MAP) == []


# ---- neighbours


@pytest.mark.parametrize("rcut", [2.0, 6.0, 13.0])
def test_the_most_neighbours_are_those_that_ase_counts(rcut, tmp_path):
    """In cells of about 8 angstrom, so with images; one system is free."""
    data, free = example("OHHC", frames=3), example("OHHC" * 2, frames=2, seed=2)
    free.periodic = False
    systems = opened(write_npy(tmp_path / "a", data), write_npy(tmp_path / "b", free))
    counts = [
        np.bincount(neighbor_list("i", atoms, rcut)).max()
        for atoms in structures(data) + structures(free)
    ]
    assert count_neighbors(systems, rcut) == max(counts)


def test_numbers_are_read_with_the_frame(tmp_path):
    """Opening a system looks at headers alone."""
    folder = write_npy(tmp_path / "a", _spoiled("force", 0, np.nan))
    (system,) = opened(folder)
    assert np.isnan(system.frame(0).forces[0, 0]) and np.isfinite(system.frame(1).forces).all()
