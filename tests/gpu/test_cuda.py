"""device="cuda" on a GPU: DeePMD-kit's numbers, the same bits from run to run; without one, a clear refusal.

`pytest -m cuda` runs what needs a GPU. test_cuda_emulation.py runs the same kernels on any machine.
"""

from __future__ import annotations

import numpy as np
import pytest
from dpa2md.engine import Engine

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.evaluator import Evaluator
from tests.support.parity import DIFFERENT_PRECISION, check_float32, check_float64
from tests.support.selection import golden_models, skip_or_fail
from tests.support.tolerances import TOLERANCES


@pytest.fixture(scope="module")
def on_gpu(evaluate, tmp_path_factory) -> Evaluator:
    """Evaluates golden models on the GPU."""
    try:
        Engine(evaluate.path(MODELS["small"]), device="cuda")
    except ValueError as error:
        skip_or_fail("cuda", str(error))
    return Evaluator(tmp_path_factory.mktemp("golden_cuda"), device="cuda")


@pytest.mark.cuda
@golden_models()
def test_float64(model, on_gpu):
    for name in model.structures:
        check_float64(model, STRUCTURES[name], on_gpu)


@pytest.mark.cuda
@golden_models()
def test_float32(model, on_gpu):
    check_float32(model, on_gpu, "float32")


@pytest.mark.cuda
@golden_models(*DIFFERENT_PRECISION)
def test_own_precision(model, on_gpu):
    check_float32(model, on_gpu, None)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "float64"])
@golden_models("medium", "full")
def test_the_same_bits_every_time(model, precision, on_gpu):
    """No sum depends on which block comes first."""
    first, second = (on_gpu(model, STRUCTURES["water"], precision) for _ in range(2))
    for quantity in first:
        assert np.array_equal(first[quantity], second[quantity]), quantity


@pytest.mark.cuda
@golden_models("medium", "generation_2_0", "res_residual_h2")
def test_kernels_started_as_a_graph(model, on_gpu, monkeypatch):
    """They give the bits of those that are started one by one, for systems that take turns, too."""
    names = ("water", "wire", "water", "tilted")
    as_graph = [on_gpu(model, STRUCTURES[name], "float32") for name in names]
    monkeypatch.setenv("DPA2MD_CUDA_GRAPHS", "0")
    engine = Engine(on_gpu.path(model), precision="float32", device="cuda")
    for name, result in zip(names, as_graph, strict=True):
        structure = STRUCTURES[name]
        one_by_one = engine.compute(
            structure.positions, model.types(structure), cell=structure.cell, pbc=structure.pbc
        )
        assert np.array_equal(result["forces"], one_by_one.forces)


@pytest.mark.cuda
@golden_models("small", "full", "strip", "atom_ener", "se_atten_v2", "res_residual_h2")
def test_small_systems(model, on_gpu):
    """What compute-sanitizer looks at (benchmarks/gpu_check.sh): every kernel, in seconds."""
    for name in ("molecule", "wire", "isolated"):
        check_float64(model, STRUCTURES[name], on_gpu)
        on_gpu(model, STRUCTURES[name], "float32")


@pytest.mark.cuda
def test_sizes_that_change(on_gpu):
    """Buffers grow and are used again; an energy alone does without the reverse sweep's."""
    model = MODELS["full"]
    engine = on_gpu.engine(model)
    for name in ("isolated", "water", "single", "water"):
        structure = STRUCTURES[name]
        box = {"cell": structure.cell, "pbc": structure.pbc}
        both = engine.compute(structure.positions, model.types(structure), **box)
        energy = engine.compute(structure.positions, model.types(structure), forces=False, **box)
        assert energy.energy == pytest.approx(both.energy, abs=1e-12)


@pytest.mark.cuda
@golden_models("medium", "full", "se_atten_v2")
def test_more_atoms_than_a_chunk(model, on_gpu):
    """A box repeated until the GPU takes its atoms in two chunks: every copy feels the same forces."""
    structure = STRUCTURES["water"]
    copies = (10, 10, 9)
    shifts = np.array(list(np.ndindex(*copies))) @ structure.cell
    assert len(structure) * len(shifts) > 65536  # chunk_atoms in csrc/cuda/host/runtime.h
    result = on_gpu.engine(model).compute(
        (structure.positions + shifts[:, None]).reshape(-1, 3),
        np.tile(model.types(structure), len(shifts)),
        cell=structure.cell * np.array(copies)[:, None],
        pbc=True,
    )
    one = on_gpu(model, structure)
    forces = result.forces.reshape(len(shifts), -1, 3)
    np.testing.assert_allclose(forces - one["forces"], 0, atol=TOLERANCES["forces"])
    assert result.energy / len(shifts) == pytest.approx(one["energy"], rel=1e-11)


def test_a_refusal_names_the_remedy(evaluate):
    """Without a GPU: one sentence, and never a result from elsewhere."""
    path = evaluate.path(MODELS["small"])
    with pytest.raises(ValueError, match=r'"gpu" is unknown: use "cpu", "cuda"'):
        Engine(path, device="gpu")
    with pytest.raises(ValueError, match=r'"cuda-emulation" is unknown'):
        Engine(path, device="cuda-emulation")
    for device in ("cuda:", "cuda:-1", "cuda:x"):
        with pytest.raises(ValueError, match="is unknown"):
            Engine(path, device=device)
    try:
        engine = Engine(path, device="cuda")
    except ValueError as error:
        expected = ("without CUDA", "NVIDIA driver", "no NVIDIA GPU", "architecture")
        assert any(words in str(error) for words in expected), error
        assert "\n" not in str(error)
    else:
        assert engine.description.startswith("cuda (GPU 0, ")
        with pytest.raises(ValueError, match=r"there is no GPU 99: this process sees"):
            Engine(path, device="cuda:99")
