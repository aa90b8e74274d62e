"""The sub-command ``dpa2md check``."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..shipped import model_path
from .options import (
    MODEL_HELP,
    add_engine_options,
    add_structure,
    engine_options,
    load_structure,
    new_parser,
    print_json,
    print_table,
    refuse_to_replace,
)

if TYPE_CHECKING:
    from ..check import Check
    from ..engine import Engine

_EXAMPLES = """\
examples:
  dpa2md check model.dpa2 POSCAR
  dpa2md check model.dpa2 frames.xyz@5 --plot verdict.png
  dpa2md check multitask.pt water.xyz --head Water --json

A structure of some hundred atoms will do; it should look like what the model is
meant for. The exit status is 0 when everything passed, 1 when something failed,
and 2 with one sentence about what is wrong.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "check",
        "test a model on a structure: derivatives, symmetries, smoothness, drift",
        "Test a model on a structure, and say what passes and what does not.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add_structure(parser)
    add_engine_options(parser)
    add("--nve-steps", type=int, metavar="N", help="of the short run; 0: none (default: 400)")
    add("--seed", type=int, default=1, help="of directions and velocities (default: 1)")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw what was measured, on one page: .png, .pdf, .svg",
    )
    add("--overwrite", action="store_true", help="replace an existing picture")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Test and print; returns the exit status."""
    from ..check import GROUPS, NVE_STEPS, run_checks
    from ..conversion import load_records
    from ..engine import Engine
    from ..report.plots import check_picture
    from .progress import progress_bar

    for name in ("nve_steps", "seed"):
        if (getattr(args, name) or 0) < 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(args, name)}: give 0 or more.")
    if args.plot:
        refuse_to_replace(args.plot, args.overwrite)
        check_picture(args.plot)
    path = model_path(args.model)
    atoms = load_structure(args.structure, args.elements)

    def load(precision: str) -> Engine:
        return Engine(path, **{**engine_options(args), "precision": precision})

    with progress_bar("groups of tests", len(GROUPS) + 1) as show, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*neighbours and the model has room"
        )  # a test says
        checks, subject = run_checks(
            load,
            load_records(path, args.head),
            atoms,
            precision=args.precision,
            nve_steps=NVE_STEPS if args.nve_steps is None else args.nve_steps,
            seed=args.seed,
            report=show,
        )
    title = f"{Path(args.model).name} on {Path(args.structure).name}, {len(atoms)} atoms"
    if args.plot:
        from ..report.check import plot_checks

        plot_checks(checks, subject, args.plot, title)
    failed = sum(check.verdict == "fail" for check in checks)
    if args.json:
        print_json({"title": title, "failed": failed, "checks": [vars(check) for check in checks]})
    else:
        print(title)
        print_table([_row(check) for check in checks])
        print(f"\n{failed or 'nothing'} failed" + (f"; wrote {args.plot}" if args.plot else ""))
    return 1 if failed else 0


def _row(check: Check) -> dict[str, str]:
    skipped = check.verdict == "skipped"
    return {
        "check": check.name,
        "verdict": check.verdict.upper() if check.verdict == "fail" else check.verdict,
        "measured": "" if skipped else _number(check.measured),
        "allowed": "" if skipped else _number(check.allowed),
        "unit": check.unit,
        "why": check.reason,
    }


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2g}"
