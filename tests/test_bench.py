"""`dpa2md bench`: tables of times, alone and beside a program that stands in for DeePMD-kit."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from ase import Atoms
from dpa2md.bench import replicated
from dpa2md.cli import main
from dpa2md.errors import RunError

# A module of DeePMD-kit's name, whose energies are ours plus one eV/atom.
STAND_IN = """
import numpy as np
from dpa2md.engine import Engine

class DeepPot:
    def __init__(self, path):
        self.engine = Engine(path, threads=1)

    def eval(self, x, cell, types):
        r = self.engine.compute(x.reshape(-1, 3), types, cell=cell.reshape(3, 3), pbc=True)
        return np.array([[r.energy + len(types)]]), r.forces, r.virial
"""


def test_alone(capsys, tmp_path):
    table = tmp_path / "times.csv"
    command = ["bench", "--atoms", "192", "--steps", "2", "--threads", "1", "--json", "--stages"]
    assert main([*command, "--csv", str(table)]) == 0
    out = json.loads(capsys.readouterr().out)
    (row,) = out["rows"]
    (stages,) = out["stages, us/atom"]
    assert row["atoms"] == 192 and 0 < row["fastest"] <= row["ms/step"] and row["MB"] > 0
    assert {"pairs", "repinit", "node_step", "forces"} <= set(stages)
    # of one thread, the stages are a part of the step
    assert 0 < sum(stages.values()) <= 1.5 * row["us/atom"]
    with open(table) as file:
        (written,) = csv.DictReader(file)
    assert float(written["us/atom"]) == row["us/atom"] and written["machine"]


def test_against(capsys, tmp_path, monkeypatch):
    package = tmp_path / "deepmd"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "infer.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *filter(None, sys.path)]))
    from dpa2md.shipped import DEFAULT_MODEL

    command = ["bench", "--against", str(DEFAULT_MODEL), "--atoms", "192", "--steps", "1", "--json"]
    assert main(command) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["eV/atom apart"] == pytest.approx(1.0, abs=1e-3)
    assert row["DeePMD-kit us/atom"] > 0 and row["ratio"] > 0 and row["DeePMD-kit MB"] > 0


def test_refusals(capsys, tmp_path):
    from dpa2md.shipped import DEFAULT_MODEL

    against = ["bench", "--against", str(DEFAULT_MODEL), "--atoms", "192", "--peer-python"]
    for command, words in (
        (["bench", "--steps", "0"], "--steps 0: give 1 or more"),
        (["bench", "--atoms", "0"], "--atoms 0: give 1 or more"),
        (["bench", "--atoms", "192", "-5"], "--atoms -5: give 1 or more"),
        (["bench", "--threads", "0"], "The number of threads is 0; give 1 or more"),
        (["bench", "--threads", "-2"], "The number of threads is -2"),
        (["bench", "--csv", str(tmp_path / "no" / "t.csv")], "there is no such folder"),
        (["bench", "--model", str(tmp_path / "no.dpa2")], "no such model"),
        ([*against, str(tmp_path / "no-python")], "can't be started"),
        ([*against, "/bin/false"], "/bin/false has no deepmd-kit: pip install deepmd-kit there"),
        ([*against[:2], "no.pth"], "no.pth: there is no such model"),
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_replicated():
    atoms = Atoms("H", cell=[1, 2, 8], pbc=[True, True, False])
    result = replicated(atoms, 16)
    assert len(result) == 16 and sorted(result.cell.lengths()) == pytest.approx([4, 8, 8])
    assert len(replicated(result, 3)) == 16
    wire = Atoms("H2", cell=[9, 9, 3], pbc=[False, False, True])
    assert len(replicated(wire, 7)) == 8
    slab = Atoms("H", cell=[3, 3, 50], pbc=True)  # longer than any cube of so few
    assert replicated(slab, 30).cell.lengths() == pytest.approx([18, 18, 50])
    many = replicated(Atoms("H4", cell=[2, 2, 2], pbc=True), 8001)
    assert 8001 <= len(many) < 8100  # not the next power of two
    assert many.cell.lengths().max() <= 2 * many.cell.lengths().min()
    with pytest.raises(RunError, match="without periodic directions"):
        replicated(Atoms("H"), 2)


def test_a_peer_that_stops(capsys, tmp_path, monkeypatch):
    package = tmp_path / "deepmd"
    package.mkdir()
    (package / "__init__.py").touch()  # without what computes
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *filter(None, sys.path)]))
    from dpa2md.shipped import DEFAULT_MODEL

    assert main(["bench", "--against", str(DEFAULT_MODEL), "--atoms", "192"]) == 2
    assert "stopped while it computed" in capsys.readouterr().err


def test_pictures_need_matplotlib(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--plot", str(tmp_path / "times.png")]) == 2
    assert "Plots need matplotlib: pip install matplotlib." in capsys.readouterr().err


def test_against_refuses_what_it_would_ignore(capsys):
    against = ["bench", "--against", "model.pth"]
    for option, value in (
        ("--device", ["cuda"]),
        ("--low-memory", []),
        ("--stages", []),
        ("--threads", ["4"]),
        ("--head", ["A"]),
    ):
        assert main([*against, option, *value]) == 2
        assert f"leave out {option}" in capsys.readouterr().err
