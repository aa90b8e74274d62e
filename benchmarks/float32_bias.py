"""Energies and forces of float32 beside those of float64, on a GPU or a CPU.

    python benchmarks/float32_bias.py MODEL.dpa2 ... [--atoms 192 1536 12288] [--device cuda] [--frames 4]

Liquid water; each frame has its atoms 0.05 angstrom (standard deviation) away from the shipped structure. Errors of single
atoms that are as often too high as too low leave little of the sum: what remains an atom over many atoms is a bias, to be
compared with the scatter of the atoms divided by the root of their number (`scatter`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from dpa2md import Engine
from dpa2md.bench import replicated
from dpa2md.cli.options import print_table
from dpa2md.structures import equilibrated_water


def compared(single: Engine, double: Engine, natoms: int, frames: int) -> dict[str, Any]:
    """One model and size."""
    atoms = replicated(equilibrated_water(), natoms)
    positions = atoms.positions.copy()
    rng = np.random.default_rng(3)
    energy, force = [], []
    for _ in range(frames):
        atoms.positions = positions + rng.normal(0, 0.05, positions.shape)
        a, b = (engine.compute_atoms([atoms])[0] for engine in (single, double))
        assert a.forces is not None and b.forces is not None
        energy.append(a.energies - b.energies)
        force.append(a.forces - b.forces)
    off, total = np.array(energy), np.array(energy).sum(axis=1)
    return {
        "atoms": len(atoms),
        "bias eV/atom": f"{off.mean():+.2e}",
        "scatter eV/atom": f"{off.std() / off.size**0.5:.1e}",
        "rms eV/atom": f"{np.sqrt(np.mean(off**2)):.1e}",
        "total eV": f"{total.mean():+.2e}",
        "force rms eV/A": f"{np.sqrt(np.mean(np.square(force))):.1e}",
        "force mean eV/A": f"{np.mean(force):+.1e}",
        "force most eV/A": f"{np.abs(force).max():.1e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", metavar="MODEL.dpa2", type=Path, nargs="+")
    parser.add_argument("--atoms", type=int, nargs="+", default=[192, 1536, 12288])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=4)
    args = parser.parse_args()
    rows = []
    for model in args.models:
        single, double = (Engine(model, p, device=args.device) for p in ("float32", "float64"))
        for natoms in args.atoms:
            rows.append({"model": model.stem} | compared(single, double, natoms, args.frames))
    print(f"float32 minus float64, {single.description}")
    print_table(rows)


if __name__ == "__main__":
    main()
