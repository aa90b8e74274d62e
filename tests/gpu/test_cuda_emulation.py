"""The CUDA backend's kernels, run by the host, give DeePMD-kit's numbers (test_cuda.py runs them on a GPU)."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.evaluate_program import EvaluateProgram, described, evaluated
from tests.support.parity import DIFFERENT_PRECISION, check_float32, check_float64
from tests.support.paths import ROOT
from tests.support.selection import golden_models
from tests.support.tolerances import TOLERANCES

pytestmark = pytest.mark.timeout(1800)  # the first test builds

DEVICE = "cuda-emulation"


@pytest.fixture(scope="module")
def emulate(cpp_programs, evaluate):
    return EvaluateProgram(cpp_programs / "evaluate", evaluate, DEVICE)


# The published families and what the other tests of several processes visit; DPA2MD_EMULATE=all takes every model.
ALL = os.environ.get("DPA2MD_EMULATE") == "all"
FLOAT64 = (
    "small",
    "medium",
    "large",
    "generation_2_0",
    "strip",
    "dpa1",
    "se_atten_v2",
    "full",
    "not_smooth",
    "graph",
    "graph_steep",
    "graph_steep_h2",
    "graph_dpa1",
)


@golden_models(*(() if ALL else FLOAT64))
def test_float64(model, emulate):
    for name in model.structures:
        check_float64(model, STRUCTURES[name], emulate)


@golden_models(
    "small", "medium", "large", "generation_2_0", "strip", "se_atten_v2", "full", "graph_steep_h2"
)
def test_float32(model, emulate):
    check_float32(model, emulate, "float32")


@golden_models(*(DIFFERENT_PRECISION if ALL else ("medium_float32", "strip_float32")))
def test_own_precision(model, emulate):
    check_float32(model, emulate, None)


@golden_models("medium", "strip", "se_atten_v2")
def test_without_tables(model, cpp_programs, evaluate):
    emulate = EvaluateProgram(cpp_programs / "evaluate", evaluate, DEVICE, tables=False)
    for name in model.structures:
        check_float64(model, STRUCTURES[name], emulate)


# Enough to visit every kernel: gates, all updates of g1, strip mode, a vacuum, DPA-1, an updated h2.
@pytest.mark.parametrize("tables", [True, False], ids=["tables", "nets"])
@pytest.mark.parametrize("threads", [8, -8])
@golden_models("small", "full", "strip", "atom_ener", "se_atten_v2", "res_residual_h2")
def test_threads_of_a_block(model, threads, tables, cpp_programs, evaluate):
    """Threads that take turns only at barriers, from either end, agree: no barrier is missing."""
    names = ("molecule", "wire", "isolated")
    emulate = EvaluateProgram(
        cpp_programs / "evaluate", evaluate, DEVICE, threads, tables, structures=names
    )
    for name in names:
        assert name in MODELS[model.name].structures
        check_float64(model, STRUCTURES[name], emulate)
    check_float32(model, emulate, "float32", names)  # with tables of three-body terms, too


@pytest.mark.parametrize("threads", [8, -8])
def test_threads_of_a_crowded_block(threads, cpp_programs, evaluate):
    """The same of atoms with more neighbours than slots, where all count."""
    model = MODELS["graph_steep_h2"]
    assert model.overfull[model.structures.index("wire")]
    emulate = EvaluateProgram(
        cpp_programs / "evaluate", evaluate, DEVICE, threads, structures=["wire"]
    )
    check_float64(model, STRUCTURES["wire"], emulate)


# One of every order of the reverse sweep, both kinds of h2, a model without layers.
@pytest.mark.parametrize("threads", [1, 8])
@golden_models(
    "small", "medium", "generation_2_0", "full", "res_residual_h2", "not_smooth", "se_atten_v2"
)
def test_chunks(model, threads, cpp_programs, evaluate):
    """Arrays that hold some of the atoms at a time hold those that are wanted."""
    names = model.structures if threads == 1 else ("water",)
    emulate = EvaluateProgram(
        cpp_programs / "evaluate", evaluate, DEVICE, threads, chunk=16, structures=names
    )
    for name in names:
        check_float64(model, STRUCTURES[name], emulate)


@pytest.mark.parametrize("threads", [1, 8])
def test_shipped_model(threads, cpp_programs):
    """Tables of both embeddings in float64, which the suite's steep networks do not get: as the CPU's nets."""
    path, structure = ROOT / "python" / "dpa2md" / "models" / "water.dpa2", STRUCTURES["water"]
    program, model = cpp_programs / "evaluate", MODELS["medium"]  # for its types, O and H
    on_cpu, emulated = (
        evaluated(
            program, path, "float64", device, embedding, [described(model, structure)], threads
        )
        for device, embedding in (("cpu", "nets"), (DEVICE, "tables"))
    )
    assert np.abs(on_cpu).max() > 0.1
    np.testing.assert_allclose(emulated, on_cpu, rtol=1e-10, atol=TOLERANCES["forces"])


@golden_models("medium", "se_atten_v2")
def test_no_atoms(model, cpp_programs, evaluate):
    """A step without atoms, whose kernels nobody asks for, leaves nothing behind for the next one."""
    molecule = described(model, STRUCTURES["molecule"])
    nothing = "\n".join(["atoms 0 0 0", *["0"] * 12, ""])
    args = (cpp_programs / "evaluate", evaluate.path(model), "float64", DEVICE, "tables")
    expected = evaluated(*args, [molecule], threads=1)
    np.testing.assert_array_equal(
        evaluated(*args, [molecule, nothing, molecule], threads=1), np.tile(expected, 2)
    )
