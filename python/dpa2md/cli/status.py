"""The sub-command ``dpa2md status``."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from .options import new_parser, print_json, print_table

if TYPE_CHECKING:
    from ..workflow.status import Status

_EXAMPLES = """\
examples:
  dpa2md status run             of dpa2md distill, dpa2md finetune --loop
  dpa2md status run --json      for programs

It only reads; the run may be going on.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "status",
        "how far a distillation or a loop of fine-tuning is",
        "Tell how far a run of rounds is: stage, frames, errors, failed jobs, time left.",
        _EXAMPLES,
    )
    parser.add_argument(
        "folder", metavar="RUN", type=Path, nargs="?", default=Path("run"), help="default: run"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Read and print; returns the exit status."""
    from ..workflow.status import read_status

    status = read_status(args.folder)
    if args.json:
        table = dataclasses.asdict(status)
        print_json(table | {"kind": status.kind.value, "model": str(status.model or "")})
    else:
        _print(args.folder, status)
    return 0


def _print(folder: Path, status: Status) -> None:
    from .rounds import pieces, row

    if status.model is not None:
        print(f"{folder}: finished, {status.model}")
    else:
        goes_on = "" if status.state == "running" else "; the same command goes on"
        needed, more = pieces(status.progress)
        print(f"{folder}: {status.state}{goes_on}")
        print(", ".join([*needed, *more]))
    if status.rounds:
        print_table([row(state) for state in status.rounds])
    for state in status.rounds:
        print(f"round {state.round}: {state.why}")
    for name in status.running if status.state == "running" else ():
        print(f"runs: {name}")
    for name, reason in status.set_aside.items():
        print(f"set aside: {name}: {reason}")
