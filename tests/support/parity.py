"""How near to DeePMD-kit's numbers results must be."""

from __future__ import annotations

import numpy as np

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.tolerances import TOLERANCES

DIFFERENT_PRECISION = [n for n, m in MODELS.items() if m.precision != ("float64", "float64")]

TINY = np.finfo(float).tiny  # a quantity that is exactly zero on both sides is as good as theirs


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def check_float64(model, structure, evaluate):
    result = evaluate(model, structure, "float64")
    expected = model.expected(structure.name)
    for quantity in ("energy", "atom_energy"):
        scale = np.maximum(1, np.abs(expected[quantity]))
        deviation = np.abs(result[quantity] - expected[quantity]) / scale
        assert deviation.max() <= TOLERANCES[quantity], quantity
    for quantity in ("forces", "virial"):
        deviation = np.abs(result[quantity] - expected[quantity])
        assert deviation.max() <= TOLERANCES[quantity], quantity


def float32_ratios(model, structure: str, evaluate, precision: str | None) -> dict[str, float]:
    """Our error over DeePMD-kit's for each quantity, the floor added to both."""
    result = evaluate(model, STRUCTURES[structure], precision)
    exact = model.expected(structure)
    theirs = model.original_errors(structure, "float32" if precision == "float32" else "own")
    root_n = np.sqrt(len(STRUCTURES[structure]))
    atom_scale = max(1, np.abs(exact["atom_energy"]).max())
    # The pair forces behind a net force, which may vanish, are of the size of the virial per atom.
    virial_scale = max(np.abs(exact["virial"]).max(), np.abs(exact["forces"]).max())
    ours = {
        "energy": (abs(result.energy - exact["energy"]), root_n * atom_scale),
        "atom_energy": (rms(result.atom_energy - exact["atom_energy"]), atom_scale),
        "forces": (rms(result.forces - exact["forces"]), virial_scale / root_n),
        "virial": (np.abs(result.virial - exact["virial"]).max(), virial_scale),
    }
    # Sums may cancel by luck: take them for no better than independent errors of their terms.
    theirs = dict(zip(ours, theirs, strict=True))
    theirs["energy"] = max(theirs["energy"], root_n * theirs["atom_energy"])
    theirs["virial"] = max(theirs["virial"], root_n * theirs["forces"])  # times 1 angstrom
    floor = TOLERANCES["float32_floor"]
    return {
        quantity: (error + floor * scale + TINY) / (theirs[quantity] + floor * scale + TINY)
        for quantity, (error, scale) in ours.items()
    }


def check_float32(model, evaluate, precision: str | None, structures=STRUCTURES):
    names = [s for s in model.structures if s in structures]
    ratios = {s: float32_ratios(model, s, evaluate, precision) for s in names}
    for quantity in ("energy", "atom_energy", "forces", "virial"):
        values = [ratio[quantity] for ratio in ratios.values()]
        assert np.exp(np.mean(np.log(values))) <= TOLERANCES["float32_factor"], quantity
    for structure, ratio in ratios.items():
        if len(STRUCTURES[structure]) >= TOLERANCES["float32_single_atoms"]:
            assert max(ratio.values()) <= TOLERANCES["float32_factor_single"], (structure, ratio)
