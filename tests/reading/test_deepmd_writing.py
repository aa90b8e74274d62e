"""Frames that are written as DeePMD-kit's systems are read back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from dpa2md.cli import main
from dpa2md.deepmd_writing import write_systems
from dpa2md.errors import RunError
from dpa2md.labels import labels_of
from dpa2md.reading import read_structures


def frame(symbols: str, seed: int, *, periodic: bool = True, stress: bool = True) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols, positions=rng.uniform(0, 5, (len(Atoms(symbols)), 3)))
    if periodic:
        atoms.set_cell(5 * np.eye(3) + rng.uniform(0, 0.3, (3, 3)))
        atoms.pbc = True
    labels = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3))}
    if periodic and stress:
        labels["stress"] = rng.normal(size=6)
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def test_read_back(tmp_path):
    """Different orders of elements, cells and labels; each frame once, to the last bit but for stresses."""
    frames = [
        frame("OH2", 1), frame("H2O", 2), frame("OH2", 3), frame("OH2", 4, periodic=False),
        frame("OH2", 5, stress=False), frame("NaCl", 6),
    ]  # fmt: skip
    systems = write_systems(frames, tmp_path / "data")
    assert len(systems) == 5
    found = read_structures(tmp_path / "data")
    assert len(found) == len(frames)
    for atoms in frames:
        (same,) = [
            other
            for other in found
            if other.positions.shape == atoms.positions.shape
            and (other.positions == atoms.positions).all()
        ]
        assert same.get_chemical_symbols() == atoms.get_chemical_symbols()
        assert (same.pbc == atoms.pbc).all()
        assert (same.cell.array == atoms.cell.array).all()
        before, after = labels_of(atoms), labels_of(same)
        assert before.energy == after.energy
        assert (before.forces == after.forces).all()
        assert (before.stress is None) == (after.stress is None)
        if before.stress is not None:  # times a volume and divided by it
            assert abs(before.stress - after.stress).max() < 1e-14


def test_what_can_not_be_written(tmp_path):
    slab = frame("OH2", 1)
    slab.pbc = [True, True, False]
    with pytest.raises(RunError, match="structure 1: DeePMD-kit's systems are periodic in all"):
        write_systems([frame("OH2", 1), slab], tmp_path / "data")
    with pytest.raises(RunError, match="there are no frames"):
        write_systems([], tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_command(tmp_path, capsys):
    frame("OH2", 1).write(tmp_path / "a.extxyz")
    frame("OH2", 2).write(tmp_path / "b.extxyz")
    files = [str(tmp_path / name) for name in ("a.extxyz", "b.extxyz")]
    assert main(["systems", *files, "-o", str(tmp_path / "data")]) == 0
    assert "2 frames in 1 systems" in capsys.readouterr().out
    assert main(["systems", *files, "-o", str(tmp_path / "data")]) == 2
    assert "exists; remove it, or name another folder" in capsys.readouterr().err
