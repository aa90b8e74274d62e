"""One step of a million atoms in one process: time and memory.

    python benchmarks/million_atoms.py MODEL.dpa2 [--atoms 1000000] [--threads N] [--keep] [--steps 1] [--device cuda]

Liquid water, energy, forces and virial in float32, with `low_memory` unless `--keep` is given. Every step prints the peak of
the whole process so far, neighbour list, Python and all, and on a GPU what it holds of the device. The copies of the shipped box must have the forces of one box.
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
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    low_memory = args.device == "cpu" and not args.keep
    engine = Engine(args.model, "float32", args.threads, args.device, low_memory=low_memory)
    box = equilibrated_water()
    one = engine.compute_atoms([box])[0]
    atoms = at_least(box, args.atoms)
    print(f"{len(atoms)} atoms, {engine.description}", flush=True)
    memory = engine.device_memory(len(atoms))
    if memory:
        needed, free = memory.needed / 1e9, memory.free / 1e9
        print(
            f"{needed:.1f} GB of the GPU foretold, {free:.1f} free, {memory.atoms} atoms would fit"
        )
    types, cell = engine.types(atoms.get_chemical_symbols()), atoms.cell.array
    for _ in range(args.steps):
        start = time.perf_counter()
        result = engine.compute(atoms.positions, types, cell=cell, pbc=True)
        seconds = time.perf_counter() - start
        assert result.forces is not None and one.forces is not None
        copies = result.forces.reshape(-1, len(box), 3)
        apart = np.abs(copies - one.forces).max()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(
            f"{seconds:.3g} s, {1e6 * seconds / len(atoms):.3g} us/atom, peak {peak / 1e9:.2f} GB, "
            f"forces {apart:.1e} eV/angstrom from those of one box",
            flush=True,
        )


if __name__ == "__main__":
    main()
