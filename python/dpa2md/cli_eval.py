"""The sub-command ``dpa2md eval``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_options import (
    MODEL_HELP,
    STRUCTURE_HELP,
    add_dispersion_options,
    add_engine_options,
    load_calculator,
    load_structures,
    new_parser,
    print_table,
    refuse_to_replace,
)

if TYPE_CHECKING:
    from ase import Atoms

_EXAMPLES = """\
examples:
  dpa2md eval model.dpa2 frames.xyz -o out.extxyz    energies, forces, stresses
  dpa2md eval model.dpa2 OUTCAR --plot parity.png    how far from its labels
  dpa2md eval multitask.pt data/system --head Water  DeePMD-kit's npy format
  dpa2md eval model.dpa2 md.traj@-10: --json         the last ten, for programs

The exit status is 0, or 2 with one sentence about what is wrong.
"""
_SHOWN = 10  # structures in the table; all are in the output and in the JSON


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "eval",
        "energies, forces and stresses of many structures; errors where labels exist",
        "Evaluate structures. Where they have labels, show how far the model is off.",
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
        "-o", "--output", type=Path, metavar="OUT.extxyz", help="write structures and results there"
    )
    add("--overwrite", action="store_true", help="replace an existing output")
    add("--plot", type=Path, metavar="PNG", help="draw labels against the model's values")
    add_engine_options(parser)
    add_dispersion_options(parser)
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate, write and print; returns the exit status."""
    from .batch import evaluate
    from .comparison import labelled, pair_up
    from .errors import RunError
    from .plots import check_matplotlib, plot_parity
    from .progress import progress_bar

    for path in filter(None, (args.output, args.plot)):
        refuse_to_replace(path, args.overwrite)
    if args.plot:
        check_matplotlib()
    frames = load_structures(args.structures)
    if args.plot and not labelled(frames):
        raise RunError(f"{args.structures}: there are no labels to plot; leave out --plot.")
    calculator = load_calculator(args)
    with progress_bar("structures", len(frames)) as show:
        results = evaluate(calculator, frames, report=show)
    pairs = pair_up(frames, results)
    if args.output:
        _write(args.output, frames, results)
    if args.plot:
        plot_parity(pairs, args.plot, Path(args.model).name)
    errors = [p.errors() for p in pairs]
    if args.json:
        print(json.dumps(_summary(args, calculator.description, frames, results, errors), indent=2))
        return 0
    count = "1 structure" if len(frames) == 1 else f"{len(frames)} structures"
    print(f"{count}, {Path(args.model).name} on {calculator.description}")
    if errors:
        print_table(errors)
    else:
        print_table(_rows(frames, results)[:_SHOWN])
        if len(frames) > _SHOWN:
            print(f"... and {len(frames) - _SHOWN} more; -o writes all")
    written = [str(path) for path in (args.output, args.plot) if path]
    if written:
        print("wrote " + ", ".join(written))
    return 0


def _write(path: Path, frames: list[Atoms], results: list[dict[str, Any]]) -> None:
    """Structures with the model's energy, forces and stress in place of the labels."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.extxyz import write_extxyz

    from .files import whole_file

    with whole_file(path) as temporary, open(temporary, "w", newline="\n") as file:
        for atoms, result in zip(frames, results, strict=True):
            frame = atoms.copy()
            kept = {k: result[k] for k in ("energy", "forces", "stress") if k in result}
            frame.calc = SinglePointCalculator(frame, **kept)
            write_extxyz(file, [frame])


def _rows(frames: list[Atoms], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "structure": k,
            "atoms": len(atoms),
            "energy / eV": f"{r['energy']:.6f}",
            "largest force / (eV/angstrom)": float(abs(r["forces"]).max()),
        }
        for k, (atoms, r) in enumerate(zip(frames, results, strict=True))
    ]


def _summary(
    args: argparse.Namespace,
    description: str,
    frames: list[Atoms],
    results: list[dict[str, Any]],
    errors: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "model": args.model,
        "engine": description,
        "structures": len(frames),
        "output": str(args.output) if args.output else None,
        "errors": errors,
        "results": [
            {"atoms": len(a), "energy": r["energy"], "max_force": float(abs(r["forces"]).max())}
            for a, r in zip(frames, results, strict=True)
        ],
    }
