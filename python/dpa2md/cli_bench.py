"""The sub-command ``dpa2md bench``."""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from .cli_md import DEFAULT_MODEL, read_structure

_EXAMPLES = """\
examples:
  dpa2md bench                                        the shipped model on water, 192 and 768 atoms
  dpa2md bench --model model.dpa2 --atoms 192 768 6144 --stages
  dpa2md bench --structure metal.cif --model model.dpa2 --csv times.csv
  dpa2md bench --device cuda --atoms 192 12288
  dpa2md bench --against model.pth --peer-python ~/deepmd/bin/python

With --against, DeePMD-kit evaluates the same structures in turn, each program in a process of its own with one
thread, and processor times are compared; without, wall times are shown.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure the time of a step, alone or against DeePMD-kit",
        description="Measure the time of energy, forces and virial.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="a .dpa2 file or a model of DeePMD-kit (default: that of --against, or the shipped water model)",
    )
    parser.add_argument("--structure", type=Path, metavar="FILE", help="default: liquid water")
    parser.add_argument(
        "--atoms",
        type=int,
        nargs="+",
        metavar="N",
        help="repeat the structure to at least N atoms (default: 192 768)",
    )
    parser.add_argument("--precision", choices=["float32", "float64"], help="default: the model's")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, or cuda:1, ...")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    parser.add_argument(
        "--steps", type=int, default=10, metavar="N", help="counted steps (default: 10)"
    )
    parser.add_argument("--stages", action="store_true", help="the time of every stage, too")
    parser.add_argument(
        "--against", type=Path, metavar="MODEL", help="a model that DeePMD-kit loads"
    )
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PYTHON",
        help="one that has deepmd-kit (default: this one)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    from .bench import compare, machine, measure, replicated
    from .engine import Engine
    from .structures import equilibrated_water

    if args.steps < 1:
        raise ValueError(f"--steps {args.steps}: give 1 or more.")
    model = args.model or args.against or DEFAULT_MODEL
    atoms = read_structure(str(args.structure)) if args.structure else equilibrated_water()
    sizes = args.atoms or ([192, 768] if not args.structure else [len(atoms)])
    systems = [replicated(atoms, n) for n in sizes]
    rows: list[dict[str, Any]] = []
    stages: list[dict[str, float]] = []
    if args.against:
        if args.device != "cpu":
            raise ValueError("--against compares processor times: leave out --device.")
        title = f"one core of {machine()}, processor time, {Path(model).name}"
        timings = compare(
            model, args.against, args.peer_python, args.precision, systems, args.steps
        )
    else:
        engine = Engine(model, args.precision, args.threads, args.device)
        title = f"{engine.description} on {machine()}, {Path(model).name}"
        # On the CPU the clock costs nothing; on a GPU it makes the host wait.
        by_stage = args.stages or args.device == "cpu"
        timings = [measure(engine, s, args.steps, by_stage=by_stage) for s in systems]
    for t in timings:
        row: dict[str, Any] = {"atoms": t.natoms, "us/atom": round(t.per_atom, 2)}
        if args.against:
            row["DeePMD-kit us/atom"] = round(t.peer_per_atom, 1)
            row["ratio"] = round(statistics.median(t.ratios), 2)
            row["least"], row["most"] = round(min(t.ratios), 2), round(max(t.ratios), 2)
            row["MB"], row["DeePMD-kit MB"] = round(t.peak), round(t.peer_peak)
            row["eV/atom apart"] = float(f"{t.energy_difference:.1e}")
        else:
            row["ms/step"] = round(1e3 * statistics.median(t.seconds), 3)
            row["fastest"] = round(1e3 * min(t.seconds), 3)
            row["MB"] = round(t.peak)
        rows.append(row)
        stages.append({k: round(1e6 * v / t.natoms, 2) for k, v in t.stages.items()})
    if args.csv:
        _write_csv(args.csv, machine() if args.device == "cpu" else engine.description, rows)
    if args.json:
        out = {"title": title, "rows": rows}
        if args.stages and not args.against:
            out["stages, us/atom"] = stages
        print(json.dumps(out, indent=2))
        return 0
    print(title)
    _print_table(rows)
    if args.stages and not args.against:
        print("\nstages, us/atom, summed over threads")
        _print_table(
            [
                {"stage": name}
                | {
                    f"{row['atoms']} atoms": s.get(name, 0.0)
                    for row, s in zip(rows, stages, strict=True)
                }
                for name in sorted(stages[-1], key=lambda name: -stages[-1][name])
            ]
        )
    return 0


def _print_table(rows: list[dict[str, Any]]) -> None:
    text = [list(rows[0])] + [[str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    for line in text:
        print("  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True)))


def _write_csv(path: Path, machine: str, rows: list[dict[str, Any]]) -> None:
    from .outputs import replace_file

    text = io.StringIO()
    writer = csv.DictWriter(text, ["machine", *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"machine": machine} | row for row in rows)
    replace_file(path, text.getvalue())
