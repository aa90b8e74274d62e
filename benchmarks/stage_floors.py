"""Where a step's time stands above its arithmetic, stage by stage, on one core.

    python benchmarks/stage_floors.py MODEL.dpa2 ... [--atoms 768] [--precision float32] [--steps 20]
        [--csv F] [--plot F.png]

The structure is the shipped liquid water, repeated; the models have the elements O and H. What each column means:

    multiply-adds  of the matrix products of the stage, thousands an atom (multiply_adds.py says what counts)
    lookups, kB    what the stage reads an atom from its tables: repinit, three-body, and node steps of layers
                   whose g2 is a function of the distance; a stage of tables alone waits for these, not for arithmetic
    floor          the multiply-adds at the rate of a matrix product that stays in cache, measured on the same core
                   in the same run: what would be left if nothing else took time
    measured       the fastest of all steps, for each stage on its own
    reached        floor / measured

Rate and times are those of the fastest moments, so other work on the machine disturbs little; still, leave it alone.
`step` is the whole of Engine.compute, neighbour list and Python included.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

for library in ("OMP", "OPENBLAS", "MKL"):  # before numpy loads its BLAS
    os.environ[f"{library}_NUM_THREADS"] = "1"

import numpy as np
from arguments import step_arguments
from ase import Atoms
from dpa2md import Engine
from dpa2md.bench import machine, replicated
from dpa2md.cli.options import print_table
from dpa2md.engine import DEFAULT_SKIN
from dpa2md.model_file import read_model
from dpa2md.report.plots import check_picture, new_figure, save_figure
from dpa2md.structures import equilibrated_water
from multiply_adds import lookups, multiply_adds, neighbors
from provenance import commit, write_tables

WARM_UP = 3  # steps
# (m, n, k) at which BLAS libraries come nearest to the core's rate, all operands in the first or second cache
RATE_SHAPES = ((48, 64, 320), (96, 96, 96), (192, 192, 192))
RATE_SECONDS = 0.01  # one measurement of the rate: short enough to find undisturbed moments
RATE_REPEATS = 60


def matrix_product_rate(precision: str) -> float:
    """Multiply-adds a second of numpy's BLAS where all operands stay in cache: the best shape, the best try."""
    rng, best = np.random.default_rng(0), 0.0
    for m, n, k in RATE_SHAPES:
        a, b = rng.random((m, k)).astype(precision), rng.random((k, n)).astype(precision)
        c = np.empty((m, n), precision)
        calls = 1
        for _ in range(RATE_REPEATS):
            start = time.perf_counter()
            for _ in range(calls):
                np.matmul(a, b, out=c)
            rate = calls * m * n * k / (time.perf_counter() - start)
            best, calls = max(best, rate), max(1, int(RATE_SECONDS * rate / (m * n * k)))
    return best


def fastest(engine: Engine, atoms: Atoms, steps: int) -> dict[str, float]:
    """Seconds of every stage in its fastest step, and of the fastest "step"; atoms move 0.01 angstrom between."""
    rng = np.random.default_rng(0)
    moved = atoms.copy()
    core = engine._core
    core.measure_stages()
    best: dict[str, float] = {}
    for step in range(WARM_UP + steps):
        moved.positions = atoms.positions + rng.normal(0, 0.01, atoms.positions.shape)
        core.stage_seconds()
        start = time.perf_counter()
        engine.compute_atoms([moved], skin=DEFAULT_SKIN)
        seconds = {"step": time.perf_counter() - start} | core.stage_seconds()
        for stage, used in seconds.items() if step >= WARM_UP else ():
            best[stage] = min(best.get(stage, np.inf), used)
    return best


def table(
    path: Path, precision: str, atoms: Atoms, seconds: Mapping[str, float], rate: float
) -> list[dict[str, Any]]:
    """A row for every stage, the slowest first, then their sum and the whole step; None: does not apply."""
    model = read_model(path)
    near = neighbors(model, atoms)
    counted = multiply_adds(model, near)
    read = lookups(model, near, np.dtype(precision).itemsize)
    stages = sorted(seconds.keys() - {"step"}, key=lambda stage: -seconds[stage])
    if unknown := counted.keys() - stages:
        raise SystemExit(f"The engine has no stage {sorted(unknown)}: bring the counts up to date.")
    rows = [(s, counted.get(s), read.get(s), seconds[s]) for s in stages]
    total = sum(counted.values())
    rows.append(("all stages", total, None, sum(seconds[s] for s in stages)))
    rows.append(("step", total, None, seconds["step"]))
    common = {"machine": machine(), "commit": commit(), "model": path.stem, "precision": precision}
    common |= {"atoms": len(atoms), "gmac_per_s": round(rate / 1e9, 1)}
    return [common | row(s, count, size, used / len(atoms), rate) for s, count, size, used in rows]


def row(
    stage: str, products: float | None, read: float | None, seconds: float, rate: float
) -> dict[str, Any]:
    """The numbers of a stage, an atom, rounded to what they are worth."""
    floor = None if products is None else products / rate
    return {
        "stage": stage,
        "multiply_adds": None if products is None else round(products),
        "lookup_bytes": None if read is None else round(read),
        "floor_us": None if floor is None else round(1e6 * floor, 2),
        "measured_us": round(1e6 * seconds, 2),
        "fraction": None if floor is None else round(floor / seconds, 3),
    }


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    def cell(value: float | None, text: str) -> str:
        return "" if value is None else text.format(value)

    head = rows[0]
    print(
        f"{head['model']}, {head['precision']}, {head['atoms']} atoms, one core of {head['machine']}, "
        f"{head['gmac_per_s']} GMAC/s; an atom:"
    )
    columns = {
        "multiply-adds, 1000": lambda r: cell(
            r["multiply_adds"] and r["multiply_adds"] / 1e3, "{:.1f}"
        ),
        "lookups, kB": lambda r: cell(r["lookup_bytes"] and r["lookup_bytes"] / 1e3, "{:.1f}"),
        "floor, us": lambda r: cell(r["floor_us"], "{:.2f}"),
        "measured, us": lambda r: cell(r["measured_us"], "{:.2f}"),
        "reached": lambda r: cell(r["fraction"], "{:.0%}"),
    }
    print_table(
        [
            {"stage": r["stage"]} | {k: f"{text(r):>{len(k)}}" for k, text in columns.items()}
            for r in rows
        ]
    )
    print()


def plot(tables: Sequence[Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Bars of the measured times, the floors within them."""
    figure, axes = new_figure(1, len(tables), size=(5 * len(tables), 5))
    for axis, rows in zip(axes, tables, strict=True):
        shown = [r for r in rows if r["stage"] not in ("all stages", "step")][::-1]
        names = [r["stage"] for r in shown]
        axis.barh(names, [r["measured_us"] for r in shown], color="lightgray", label="measured")
        axis.barh(names, [r["floor_us"] or 0 for r in shown], label="matrix products alone")
        axis.set(xlabel="us/atom")
        axis.set_title(f"{rows[0]['model']}, {rows[0]['precision']}", fontsize="small")
        axis.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def main() -> None:
    parser = step_arguments(__doc__, "+", 768)
    parser.add_argument("--steps", type=int, default=20, help="counted steps (default: 20)")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.plot:
        check_picture(args.plot)
    atoms = replicated(equilibrated_water(), args.atoms)
    rates, seconds = [matrix_product_rate(args.precision)], []
    for path in args.models:
        engine = Engine(path, precision=args.precision, threads=1)
        seconds.append(fastest(engine, atoms, args.steps))
        rates.append(matrix_product_rate(args.precision))
    tables = [
        table(path, args.precision, atoms, used, max(rates))
        for path, used in zip(args.models, seconds, strict=True)
    ]
    for rows in tables:
        show(rows)
    if args.csv:
        write_tables(args.csv, tables)
    if args.plot:
        plot(tables, args.plot)


if __name__ == "__main__":
    main()
