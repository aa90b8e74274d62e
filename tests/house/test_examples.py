"""The scripts of examples/ do what they say."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import dpa2md
import numpy as np
import pytest
from dpa2md.conversion import load_records
from dpa2md.engine import Engine
from dpa2md.reading import read_structures
from dpa2md.structures import equilibrated_water, water_box
from dpa2md.train import train

from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail

EXAMPLES = ROOT / "examples"
WATER = Path(dpa2md.__file__).parent / "models" / "water.dpa2"


def widen(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, EXAMPLES / "widen_nsel.py", *arguments]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def test_widening_keeps_the_energy(tmp_path):
    output = tmp_path / "wide.dpa2"
    done = widen(WATER, output, "--repformer", 80, "--three-body", 90)
    assert done.returncode == 0, done.stderr
    records = load_records(output)
    assert (records["repformer.nsel"], records["three_body.nsel"]) == (80, 90)
    atoms = water_box(32, seed=3)
    before, after = (Engine(m, "float64", 1).compute_atoms([atoms])[0] for m in (WATER, output))
    # 24 more empty slots in each softmax denominator, e^-20 = 2e-9 each, are what may differ
    assert abs(after.energies - before.energies).max() < 1e-6
    assert 0 < abs(after.forces - before.forces).max() < 1e-5


def test_widening_refuses_more_than_repinit_has(tmp_path):
    done = widen(WATER, tmp_path / "wide.dpa2", "--repformer", 500)
    assert done.returncode == 2 and "120" in done.stderr
    assert not (tmp_path / "wide.dpa2").exists()


@pytest.fixture
def example(monkeypatch):
    """The `main` of an example by the name of its file, to be called with a command line."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return lambda name: importlib.import_module(name).main


@pytest.fixture
def picture(tmp_path):
    """The name of a picture to be drawn, and after the test it must be there."""
    pytest.importorskip("matplotlib")
    yield str(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_phonons(example, picture):
    frequencies = example("phonons")(["--supercell", "2", "2", "2", "--plot", picture])
    assert len(frequencies) == 36
    # translations: zero but for rounding of differences, relaxation and the small supercell
    assert abs(frequencies[:3]).max() < 15 < frequencies[3]
    # eight O-H bonds stretch; those of water do so between 3000 and 3800 1/cm
    assert (frequencies[-8:] > 2900).all() and (frequencies < 3900).all()
    assert (frequencies[:-8] < 2000).all()


def test_elastic_constants(example, picture):
    matrix = example("elastic")(["--plot", picture])
    # second derivatives of one energy: symmetric, but for the third order of a strain of 0.5 %
    assert abs(matrix - matrix.T).max() < 0.05 * matrix.max()
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0
    forbidden = np.ones((6, 6), dtype=bool)  # in an orthorhombic crystal
    forbidden[:3, :3] = forbidden[[3, 4, 5], [3, 4, 5]] = False
    assert abs(matrix[forbidden]).max() < 1e-3 * matrix.max()


def test_nudged_elastic_band(example, picture):
    energies = example("neb")(["--images", "5", "--plot", picture])
    assert energies.argmax() == 2 and energies[2] > 0.1
    # both ends are the same crystal, both halves of the path mirror images; 0.01 eV is fmax times 0.3 angstrom
    np.testing.assert_allclose(energies, energies[::-1], atol=0.01)
    assert abs(energies[-1]) < 1e-9


def test_dispersion(example, capsys):
    try:
        import dftd3.ase  # noqa: F401
    except ImportError:
        skip_or_fail("dftd3", "dftd3 is not installed (pip install dftd3)")
    atoms = example("dispersion")([])
    shares = [float(line.split()[-2]) for line in capsys.readouterr().out.splitlines()]
    assert shares[1] < 0 and shares[0] + shares[1] == pytest.approx(shares[2], abs=2e-6)
    assert atoms.get_potential_energy() / len(atoms) == pytest.approx(shares[2], abs=1e-6)
    plain = dpa2md.evaluate(WATER, [equilibrated_water()])[0]["energy"] / len(atoms)
    assert plain == pytest.approx(shares[0], abs=1e-6)


def test_path_integrals(example, tmp_path):
    if not (Path(sys.executable).parent / "i-pi").exists():
        skip_or_fail("ipi", "i-PI is not installed (pip install ipi)")
    rows = example("i_pi")([str(tmp_path / "run"), "--steps", "5", "--beads", "2"])
    assert rows.shape == (6, 6)
    step, _, conserved, potential, _, _ = rows.T
    assert (step == np.arange(6)).all()
    atoms = equilibrated_water()
    atoms.calc = dpa2md.DPA2Calculator(WATER)
    # i-PI's units of energy and length are CODATA's of another year than ASE's
    assert potential[0] == pytest.approx(atoms.get_potential_energy(), rel=1e-7)
    # 1 meV an atom and bead: the integrator's, from beads that start at one point
    assert abs(conserved - conserved[0]).max() < 1e-3 * 2 * len(atoms)


def test_training(example, tmp_path, monkeypatch):
    """The data that the example makes are those that its input names."""
    monkeypatch.chdir(tmp_path)
    example("make_training_data")(["data", "--frames", "5", "--every", "1", "--threads", "1"])
    for frame in read_structures(str(tmp_path / "data" / "training")):
        found = dpa2md.evaluate(WATER, [frame])[0]
        # the model runs in float32, and so it did when it labelled
        np.testing.assert_allclose(found["forces"], frame.get_forces(), atol=1e-3)
    settings = json.loads((EXAMPLES / "train_dpa1.json").read_text())
    settings["training"] |= {"numb_steps": 2, "disp_freq": 1}
    path = train(settings, threads=1)
    # after two steps the energy is little more than the bias: within 1 eV an atom
    (frame,) = read_structures(str(tmp_path / "data" / "held_out"))
    label = np.load(tmp_path / "data" / "held_out" / "set.000" / "energy.npy").item()
    found = Engine(path, threads=1).compute_atoms([frame])[0].energy
    assert found == pytest.approx(label, abs=1.0 * len(frame))
