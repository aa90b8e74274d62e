"""Many molecules of 20 atoms: `evaluate`, which takes them together, against a loop with the calculator.

    python benchmarks/small_structures.py [--model M] [--count N] [--threads N]

Processor time and wall time for a molecule, energies and forces; the two must agree to the last digits but one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from ase import Atoms
from dpa2md import DPA2Calculator, Engine, evaluate
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import water_box


def clusters(count: int) -> list[Atoms]:
    """Pieces of water of 20 atoms, in vacuum."""
    out = []
    for seed in range(count):
        atoms = water_box(7, seed=seed)[:20]
        atoms.set_cell(None)
        atoms.pbc = False
        out.append(atoms)
    return out


def timed(name: str, count: int, work: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
    work()
    wall, used = time.perf_counter(), time.process_time()
    forces = work()
    wall, used = time.perf_counter() - wall, time.process_time() - used
    print(
        f"{name:10} {1e3 * used / count:8.3f} {1e3 * wall / count:8.3f}  ms/molecule, processor and wall"
    )
    return forces


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    engine = Engine(args.model, threads=args.threads)
    molecules = clusters(args.count)

    def loop() -> list[np.ndarray]:
        calculator = DPA2Calculator(engine)
        return [calculator.get_forces(atoms) for atoms in molecules]

    def batch() -> list[np.ndarray]:
        return [result["forces"] for result in evaluate(engine, molecules)]

    print(f"{args.count} molecules of 20 atoms, {engine.description}")
    one, many = timed("loop", args.count, loop), timed("evaluate", args.count, batch)
    worst = max(np.abs(a - b).max() for a, b in zip(one, many, strict=True))
    print(f"forces differ by {worst:.1e} eV/angstrom at most")


if __name__ == "__main__":
    main()
