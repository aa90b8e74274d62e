"""The kernels that serve the published shapes only (csrc/cuda/kernels/*_warp.h, dense products over many atoms): in
float32 as near to float64 on the CPU as the kernels that serve every model.

`pytest -m cuda` runs them on a GPU; without one, the PTX machine does (tests/ptx).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from dpa2md.engine import Engine
from dpa2md.model_file import write_model
from dpa2md.structures import equilibrated_water
from published_models import dpa2
from random_models import random_records

from tests.support.cuda_programs import evaluate_program
from tests.support.evaluate_program import evaluated, structure_text
from tests.support.selection import skip_or_fail

pytestmark = pytest.mark.timeout(3600)  # the first test builds

# Small embeddings, since they have tests of their own.
REPINIT = {"neuron": [4, 8, 8], "axis_neuron": 4}
MODELS = {
    "attention": {"nlayers": 3},
    "no attention": {"nlayers": 2, "update_g2_has_attn": False},
    "forty neighbours": {"nlayers": 2, "nsel": 40},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    out = {}
    for name, changes in MODELS.items():
        out[name] = folder / f"{name}.dpa2"
        config = dpa2(changes, REPINIT)
        config["fitting_net"]["neuron"] = [32, 32]
        write_model(out[name], random_records(config, "float32"))
    return out


def cluster(count: int, density: float) -> Atoms:
    """The water molecules nearest to a box's middle, in vacuum, their distances divided by `density`."""
    water = equilibrated_water()
    middle = water.positions[::3] - water.cell.lengths() / 2
    nearest = np.argsort((middle**2).sum(axis=1))[: count // 3]
    atoms = water[np.concatenate([3 * nearest, 3 * nearest + 1, 3 * nearest + 2])]
    atoms.positions /= density
    atoms.pbc = False
    atoms.cell = np.zeros((3, 3))
    return atoms


# Few neighbours within 4 angstrom; 12 to 35, which takes both kernels; none.
SYSTEMS = {
    "sparse": cluster(12, 1.0),
    "crowded": cluster(39, 1.5),
    "alone": Atoms("OHO", [[0, 0, 0], [0, 0, 0.97], [30, 0, 0]]),
}


def check(result: tuple, reference: tuple) -> None:
    """Rounding of float32 through some layers; energies are of the order of 1 eV an atom, forces of 0.1 to 10."""
    size = max(1.0, np.abs(reference[1]).max())
    np.testing.assert_allclose(result[0], reference[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(result[1], reference[1], rtol=0, atol=3e-6 * size)


def by_engine(model: Path, atoms: Atoms, precision: str, device: str) -> tuple:
    result = Engine(model, precision=precision, device=device).compute_atoms([atoms])[0]
    return result.energies, result.forces


@pytest.mark.parametrize(
    ("model", "system"),
    [
        ("attention", "crowded"),
        ("attention", "alone"),
        ("no attention", "sparse"),
        ("forty neighbours", "sparse"),
    ],
)
def test_ptx(model, system, models, monkeypatch):
    """In the last order that the graph allows, also where a step has a list of its own; of the sparse ones the other
    kernels, too, which give other bits."""
    first, evaluate = SYSTEMS[system], evaluate_program()
    steps = [first.copy() for _ in range(2 if system == "crowded" else 1)]
    for k, atoms in enumerate(steps):
        atoms.rattle(0.05 * k, seed=k)
    texts = [
        structure_text(
            np.where(a.numbers == 8, 0, 1), a.positions, np.asarray(a.cell), a.pbc.astype(int)
        )
        for a in steps
    ]
    monkeypatch.setenv("DPA2MD_PTX_GRAPHS", "last")
    n, results = len(first), []
    for warps in ("1", "0") if system == "sparse" else ("1",):
        monkeypatch.setenv("DPA2MD_CUDA_WARPS", warps)
        numbers = evaluated(evaluate, models[model], "float32", "cuda", "tables", texts, 1)
        results.append(numbers)
        for atoms, of_step in zip(steps, numbers.reshape(len(steps), 13 * n), strict=True):
            result = of_step[:n], of_step[n : 4 * n].reshape(n, 3)
            check(result, by_engine(models[model], atoms, "float64", "cpu"))
    assert len(results) == 1 or not np.array_equal(*results)


@pytest.mark.cuda
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("model", MODELS)
def test_gpu(model, system, models):
    try:
        result = by_engine(models[model], SYSTEMS[system], "float32", "cuda")
    except ValueError as error:
        skip_or_fail("cuda", str(error))
    check(result, by_engine(models[model], SYSTEMS[system], "float64", "cpu"))


@pytest.mark.cuda
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("squeeze", [1.0, 0.9])
def test_gpu_many_atoms(model, squeeze, models):
    """As many as fill the GPU: blocks that stay on their multiprocessors; the same bits every time."""
    atoms = equilibrated_water().repeat((3, 3, 2))
    atoms.set_cell(atoms.cell * squeeze, scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    try:
        results = [by_engine(models[model], atoms, "float32", "cuda") for _ in range(2)]
        reference = by_engine(models[model], atoms, "float64", "cuda")
    except ValueError as error:
        skip_or_fail("cuda", str(error))
    check(results[0], reference)
    assert np.array_equal(results[0][1], results[1][1])
