"""Instructions of one step, counted by valgrind: work without noise, to compare two commits by.

    apt install valgrind
    python benchmarks/instructions.py [MODEL.dpa2 ...] [--atoms 192] [--precision float32] [--csv F] [--against F]

The structure is the shipped liquid water, repeated; a model has the elements O and H. Counted is a steady step with
energies, forces and virial: a process with two steps less one with one, so that tables, neighbour list and memory are
there; 3 minutes for the published small model, 8 for medium. Python is not counted. valgrind knows no AVX-512, so it is the
code for AVX2 (DPA2MD_ISA=avx2), one thread.

The functions are the most expensive ones, each without those that it calls; the compiler decides which calls
remain. Fewer instructions are not always less time: waiting for memory or for each other is not seen. --against
prints the ratio to a file that --csv wrote at another commit; "-" where that has no such function. The core must be
compiled with its symbols, as `make dev` does, by the same compiler.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from arguments import step_arguments
from dpa2md.cli.options import print_table
from dpa2md.shipped import DEFAULT_MODEL
from provenance import commit, compiler, write_tables

STEP = """
import sys
from dpa2md import Engine
from dpa2md.bench import replicated
from dpa2md.structures import equilibrated_water

model, precision, natoms, steps = sys.argv[1:]
atoms = replicated(equilibrated_water(), int(natoms))
engine = Engine(model, precision=precision, threads=1)
for step in range(int(steps)):
    engine.compute_atoms([atoms])
print(len(atoms))
"""
COUNTED = "dpa2md::Engine::compute(*"
SET = "avx2"
# valgrind counts one instruction for each byte that `rep stosb` or `rep movsb` writes: memset and memcpy without them
WITHOUT_ERMS = "glibc.cpu.hwcaps=-ERMS"


def steady_step(model: Path, natoms: int, precision: str) -> tuple[int, Counter[str]]:
    """Atoms, and the instructions of a step in every function, without those that it calls."""
    _, first = run(model, natoms, precision, 1)
    atoms, both = run(model, natoms, precision, 2)
    return atoms, both - first


def run(model: Path, natoms: int, precision: str, steps: int) -> tuple[int, Counter[str]]:
    """The same of a process with so many steps."""
    environment = dict(os.environ, DPA2MD_ISA=SET, PYTHONHASHSEED="0", GLIBC_TUNABLES=WITHOUT_ERMS)
    environment |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "callgrind.out"
        counting = ["--tool=callgrind", "-q", f"--callgrind-out-file={profile}"]
        counting += ["--collect-atstart=no", f"--toggle-collect={COUNTED}"]
        program = [sys.executable, "-c", STEP, str(model), precision, str(natoms), str(steps)]
        done = subprocess.run(
            ["valgrind", *counting, *program],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"The step of {model} failed:\n{done.stderr[-2000:]}")
        listing = subprocess.run(
            ["callgrind_annotate", "--auto=no", "--show-percs=no", "--threshold=100", profile],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return int(done.stdout), parsed(listing)


def parsed(listing: str) -> Counter[str]:
    """Instructions by function; a function's lines from several source files are added."""
    found: Counter[str] = Counter()
    for line in listing.splitlines():
        if match := re.match(r"\s*([\d,]+)\s+[^\s:]*:(.+?)(?: \[[^\[\]]*\])?$", line):
            found[short(match[2])] += int(match[1].replace(",", ""))
    if not found:
        raise SystemExit("No function was counted: compile the core with its symbols (make dev).")
    return found


def short(name: str) -> str:
    """A C++ name without parameters, return type and namespace."""
    name = name.replace("(anonymous namespace)::", "")
    while (bare := re.sub(r"\([^()]*\)", "", name)) != name:
        name = bare
    name = re.sub(r"dpa2md::|cpu_\w+::| const\b|'\d+$| \[clone[^\]]*\]", "", name)
    return re.sub(r"^(?!operator)\w+ (?=\S)", "", name)


def table(model: Path, natoms: int, precision: str, functions: int) -> list[dict[str, str | float]]:
    """The whole step and its most expensive functions, instructions an atom."""
    atoms, found = steady_step(model, natoms, precision)
    common = {"commit": commit(), "compiler": compiler(), "instruction_set": SET}
    common |= {"model": model.stem, "precision": precision, "atoms": str(atoms)}
    lines = [("step", sum(found.values())), *found.most_common(functions)]
    return [common | {"function": f, "instructions": round(n / atoms, 1)} for f, n in lines]


def key(line: Mapping[str, str | float]) -> tuple:
    return tuple(line[k] for k in ("model", "precision", "atoms", "function"))


def show(rows: Sequence[Mapping[str, str | float]], other: Mapping[tuple, float]) -> None:
    head = rows[0]
    print(
        f"{head['model']}, {head['precision']}, {head['atoms']} atoms, {head['instruction_set']}, "
        f"{head['compiler']}; instructions an atom:"
    )
    shown = [
        {"function": r["function"], "instructions": f"{r['instructions']:>12,.0f}"} for r in rows
    ]
    for line, r in zip(shown, rows, strict=True):
        if other:
            line["ratio"] = f"{r['instructions'] / other[key(r)]:.4f}" if key(r) in other else "-"
    print_table(shown)
    print()


def main() -> None:
    parser = step_arguments(__doc__, "*", 192)
    parser.add_argument("--functions", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--against", type=Path, metavar="OTHER.csv")
    args = parser.parse_args()
    if not shutil.which("valgrind"):
        raise SystemExit(
            "valgrind, which counts the instructions, is missing: apt install valgrind."
        )
    other: dict[tuple, float] = {}
    if args.against:
        with open(args.against, newline="") as file:
            other = {key(line): float(line["instructions"]) for line in csv.DictReader(file)}
    rows = []
    for model in args.models or [Path(DEFAULT_MODEL)]:
        rows.append(table(model, args.atoms, args.precision, args.functions))
        show(rows[-1], other)
    if args.csv:
        write_tables(args.csv, rows)


if __name__ == "__main__":
    main()
