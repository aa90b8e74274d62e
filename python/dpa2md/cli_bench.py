"""The sub-command ``dpa2md bench``."""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from pathlib import Path
from typing import Any

from .cli_options import (
    SHIPPED,
    STRUCTURE_HELP,
    add_elements,
    add_engine_options,
    add_model,
    load_engine,
    load_structure,
    model_path,
    named_model,
    new_parser,
    print_json,
    print_table,
)

_EXAMPLES = """\
examples:
  dpa2md bench                              the shipped model, 192 and 768 atoms
  dpa2md bench model.dpa2 --atoms 192 768 6144 --stages
  dpa2md bench model.dpa2 metal.cif --csv times.csv --plot times.png
  dpa2md bench --device cuda --atoms 192 12288
  dpa2md bench --against model.pth --peer-python ~/deepmd/bin/python

With --against, DeePMD-kit evaluates the same structures in turn, each program
in a process of its own with one thread, and processor times are compared;
without, wall times are shown.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "bench",
        "measure the time of a step, alone or against DeePMD-kit",
        "Measure the time of energy, forces and virial.",
        _EXAMPLES,
    )
    add_model(parser)
    parser.add_argument("structure", metavar="STRUCTURE", nargs="?", help=STRUCTURE_HELP)
    parser.add_argument("--structure", dest="structure_option", help=argparse.SUPPRESS)
    add_elements(parser)
    parser.add_argument(
        "--atoms",
        type=int,
        nargs="+",
        metavar="N",
        help="repeat the structure to at least N atoms (default: 192 768)",
    )
    add_engine_options(parser)
    parser.add_argument(
        "--steps", type=int, default=10, metavar="N", help="counted steps (default: 10)"
    )
    parser.add_argument("--stages", action="store_true", help="the time of every stage, too")
    parser.add_argument("--against", metavar="MODEL", help="a model that DeePMD-kit loads")
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PYTHON",
        help="one that has deepmd-kit (default: this one)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="draw time and memory over the number of atoms"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    from .bench import compare, machine, measure, replicated
    from .plots import check_matplotlib, plot_scaling

    if args.steps < 1:
        raise ValueError(f"--steps {args.steps}: give 1 or more.")
    if args.plot:
        check_matplotlib()
    args.model = args.model or args.model_option or args.against
    structure = args.structure or args.structure_option
    name = Path(named_model(args)).name
    atoms = load_structure(structure or SHIPPED, args.elements)
    sizes = args.atoms or ([len(atoms)] if structure else [192, 768])
    systems = [replicated(atoms, n) for n in sizes]
    rows: list[dict[str, Any]] = []
    stages: list[dict[str, float]] = []
    if args.against:
        if args.device != "cpu":
            raise ValueError("--against compares processor times: leave out --device.")
        if args.low_memory:
            raise ValueError("--against compares at full speed: leave out --low-memory.")
        title = f"one core of {machine()}, processor time, {name}"
        timings = compare(
            model_path(named_model(args)),
            Path(args.against),
            args.peer_python,
            args.precision,
            systems,
            args.steps,
        )
    else:
        engine = load_engine(args)
        title = f"{engine.description} on {machine()}, {name}"
        # On the CPU the clock costs nothing; on a GPU it makes the host wait.
        by_stage = args.stages or args.device == "cpu"
        timings = [measure(engine, system, args.steps, by_stage=by_stage) for system in systems]
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
    if args.plot:
        plot_scaling(rows, args.plot, title)
    if args.json:
        out = {"title": title, "rows": rows}
        if args.stages and not args.against:
            out["stages, us/atom"] = stages
        print_json(out)
        return 0
    print(title)
    print_table(rows)
    if args.stages and not args.against:
        print("\nstages, us/atom, summed over threads")
        print_table(
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


def _write_csv(path: Path, machine: str, rows: list[dict[str, Any]]) -> None:
    from .files import whole_file

    text = io.StringIO()
    writer = csv.DictWriter(text, ["machine", *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"machine": machine} | row for row in rows)
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue())
