"""The sub-command ``dpa2md select``."""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..shipped import model_path
from .limits import add_limit_options, check_limit_options, limits_of
from .options import (
    MODEL_HELP,
    add_engine_options,
    engine_options,
    new_parser,
    print_json,
    print_table,
    refuse_to_replace,
)

if TYPE_CHECKING:
    from ..workflow.select import Request, Selection

_EXAMPLES = """\
examples:
  dpa2md select t300.extxyz t400.extxyz --teacher big.dpa2 -o first.extxyz
  dpa2md select new.extxyz --teacher big.dpa2 --student s.dpa2 -o sel.extxyz
  dpa2md select new.extxyz --teacher big.dpa2 --known old.extxyz -o sel.extxyz

A frame's deviation is the largest difference of an atom's force between student
and teacher. Below the lower level a frame is accurate, above the upper one it
has failed; of those between, the most different ones are chosen. OUT.json has
all counts. Where none is chosen, OUT.json says so, and there is no OUT.extxyz.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "select",
        "frames that a student model does not master, all different",
        "Choose frames that are worth a label.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("structures", metavar="STRUCTURES", nargs="+", help="files of candidates, or FILE@0:10")
    add("--teacher", required=True, metavar="MODEL", help=MODEL_HELP)
    add("--student", metavar="MODEL", help="without it all sane frames are candidates")
    add(
        "--lower",
        type=_level,
        metavar="F",
        help="eV/angstrom, or auto: leaves 4 candidates a frame that is asked for (default: auto)",
    )
    add(
        "--upper",
        type=_level,
        metavar="F",
        help="eV/angstrom, or auto: 10 times the median, at least 1 (default: auto)",
    )
    add("--max-frames", type=int, default=50, metavar="N", help="default: 50")
    add("--known", nargs="+", default=[], metavar="FILE", help="labelled frames, to differ from")
    add_limit_options(parser)
    add(
        "--max-force",
        type=float,
        default=50.0,
        metavar="F",
        help="largest force of the teacher, eV/angstrom (default: 50)",
    )
    add(
        "--hold-out",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="this part of the chosen frames goes to OUT.held_out.extxyz",
    )
    add("--seed", type=int, default=1, metavar="N", help="of the part held out (default: 1)")
    add("-o", "--output", type=Path, required=True, metavar="OUT.extxyz", help="chosen frames")
    add("--overwrite", action="store_true", help="replace existing outputs")
    add_engine_options(parser)
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def _level(text: str) -> float | None:
    """A level, or None for an automatic one."""
    if text == "auto":
        return None
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number of eV/angstrom, or auto")
    return value


def run(args: argparse.Namespace) -> int:
    """Select, write and print; returns the exit status."""
    from ..engine import Engine
    from ..workflow.notes import note_of
    from ..workflow.select import select

    outputs = [args.output, _held_out_file(args.output), note_of(args.output)]
    if args.output.suffix != ".extxyz":
        raise RunError(f"{args.output}: name the frames' file .extxyz.")
    for path in outputs:
        refuse_to_replace(path, args.overwrite)
    request = _request(args)
    options = engine_options(args)
    teacher = Engine(model_path(args.teacher), **options)
    student = None
    if args.student is not None:
        student = Engine(model_path(args.student), **options | {"head": None})
    with _progress() as show:
        found = select(args.structures, teacher, student, request, known=args.known, report=show)
    for path in outputs:
        path.unlink(missing_ok=True)
    written = _write(args, found)
    for sentence in found.summary["warnings"]:
        warnings.warn(sentence, UserWarning, stacklevel=1)
    if args.json:
        print_json(found.summary)
    else:
        _print(found.summary)
        print("wrote " + ", ".join(written))
    return 0


def _held_out_file(output: Path) -> Path:
    return output.with_suffix(".held_out.extxyz")


def _request(args: argparse.Namespace) -> Request:
    from ..workflow.select import Request

    check_limit_options(args)
    if args.student is None and (args.lower, args.upper) != (None, None):
        raise RunError("Levels are for a student: add --student, or leave them out.")
    return Request(
        max_frames=args.max_frames,
        lower=args.lower,
        upper=args.upper,
        max_force=args.max_force,
        limits=limits_of(args),
        hold_out=args.hold_out,
        seed=args.seed,
    )


def _progress() -> Any:
    """A moving line; how many frames there are is not known before they are read."""
    import sys
    from contextlib import contextmanager

    from .progress import Line

    @contextmanager
    def shown() -> Any:
        line = Line()
        terminal = sys.stderr.isatty()
        try:
            yield lambda what, count: line.draw(0, 0, [f"{count} {what}"]) if terminal else None
        finally:
            line.wipe()

    return shown()


def _write(args: argparse.Namespace, found: Selection) -> list[str]:
    """Write what was chosen, and the counts last; returns the names."""
    import json

    from ase.io import write

    from ..base.files import whole_file
    from ..workflow.notes import note_of

    written = []
    for path, frames in (
        (args.output, found.chosen),
        (_held_out_file(args.output), found.held_out),
    ):
        if frames:
            with whole_file(path) as temporary:
                write(temporary, frames, format="extxyz")
            written.append(str(path))
    facts = {"student": args.student, "teacher": args.teacher, "candidates": args.structures}
    with whole_file(note_of(args.output)) as temporary:
        temporary.write_text(json.dumps(found.summary | facts, indent=2) + "\n")
    return [*written, str(note_of(args.output))]


def _print(summary: dict[str, Any]) -> None:
    from ..workflow.select import KINDS

    counts = ", ".join(f"{summary[kind]} {kind}" for kind in KINDS)
    print(f"{summary['frames']} frames: {counts}; {summary['chosen']} chosen")
    levels = summary["levels"]
    if levels["lower"] is not None and levels["upper"] is not None:
        print(f"levels: {levels['lower']:.4g} and {levels['upper']:.4g} eV/angstrom")
    names = ["start", "ensemble", "temperature", "pressure", "frames", *KINDS, "chosen"]
    shown = [n for n in names if any(n in row for row in summary["conditions"])]
    if len(summary["conditions"]) > 1:
        print_table([{n: row.get(n, "") for n in shown} for row in summary["conditions"]])
