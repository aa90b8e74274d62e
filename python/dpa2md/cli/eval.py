"""The sub-command ``dpa2md eval``."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .options import (
    MODEL_HELP,
    STRUCTURE_HELP,
    add_dispersion_options,
    add_elements,
    add_engine_options,
    load_calculator,
    load_structures,
    new_parser,
    print_json,
    print_table,
    refuse_to_replace,
)

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

_EXAMPLES = """\
examples:
  dpa2md eval model.dpa2 frames.xyz -o out.extxyz    energies, forces, stresses
  dpa2md eval model.dpa2 OUTCAR --plot parity.png    how far from its labels
  dpa2md eval model.pt systems/ -d detail            as dp test, with its files
  dpa2md eval model.dpa2 run.lammpstrj --elements O,H
  dpa2md eval model.dpa2 md.traj@-10: --json         the last ten, for programs

The exit status is 0, or 2 with one sentence about what is wrong.
"""
_SHOWN = 10  # structures in the table; all are in the output and in the JSON
_DETAILS = ("e", "e_peratom", "f", "v", "v_peratom", "s")  # the suffixes of --detail


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
    add_elements(parser)
    add(
        "--labels",
        metavar="PREFIX",
        help="labels are those called PREFIX_energy, PREFIX_forces, ... (default: the first known)",
    )
    add(
        "--shift",
        action="store_true",
        help="compare energies after a least-squares shift for each element",
    )
    add(
        "-o",
        "--output",
        type=Path,
        metavar="OUT.extxyz",
        help="write structures, results and labels there; also .xyz, .traj",
    )
    add("-d", "--detail", metavar="PREFIX", help="write PREFIX.e.out, ... as dp test -d does")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw labels against the model's values: .png, .pdf, .svg",
    )
    add("--overwrite", action="store_true", help="replace existing outputs")
    add_engine_options(parser)
    add_dispersion_options(parser)
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate, write and print; returns the exit status."""
    from ..batch import evaluate
    from ..comparison import energy_shift, labelled, pair_up
    from .progress import progress_bar

    _check_outputs(args)
    frames = load_structures(args.structures, args.elements, args.labels)
    if not labelled(frames):
        for option in ("plot", "detail", "shift"):
            if getattr(args, option):
                raise RunError(
                    f"{args.structures}: there are no labels to compare with; leave out --{option}."
                )
    calculator = load_calculator(args, frames)
    with progress_bar("structures", len(frames)) as show:
        results = evaluate(calculator, frames, report=show)
    shift = energy_shift(frames, results) if args.shift else None
    if args.shift and shift is None:
        warnings.warn(
            "the energies are not shifted: there are not more of them than elements to shift",
            UserWarning,
            stacklevel=1,
        )
    pairs = pair_up(frames, results, shift)
    written = _write(args, frames, results)
    if args.plot:
        from ..report.plots import plot_parity

        written.append(str(plot_parity(pairs, args.plot, Path(args.model).name)))
    errors = [p.errors() for p in pairs]
    summary = {
        "model": args.model,
        "engine": calculator.description,
        "structures": len(frames),
        "output": str(args.output) if args.output else None,
        "shift": shift,
        "errors": errors,
    }
    if args.json:
        print_json(summary | {"results": _listed(frames, results)})
    else:
        _print(summary, frames, results)
        if written:
            print("wrote " + ", ".join(written))
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse at once what would be refused after the work."""
    from ..report.plots import check_picture
    from ..writing import format_with_results

    details = [_detail_path(args.detail, name) for name in _DETAILS] if args.detail else []
    for path in filter(None, (args.output, args.plot, *details)):
        refuse_to_replace(path, args.overwrite)
    if args.output:
        format_with_results(args.output)
    if args.plot:
        check_picture(args.plot)


def _detail_path(prefix: str, name: str) -> Path:
    return Path(f"{prefix}.{name}.out")


def _write(
    args: argparse.Namespace, frames: list[Atoms], results: list[dict[str, Any]]
) -> list[str]:
    """Write the output and the details; returns their names."""
    from ..comparison import detail_tables
    from ..writing import write_results

    written = []
    if args.output:
        write_results(args.output, frames, results)
        written.append(str(args.output))
    if args.detail:
        for name, (columns, rows) in detail_tables(frames, results).items():
            path = _detail_path(args.detail, name)
            _write_detail(path, f"{args.structures}{columns}", rows)
            written.append(str(path))
    return written


def _write_detail(path: Path, header: str, rows: np.ndarray) -> None:
    import numpy as np

    from ..base.files import whole_file

    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        np.savetxt(file, rows, header=header)


def _print(summary: dict[str, Any], frames: list[Atoms], results: list[dict[str, Any]]) -> None:
    count = "1 structure" if len(frames) == 1 else f"{len(frames)} structures"
    print(f"{count}, {Path(summary['model']).name} on {summary['engine']}")
    if summary["shift"]:
        constants = ", ".join(f"{e} {c:.6f}" for e, c in summary["shift"].items())
        print(f"added to the labels' energies, in eV: {constants}")
    if summary["errors"]:
        print_table(summary["errors"])
        return
    print_table(_rows(frames, results)[:_SHOWN])
    if len(frames) > _SHOWN:
        print(f"... and {len(frames) - _SHOWN} more; -o writes all")


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


def _listed(frames: list[Atoms], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"atoms": len(a), "energy": r["energy"], "max_force": float(abs(r["forces"]).max())}
        for a, r in zip(frames, results, strict=True)
    ]
