"""The sub-command ``dpa2md systems``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import STRUCTURE_HELP, load_structures, new_parser

_EXAMPLES = """\
examples:
  dpa2md systems labelled.extxyz -o data        for dpa2md train, dp --pt train
  dpa2md systems a.extxyz OUTCAR run.traj@::10 -o data

The folder has a system for each order of elements (type.raw, type_map.raw,
set.000/*.npy), with energies, forces and virials where frames have them.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "systems",
        "labelled structures as DeePMD-kit's systems (npy)",
        "Write labelled structures as DeePMD-kit's systems, to train with them.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("structures", metavar="STRUCTURES", nargs="+", help=STRUCTURE_HELP)
    add(
        "-o", "--output", type=Path, required=True, metavar="FOLDER",
        help="of the systems; it must not exist",
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Read, write and say what was written; returns the exit status."""
    from ..deepmd_writing import write_systems

    frames = [atoms for name in args.structures for atoms in load_structures(name)]
    systems = write_systems(frames, args.output)
    print(f"{len(frames)} frames in {len(systems)} systems: {args.output}")
    return 0
