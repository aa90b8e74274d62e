"""What a step costs on a GPU, counted without one: instructions of warps, bank conflicts, memory traffic.

    python benchmarks/gpu_counts.py [MODEL.dpa2 ...] [--atoms 192] [--precision float32] [--csv F] [--lines KERNEL]

Needs nvcc, cmake and pytest: the kernels' PTX is run by the host (tests/ptx), some 2 minutes for 192 atoms of the medium model
after a build of 3. The structure is the shipped liquid water; a model has the elements O and H.
Counted is a first step with energies, forces and virial, so that the search for candidates is in it.

Of every kernel: microseconds an atom that each part of an H100 needs at its full rate, if nothing else held it up
(NVIDIA's tables of throughput for compute capability 9.0; 132 multiprocessors at 1.755 GHz). `issue`: all
instructions, four a clock; `integer`: addresses, indices, comparisons, two a clock; `memory`: passes
through shared memory, with bank conflicts, and lines of global memory, one a clock; `L2`: sectors that a block
reads for the first time or writes; `tensor`: at two thirds of the data sheet's rate, which mma.sync reaches.
`path`, of small systems whose blocks all run at once: microseconds a *step* (not an atom) of a block's busiest warps, barrier by
barrier, if each did an instruction a clock; --multiprocessors 132 makes the kernels choose as they would for so few atoms.
`least`, the largest of the others, is what the kernel cannot be faster than. It is no time: waiting (latency, barriers, few blocks) is not in it,
and ptxas may need fewer instructions than PTX says. What it is good for: to compare two commits, and to see what to
work on; --lines shows where a kernel's instructions come from.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from arguments import step_arguments
from dpa2md import Engine
from dpa2md.bench import replicated
from dpa2md.cli.options import print_table
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import equilibrated_water
from provenance import commit, write_tables

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.cuda_programs import program
from tests.support.evaluate_program import structure_text

HERTZ = 1.755e9
CLOCK = HERTZ * 132  # of all multiprocessors
# Instructions of a warp that a multiprocessor takes in a clock.
RATES = {
    "float": 4,
    "double": 2,
    "integer": 2,
    "special": 0.5,
    "branch": 2,
    "shuffle": 1,
    "barrier": 1,
    "tensor": 0.69,  # 495e12 / 2 multiply-adds of tf32, 1024 each
    "tensor_double": 0.37,  # 67e12 / 2 of float64, 256 each
}
L2_BYTES = 24  # a clock and multiprocessor: 5.5 TB/s
COLUMNS = ("issue", "integer", "memory", "L2", "tensor")


def counted(
    evaluate: Path, model: Path, natoms: int, precision: str, multiprocessors: int
) -> tuple[int, list[dict]]:
    """Atoms, and tests/ptx/profile.cpp's table of their step."""
    atoms = replicated(equilibrated_water(), natoms)
    types = Engine(model).types(atoms.get_chemical_symbols())
    structure = structure_text(types, atoms.positions, atoms.cell.array, atoms.pbc)
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile.csv"
        environment = {
            "DPA2MD_PTX_PROFILE": str(profile),
            "DPA2MD_PTX_MULTIPROCESSORS": str(multiprocessors),
        }
        done = subprocess.run(
            [str(evaluate), str(model), precision, "cuda", "tables"],
            input=structure,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or done.stderr:
            raise SystemExit(f"The step of {model} failed:\n{done.stderr[-2000:]}")
        with open(profile, newline="") as file:
            rows = list(csv.DictReader(file))
    return len(atoms), [
        {k: v if k in ("kernel", "place") else float(v) for k, v in row.items()} for row in rows
    ]


def limits(counts: Mapping[str, float]) -> dict[str, float]:
    """Clocks of one multiprocessor that each of its parts needs."""
    out = {pipe: counts[pipe] / rate for pipe, rate in RATES.items()}
    instructions = sum(counts[pipe] for pipe in RATES) + counts["shared"] + counts["global"]
    out["issue"] = instructions / 4
    out["memory"] = counts["shared_passes"] + counts["lines"]
    out["L2"] = 32 * (counts["fresh_sectors"] + counts["sectors_written"]) / L2_BYTES
    out["tensor"] += out.pop("tensor_double")
    return out


def short(kernel: str) -> str:
    """PairStep of _ZN6dpa2md3gpu9run_itemsINS0_8PairStepIfEEEEvT_NS0_5ItemsE."""
    match = re.search(r"run_itemsINS0_(\d+)(\w+)", kernel)
    return match[2][: int(match[1])] if match else kernel


def table(rows: Iterable[Mapping], atoms: int, name: str) -> list[dict[str, str | float]]:
    """By kernel, or by whatever `name` says; microseconds an atom."""
    out = []
    for row in rows:
        found = {k: v / CLOCK / atoms * 1e6 for k, v in limits(row).items()}
        slowest = max(found, key=lambda k: found[k])
        out.append({name: row[name], "least": found[slowest], "limit": slowest})
        out[-1] |= {c: found[c] for c in COLUMNS}
        out[-1]["path"] = row["launches"] * row["critical"] / max(row["blocks"], 1) / HERTZ * 1e6
    out.sort(key=lambda line: -line["least"])
    return out


def show(lines: Sequence[Mapping], most: int) -> None:
    def text(column: str, value: str | float) -> str | float:
        if isinstance(value, str):
            return value
        return f"{value:.1f}" if column == "path" else f"{value:.4f}"

    print_table([{k: text(k, v) for k, v in line.items()} for line in lines[:most]])
    print()


def main() -> None:
    parser = step_arguments(__doc__, "*", 192)
    parser.add_argument(
        "--multiprocessors",
        type=int,
        default=1,
        help="that are to be filled; default: 1, as few as many atoms always fill",
    )
    parser.add_argument("--lines", metavar="KERNEL", help="its source lines, too")
    args = parser.parse_args()
    try:
        evaluate, tables = program("evaluate"), []
    except pytest.skip.Exception as missing:
        raise SystemExit(str(missing)) from None
    for model in args.models or [Path(DEFAULT_MODEL)]:
        atoms, rows = counted(evaluate, model, args.atoms, args.precision, args.multiprocessors)
        for row in rows:
            row["kernel"] = short(row["kernel"])
        lines = table((r for r in rows if r["place"] == "all"), atoms, "kernel")
        total = {k: sum(line[k] for line in lines) for k in ("least", *COLUMNS, "path")}
        lines.insert(0, {"kernel": "step", "least": total.pop("least"), "limit": "", **total})
        print(f"{model.stem}, {args.precision}, {atoms} atoms; microseconds an atom at least:")
        show(lines, 16)
        if args.lines:
            own = [r for r in rows if r["kernel"] == args.lines and r["place"] != "all"]
            show(table(own, atoms, "place"), 30)
        common = {
            "commit": commit(),
            "model": model.stem,
            "precision": args.precision,
            "atoms": atoms,
            "multiprocessors": args.multiprocessors,
        }
        tables.append(
            [
                common | {k: f"{v:.5f}" if isinstance(v, float) else v for k, v in x.items()}
                for x in lines
            ]
        )
    if args.csv:
        write_tables(args.csv, tables)


if __name__ == "__main__":
    main()
