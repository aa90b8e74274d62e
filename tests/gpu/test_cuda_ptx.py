"""What nvcc makes of the CUDA backend, kernels and host code, run without a GPU (tests/ptx): it gives DeePMD-kit's
numbers, and no access of memory is out of bounds, unaligned, of what nothing has written, or in a race."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.suite import STRUCTURES
from tests.support.cpp_programs import run
from tests.support.cuda_programs import PTX_ALL, evaluate_program, program
from tests.support.evaluate_program import EvaluateProgram, described, evaluated
from tests.support.parity import check_float32, check_float64
from tests.support.selection import golden_models

pytestmark = pytest.mark.timeout(3600)  # the first test builds

# Between them they start every kernel.
MODELS = () if PTX_ALL else ("small", "strip", "full")
# of some ten atoms, with and without a box
SMALL = ("molecule", "wire", "isolated", "tilted", "overfull")

FAULTS = {
    1: "reads outside memory",
    2: "writes outside memory",
    3: "writes outside memory",
    4: "is not aligned",
    5: "reads what nothing has written",
    6: "races (write after read)",
    7: "races (write after write)",
    8: "races (write after read)",
    9: "races (read after write)",
    10: "races (write after write)",
    11: "meets threads that wait elsewhere",
    12: "waits for threads that do not come",
    13: "races (write after write)",
    14: "the host copies what nothing has written",
    15: "races (read after write)",
    16: "races (write after read)",
    17: "races (write after read)",
    18: "waits for threads that do not come",
}


@pytest.fixture(scope="module")
def faults_program():
    return program("faults")


@pytest.mark.parametrize("fault", [0, *FAULTS])
def test_the_machine_finds_faults(fault, faults_program):
    """Each of the kernel's in tests/ptx/faults.cu, and none where there is none."""
    done = run([str(faults_program), str(fault)])
    if fault == 0:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 1
        assert FAULTS[fault] in done.stderr


def test_instructions():
    """Those of tests/ptx/instructions.cu give what plain loops do."""
    done = run([str(program("instructions"))])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_products():
    """Those of the dense steps, in every tiling: float32's errors, to either side."""
    done = run([str(program("products"))])
    assert (done.returncode, done.stderr) == (0, "")
    errors = np.array([line.split()[:2] for line in done.stdout.splitlines()], float)
    assert len(errors) == 24
    assert errors[:, 0].max() < 1e-6
    assert abs(errors[:, 1]).max() < 2e-8


@pytest.fixture(scope="module", name="evaluate_program")
def evaluate_program_fixture():
    return evaluate_program()


@pytest.mark.skipif(not PTX_ALL, reason="DPA2MD_PTX=all runs it")
@pytest.mark.parametrize("tables", [True, False], ids=["tables", "nets"])
@golden_models(*MODELS)
def test_float64(model, tables, evaluate_program, evaluate):
    on_machine = EvaluateProgram(
        evaluate_program, evaluate, "cuda", tables=tables, structures=SMALL
    )
    for name in SMALL:
        if name in model.structures:
            check_float64(model, STRUCTURES[name], on_machine)


@golden_models("medium", "res_residual_h2", "generation_2_0")
def test_graphs(model, evaluate_program, evaluate, tmp_path, monkeypatch):
    """A step that starts as a graph gives, in whatever order the graph allows, the bits of one whose kernels start one
    by one; its graph is told what changes from step to step, and built once."""
    systems = [STRUCTURES[name] for name in ("tilted", "wire", "tilted", "tilted")]
    texts = [described(model, structure) for structure in systems]
    path = evaluate.path(model)

    def numbers_and_calls(graphs: str, order: str) -> tuple[np.ndarray, dict[str, int]]:
        monkeypatch.setenv("DPA2MD_CUDA_GRAPHS", graphs)
        monkeypatch.setenv("DPA2MD_PTX_GRAPHS", order)
        monkeypatch.setenv("DPA2MD_PTX_CALLS", str(tmp_path / "calls"))
        numbers = evaluated(evaluate_program, path, "float32", "cuda", "tables", texts, 1)
        lines = (tmp_path / "calls").read_text().splitlines()
        return numbers, {name: int(count) for name, count in map(str.split, lines)}

    one_by_one, calls = numbers_and_calls("0", "")
    assert "cudaGraphLaunch" not in calls
    for order in ("", "last", "deep"):
        numbers, calls = numbers_and_calls("1", order)
        np.testing.assert_array_equal(numbers, one_by_one)
        assert calls["cudaGraphLaunch"] == len(systems)
        assert calls["cudaGraphInstantiate"] == 1
        nodes, changes = calls["cudaGraphAddKernelNode"], calls["cudaGraphExecKernelNodeSetParams"]
        assert (
            nodes < changes < 2.5 * nodes
        )  # all of them to another system and back, few to the same


@pytest.mark.parametrize("dense", ["", "4", "plain"])
@golden_models(*MODELS)
def test_float32(model, dense, evaluate_program, evaluate, monkeypatch):
    """Also with the dense steps in tiles for many atoms, and in the plain way."""
    monkeypatch.setenv("DPA2MD_CUDA_DENSE", dense)
    on_machine = EvaluateProgram(evaluate_program, evaluate, "cuda", structures=SMALL)
    check_float32(model, on_machine, "float32", SMALL)
