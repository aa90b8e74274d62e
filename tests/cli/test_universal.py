"""The shipped model with several heads: which head a structure gets, and what is said of it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from dpa2md import DPA2Calculator
from dpa2md.cli import main
from dpa2md.conversion import list_heads
from dpa2md.errors import RunError
from dpa2md.shipped import model_file, universal_head, universal_heads

from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("elements", "head"),
    [
        ("W", "metals"),
        (["W", "Be"], "metals"),
        (["Si"], "silicon"),
        ("HOH", "water"),
        ("CHHHH", "molecules"),
        ("OCO", "molecules"),
        (["Na", "Cl"], "salt"),
    ],
)
def test_head_of_a_structure(elements, head):
    assert universal_head(elements).name == head


def test_elements_that_no_head_saw_together():
    with pytest.raises(RunError, match=r'"universal" never saw O, Si together \(metals: Be, W;'):
        universal_head(["Si", "O", "O"])


def test_heads_are_those_of_the_file():
    assert [head.name for head in universal_heads()] == list_heads(model_file("universal"))


def test_errors_are_the_measured_ones():
    with open(ROOT / "benchmarks/results/intel-xeon-avx512-matter-heads.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["pretraining"] == "all"]
    measured = {(row["head"], row["data"]): float(row["force RMSE"]) for row in rows}
    told = {(h.name, data): e for h in universal_heads() for data, e in h.force_errors.items()}
    assert told.keys() == measured.keys()
    for key, error in told.items():
        assert error == pytest.approx(measured[key], abs=6e-4)  # three digits


def test_command_takes_the_head(tmp_path, capsys, monkeypatch):
    """Methane's forces are those of the head for molecules; a warning says how far to trust them."""
    monkeypatch.chdir(tmp_path)
    methane = molecule("CH4")
    methane.write("ch4.xyz")
    assert main(["eval", "universal", "ch4.xyz", "-o", "out.extxyz"]) == 0
    said = capsys.readouterr().err
    assert '"universal", head molecules, is a start for dpa2md finetune' in said
    atoms = read("ch4.xyz")
    atoms.calc = DPA2Calculator("universal", head="molecules")
    # files have eight digits
    np.testing.assert_allclose(read("out.extxyz").get_forces(), atoms.get_forces(), atol=1e-6)


def test_command_refuses_other_elements(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bulk("KBr", "rocksalt", a=6.6).write("salt.xyz")
    assert main(["relax", "universal", "salt.xyz", "-o", "out.xyz"]) == 2
    assert '"universal" never saw Br, K together' in capsys.readouterr().err


def test_finetune_starts_from_it(tmp_path, monkeypatch):
    """Labels that are its own forces, a tenth larger: tuning brings the errors down."""
    monkeypatch.chdir(tmp_path)
    frames = []
    for seed in range(3):
        atoms = bulk("Si", "diamond", a=5.47, cubic=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = DPA2Calculator("universal", head="silicon")
        energy, forces = atoms.get_potential_energy(), 1.1 * atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    write("frames.extxyz", frames)
    command = ["finetune", "universal", "frames.extxyz", "--head", "silicon", "--steps", "40"]
    assert main([*command, "-o", "tuned.dpa2", "--quiet"]) == 0
    report = json.loads((tmp_path / "tuned.json").read_text())
    force = "force_rmse_ev_per_angstrom"
    assert report["after"][force] < report["before"][force] / 2
