"""The sub-command ``dpa2md bench``."""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shipped import model_path
from .options import (
    SHIPPED,
    STRUCTURE_HELP,
    add_elements,
    add_engine_options,
    add_model,
    load_engine,
    load_structure,
    named_model,
    new_parser,
    print_json,
    print_table,
    refuse_to_replace,
)

if TYPE_CHECKING:
    from ..bench import Timing
    from ..kernels import KernelTiming

_EXAMPLES = """\
examples:
  dpa2md bench                              the shipped model, 192 and 768 atoms
  dpa2md bench model.dpa2 --atoms 192 768 6144 --stages
  dpa2md bench model.dpa2 metal.cif --csv times.csv --plot times.png
  dpa2md bench --device cuda --atoms 192 12288 --kernels
  dpa2md bench --against model.pth --peer-python ~/deepmd/bin/python

With --against, DeePMD-kit evaluates the same structures in turn, each program
in a process of its own: with one thread, and processor times are compared, or
with --device cuda on the GPU, and wall times are. Without, wall times are
shown.
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
    parser.add_argument(
        "--kernels", action="store_true", help="the time of every kernel of a GPU, too"
    )
    parser.add_argument("--against", metavar="MODEL", help="a model that DeePMD-kit loads")
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PYTHON",
        help="one that has deepmd-kit (default: this one)",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write the table (with --kernels: that of the kernels) there",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw time and memory over the number of atoms: .png, .pdf, .svg",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    from ..bench import compare, machine, measure, replicated

    _check(args)
    structure = args.structure or args.structure_option
    name = Path(named_model(args)).name
    atoms = load_structure(structure or SHIPPED, args.elements)
    sizes = args.atoms or ([len(atoms)] if structure else [192, 768])
    systems = [replicated(atoms, n) for n in sizes]
    where = machine()
    kernels: list[KernelTiming] = []
    if args.against:
        how = f"one core of {where}, processor time" if args.device == "cpu" else "GPU, wall time"
        title = f"{how}, {name}"
        timings = compare(
            model_path(named_model(args)),
            Path(args.against),
            args.peer_python,
            args.precision,
            systems,
            args.steps,
            args.device,
        )
    else:
        engine = load_engine(args, [atoms])
        title = f"{engine.description} on {where}, {name}"
        where = where if args.device == "cpu" else engine.description
        # On the CPU the clock costs nothing; on a GPU it makes the host wait.
        by_stage = args.stages or args.device == "cpu"
        timings = [measure(engine, system, args.steps, by_stage=by_stage) for system in systems]
        if args.kernels:
            from ..kernels import measure_kernels

            kernels = [measure_kernels(engine, system, args.steps) for system in systems]
    rows = [_row(timing, bool(args.against)) for timing in timings]
    for row, timing in zip(rows, kernels, strict=False):
        row["kernels ms"] = round(1e3 * timing.seconds, 3)
    if args.csv:
        _write_csv(args.csv, where, _kernel_lines(kernels) or rows)
    if args.plot:
        from ..report.plots import plot_scaling

        plot_scaling(rows, args.plot, title)
    _print(args, title, rows, timings, kernels)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Say before the work what can't be done, and take the model of ``--against`` for either program."""
    from ..bench import check_peer

    if args.steps < 1:
        raise ValueError(f"--steps {args.steps}: give 1 or more.")
    for count in args.atoms or ():
        if count < 1:
            raise ValueError(f"--atoms {count}: give 1 or more.")
    for path in filter(None, (args.csv, args.plot)):
        refuse_to_replace(path, allowed=True)
    if args.plot:
        from ..report.plots import check_picture

        check_picture(args.plot)
    if args.kernels:
        _check_kernels(args)
    if not args.against:
        return
    for option, given, why in (
        ("--threads", args.threads is not None, "gives each program one thread"),
        ("--low-memory", args.low_memory, "compares at full speed"),
        ("--stages", args.stages, "measures whole steps"),
        (
            "--head",
            args.head is not None,
            "takes a model of one head, which `dpa2md convert` makes",
        ),
    ):
        if given:
            raise ValueError(f"--against {why}: leave out {option}.")
    if not Path(args.against).exists():
        raise ValueError(f"--against {args.against}: there is no such model.")
    check_peer(args.peer_python)
    args.model = args.model or args.model_option or args.against


def _check_kernels(args: argparse.Namespace) -> None:
    if args.device == "cpu":
        raise ValueError(
            "--kernels times the kernels of a GPU: add --device cuda, or take --stages on the CPU."
        )
    for option, given in (("--against", args.against), ("--stages", args.stages)):
        if given:
            raise ValueError(f"--kernels measures alone: leave out {option}.")


def _kernel_lines(timings: list[KernelTiming]) -> list[dict[str, Any]]:
    from ..kernels import kernel_rows

    return [{"atoms": timing.natoms} | row for timing in timings for row in kernel_rows(timing)]


def _row(timing: Timing, against: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"atoms": timing.natoms, "us/atom": round(timing.per_atom, 3)}
    if against:
        ratios = timing.ratios
        return row | {
            "DeePMD-kit us/atom": round(timing.peer_per_atom, 1),
            "ratio": round(statistics.median(ratios), 2),
            "least": round(min(ratios), 2),
            "most": round(max(ratios), 2),
            "MB": round(timing.peak),
            "DeePMD-kit MB": round(timing.peer_peak),
            "eV/atom apart": float(f"{timing.energy_difference:.1e}"),
        }
    return row | {
        "ms/step": round(1e3 * statistics.median(timing.seconds), 3),
        "fastest": round(1e3 * min(timing.seconds), 3),
        "MB": round(timing.peak),
    }


def _print(
    args: argparse.Namespace,
    title: str,
    rows: list[dict[str, Any]],
    timings: list[Timing],
    kernels: list[KernelTiming],
) -> None:
    from ..kernels import kernel_rows

    stages = [{k: round(1e6 * v / t.natoms, 2) for k, v in t.stages.items()} for t in timings]
    if args.json:
        out: dict[str, Any] = {"title": title, "rows": rows}
        if args.stages:
            out["stages, us/atom"] = stages
        if args.kernels:
            out["kernels"] = [{"atoms": t.natoms, "rows": kernel_rows(t)} for t in kernels]
        print_json(out)
        return
    print(title)
    print_table(rows)
    for timing in kernels:
        print(f"\n{timing.natoms} atoms, kernels one after the other")
        print_table(kernel_rows(timing))
    if args.stages:
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


def _write_csv(path: Path, machine: str, rows: list[dict[str, Any]]) -> None:
    from ..base.files import whole_file

    text = io.StringIO()
    writer = csv.DictWriter(text, ["machine", *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"machine": machine} | row for row in rows)
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue())
