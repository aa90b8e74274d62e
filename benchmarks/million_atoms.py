"""One step of a million atoms in one process: time and memory.

    python benchmarks/million_atoms.py MODEL.dpa2 [--atoms 1000000] [--threads N] [--keep] [--steps 1]

Liquid water, energy, forces and virial in float32, with `low_memory` unless `--keep` is given. Every step prints the peak of
the whole process so far, neighbour list, Python and all. The copies of the shipped box must have the forces of one box.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from ase import Atoms
from dpa2md import Engine
from dpa2md.structures import equilibrated_water


def at_least(atoms: Atoms, natoms: int) -> Atoms:
    """`atoms` repeated to a block of nearly equal sides, with as few atoms as possible from `natoms` on."""
    copies = -(-natoms // len(atoms))
    side = round(copies ** (1 / 3))
    shapes = [
        (a, b, -(-copies // (a * b)))
        for a in range(max(1, side // 2), side + 1)
        for b in range(a, 2 * side + 1)
    ]
    return atoms.repeat(min(shapes, key=np.prod))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--atoms", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--keep", action="store_true", help="without low_memory")
    parser.add_argument("--steps", type=int, default=1)
    args = parser.parse_args()
    engine = Engine(args.model, "float32", args.threads, low_memory=not args.keep)
    box = equilibrated_water()
    one = engine.compute_atoms([box])[0]
    atoms = at_least(box, args.atoms)
    print(f"{len(atoms)} atoms, {engine.description}", flush=True)
    for _ in range(args.steps):
        start = time.perf_counter()
        result = engine.compute_atoms([atoms])[0]
        seconds = time.perf_counter() - start
        assert result.forces is not None and one.forces is not None
        copies = result.forces.reshape(-1, len(box), 3)
        apart = np.abs(copies - one.forces).max()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(
            f"{seconds:.0f} s, {1e6 * seconds / len(atoms):.0f} us/atom, peak {peak / 1e9:.2f} GB, "
            f"forces {apart:.1e} eV/angstrom from those of one box",
            flush=True,
        )


if __name__ == "__main__":
    main()
