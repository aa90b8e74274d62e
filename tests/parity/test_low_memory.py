"""low_memory: the same bits from less memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from dpa2md import DPA2Calculator
from dpa2md.cli import main
from dpa2md.engine import Engine
from dpa2md.errors import ModelError

from tests.golden.suite import STRUCTURES
from tests.support.lammps_runs import ELEMENTS, single_point
from tests.support.paths import ROOT
from tests.support.selection import golden_models
from tests.support.small_models import crystal, deep_model

LAYERS = 13  # two layers of g2 are kept in between, and the last ones are reached from either


def results(path, threads=2, **options):
    engine = Engine(path, None, threads, **options)
    return engine.compute_atoms([crystal()])[0]


def assert_same_bits(a, b):
    assert a.energy == b.energy
    for name in ("energies", "forces", "virial", "virials"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


# Attention and no attention of either kind, g2 that reads g1, h2 that moves, one layer, a student.
@golden_models(
    "medium", "full", "res_residual_h2", "no_g2_attn", "small", "one_layer", "not_smooth", "dpa1"
)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_golden_models(model, precision, evaluate):
    structure = STRUCTURES["water"]
    found = [
        Engine(evaluate.path(model), precision, 2, low_memory=low).compute(
            structure.positions, model.types(structure), cell=structure.cell, pbc=structure.pbc
        )
        for low in (False, True)
    ]
    assert_same_bits(*found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"h2": False},
        {"g1g1": False},
        {"g1g1": False, "h2": False},
        {"g1g1": False, "attention": False, "h2": False},
        {"g1g1": False, "nlayers": 7},
    ],
    ids=str,
)
def test_deep_models(changes, tmp_path):
    """Layers that are made again from one another, and from those kept in between."""
    path = deep_model(tmp_path, **{"nlayers": LAYERS, **changes})
    kept = results(path)
    assert_same_bits(kept, results(path, low_memory=True))
    # the energy alone keeps next to nothing, and is the same number
    for low in (False, True):
        engine = Engine(path, None, 1, low_memory=low)
        assert engine.compute_atoms([crystal()], forces=False)[0].energy == kept.energy


def test_takes_less_memory(tmp_path):
    """Half of it goes for g2 of all layers, which a deep model has many of."""
    path = deep_model(tmp_path, nlayers=LAYERS, g2_dim=24)
    code = (
        "import sys; from dpa2md.engine import Engine; from dpa2md import estimate\n"
        "from tests.support.small_models import crystal\n"
        "e = Engine(sys.argv[1], None, 1, low_memory=bool(sys.argv[2]))\n"
        "e.compute_atoms([crystal((2, 2, 2))])\n"
        "before = estimate._peak()\n"
        "e.compute_atoms([crystal((10, 10, 10))])\n"
        "print('low memory' in e.description, estimate._peak() - before)\n"
    )
    told, megabytes = zip(
        *(
            subprocess.run(
                [sys.executable, "-c", code, str(path), low],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
            ).stdout.split()
            for low in ("", "1")
        ),
        strict=True,
    )
    assert told == ("False", "True")
    assert float(megabytes[1]) < 0.6 * float(megabytes[0])


def test_calculator_and_command_line(tmp_path, capsys):
    path = deep_model(tmp_path, nlayers=4)
    atoms = crystal()
    atoms.calc = DPA2Calculator(path, low_memory=True)
    assert "low memory" in atoms.calc.engine.description
    assert np.array_equal(atoms.get_forces(), results(path, threads=None).forces)
    structure = tmp_path / "crystal.extxyz"
    atoms.calc = None
    atoms.write(structure)
    assert main(["eval", str(path), str(structure), "--low-memory"]) == 0
    assert "low memory" in capsys.readouterr().out


def test_only_on_the_cpu(tmp_path):
    path = deep_model(tmp_path, nlayers=2)
    with pytest.raises((ModelError, ValueError), match="low memory is for the device cpu"):
        Engine(path, device="cuda", low_memory=True)


def test_lammps(tmp_path, lammps):
    path = deep_model(tmp_path, nlayers=4)
    one, two = (
        single_point(tmp_path, crystal(), ELEMENTS, path, ranks=2, keywords=keywords)
        for keywords in ("", "low_memory")
    )
    assert np.array_equal(one.forces, two.forces)
