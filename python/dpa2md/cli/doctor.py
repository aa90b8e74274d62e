"""The sub-command ``dpa2md doctor``."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap

from ..doctor import Finding, examine
from .options import print_json

_EXAMPLES = """\
examples:
  dpa2md doctor              what works here, and what to do about the rest
  dpa2md doctor --json       for programs and for reports of faults

The exit status is 0 when there is no problem, 1 otherwise. Notes are no
problems: something optional is missing, or could be better.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this installation",
        description="Check this installation: compiled core, threads, memory, LAMMPS.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the findings; returns the exit status."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not args.json:
            print(_lines(finding), flush=True)
    problems = sum(f.verdict == "problem" for f in findings)
    if args.json:
        listed = [dataclasses.asdict(f) for f in findings]
        print_json({"problems": problems, "findings": listed})
    else:
        print(f"\n{problems or 'no'} problem{'' if problems == 1 else 's'} found")
    return 1 if problems else 0


def _lines(finding: Finding) -> str:
    head = f"{finding.verdict:8} {finding.topic:12} "
    text = textwrap.fill(
        finding.text,
        width=110,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{text}\n{' ' * len(head)}-> {finding.remedy}" if finding.remedy else text
