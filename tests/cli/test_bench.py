"""`dpa2md bench`: tables of times, alone and beside a program that stands in for DeePMD-kit."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from ase import Atoms
from dpa2md.bench import replicated, side_by_side
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.structures import equilibrated_water

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


def test_side_by_side():
    """Two models in turn; the larger precision takes more memory."""
    done = []
    models = [("water", {"threads": 1, "precision": p}) for p in ("float32", "float64")]
    single, double = side_by_side(models, equilibrated_water(), 2, done.append)
    assert done == [1, 2] and len(single.seconds) == len(double.seconds) == 2
    assert min(single.seconds) > 0 and 10 < single.peak < double.peak


def test_a_model_that_stops_is_named():
    models = [("water", {"threads": 1}), ("water", {"threads": 1, "device": "nowhere"})]
    with pytest.raises(RunError, match=r"computed with water; see that it can load this model\.$"):
        side_by_side(models, equilibrated_water(), 1)


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
        ("--low-memory", []),
        ("--stages", []),
        ("--threads", ["4"]),
        ("--head", ["A"]),
    ):
        assert main([*against, option, *value]) == 2
        assert f"leave out {option}" in capsys.readouterr().err


# ---- kernels of a GPU

KERNEL = {"blocks": 12, "threads": 128, "registers": 90, "shared_bytes": 2048, "local_bytes": 24}
SECONDS = {"PairStep": 3e-3, "Clear": 1e-3}  # of two launches a step


class StandIn:
    """The core of an engine on a GPU: every call is a step."""

    def __init__(self, core):
        self.core, self.steps, self.measured = core, 0, []

    def __getattr__(self, name):
        return getattr(self.core, name)

    def compute(self, *args, **kwargs):
        self.steps += 1
        return self.core.compute(*args, **kwargs)

    def measure_kernels(self, yes):
        self.measured.append(yes)
        self.steps = 0

    def kernel_times(self):
        steps, self.steps = self.steps, 0
        return [
            KERNEL | {"name": n, "launches": 2 * steps, "seconds": s * steps, "occupancy": 0.25}
            for n, s in reversed(SECONDS.items())
        ]


@pytest.fixture
def cores(monkeypatch):
    """Engines of `dpa2md bench --device cuda` compute on the CPU with a `StandIn`, which comes here."""
    from dpa2md.cli import bench as command
    from dpa2md.engine import Engine
    from dpa2md.shipped import DEFAULT_MODEL

    made = []

    def load_engine(args, frames):
        engine = Engine(DEFAULT_MODEL, threads=1)
        engine._core = StandIn(engine._core)
        made.append(engine._core)
        return engine

    monkeypatch.setattr(command, "load_engine", load_engine)
    return made


def test_kernels(cores, capsys, tmp_path):
    command = ["bench", "--device", "cuda", "--kernels", "--atoms", "192", "384", "--steps", "2"]
    assert main([*command, "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    (core,) = cores
    assert core.measured == [True, False, True, False]
    assert [row["kernels ms"] for row in out["rows"]] == [4.0, 4.0]
    assert all(row["ms/step"] > 0 for row in out["rows"])
    small, large = out["kernels"]
    assert (small["atoms"], large["atoms"]) == (192, 384)
    longest, shortest = small["rows"]  # the core named them the other way round
    assert longest | {"us/atom": 0} == {
        "kernel": "PairStep",
        "us/atom": 0,
        "ms/step": 3.0,
        "share %": 75.0,
        "launches": 2.0,
        "us each": 1500.0,
        "blocks": 12,
        "threads": 128,
        "registers": 90,
        "shared kB": 2.0,
        "local B": 24,
        "occupancy": 0.25,
    }
    assert longest["us/atom"] == pytest.approx(3e3 / 192, abs=1e-5)
    assert shortest["kernel"] == "Clear" and large["rows"][0]["us/atom"] == pytest.approx(3e3 / 384)

    table = tmp_path / "kernels.csv"
    assert main([*command, "--csv", str(table)]) == 0
    text = capsys.readouterr().out
    assert "192 atoms, kernels one after the other" in text and "PairStep" in text
    with open(table) as file:
        lines = list(csv.DictReader(file))
    assert [(line["atoms"], line["kernel"]) for line in lines] == [
        (atoms, name) for atoms in ("192", "384") for name in SECONDS
    ]


def test_kernels_without_a_clock(cores, capsys, monkeypatch):
    """As of the emulated device, whose kernels have no times."""
    monkeypatch.setattr(StandIn, "kernel_times", lambda self: [])
    assert main(["bench", "--device", "cuda", "--kernels", "--atoms", "192"]) == 2
    assert "has no clock for its kernels" in capsys.readouterr().err
    assert cores[0].measured == [True, False]  # as it was before


def test_kernels_are_those_of_a_gpu(capsys):
    gpu = ["bench", "--device", "cuda", "--kernels"]
    for command, words in (
        (["bench", "--kernels"], "add --device cuda, or take --stages on the CPU"),
        ([*gpu, "--stages"], "leave out --stages"),
        ([*gpu, "--against", "model.pth"], "leave out --against"),
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
