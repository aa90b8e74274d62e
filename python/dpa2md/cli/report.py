"""The sub-command ``dpa2md report``."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..shipped import model_path
from .options import (
    MODEL_HELP,
    STRUCTURE_HELP,
    add_elements,
    add_engine_options,
    add_progress_option,
    load_structure,
    load_structures,
    new_parser,
    refuse_to_replace,
)
from .progress import Line, clock

if TYPE_CHECKING:
    from ..report.validation import Conditions, Request, Subject

_EXAMPLES = """\
examples:
  dpa2md report small.dpa2 big.dpa2 --labels held_out.xyz --structure start.xyz
  dpa2md report small.dpa2 big.pt --other-head Water --labels held_out.xyz
  dpa2md report m.dpa2 --structure box.xyz --ensemble npt --steps 100000
  dpa2md report m.dpa2 big.dpa2 --solid si.cif --only solid
  dpa2md report m.dpa2 big.dpa2 --structure box.xyz --only speed --lammps

Writes one HTML page, readable offline, and the same numbers as JSON beside it.
MODEL is compared with OTHER where that is given. Sections (--only): errors,
thermo, rdf, adf, diffusion, density, drift, solid, speed. Stopped or killed,
the same command goes on where it was.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "report",
        "validation report of one model or two: errors, dynamics, speed",
        "Validate a model, or one beside another: a page in HTML, and JSON.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add("other", metavar="OTHER", nargs="?", help="the model to compare with, such as a teacher")
    add("--labels", metavar="FRAMES", help="labelled frames that no model was trained on")
    add("--structure", metavar="START", help=f"where the runs begin: {STRUCTURE_HELP}")
    add(
        "--solid",
        metavar="CRYSTAL",
        nargs="?",
        const="",
        help="a crystal, for its equation of state and elastic constants (alone: START)",
    )
    add_elements(parser)
    _add_conditions(parser.add_argument_group("molecular dynamics"))
    model = parser.add_argument_group("models")
    add_engine_options(model)
    model.add_argument("--other-head", metavar="NAME", help="which head of OTHER")
    model.add_argument(
        "--other-precision", choices=["float32", "float64"], help="of OTHER (default: its own)"
    )
    out = parser.add_argument_group("report")
    out.add_argument("--only", metavar="A,B", help="these sections (default: all that can be made)")
    out.add_argument("--lammps", action="store_true", help="time LAMMPS, too")
    out.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE.html",
        help="default: report.html; the JSON file is named like it",
    )
    out.add_argument("--keep", action="store_true", help="keep the trajectories (FILE.work)")
    out.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    add_progress_option(out)
    parser.set_defaults(run=run)
    return parser


def _add_conditions(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--ensemble", choices=["nvt", "npt"], help="default: nvt")
    add("--temperature", type=float, metavar="K", help="default: 300")
    add("--pressure", type=float, metavar="BAR", help="for npt (default: 1)")
    add("--timestep", type=float, metavar="FS", help="default: 0.5")
    add("--steps", type=int, metavar="N", help="that are analysed (default: 20000)")
    add("--equilibration", type=int, metavar="N", help="steps before (default: a fifth of them)")
    add("--seed", type=int, help="of velocities and thermostat (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Make the report; returns the exit status, 130 when it was interrupted."""
    from ..report.validation import validate, write_report

    _check_outputs(args)
    request = _request(args)
    work = args.output.with_suffix(".work")
    bar = _Bar(sys.stderr.isatty() if args.progress is None else args.progress)
    try:
        validation = validate(request, work, replace=args.overwrite, report=bar.show)
    except KeyboardInterrupt:
        bar.finish()
        print("Stopped; repeat the command to go on.")
        return 130
    finally:
        bar.finish()
    written = write_report(validation, args.output)
    keep = args.keep or bool(validation.failed)  # then with the last frame of a run that exploded
    if not keep:
        shutil.rmtree(work)
    for what, why in validation.failed.items():
        print(f"failed: {what}: {why}")
    for name, why in validation.missing.items():
        print(f"without {name}: {why}")
    print("wrote " + ", ".join(map(str, [*written, *([work] if keep else [])])))
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse at once what would be refused after the work."""
    from ..report.plots import check_matplotlib

    if args.output.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"{args.output}: a report's name must end in .html.")
    for path in (args.output, args.output.with_suffix(".json")):
        refuse_to_replace(path, args.overwrite)
    check_matplotlib()
    if args.other is None:
        for option in ("other_head", "other_precision"):
            if getattr(args, option):
                raise RunError(f"--{option.replace('_', '-')} is for OTHER: name a second model.")
    if not args.structure and args.solid == "":
        raise RunError("--solid alone takes the crystal of --structure: name a file after either.")


def _request(args: argparse.Namespace) -> Request:
    from ..report.validation import Request

    conditions = _conditions(args)
    structure, solid = None, None
    subjects = _subjects(args)
    frames = load_structures(args.labels, args.elements) if args.labels else []
    if args.structure:
        structure = load_structure(args.structure, args.elements)
    if args.solid is not None:
        solid = load_structure(args.solid or args.structure, args.elements)
    return Request(
        subjects,
        tuple(frames),
        args.labels or "",
        structure,
        solid,
        conditions,
        tuple(name.strip() for name in args.only.split(",")) if args.only else (),
        args.lammps,
        args.threads,
        args.device,
        args.low_memory,
    )


def _conditions(args: argparse.Namespace) -> Conditions:
    from ..report.validation import Conditions

    names = [field.name for field in dataclasses.fields(Conditions)]
    given = {n: value for n in names if (value := getattr(args, n)) is not None}
    conditions = Conditions(**given)
    if "pressure" in given and conditions.ensemble != "npt":
        raise RunError("nvt takes no --pressure: add --ensemble npt, or leave it out.")
    if given and not args.structure:
        option = next(iter(given))
        raise RunError(f"--{option} is for molecular dynamics: name a structure by --structure.")
    return conditions


def _subjects(args: argparse.Namespace) -> tuple[Subject, ...]:
    from ..report.validation import Subject

    given: list[tuple[str, Any, Any]] = [(args.model, args.head, args.precision)]
    if args.other is not None:
        given.append((args.other, args.other_head, args.other_precision))
    paths = [model_path(name) for name, _, _ in given]
    names = [
        Path(name).name.removesuffix(path.suffix)
        for (name, _, _), path in zip(given, paths, strict=True)
    ]
    if len(set(names)) < len(names):  # then what else tells them apart
        for k, (name, head, precision) in enumerate(given):
            more = [head, precision, Path(name).parent.name]
            names[k] = " ".join([names[k], *filter(None, more)])
    if len(set(names)) < len(names):
        names = [f"{name} ({k + 1})" for k, name in enumerate(names)]
    return tuple(
        Subject(name, path, head, precision)
        for name, path, (_, head, precision) in zip(names, paths, given, strict=True)
    )


class _Bar:
    """The moving line: what is being done, and how much of it."""

    def __init__(self, shown: bool):
        self._shown, self._line = shown, Line()
        self._what, self._began, self._first, self._drawn = "", 0.0, 0, 0.0

    def show(self, what: str, done: int, total: int) -> None:
        """Draw it, a few times a second."""
        now = time.perf_counter()
        if what != self._what:
            self._what, self._began, self._first = what, now, done
        if not self._shown or (now - self._drawn < 0.2 and done < total):
            return
        needed = [f"{what} {done}/{total}"]
        if done > self._first:
            left = (now - self._began) / (done - self._first) * (total - done)
            needed.append(f"ETA {clock(left)}")
        self._line.draw(done, total, needed)
        self._drawn = now

    def finish(self) -> None:
        """End the line."""
        self._line.wipe()
