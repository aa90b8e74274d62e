"""LAMMPS's data and dump files as structures: elements, units, atom styles; written by hand or by LAMMPS."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import units
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.labels import labels_of
from dpa2md.reading import read_structures

POSITIONS = np.array([[1.0, 2.0, 3.0], [1.76, 2.59, 3.0], [0.24, 2.59, 3.0]])
HEADER = """LAMMPS data file via write_data, version 22 Jul 2025, timestep = 0, units = {units}

3 atoms
2 atom types

0 9 xlo xhi
0 8 ylo yhi
0 7 zlo zhi
1 0 0 xy xz yz

"""
MASSES = "Masses\n\n1 15.9994\n2 1.008 # H\n\n"
LABELS = "Atom Type Labels\n\n1 O\n2 H\n\n"
COLUMNS = {  # between the number of an atom and its position; the types are 1, 2, 2
    "atomic": "{type}",
    "charge": "{type} 0.5",
    "molecular": "7 {type}",
    "full": "7 {type} 0.5",
}
DUMP = """ITEM: TIMESTEP
{step}
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS pp pp pp
0 9
0 8
0 7
ITEM: ATOMS id {columns}
"""


def data_file(style: str = "atomic", species: str = MASSES, unit: str = "metal") -> str:
    rows = [
        f"{k + 1} {COLUMNS[style].format(type=kind)} {x} {y} {z} 0 0 0"
        for k, (kind, (x, y, z)) in enumerate(zip((1, 2, 2), POSITIONS, strict=True))
    ]
    return HEADER.format(units=unit) + species + f"Atoms # {style}\n\n" + "\n".join(rows) + "\n"


def dump_file(columns: str = "type x y z", species=("1", "2", "2"), extra: str = "") -> str:
    """Two frames, the atoms in another order in the second."""
    out = ""
    for step, order in ((0, (0, 1, 2)), (10, (2, 0, 1))):
        out += DUMP.format(step=step, columns=columns)
        for k in order:
            x, y, z = POSITIONS[k] + step / 100
            out += f"{k + 1} {species[k]} {x} {y} {z} {extra}\n"
    return out


@pytest.mark.parametrize("style", COLUMNS)
@pytest.mark.parametrize("name", ["start.data", "start.lmp", "start.lammps-data", "data.start"])
@pytest.mark.parametrize("species", [MASSES, LABELS, LABELS + MASSES], ids=["m", "l", "lm"])
def test_data_files(tmp_path, style, name, species):
    (tmp_path / name).write_text(data_file(style, species))
    (atoms,) = read_structures(tmp_path / name)
    assert str(atoms.symbols) == "OH2" and all(atoms.pbc)
    np.testing.assert_allclose(atoms.positions, POSITIONS, atol=1e-12)
    np.testing.assert_allclose(atoms.cell.array, [[9, 0, 0], [1, 8, 0], [0, 0, 7]])


def test_elements_of_the_command_line_count(tmp_path):
    """Not the masses, which may be an isotope's or made up."""
    (tmp_path / "a.data").write_text(data_file(species="Masses\n\n1 28.0\n2 2.014\n\n"))
    with pytest.raises(
        RunError, match="type 2 has a mass of 2.014, no element's; name the elements"
    ):
        read_structures(tmp_path / "a.data")
    (atoms,) = read_structures(tmp_path / "a.data", elements=["O", "H"])
    assert str(atoms.symbols) == "OH2"
    np.testing.assert_allclose(atoms.get_masses(), [28.0, 2.014, 2.014], rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "elements", "words"),
    [
        (data_file(species=""), None, "neither masses nor labels of its types; name the elements"),
        (data_file(), ["O"], "type 2 has no element"),
        (data_file(species=LABELS).replace("1 1 1.0", "1 O 1.0").replace(" 2 ", " H "), None,
         "labels for types; write numbers"),
        (data_file(unit="lj"), ["O", "H"], "reduced units"),
        (data_file("charge").replace("# charge", ""), None, 'as in "Atoms # charge"'),
        (data_file("charge").replace("# charge", "# sphere"), None, 'Style "sphere"'),
        (dump_file(), None, "no column with elements; name the elements of the types"),
        (dump_file("mass x y z", ("16", "1", "1")), None, "no column with elements"),
        (dump_file("element x y z", "OHH"), ["O", "H"], "no column with types"),
        (dump_file(), ["O"], "type 2 has no element"),
        (dump_file("element x y z", ("Ow", "H", "H")), None, "can't read"),
        (dump_file().rsplit("\n", 2)[0], ["O", "H"], "last frame is cut short; .*@:-1"),
        ("ITEM: UNITS\nlj\n" + dump_file(), ["O", "H"], "reduced units"),
    ],
)  # fmt: skip
def test_files_that_do_not_say_enough(tmp_path, content, elements, words):
    (tmp_path / "file").write_text(content)
    with pytest.raises(RunError, match=words) as error:
        read_structures(tmp_path / "file", elements=elements)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["dump.lammpstrj", "a.dump", "run.dump.gz"])
def test_dumps(tmp_path, name):
    """Types are never atomic numbers: 1, 2, 2 would be hydrogen and helium."""
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "wt") as file:
        file.write(dump_file())
    frames = read_structures(tmp_path / name, elements=["O", "H"])
    assert [str(a.symbols) for a in frames] == ["OH2", "OH2"]
    np.testing.assert_allclose(frames[1].positions, POSITIONS + 0.1, atol=1e-12)
    assert all(labels_of(a).energy is None for a in frames)
    (last,) = read_structures(f"{tmp_path / name}@-1", elements=["O", "H"])
    np.testing.assert_array_equal(last.positions, frames[1].positions)
    with pytest.raises(RunError, match="structures 0 to 1; there is none at 2"):
        read_structures(f"{tmp_path / name}@2", elements=["O", "H"])


def test_elements_and_forces_of_a_dump(tmp_path):
    """Forces are labels in the units that the dump names; ASE's energy of 0 beside them is none."""
    columns = "element x y z fx fy fz"
    for head, factor in (("", 1.0), ("ITEM: UNITS\nreal\n", units.kcal / units.mol)):
        (tmp_path / "a.dump").write_text(head + dump_file(columns, "OHH", "1 2 3"))
        for atoms in read_structures(tmp_path / "a.dump"):
            assert str(atoms.symbols) == "OH2"
            wanted = np.tile([1.0, 2.0, 3.0], (3, 1)) * factor
            np.testing.assert_allclose(labels_of(atoms).forces, wanted, rtol=1e-5)
            assert labels_of(atoms).energy is None


def test_the_command_line(tmp_path, model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.data").write_text(data_file())
    Path("a.dump").write_text(dump_file())
    energies = []
    for arguments in (
        ["a.data"],
        ["a.data", "--elements", "O, H"],
        ["a.dump@0", "--elements", "O,H"],
    ):
        assert main(["eval", str(model), *arguments]) == 0
        energies.append(capsys.readouterr().out.split()[-2])
    assert energies[0] == energies[1]
    for command in ("eval", "check", "relax", "md"):
        assert main([command, str(model), "a.dump"]) == 2
        assert "--elements" in capsys.readouterr().err
    assert main(["eval", str(model), "a.data", "--elements", "O,Xy"]) == 2
    assert "'Xy' is no element" in capsys.readouterr().err
    assert main(["relax", str(model), "a.dump", "--elements", "O,H", "--steps", "1"]) in (0, 1)
