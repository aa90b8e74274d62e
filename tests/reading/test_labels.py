"""Labels in the spellings of other programs; the expected numbers are those written into the files."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.labels import adopt_labels, drop_labels, labels_of
from dpa2md.reading import read_last_structure, read_structures

ENERGY = -7.5
FORCES = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
STRESS = np.array([[0.1, 0.2, 0.3], [0.2, 0.4, 0.5], [0.3, 0.5, 0.6]])
SIX = [0.1, 0.4, 0.6, 0.5, 0.3, 0.2]  # xx yy zz yz xz xy
VOLUME = 10.0**3


def text(values) -> str:
    return " ".join(f"{v:.10g}" for v in np.ravel(values))


def frame(head: str = "", columns: str = "", values=None) -> str:
    """A frame of extended XYZ, of two atoms in a box of 10 angstrom, written by hand."""
    values = np.zeros((2, 0)) if values is None else values
    first = 'Lattice="10 0 0 0 10 0 0 0 10" Properties=species:S:1:pos:R:3'
    rows = [f"{s} {x} 0 0 {text(v)}" for s, x, v in zip("OH", (0, 1), values, strict=True)]
    columns = f":{columns}" if columns else ""
    return "\n".join(["2", f"{first}{columns} {head}", *rows]) + "\n"


def read_text(tmp_path, content: str, **options) -> list[Atoms]:
    (tmp_path / "frames.xyz").write_text(content)
    return read_structures(tmp_path / "frames.xyz", **options)


@pytest.mark.parametrize(
    ("energy", "forces", "stress"),
    [
        ("energy", "forces", "stress"),
        ("energy", "force", "virial"),  # dpdata, QUIP, GPUMD
        ("free_energy", "forces", "virials"),
        ("Energy", "Forces", "Stress"),
        ("REF_energy", "REF_forces", "REF_stress"),  # MACE
        ("ref_energy", "ref_force", "ref_virials"),
        ("dft_energy", "dft_force", "dft_virial"),
        ("DFT_energy", "DFT_forces", "DFT_stress"),
        ("MACE_energy", "MACE_forces", "MACE_stress"),
        ("label_energy", "label_forces", "label_stress"),
    ],
)
@pytest.mark.parametrize("form", ["nine", "six"])
def test_spellings(tmp_path, energy, forces, stress, form):
    """Each is read as what it means, and leaves no name behind that would soon be wrong."""
    if stress in ("stress", "virial"):  # of which ASE reads no six numbers
        form = "nine"
    tensor = STRESS if form == "nine" else np.array(SIX)
    if "virial" in stress:
        tensor = -tensor * VOLUME
    head = f'{energy}={ENERGY} {stress}="{text(tensor)}" note=kept'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (atoms,) = read_text(tmp_path, frame(head, f"{forces}:R:3", FORCES))
    labels = labels_of(atoms)
    assert labels.energy == ENERGY == atoms.get_potential_energy()
    np.testing.assert_array_equal(labels.forces, FORCES)
    np.testing.assert_allclose(labels.stress, STRESS, rtol=1e-12)
    np.testing.assert_allclose(atoms.get_stress(), SIX, rtol=1e-12)
    assert atoms.info == {"note": "kept"} and set(atoms.arrays) == {"numbers", "positions"}


def test_an_asymmetric_virial_keeps_its_nine_components(tmp_path):
    virial = np.arange(9.0).reshape(3, 3)
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], cell=[10] * 3, pbc=True, info={"virial": virial})
    assert adopt_labels([atoms]) == []
    np.testing.assert_allclose(-VOLUME * labels_of(atoms).stress, virial, rtol=1e-12, atol=1e-12)


def test_names_meant_as_labels_come_first(tmp_path):
    """A file says once which of its names are read, and the others are named with the remedy."""
    head = f"energy=1.0 REF_energy={ENERGY} MACE_energy=2.0"
    with pytest.warns(UserWarning, match="MACE_energy, energy: not read as labels") as record:
        (atoms,) = read_text(tmp_path, frame(head))
    assert labels_of(atoms).energy == ENERGY
    assert len(record) == 1 and "choose with --labels PREFIX" in str(record[0].message)
    assert atoms.info == {"MACE_energy": 2.0}  # as true as before; but energy is now the label's
    for prefix in ("MACE", "mace_"):
        with pytest.warns(UserWarning, match="REF_energy, energy: not read"):
            (atoms,) = read_text(tmp_path, frame(head), labels=prefix)
        assert labels_of(atoms).energy == 2.0


def test_all_labels_come_from_one_set(tmp_path):
    """A frame without the chosen names has no labels, rather than those of another method."""
    content = frame(f"REF_energy={ENERGY}") + frame("energy=3.0", "forces:R:3", FORCES)
    with pytest.warns(
        UserWarning, match="energy, forces: not read as labels; taken are those with"
    ):
        first, second = read_text(tmp_path, content)
    assert labels_of(first).energy == ENERGY
    assert labels_of(second).energy is None and labels_of(second).forces is None


def test_other_prefixes_are_an_option(tmp_path):
    content = frame(f"PBE_energy={ENERGY} energy_b3lyp=1.0", "PBE_forces:R:3", FORCES)
    with pytest.warns(UserWarning, match="PBE_energy, PBE_forces, energy_b3lyp: not read"):
        (atoms,) = read_text(tmp_path, content)
    assert atoms.calc is None
    with pytest.warns(UserWarning, match="xyz: energy_b3lyp: not read"):
        (atoms,) = read_text(tmp_path, content, labels="PBE")
    assert labels_of(atoms).energy == ENERGY
    np.testing.assert_array_equal(labels_of(atoms).forces, FORCES)
    with pytest.raises(RunError, match="no label is called b3lyp_energy"):
        read_text(tmp_path, content, labels="B3LYP")


def test_what_is_no_label_is_left_alone(tmp_path):
    head = "energy_weight=1.0 config_forces_weight=2.0 energy_sigma=0.1 kinetic_energy=3.0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (atoms,) = read_text(tmp_path, frame(head))
    assert atoms.calc is None and len(atoms.info) == 4


@pytest.mark.parametrize(
    ("head", "columns", "width", "words"),
    [
        ("energy=unknown", "", 0, "energy is no label .it is not made of numbers"),
        ("energy", "", 0, "energy is no label .it is not made of numbers"),
        ('energy="1 2"', "", 0, "energy is no label .it has 2 numbers"),
        ('Virial="1 2 3"', "", 0, "Virial is no label .it has 3 numbers"),
        ("", "forces:R:1", 1, "forces is no label .it has 2 numbers"),
        ("", "virials:R:9", 9, "virials is no label .it has 18 numbers"),  # one for each atom
    ],
)
def test_labels_that_can_not_be_used_are_named(tmp_path, head, columns, width, words):
    with pytest.warns(UserWarning, match=words):
        (atoms,) = read_text(tmp_path, frame(head, columns, np.ones((2, width))))
    assert atoms.calc is None


def test_a_stress_against_a_virial(tmp_path):
    """Two that agree are one label; of two that don't, the virial counts, whose unit and sign are plain."""
    agree = f'stress="{text(STRESS)}" virial="{text(-VOLUME * STRESS)}"'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (atoms,) = read_text(tmp_path, frame(agree))
    np.testing.assert_allclose(labels_of(atoms).stress, STRESS, rtol=1e-12)
    with pytest.warns(UserWarning, match="stress and virial contradict each other"):
        (atoms,) = read_text(tmp_path, frame(agree.replace("virial", "VIRIAL").replace("-", "")))
    np.testing.assert_allclose(labels_of(atoms).stress, -STRESS, rtol=1e-12)


def test_a_virial_without_a_cell_is_no_label():
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"virial": np.eye(3), "energy": ENERGY})
    assert adopt_labels([atoms]) == []
    assert labels_of(atoms).energy == ENERGY and labels_of(atoms).stress is None
    assert not atoms.info


def test_moving_atoms_have_no_labels(tmp_path, model, monkeypatch):
    """Not in what a relaxation writes, either: its virial would be that of the structure before."""
    monkeypatch.chdir(tmp_path)
    head = f'energy={ENERGY} virial="{text(STRESS)}" REF_energy=1.0 my_energy=2.0 note=kept'
    (tmp_path / "start.xyz").write_text(frame(head, "dft_forces:R:3", FORCES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms = read_last_structure("start.xyz")
    assert atoms.info == {"note": "kept"} and atoms.calc is None
    assert set(atoms.arrays) == {"numbers", "positions"}
    command = ["relax", str(model), "start.xyz", "--steps", "1", "--threads", "1", "--quiet"]
    assert main(command) in (0, 1)
    line = (tmp_path / "relaxed.extxyz").read_text().splitlines()[1]
    assert "virial" not in line and "REF" not in line and "dft" not in line and "my_" not in line
    assert f"energy={ENERGY}" not in line and "note=kept" in line


def test_drop_labels_keeps_the_rest():
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"fparam": [1.0], "MACE_virials": 1})
    atoms.arrays["aparam"] = np.ones((2, 1))
    atoms.calc = SinglePointCalculator(atoms, energy=ENERGY)
    drop_labels(atoms)
    assert atoms.info == {"fparam": [1.0]} and "aparam" in atoms.arrays and atoms.calc is None
