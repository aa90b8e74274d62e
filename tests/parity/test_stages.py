"""Every stage by itself gives the numbers of the reference in numpy (tests/reference), on every backend."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from dpa2md import Engine
from dpa2md.model_file import write_model

from tests.golden.suite import MODELS, STRUCTURES
from tests.reference import evaluate as reference
from tests.reference import slope
from tests.support.evaluate_program import evaluated, structure_text
from tests.support.reference_records import float64_records
from tests.support.selection import golden_models, skip_or_fail
from tests.support.stages import stages
from tests.support.tolerances import TOLERANCES

# Every embedding, every update of g1, g2 and h2, both softmaxes; and DPA-1.
MODELS_OF_STAGES = ("full", "strip", "not_smooth", "res_residual_h2", "se_atten_v2")
STRUCTURE = STRUCTURES["molecule"]
MOVES = np.random.default_rng(3).normal(size=(2, len(STRUCTURE), 3))
# float64: padded sums in numpy's order, and the differences' own error (test_reference.py). float32: ten times what is
# hundred terms, which leave a hundredth of them; forces divide by distances and dstd of 0.1.
BOUNDS = {
    "float64": (10 * TOLERANCES["atom_energy"], TOLERANCES["extrapolated_derivative"]),
    "float32": (3e-6, 2e-5),
}
DEVICES = ["cpu", "cuda-emulation", pytest.param("cuda", marks=pytest.mark.cuda)]


@cache
def expected(name: str, path) -> dict[str, tuple]:
    """Energies of every stage of a model, and what the forces do along two directions."""
    m = float64_records(path)
    types = MODELS[name].types(STRUCTURE)
    atoms = (STRUCTURE.positions, types, STRUCTURE.cell, STRUCTURE.pbc)
    return {
        stage: (
            reference(part, *atoms)["energies"],
            np.array([-slope(part, *atoms, moves=moves) for moves in MOVES]),
        )
        for stage, part in stages(m).items()
    }


@pytest.fixture
def compute(request, tmp_path):
    """Energies and forces by a device."""

    def by_engine(path, device, precision, types):
        try:
            engine = Engine(path, precision, threads=1, device=device)
        except ValueError as error:
            skip_or_fail(device, str(error))
        r = engine.compute(STRUCTURE.positions, types, cell=STRUCTURE.cell, pbc=STRUCTURE.pbc)
        return r.energies, r.forces

    def by_program(path, device, precision, types):
        program = request.getfixturevalue("cpp_programs") / "evaluate"
        text = structure_text(types, STRUCTURE.positions, STRUCTURE.cell, STRUCTURE.pbc)
        numbers = evaluated(program, path, precision, device, "tables", [text], threads=1)
        n = len(types)
        return numbers[:n], numbers[n : 4 * n].reshape(n, 3)

    def by_device(records, device, precision, types):
        path = tmp_path / "stage.dpa2"
        write_model(path, records)
        how = by_program if device == "cuda-emulation" else by_engine
        return how(path, device, precision, types)

    return by_device


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("device", DEVICES)
@golden_models(*MODELS_OF_STAGES)
def test_stages(model, device, precision, evaluate, compute):
    path = evaluate.path(model)
    parts = stages(float64_records(path))
    off = {}
    for stage, results in expected(model.name, path).items():
        found = compute(parts[stage], device, precision, model.types(STRUCTURE))
        along = np.einsum("nc,knc->k", found[1], MOVES)
        for value, exact, bound, quantity in zip(
            (found[0], along), results, BOUNDS[precision], ("energies", "forces"), strict=True
        ):
            deviation = np.abs(value - exact).max() / max(1, np.abs(exact).max())
            if deviation > bound:
                off[stage, quantity] = float(deviation)
    assert not off
