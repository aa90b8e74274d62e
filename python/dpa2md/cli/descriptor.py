"""The sub-command ``dpa2md descriptor``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .options import (
    MODEL_HELP,
    STRUCTURE_HELP,
    add_elements,
    add_engine_options,
    load_engine,
    load_structures,
    new_parser,
    print_json,
    refuse_to_replace,
)

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

_EXAMPLES = """\
examples:
  dpa2md descriptor model.dpa2 frames.xyz -o out.npz    any structures
  dpa2md descriptor model.dpa2 md.traj@::10 -o out.npy  (structures, atoms, dim)

An .npz file holds descriptors (atoms, dim) of all atoms, one structure after
the other, with their atomic numbers and the structure that each atom is of:

  data = numpy.load("out.npz")
  data["descriptors"][data["structure"] == 3]    those of the fourth structure
  data["descriptors"][data["numbers"] == 8]      those of all oxygens
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "descriptor",
        "the descriptors of the atoms of many structures",
        "Write what enters the fitting net: a vector for each atom (dp eval-desc).",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add(
        "structures",
        metavar="STRUCTURES",
        help=f"{STRUCTURE_HELP}; all structures, or FILE@0:10 for some",
    )
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("descriptors.npz"),
        metavar="FILE",
        help="an .npz or .npy file (default: descriptors.npz)",
    )
    add("--overwrite", action="store_true", help="replace an existing output")
    add_elements(parser)
    add_engine_options(parser)
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate, write and print; returns the exit status."""
    from ..batch import descriptors
    from .progress import progress_bar

    refuse_to_replace(args.output, args.overwrite)
    if args.output.suffix not in (".npz", ".npy"):
        raise RunError(f"{args.output}: the name must end in .npz or .npy.")
    frames = load_structures(args.structures, args.elements)
    if args.output.suffix == ".npy" and len({len(atoms) for atoms in frames}) > 1:
        raise RunError(
            f"{args.structures}: an .npy file needs structures of one size; write an .npz file."
        )
    engine = load_engine(args, frames)
    with progress_bar("structures", len(frames)) as show:
        found = descriptors(engine, frames, report=show)
    _write(args.output, frames, found)
    facts: dict[str, Any] = {
        "structures": len(frames),
        "atoms": sum(map(len, frames)),
        "dimension": engine.descriptor_dim,
    }
    if args.json:
        summary = {"model": args.model, "engine": engine.description, **facts}
        print_json(summary | {"output": str(args.output)})
    else:
        print(", ".join(f"{name}: {value}" for name, value in facts.items()))
        print(f"wrote {args.output}")
    return 0


def _write(path: Path, frames: list[Atoms], found: list[np.ndarray]) -> None:
    import numpy as np

    from ..base.files import whole_file

    with whole_file(path) as temporary, open(temporary, "wb") as file:
        if path.suffix == ".npy":
            np.save(file, np.stack(found))
            return
        np.savez(
            file,
            descriptors=np.concatenate(found),
            structure=np.repeat(np.arange(len(frames)), [len(atoms) for atoms in frames]),
            numbers=np.concatenate([atoms.numbers for atoms in frames]),
        )
