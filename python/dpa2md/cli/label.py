"""The sub-command ``dpa2md label``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..shipped import model_path
from .options import add_engine_options, engine_options, new_parser, print_json

_EXAMPLES = """\
examples:
  dpa2md label big.dpa2 selected.extxyz -o labelled.extxyz
  dpa2md label my_dft.py:calculator selected.extxyz -o labelled.extxyz
  dpa2md label gpaw:GPAW sel.extxyz --arguments '{"h": 0.2}' -o out.extxyz
  dpa2md label sel.extxyz --command 'sh ../../vasp.sh' -o labelled.extxyz

CALCULATOR is a model, or MODULE:FUNCTION: what makes a calculator of ASE. A
command runs in a folder for each frame, OUT.work/frame-00000 and so on, where
frame.extxyz is; it writes labelled.extxyz there, with energy and forces.

Labels are written as they come, and the same command goes on after a kill.
Frames that fail are tried again, then set aside in OUT.failed.extxyz with the
reason. The exit status is 0 unless all failed.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "label",
        "energies and forces of frames by a model, any calculator of ASE, a command",
        "Label frames for a training.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("calculator", metavar="CALCULATOR", nargs="?", help="a model, or MODULE:FUNCTION")
    add("structures", metavar="STRUCTURES", help="a file of frames, or FILE@0:10 for some")
    add("--arguments", metavar="JSON", help='of the function, as in \'{"xc": "PBE"}\'')
    add("--command", dest="shell", metavar="TEXT", help="in place of CALCULATOR")
    add("--timeout", type=float, metavar="S", help="seconds that a command may take for a frame")
    add("--attempts", type=int, default=2, metavar="N", help="for each frame (default: 2)")
    add("-o", "--output", type=Path, required=True, metavar="OUT.extxyz", help="labelled frames")
    add("--overwrite", action="store_true", help="begin again")
    add_engine_options(parser)
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Label, write and print; returns the exit status."""
    from ..workflow.label import failed_file, label
    from .progress import progress_bar

    if not args.output.parent.is_dir():
        raise RunError(f"{args.output.parent}: there is no such folder; make it first.")
    labeller, total = _labeller(args), _count(args)
    with progress_bar("frames", total) as show:
        found = label(
            args.structures,
            labeller,
            args.output,
            attempts=args.attempts,
            overwrite=args.overwrite,
            report=show,
        )
    failures = [{"frame": f.frame, "reason": f.reason} for f in found.failures]
    if args.json:
        print_json({"labelled": found.labelled, "failures": failures, "output": str(args.output)})
        return 0
    print(f"{found.labelled} frames labelled, {len(failures)} failed")
    for failure in failures[:_SHOWN]:
        print(f"  frame {failure['frame']}: {failure['reason']}")
    if len(failures) > _SHOWN:
        print(f"  ... and {len(failures) - _SHOWN} more, in {args.output.with_suffix('.json')}")
    written = [args.output, args.output.with_suffix(".json")]
    print(
        "wrote " + ", ".join(map(str, [*written, *([failed_file(args.output)] * bool(failures))]))
    )
    return 0


_SHOWN = 10  # failures; all are in the JSON file


def _labeller(args: argparse.Namespace) -> Any:
    from ..calculator import DPA2Calculator
    from ..workflow.evaluation import check_elements, frames_of
    from ..workflow.labellers import is_factory, labeller_of

    if args.shell is not None or is_factory(args.calculator):
        _refuse_engine_options(args)

    def model(name: str) -> DPA2Calculator:
        calculator = DPA2Calculator(model_path(name), **engine_options(args))
        frames = frames_of([args.structures])
        check_elements(calculator.engine, {e for a in frames for e in a.symbols.species()})
        return calculator

    return labeller_of(
        args.calculator,
        _arguments(args.arguments),
        args.shell,
        model,
        args.output.with_suffix(".work"),
        args.timeout,
    )


def _refuse_engine_options(args: argparse.Namespace) -> None:
    """How a model is run is of no account for another calculator."""
    usual = {"head": None, "precision": None, "threads": None, "device": "cpu", "low_memory": False}
    for name, default in usual.items():
        if getattr(args, name) != default:
            option = name.replace("_", "-")
            raise RunError(f"--{option} is for a model: leave it out.")


def _arguments(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RunError(f"--arguments: this is no JSON ({error}).") from None
    if not isinstance(found, dict):
        raise RunError('--arguments: give names and values, as in {"xc": "PBE"}.')
    return found


def _count(args: argparse.Namespace) -> int:
    from ..workflow.evaluation import frames_of

    return sum(1 for _ in frames_of([args.structures]))
