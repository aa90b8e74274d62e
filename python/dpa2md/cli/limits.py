"""The options of smallest distances, of the sub-commands that judge new frames by them."""

from __future__ import annotations

import argparse

from ..errors import RunError


def add_limit_options(group: argparse._ActionsContainer) -> None:
    """`--limits` and `--limit-factor`."""
    group.add_argument(
        "--limits",
        nargs="+",
        default=[],
        metavar="FILE",
        help="smallest distances of elements: structures, or JSON",
    )
    group.add_argument(
        "--limit-factor",
        type=float,
        metavar="X",
        help="limits are so much of the smallest distances (default: 0.85)",
    )


def check_limit_options(args: argparse.Namespace) -> None:
    """Raise RunError for a factor without limits."""
    if args.limit_factor is not None and not args.limits:
        raise RunError("--limit-factor is for --limits: add them, or leave it out.")


def limits_of(args: argparse.Namespace) -> dict[str, float]:
    """The limits in angstrom by pairs of elements; none where no files are given."""
    from ..workflow.distances import FACTOR, read_limits

    factor = FACTOR if args.limit_factor is None else args.limit_factor
    return read_limits(args.limits, factor) if args.limits else {}
