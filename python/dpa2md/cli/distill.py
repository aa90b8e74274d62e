"""The sub-command ``dpa2md distill``."""

from __future__ import annotations

import argparse

from .options import new_parser
from .rounds import add_run_options

_EXAMPLES = """\
examples:
  dpa2md distill distill.yaml --dry-run     what will be done, and for how long
  dpa2md distill distill.yaml               to run/student.dpa2, run/report.html
  dpa2md distill distill.yaml --retry-failed   also the jobs that were set aside
  dpa2md distill distill.yaml --folder water   the same in the folder water

distill.yaml, all that must be in it:

  teacher: big.pt
  structures: [water.cif]
  temperatures: [300, 400]

Killed at any moment, the same command goes on. dpa2md status FOLDER tells how
far it is. The exit status is 0 at the end, 130 after Ctrl-C, and 2 with one
sentence about what is wrong.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "distill",
        "a small, fast student of a large model",
        "Distil a small student from a large teacher: rounds of exploring, selecting,\n"
        "labelling and training.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("settings", metavar="SETTINGS", help="distill.yaml, or the same as JSON")
    add_run_options(parser.add_argument_group("run"))
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit status, 130 when it was interrupted."""
    from ..workflow.settings import Kind
    from .rounds import run_rounds

    return run_rounds(args.settings, Kind.DISTILL, args)
