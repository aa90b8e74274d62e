"""`dpa2md relax`: reaches a minimum, stops and goes on, says so in its exit status."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from dpa2md import DPA2Calculator
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.relaxation import Relaxation, relax
from dpa2md.shipped import DEFAULT_MODEL


@pytest.fixture
def model():
    """The shipped one: those with random weights have no minima to rely on."""
    return DEFAULT_MODEL


def water() -> Atoms:
    """A molecule, not at rest."""
    atoms = molecule("H2O", vacuum=4.0, pbc=True)
    atoms.rattle(0.05, seed=3)
    return atoms


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write(tmp_path / "start.traj", water())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(model, folder):
    def run(*options: str) -> int:
        return main(["relax", str(model), "start.traj", "--threads", "1", *options])

    return run


@pytest.mark.parametrize("optimizer", ["fire", "bfgs", "lbfgs"])
def test_forces_become_small(command, model, optimizer, capsys):
    assert command("--optimizer", optimizer, "--fmax", "0.02", "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["converged"] and outcome["steps"] > 0
    atoms = read("relaxed.extxyz")
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 0.02
    assert atoms.get_potential_energy() == outcome["energy"]
    start = read("start.traj")
    start.calc = DPA2Calculator(model, threads=1)
    assert outcome["energy"] < start.get_potential_energy()
    assert len(read("relaxed.traj", ":")) == outcome["steps"] + 1


def test_the_cell_reaches_the_pressure():
    """Copper of ASE's EMT: at the end the stress is minus the pressure."""
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.rattle(0.02, seed=1)
    atoms.calc = EMT()
    pressure = 5000.0  # bar
    assert relax(atoms, Relaxation(cell=True, pressure=pressure, fmax=1e-3)).converged
    wanted = -pressure * 1e5 * units.Pascal * np.array([1, 1, 1, 0, 0, 0])
    # the filter's force on a cell is its stress times the volume, divided among the atoms
    np.testing.assert_allclose(atoms.get_stress(), wanted, atol=1e-3 * 4 / atoms.get_volume())


def test_a_cell_needs_periodicity(command, folder, capsys):
    write("start.traj", Atoms("OH", [[0, 0, 0], [0, 0, 1]]))
    assert command("--cell") == 2
    assert "periodic in three directions" in capsys.readouterr().err


def test_too_few_steps_then_restart(command, capsys):
    assert command("--steps", "3", "--fmax", "0.02") == 1
    assert "not converged after 3 steps" in capsys.readouterr().out
    assert command("--fmax", "0.02") == 2
    assert "relaxed.extxyz exists; add --overwrite or --restart" in capsys.readouterr().err
    reached = read("relaxed.extxyz")
    assert command("--fmax", "0.02", "--restart") == 0
    frames = read("relaxed.traj", ":")
    np.testing.assert_allclose(frames[3].positions, reached.positions, atol=1e-7)
    energies = [a.get_potential_energy() for a in frames]
    assert energies[-1] < energies[3] < energies[0]


def test_files_with_an_at_sign(command):
    """ASE would take what follows it for an index."""
    assert command("--steps", "1", "-o", "water@300K.extxyz") == 1
    assert command("--fmax", "0.02", "-o", "water@300K.extxyz", "--restart") == 0


def test_ctrl_c(model):
    atoms = water()
    atoms.calc = DPA2Calculator(model, threads=1)

    def interrupt(step, *_):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = relax(atoms, Relaxation(fmax=1e-9), report=interrupt)
    assert outcome.interrupted and not outcome.converged and outcome.steps in (2, 3)


def test_what_is_fixed_stays(model):
    from ase.constraints import FixAtoms

    atoms = water()
    before = atoms.positions[0].copy()
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = DPA2Calculator(model, threads=1)
    assert relax(atoms, Relaxation(fmax=0.05)).steps > 0
    np.testing.assert_array_equal(atoms.positions[0], before)


def test_an_explosion_keeps_the_last_good_step(model, tmp_path):
    from ase.calculators.calculator import all_changes

    class Explodes(DPA2Calculator):
        calls = 0

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            Explodes.calls += 1
            if Explodes.calls > 3:
                raise ValueError("The results are not finite.")
            super().calculate(atoms, properties, system_changes)

    atoms = water()
    atoms.calc = Explodes(model, threads=1)
    path = tmp_path / "path.traj"
    with pytest.raises(RunError, match=r"failed after step \d .*not finite.*path.traj"):
        relax(atoms, Relaxation(fmax=1e-9), trajectory=path)
    assert len(read(path, ":")) >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "x.nonsense"], "ASE can't write"),
        (["-o", "x.traj"], "another file"),
        (["-o", "nowhere/x.xyz"], "no such folder"),
        (["--fmax", "-1"], "--fmax must be positive"),
        (["--pressure", "1"], "add --cell"),
        (["--cell", "--pressure", "nan"], "--pressure is nan"),
        (["--restart", "--overwrite"], "contradict"),
    ],
)
def test_errors(command, options, message, capsys):
    assert command(*options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("out.xyz.gz", b"\x1f\x8b"),
        ("out.extxyz.bz2", b"BZh"),
        ("CONTCAR", b""),
        ("out.db", b"SQLite"),
    ],
)
def test_the_format_follows_the_name(command, folder, name, beginning):
    """Its end names the compression, too, also while it is written under another name."""
    command("--steps", "0", "-o", name)
    assert (folder / name).read_bytes().startswith(beginning)
    np.testing.assert_allclose(read(name).positions, read("start.traj").positions, atol=1e-7)
    assert len(list(folder.iterdir())) == 3  # start, output, path


def test_json_has_no_nan(command, folder, capsys):
    """Without a cell there is no volume."""
    write("start.traj", molecule("H2O"))
    command("--steps", "0", "--json")

    def refuse(word):
        pytest.fail(f"{word} is no JSON")

    assert json.loads(capsys.readouterr().out, parse_constant=refuse)["volume"] is None


def test_other_trajectories_are_refused(command, folder, capsys):
    write("relaxed.traj", bulk("Cu"))
    assert command("--restart") == 2
    assert "not those of the structure" in capsys.readouterr().err
    (folder / "relaxed.traj").write_text("nonsense")
    assert command("--restart") == 2
    assert "no trajectory to go on from" in capsys.readouterr().err
