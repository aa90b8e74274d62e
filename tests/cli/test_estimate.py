"""`dpa2md info --atoms`: scaled from what was measured, and near what is then found."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from ase.io import write
from dpa2md import estimate
from dpa2md.cli import main
from dpa2md.engine import DeviceMemory, Engine

from tests.support.small_models import crystal


def in_a_new_process(code, *arguments):
    """What `code` prints as numbers. Memory that earlier tests left free in this process would not count as taken."""
    head = "import sys; from dpa2md import estimate; from dpa2md.engine import Engine\n"
    line = [sys.executable, "-c", head + code, *map(str, arguments)]
    out = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return [float(word) for word in out.split()]


def test_costs_grow_with_the_atoms(model):
    code = (
        "e = Engine(sys.argv[1], threads=1)\n"
        "for n in (10_000, 1_000_000):\n"
        "    found = estimate.estimate(e, n)\n"
        "    print(found.seconds, found.megabytes or 0, *found.measured_atoms)\n"
    )
    seconds, memory, *measured, more_seconds, more_memory, _, _ = in_a_new_process(code, model)
    assert measured == [216, 1728]
    # two measurements on a machine that does other things, too
    assert 20 < more_seconds / seconds < 500
    if memory and more_memory:
        assert more_memory > 5 * memory


def test_time_is_what_such_a_step_takes(model):
    engine = Engine(model, threads=1)
    found = estimate.estimate(engine, 4096)
    taken, _ = estimate._measure(engine, estimate.lattice(engine.elements, 4096))
    assert 0.3 < found.seconds / taken < 3  # the machine may be busy during one of them


def test_memory_is_what_such_a_process_takes(model, tmp_path):
    if estimate._peak() is None:
        pytest.skip("this system does not tell a process's memory")
    code = (
        "e = Engine(sys.argv[1], threads=1)\n"
        "guess = estimate.estimate(e, 13824).megabytes\n"
        "print(guess, estimate._measure(e, estimate.lattice(e.elements, 13824))[1])\n"
    )
    guess, found = in_a_new_process(code, model)
    assert 0.5 < guess / found < 2


def test_memory_that_was_freed_before(model):
    """As that in which a steep net's tables were made: the atoms would find room there, unseen."""
    if estimate._peak() is None:
        pytest.skip("this system does not tell a process's memory")
    code = (
        "e = Engine(sys.argv[1], threads=1)\n"
        "print(estimate.estimate(e, 1_000_000).megabytes)\n"
        "parts = [bytearray(100_000) for _ in range(3000)]\n"
        "parts = parts[::100]\n"  # between which the rest stays with the process
        "print(estimate.estimate(e, 1_000_000).megabytes)\n"
    )
    first, second = in_a_new_process(code, model)
    assert 0.7 < second / first < 1.4


def test_lattice():
    atoms = estimate.lattice(["O", "H", "Si"], 216)
    assert len(atoms) == 216 and set(atoms.get_chemical_symbols()) == {"O", "H", "Si"}
    assert len(atoms) / atoms.get_volume() == pytest.approx(estimate.DENSITY)
    assert np.sort(atoms.get_all_distances(mic=True), axis=1)[:, 1].min() > 1.0


def test_memory_of_a_gpu(model, monkeypatch, capsys):
    """As an engine on a GPU tells it; test_gpu_memory.cpp checks the numbers against what is allocated."""
    assert Engine(model).device_memory(1000) is None
    seen = []

    def device_memory(self: Engine, natoms: int) -> DeviceMemory:
        seen.append(natoms)
        return DeviceMemory(3.25e9, 79e9, 123456)

    monkeypatch.setattr(Engine, "device_memory", device_memory)
    assert main(["info", str(model), "--atoms", "5000", "--threads", "1", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert seen == [5000]
    assert cost["GPU memory / MB"] == 3250 and cost["free GPU memory / MB"] == 79000
    assert cost["atoms that fit on the GPU"] == 123456


def test_command(model, tmp_path, capsys):
    assert main(["info", str(model), "--atoms", "5000", "--threads", "1", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert cost["atoms"] == 5000 and cost["seconds a step"] > 0
    assert "216 and 1728 atoms" in cost["scaled from"]
    path = tmp_path / "crystal.extxyz"
    write(path, crystal())
    assert main(["info", str(model), "--atoms", "5000", "--structure", str(path)]) == 0
    assert "of the structure given" in capsys.readouterr().out
    assert main(["info", str(model), "--atoms", "0"]) == 2
    assert "give 1 or more" in capsys.readouterr().err
