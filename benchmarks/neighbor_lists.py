"""The core's neighbour list beside vesin and matscipy: liquid water, all pairs within a cutoff, one thread.

    pip install vesin matscipy
    python benchmarks/neighbor_lists.py [--atoms 1000 10000 100000] [--cutoff 6] [--repeats 7] [--csv F]

All three build the full list with its shifts (vesin and matscipy: indices and integer shifts; ours: rows and shift
vectors), in turn; times are medians. Their numbers of pairs must agree.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from ase import Atoms
from dpa2md import _core
from dpa2md.bench import machine
from dpa2md.structures import equilibrated_water


def water(natoms: int) -> Atoms:
    """The shipped water, repeated to about this many atoms."""
    atoms = equilibrated_water()
    copies = max(1, round((natoms / len(atoms)) ** (1 / 3)))
    return atoms.repeat((copies, copies, max(1, round(natoms / len(atoms) / copies**2))))


def programs(cutoff: float) -> dict[str, Callable[[Atoms], int]]:
    """Each counts the pairs that it lists."""
    import vesin
    from matscipy.neighbours import neighbour_list

    def ours(atoms: Atoms) -> int:
        found = _core.neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff, 1)
        return len(found[1])

    def with_vesin(atoms: Atoms) -> int:
        calculator = vesin.NeighborList(cutoff=cutoff, full_list=True)
        return len(calculator.compute(atoms.positions, atoms.cell.array, True, "ijS")[0])

    return {
        "dpa2md": ours,
        "vesin": with_vesin,
        "matscipy": lambda atoms: len(neighbour_list("ijS", atoms, cutoff)[0]),
    }


def measure(natoms: int, cutoff: float, repeats: int) -> dict[str, float | int | str]:
    """Median microseconds an atom of each program."""
    atoms = water(natoms)
    times: dict[str, list[float]] = {name: [] for name in programs(cutoff)}
    pairs = set()
    for _ in range(repeats):
        for name, program in programs(cutoff).items():
            start = time.perf_counter()
            pairs.add(program(atoms))
            times[name].append((time.perf_counter() - start) / len(atoms) * 1e6)
    if len(pairs) > 1:
        raise SystemExit(f"The lists differ: {sorted(pairs)} pairs.")
    row: dict[str, float | int | str] = {
        "machine": machine(),
        "atoms": len(atoms),
        "cutoff": cutoff,
    }
    row["pairs_per_atom"] = round(pairs.pop() / len(atoms), 1)
    return row | {f"{name}_us": round(statistics.median(t), 3) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--atoms", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--cutoff", type=float, default=6.0, help="angstrom")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    rows = []
    for natoms in args.atoms:
        rows.append(measure(natoms, args.cutoff, args.repeats))
        print(
            "  ".join(f"{key} {value}" for key, value in rows[-1].items() if key != "machine"),
            flush=True,
        )
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
