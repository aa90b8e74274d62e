"""Engines in other processes and as copies: forks, pickles, deep copies, numbers of threads."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from dpa2md import DPA2Calculator, Engine
from dpa2md.cli import main
from dpa2md.errors import ModelError
from dpa2md.shipped import DEFAULT_MODEL

from tests.support.small_models import crystal, small_model

FORK = """
import concurrent.futures, multiprocessing, os, sys
from ase.build import molecule
from dpa2md import DPA2Calculator

def water(k):
    atoms = molecule("H2O")
    atoms.rattle(0.02, seed=k)
    return atoms

def energy(k):
    atoms = water(k)
    atoms.calc = calculator
    return atoms.get_potential_energy()

def own(k):
    atoms = water(k)
    atoms.calc = DPA2Calculator("water", threads=OWN)
    return atoms.get_potential_energy()

calculator = DPA2Calculator("water", threads=THREADS)
fork = multiprocessing.get_context("fork")
parent = [energy(k) for k in range(4)]
for work in (energy, own):
    with fork.Pool(2) as pool:
        assert pool.map(work, range(4)) == parent
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
        assert list(pool.map(work, range(4))) == parent
assert energy(0) == parent[0]
pid = os.fork()  # and a fork of a fork
if pid == 0:
    energy(1)
    with fork.Pool(1) as pool:
        os._exit(pool.map(energy, range(4)) != parent)
assert os.waitpid(pid, 0)[1] == 0
print("done")
"""


def python(script: str, **environment: str) -> subprocess.CompletedProcess:
    """The script must end by itself; 60 s are a hundred times what it takes."""
    kept = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("threads", ["None", "2"])
@pytest.mark.parametrize("environment", [{}, {"OMP_NUM_THREADS": "3"}], ids=["default", "omp"])
def test_forked_workers_compute(threads, environment):
    script = FORK.replace("THREADS", threads).replace("OWN", threads)
    done = python(script, **environment)
    assert done.stdout == "done\n", done.stderr[-2000:]


def test_fork_during_a_computation():
    """The thread that computes is not there in the child, and its half-done work is."""
    script = """
import os, threading, time
from dpa2md import DPA2Calculator
from dpa2md.structures import equilibrated_water
atoms = equilibrated_water().repeat(4)
calculator = DPA2Calculator("water")
thread = threading.Thread(target=lambda: calculator.get_potential_energy(atoms))
thread.start()
time.sleep(0.3)
assert thread.is_alive()
pid = os.fork()
if pid == 0:
    try:
        calculator.engine.compute(atoms.positions[:1], [0])
    except ValueError as error:
        assert "forked while another thread computed" in str(error)
        other = DPA2Calculator("water")
        os._exit(not other.get_potential_energy(atoms[:3]) < 0)
    os._exit(2)
thread.join()
assert os.waitpid(pid, 0)[1] == 0
print("done")
"""
    done = python(script)
    assert done.stdout == "done\n", done.stderr[-2000:]


@pytest.fixture
def replaceable(tmp_path):
    """A model's file, and one of another model."""
    path = tmp_path / "model.dpa2"
    shutil.copy(small_model(tmp_path), path)
    return path, small_model(tmp_path, scale=100.0)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("fate", ["kept", "replaced", "removed"])
def test_copies_are_the_model_that_was_loaded(replaceable, duplicate, fate):
    path, other = replaceable
    calculator = DPA2Calculator(path, threads=1)
    atoms = crystal()
    expected = calculator.get_potential_energy(atoms)
    if fate == "replaced":
        shutil.copy(other, path)
        assert DPA2Calculator(path).get_potential_energy(atoms) != pytest.approx(expected)
    elif fate == "removed":
        path.unlink()
    engine = duplicate(calculator.engine)
    assert engine.description == calculator.engine.description
    assert DPA2Calculator(engine).get_potential_energy(atoms) == expected
    atoms.calc = calculator
    assert copy.deepcopy(atoms).get_potential_energy() == expected
    assert np.array_equal(duplicate(calculator).get_forces(atoms), calculator.get_forces(atoms))


def test_a_deep_copy_computes_by_itself(replaceable):
    """It has buffers and a neighbour list of its own."""
    path, _ = replaceable
    calculator = DPA2Calculator(path, threads=1)
    other = copy.deepcopy(calculator)
    big = crystal((3, 2, 2))
    alone = calculator.get_forces(crystal()).copy()
    other.get_forces(big)
    calculator.reset()
    assert np.array_equal(calculator.get_forces(crystal()), alone)


def test_pickles_know_their_model(replaceable):
    path, other = replaceable
    calculator = DPA2Calculator(path, threads=1)
    expected = calculator.get_potential_energy(crystal())
    stored = pickle.dumps(calculator)
    assert pickle.loads(stored).get_potential_energy(crystal()) == expected
    shutil.copy(other, path)
    with pytest.raises(ModelError, match="the file has changed since the model was loaded"):
        pickle.loads(stored)
    path.unlink()
    with pytest.raises(ModelError, match="the file of the pickled model is not there"):
        pickle.loads(stored)


def test_too_many_threads(capsys):
    with pytest.raises(ValueError, match="100000 threads are too many"):
        Engine(DEFAULT_MODEL, threads=100_000)
    for command in (["eval", "water", "water"], ["info", "water", "--atoms", "100"]):
        assert main([*command, "--threads", "100000"]) == 2
        assert "give at most" in capsys.readouterr().err
    assert Engine(DEFAULT_MODEL, threads=8).compute(np.zeros((1, 3)), [0]).energy < 0


def test_the_shipped_model_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Engine("water").path == str(DEFAULT_MODEL)
    shutil.copy(small_model(tmp_path), "water")  # a file of that name is that file
    assert Engine("water").elements == ["O", "H", "Si"]
