"""Structures that make no sense: each is refused with one sentence, at once, or has a finite energy."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from dpa2md import evaluate
from dpa2md.cli import main
from dpa2md.engine import Engine

WATER = [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]]
BOX = np.diag([9.0, 9.0, 9.0])


def water(hydrogen=None, cell=None, symbols: str = "OH2") -> Atoms:
    """A molecule with its first hydrogen somewhere else, or in a periodic cell."""
    atoms = Atoms(symbols, WATER)
    if hydrogen is not None:
        atoms.positions[1] = hydrogen
    if cell is not None:
        atoms.set_cell(cell)
        atoms.pbc = True
    return atoms


NAN, INF = float("nan"), float("inf")
REFUSED = {
    "nan": (water([NAN, 0, 0]), "is not finite or beyond 1e9"),
    "infinite": (water([0, -INF, 0]), "is not finite or beyond 1e9"),
    "beyond reach": (water([0, 0, 1e300]), "beyond 1e9 angstrom"),
    "beyond reach, periodic": (water([0, 0, -1e300], BOX), "beyond 1e9 angstrom"),
    "coincident": (water([0, 0, 0]), "on top of another"),
    "almost coincident": (water([1e-7, 0, 0]), "on top of another"),
    "denormal distance": (water([1e-310, 0, 0]), "on top of another"),
    "coincident with an image": (water([0, 0, 9.0], BOX), "on top of another"),
    "no cell": (water(cell=np.zeros((3, 3))), "shorter than 0.001 angstrom"),
    "two equal vectors": (water(cell=[[9, 0, 0], [9, 0, 0], [0, 0, 9]]), "linearly dependent"),
    "flat cell": (water(cell=[[9, 0, 0], [9, 1e-12, 0], [0, 0, 9]]), "linearly dependent"),
    "nan cell": (water(cell=np.diag([NAN, 9, 9])), "not finite"),
    "infinite cell": (water(cell=np.diag([9, INF, 9])), "not finite"),
    "endless cell": (water(cell=np.diag([9, 1e200, 9])), "longer than 1e9"),
    "thin cell": (water(cell=0.01 * np.eye(3)), "more than 1e7 neighbours"),
    "thinner cell": (water(cell=1e-6 * np.eye(3)), "shorter than 0.001 angstrom"),
    "unknown element": (Atoms("He"), "doesn't know the element He"),
    "no element": (Atoms("X"), "doesn't know the element X"),
}
ODD = {
    "no atoms": Atoms(),
    "no atoms in a cell": Atoms(cell=BOX, pbc=True),
    "far away": water([1e8, 0, 0]),
    "far away, periodic": water([1e8, 0, 0.5], BOX),
    "left-handed": water(cell=np.diag([9.0, 9.0, -9.0])),
    "skewed": water(cell=[[9, 0, 0], [9e7, 9, 0], [0, 0, 9]]),
    "endless": water(cell=1e9 * np.eye(3)),
    "scattered": Atoms("O200", np.random.default_rng(0).uniform(-1e9, 1e9, (200, 3))),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    from tests.support.small_models import small_model

    return Engine(small_model(tmp_path_factory.mktemp("model")), threads=1)


@pytest.mark.parametrize("name", REFUSED)
def test_senseless_structures_are_refused(engine, name):
    atoms, words = REFUSED[name]
    began = time.monotonic()
    with pytest.raises(ValueError, match=words) as error:
        engine.compute_atoms([atoms])
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 5
    # in the middle of others it is named by its number
    with pytest.raises(ValueError, match=f"structure 2: .*{words}"):
        evaluate(engine, [water(), water(cell=BOX), atoms, water()])
    # and the engine is as good as before
    assert np.isfinite(engine.compute_atoms([water()])[0].energy)


@pytest.mark.parametrize("name", ODD)
def test_odd_structures_are_computed(engine, name):
    atoms = ODD[name]
    result = evaluate(engine, [atoms])[0]
    assert np.isfinite(result["energy"]) and result["forces"].shape == (len(atoms), 3)


@pytest.mark.parametrize("command", ["eval", "check", "relax", "md"])
@pytest.mark.parametrize("name", ["nan", "coincident", "two equal vectors", "unknown element"])
def test_commands_refuse_in_one_line(engine, command, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("start.traj", REFUSED[name][0])
    assert main([command, engine.path, "start.traj", "--threads", "1"]) == 2
    error = capsys.readouterr().err
    assert REFUSED[name][1] in error and error.count("\n") == 1
    assert error.startswith(f"dpa2md {command}: ")


@pytest.mark.parametrize(
    "content", ["", "0\n\n", "x", "2\n\nO 0 0 0\n", "\x00" * 100, "1\n\nO a b c\n"]
)
def test_files_without_structures(engine, content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.xyz").write_text(content)
    for command in ("eval", "check", "relax", "md"):
        assert main([command, engine.path, "odd.xyz"]) == 2
        error = capsys.readouterr().err
        assert "odd.xyz: " in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["odd.xyz"]
