"""The sub-command ``dpa2md explore``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..shipped import model_path
from .limits import add_limit_options, check_limit_options, limits_of
from .md_settings import add_settings, settings_of
from .options import (
    add_engine_options,
    add_model,
    add_progress_option,
    add_structure,
    engine_options,
    load_calculator,
    load_structure,
    load_structures,
    new_parser,
)

if TYPE_CHECKING:
    from ..workflow.explore import Exploration, Guard

_EXAMPLES = """\
examples:
  dpa2md explore m.dpa2 ice.cif --temperature 330 --steps 9999 -o t330.extxyz
  dpa2md explore s.dpa2 ice.cif --watch m.dpa2 --limits t330.json -o new.extxyz
  dpa2md explore m.dpa2 ice.cif --ensemble npt --pressure 1000 -o p1000.extxyz
  dpa2md explore starts.xyz --perturb 20 --rattle 0.05 -o shaken.extxyz

A run that blows up ends with the frames before: at a frame where a force is
too large, elements are too near, or the watching model disagrees; at any step
by its temperature. OUT.json tells how far it came, why it ended and how near
the elements were. The same command goes on after a kill.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "explore",
        "new frames by molecular dynamics that ends where it blows up",
        "Make frames for a training: molecular dynamics, or shaken structures.",
        _EXAMPLES,
    )
    add_model(parser)
    add_structure(parser)
    add_engine_options(parser.add_argument_group("model"))
    add_settings(parser.add_argument_group("run"))
    _add_guard(parser.add_argument_group("what ends a run early"))
    _add_perturbation(parser.add_argument_group("instead of a run"))
    out = parser.add_argument_group("output")
    out.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.extxyz", help="the frames"
    )
    out.add_argument("--overwrite", action="store_true", help="begin again")
    add_progress_option(out)
    out.add_argument("--quiet", action="store_true", help="no table on the screen")
    parser.set_defaults(run=run)
    return parser


def _add_guard(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--max-force",
        type=float,
        metavar="F",
        help="largest force at a saved frame, eV/angstrom (default: 50)",
    )
    add("--watch", metavar="MODEL", help="compare the forces of saved frames with this model's")
    add(
        "--max-deviation",
        type=float,
        metavar="F",
        help="largest difference of them, eV/angstrom (default: 3)",
    )
    add_limit_options(group)


def _add_perturbation(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--perturb", type=int, metavar="N", help="N shaken copies of all structures")
    add("--rattle", type=float, metavar="A", help="of all coordinates, angstrom (default: 0.05)")
    add("--strain", type=float, metavar="S", help="of the cell, at most (default: 0.03)")


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit status, 130 when it was interrupted."""
    if not args.output.parent.is_dir():
        raise RunError(f"{args.output.parent}: there is no such folder; make it first.")
    check_limit_options(args)
    if args.perturb is not None:
        return _perturb(args)
    for name in ("rattle", "strain"):
        if getattr(args, name) is not None:
            raise RunError(f"--{name} is for shaken copies: add --perturb N, or leave it out.")
    return _explore(args)


def _explore(args: argparse.Namespace) -> int:
    from ..workflow.evaluation import check_elements
    from ..workflow.explore import explore
    from .progress import Progress

    settings = settings_of(args)
    atoms = load_structure(args.structure, args.elements)
    atoms.calc = load_calculator(args, [atoms])
    check_elements(atoms.calc.engine, atoms.symbols)
    bar = sys.stderr.isatty() if args.progress is None else args.progress
    progress = Progress(
        settings.steps, settings.timestep, len(atoms), table=not args.quiet, bar=bar
    )
    try:
        found = explore(
            atoms,
            settings,
            args.output,
            start=args.structure,
            guard=_guard(args),
            overwrite=args.overwrite,
            report=progress.report,
        )
    finally:
        progress.finish()
    return _tell(args, found)


def _tell(args: argparse.Namespace, found: Exploration) -> int:
    count = "1 frame" if found.frames == 1 else f"{found.frames} frames"
    if found.interrupted:
        print(f"Stopped at {count}; repeat the command to go on.")
        return 130
    early = f"; it ended early at {found.reason}" if found.reason else ""
    print(f"{count} up to step {found.steps}{early}")
    print(f"wrote {args.output}, {args.output.with_suffix('.json')}")
    return 0


def _guard(args: argparse.Namespace) -> Guard:
    from ..calculator import DPA2Calculator
    from ..workflow.explore import Guard

    if args.max_deviation is not None and args.watch is None:
        raise RunError("--max-deviation is for a watching model: add --watch, or leave it out.")
    given: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("max_force", "max_deviation")
        if getattr(args, name) is not None
    }
    if args.watch is not None:
        options = engine_options(args) | {"head": None}
        given["teacher"] = DPA2Calculator(model_path(args.watch), **options)
    return Guard(**given, limits=limits_of(args))


def _perturb(args: argparse.Namespace) -> int:
    from ase.io import write

    from ..base.files import whole_file
    from ..workflow.evaluation import check_elements
    from ..workflow.explore import perturbed
    from ..workflow.notes import begin, note_of, write_note

    _refuse_of_runs(args)
    structures = load_structures(args.structure, args.elements)
    if args.model or args.model_option:
        elements = {element for atoms in structures for element in atoms.symbols.species()}
        check_elements(load_calculator(args, structures).engine, elements)
    given = {
        name: getattr(args, name)
        for name in ("rattle", "strain", "seed")
        if getattr(args, name) is not None
    }
    limits = limits_of(args)
    frames = perturbed(structures, args.perturb, limits=limits, **given)
    if not frames:
        raise RunError("All copies are nearer than the limits allow: take a smaller --rattle.")
    request = {"structure": args.structure, "copies": args.perturb, **given, "limits": limits}
    if begin(args.output, request, overwrite=args.overwrite) is None:
        for atoms in frames:
            atoms.info["start"] = args.structure
        with whole_file(args.output) as temporary:
            write(temporary, frames, format="extxyz")
        dropped = args.perturb * len(structures) - len(frames)
        write_note(note_of(args.output), request, "finished", frames=len(frames), dropped=dropped)
        print(f"{len(frames)} frames" + (f", {dropped} dropped by the limits" if dropped else ""))
    print(f"wrote {args.output}, {note_of(args.output)}")
    return 0


def _refuse_of_runs(args: argparse.Namespace) -> None:
    """Options of a run are of no account for shaken copies."""
    from ..dynamics import Settings

    names = [field.name for field in dataclasses.fields(Settings) if field.name != "seed"]
    for name in [*names, "max_force", "watch", "max_deviation"]:
        if getattr(args, name) is not None:
            option = name.replace("_", "-")
            raise RunError(f"--{option} is for a run, not for --perturb: leave it out.")
