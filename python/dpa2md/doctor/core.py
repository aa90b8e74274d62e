"""What ``dpa2md doctor`` asks the compiled core, in a process of its own: ``python -m dpa2md.doctor.core``.

Prints one line of JSON. A core that can't be loaded, or that crashes, ends this process only.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core
from ..engine import Engine
from ..shipped import DEFAULT_MODEL
from ..structures import equilibrated_water

SETS = ("avx512", "avx2", "portable")  # the best first
# Rounding of float32 (6e-8) over the few thousand terms of an atom, with room for any processor:
# found are 5e-8 eV/atom and 1e-5 eV/angstrom. A wrong kernel is wrong by far more.
ENERGY_BOUND = 1e-5  # eV/atom
FORCE_BOUND = 5e-4  # eV/angstrom
# Central differences: the step's square times the third derivative gives 1e-6.
STEP = 1e-4  # angstrom
DERIVATIVE_BOUND = 1e-4  # relative


def main() -> None:
    """Print the report."""
    report: dict[str, Any] = {
        "file": _core.__file__,
        "version": _core.__version__,
        "compiler": compiler(Path(_core.__file__)),
        "sets": instruction_sets(),
        "cuda_build": _core.cuda_build,
        "cuda": refusal(device="cuda"),
        "refusal": refusal(),
        "checks": [],
    }
    if not report["refusal"]:
        engine = Engine(DEFAULT_MODEL, precision="float64")
        threads = re.search(r"(\d+) threads?", engine.description)
        report["description"] = Engine(DEFAULT_MODEL).description
        report["threads"] = int(threads[1]) if threads else 1
        report["checks"] = self_check(engine)
    if not report["refusal"] and not report["cuda"]:
        report |= gpu_check(Engine(DEFAULT_MODEL, device="cuda"), engine)
    print(json.dumps(report))


def compiler(path: Path) -> str:
    """The compiler's name for itself, which it leaves in what it makes."""
    found = re.search(rb"GCC: \([^)\0]*\) [\d.]+|clang version [\d.]+", path.read_bytes())
    return found[0].decode(errors="replace") if found else "an unknown compiler"


def refusal(device: str = "cpu") -> str:
    """What the core answers instead of an engine; empty when it makes one."""
    try:
        Engine(DEFAULT_MODEL, device=device)
    except (ValueError, OSError, MemoryError) as error:
        return str(error)
    return ""


def instruction_sets() -> list[str]:
    """Those that this processor has and the core was built for, the best first."""
    before = os.environ.get("DPA2MD_ISA")
    able = []
    for name in SETS:
        os.environ["DPA2MD_ISA"] = name
        if not refusal():
            able.append(name)
    del os.environ["DPA2MD_ISA"]
    if before is not None:
        os.environ["DPA2MD_ISA"] = before
    return able


def self_check(engine: Engine) -> list[dict[str, Any]]:
    """The shipped model on the shipped structure: what was found, and how much is allowed."""
    atoms = equilibrated_water()
    types = engine.types(atoms.get_chemical_symbols())

    def compute(which: Engine, positions: np.ndarray) -> Any:
        return which.compute(positions, types, cell=atoms.cell.array, pbc=True)

    exact = compute(engine, atoms.positions)
    single = compute(Engine(DEFAULT_MODEL, precision="float32"), atoms.positions)
    along = exact.forces / np.abs(exact.forces).max()
    forth, back = (compute(engine, atoms.positions + s * STEP * along) for s in (1, -1))
    slope = (forth.energy - back.energy) / (2 * STEP)
    work = -float(np.sum(exact.forces * along))
    energy = abs(single.energy - exact.energy) / len(atoms)
    force = np.abs(single.forces - exact.forces).max()
    return [
        _check("float32 against float64, energy", energy, " eV/atom", ENERGY_BOUND),
        _check("float32 against float64, largest force", force, " eV/angstrom", FORCE_BOUND),
        _check("forces against energy differences", abs(slope / work - 1), "", DERIVATIVE_BOUND),
    ]


def gpu_check(gpu: Engine, exact: Engine) -> dict[str, Any]:
    """What an engine on a GPU computes beside the CPU's float64: "cuda_description" and "gpu_checks", or "cuda"."""
    atoms = equilibrated_water()
    try:
        found, right = (engine.compute_atoms([atoms])[0] for engine in (gpu, exact))
    except (ValueError, MemoryError) as error:  # such as an architecture that was not built
        return {"cuda": str(error)}
    energy = abs(found.energy - right.energy) / len(atoms)
    assert found.forces is not None and right.forces is not None
    force = np.abs(found.forces - right.forces).max()
    return {
        "cuda_description": gpu.description,
        "gpu_checks": [
            _check("GPU against CPU, energy", energy, " eV/atom", ENERGY_BOUND),
            _check("GPU against CPU, largest force", force, " eV/angstrom", FORCE_BOUND),
        ],
    }


def _check(name: str, found: float, unit: str, bound: float) -> dict[str, Any]:
    return {"name": name, "found": float(found), "unit": unit, "bound": bound}


if __name__ == "__main__":
    main()
