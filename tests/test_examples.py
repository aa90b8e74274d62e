"""The scripts of examples/ do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dpa2md
from dpa2md.conversion import load_records
from dpa2md.engine import Engine
from dpa2md.structures import water_box

EXAMPLES = Path(__file__).parent.parent / "examples"
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
