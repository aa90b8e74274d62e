"""csrc/include/dpa2md.h, from a program in C."""

from __future__ import annotations

import numpy as np
import pytest
from dpa2md import Engine
from dpa2md.shipped import DEFAULT_MODEL

from tests.support.cpp_programs import environment, run


@pytest.mark.timeout(1800)  # the first test builds
def test_a_program_in_c(cpp_programs):
    done = run([str(cpp_programs / "c_interface"), str(DEFAULT_MODEL)], env=environment())
    assert done.returncode == 0, done.stderr
    values = np.array(done.stdout.split(), dtype=float).reshape(2, 19)
    engine = Engine(DEFAULT_MODEL, precision="float64", threads=1)
    x = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.47]]
    for row, pbc in zip(values, (False, True), strict=True):
        r = engine.compute(x, engine.types("OHH"), cell=6 * np.eye(3), pbc=pbc)
        expected = np.concatenate([[r.energy], r.forces.ravel(), r.virial.ravel()])
        assert np.abs(row - expected).max() <= 1e-9  # compilers may order sums otherwise
    refused, missing = done.stderr.splitlines()
    assert refused == (
        "atom 0 sits on top of another atom (closer than 0.0001 angstrom): remove one of the two."
    )
    assert missing == "cannot open the mod|"
