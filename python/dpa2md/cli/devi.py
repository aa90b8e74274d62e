"""The sub-command ``dpa2md devi``."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..shipped import model_path
from .options import (
    MODEL_HELP,
    STRUCTURE_HELP,
    add_elements,
    add_engine_options,
    engine_options,
    load_structures,
    new_parser,
    print_json,
    print_table,
    refuse_to_replace,
)

if TYPE_CHECKING:
    from ase import Atoms

_EXAMPLES = """\
examples:
  dpa2md devi -m a.dpa2 b.dpa2 c.dpa2 d.dpa2 -s md.traj    to model_devi.out
  dpa2md devi -m a.pth b.pth -s data/system -o devi.out -f 100 --atomic
  dpa2md devi -m a.dpa2 b.dpa2 -s one.xyz two.xyz --relative 1.0 --json

The file is that of DeePMD-kit's dp model-devi: step, deviations of the virial
per atom (eV), of the forces (eV/angstrom), of the energy per atom (eV).
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "devi",
        "model deviation: how far several models are from each other",
        "Evaluate structures with several models; write their deviations (dp model-devi).",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("-m", "--models", nargs="+", required=True, metavar="MODEL", help=f"each {MODEL_HELP}")
    add(
        "-s",
        "--system",
        nargs="+",
        required=True,
        metavar="STRUCTURES",
        help=f"each {STRUCTURE_HELP}; all structures, or FILE@0:10 for some",
    )
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("model_devi.out"),
        metavar="FILE",
        help="default: model_devi.out",
    )
    add("--overwrite", action="store_true", help="replace an existing output")
    add(
        "-f",
        "--frequency",
        type=int,
        default=1,
        metavar="N",
        help="steps between two structures, for the first column (default: 1)",
    )
    add(
        "--real-error",
        "--real_error",
        action="store_true",
        help="errors against the labels in the structures in place of deviations",
    )
    add("--atomic", action="store_true", help="a column for each atom's force, too")
    add(
        "--relative",
        type=float,
        metavar="F",
        help="divide an atom's deviation by its mean force plus F (eV/angstrom)",
    )
    add(
        "--relative-v",
        "--relative_v",
        type=float,
        metavar="V",
        help="divide the virial's deviation by the mean virial per atom plus V (eV)",
    )
    add_elements(parser)
    add_engine_options(parser)
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate, write and print; returns the exit status."""
    from ..deviation import model_deviation, write_deviations
    from ..engine import Engine
    from .progress import progress_bar

    _check_options(args)
    frames = {name: load_structures(name, args.elements) for name in dict.fromkeys(args.system)}
    engines = [Engine(model_path(name), **engine_options(args)) for name in args.models]
    for name, chosen in frames.items():
        _check_frames(args, name, chosen)
    structures = [atoms for chosen in frames.values() for atoms in chosen]
    with progress_bar("evaluations", len(engines) * len(structures)) as show:
        entries = iter(
            model_deviation(
                engines,
                structures,
                relative=args.relative,
                relative_v=args.relative_v,
                real_error=args.real_error,
                report=show,
            )
        )
    found = {name: list(islice(entries, len(chosen))) for name, chosen in frames.items()}
    write_deviations(args.output, found, frequency=args.frequency, atomic=args.atomic)
    if args.json:
        print_json(_summary(args, found))
        return 0
    print_table([_row(name, entries) for name, entries in found.items()])
    print(f"wrote {args.output}")
    return 0


def _summary(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    from ..deviation import DEVIATIONS

    systems = {
        name: [
            {"step": k * args.frequency} | {head: entry[head] for head in DEVIATIONS}
            for k, entry in enumerate(entries)
        ]
        for name, entries in found.items()
    }
    return {"models": args.models, "output": str(args.output), "systems": systems}


def _check_options(args: argparse.Namespace) -> None:
    if len(args.models) < 2 and not args.real_error:
        raise RunError("-m needs two models or more; the deviation is that between them.")
    if args.frequency < 1:
        raise RunError(f"--frequency is {args.frequency}; give 1 or more.")
    refuse_to_replace(args.output, args.overwrite)


def _check_frames(args: argparse.Namespace, name: str, frames: list[Atoms]) -> None:
    from ..comparison import labelled
    from ..deviation import check_one_size

    if args.real_error and not labelled(frames):
        raise RunError(f"{name}: there are no labels; leave out --real-error.")
    if args.atomic:
        check_one_size(name, map(len, frames))


def _row(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    forces = [entry["max_devi_f"] for entry in entries]
    return {
        "system": name,
        "structures": len(entries),
        "max_devi_f: mean": sum(forces) / len(forces),
        "largest": max(forces),
        "max_devi_v: largest": max(entry["max_devi_v"] for entry in entries),
        "devi_e: largest": max(entry["devi_e"] for entry in entries),
    }
