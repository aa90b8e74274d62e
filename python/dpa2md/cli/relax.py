"""The sub-command ``dpa2md relax``."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RunError
from .options import (
    MODEL_HELP,
    add_dispersion_options,
    add_engine_options,
    add_structure,
    load_calculator,
    load_structure,
    new_parser,
    print_json,
    refuse_to_replace,
)

if TYPE_CHECKING:
    from ase import Atoms

    from ..relaxation import Relaxed, Report

_EXAMPLES = """\
examples:
  dpa2md relax model.dpa2 POSCAR          to relaxed.extxyz, path: relaxed.traj
  dpa2md relax model.dpa2 POSCAR --cell --fmax 0.001 -o CONTCAR.vasp
  dpa2md relax cu.dpa2 slab.cif --optimizer bfgs --steps 200
  dpa2md relax cu.dpa2 slab.cif --restart   goes on from the last step

The exit status is 0 when the forces have become small enough, 1 when the steps
did not suffice (what was reached is written all the same), 130 after Ctrl-C,
and 2 with one sentence about what is wrong.
"""
_EVERY = 10  # steps between rows on the screen


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "relax",
        "relax a structure, and its cell",
        "Move atoms, and with --cell the cell, until forces are small.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add_structure(parser)
    add("--optimizer", choices=["fire", "bfgs", "lbfgs"], default="fire", help="default: fire")
    add("--cell", action="store_true", help="relax the cell, too")
    add("--pressure", type=float, default=0.0, metavar="BAR", help="on the cell (default: 0)")
    add("--fmax", type=float, default=0.01, metavar="F", help="eV/angstrom (default: 0.01)")
    add("--steps", type=int, default=1000, metavar="N", help="at most (default: 1000)")
    model = parser.add_argument_group("model")
    add_engine_options(model)
    add_dispersion_options(model)
    out = parser.add_argument_group("output").add_argument
    out(
        "-o",
        "--output",
        type=Path,
        default=Path("relaxed.extxyz"),
        metavar="FILE",
        help="the relaxed structure, in the format of its name (default: relaxed.extxyz)",
    )
    out("--traj", type=Path, metavar="FILE.traj", help="its path (default: named like the output)")
    out("--restart", action="store_true", help="go on from the trajectory if there is one")
    out("--overwrite", action="store_true", help="replace existing outputs")
    out("--quiet", action="store_true", help="no table on the screen")
    out("--json", action="store_true", help="print the outcome as JSON, and no table")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Relax, write and print; returns the exit status."""
    from ..relaxation import Relaxation, relax
    from ..writing import format_of

    names = [field.name for field in dataclasses.fields(Relaxation)]
    settings = Relaxation(**{name: getattr(args, name) for name in names})
    trajectory = args.traj or args.output.with_suffix(".traj")
    if trajectory == args.output or trajectory.suffix != ".traj":
        raise RunError("The trajectory must end in .traj, and the output must be another file.")
    if args.restart and args.overwrite:
        raise RunError("--restart and --overwrite contradict each other; give one.")
    for path in (args.output, trajectory):
        refuse_to_replace(path, args.overwrite or args.restart, "--restart to go on")
    file_format = format_of(args.output)
    atoms = load_structure(args.structure, args.elements)
    calculator = load_calculator(args, [atoms])
    atoms.calc = calculator
    quiet = args.quiet or args.json
    if not quiet:
        print(f"{len(atoms)} atoms, {Path(args.model).name} on {calculator.description}")
    outcome = relax(
        atoms,
        settings,
        trajectory=trajectory,
        restart=args.restart,
        report=None if quiet else _table(),
    )
    _write(args.output, file_format, atoms)
    if args.json:
        print_json(dataclasses.asdict(outcome) | {"output": str(args.output)})
    elif not args.quiet:
        print(_sentence(outcome, settings.fmax))
        print(f"wrote {args.output}, {trajectory}")
    return 130 if outcome.interrupted else 0 if outcome.converged else 1


def _table() -> Report:
    print(f"{'step':>6} {'E/eV':>16} {'fmax/(eV/A)':>12} {'volume/A3':>12}")

    def report(step: int, energy: float, fmax: float, volume: float) -> None:
        if step % _EVERY == 0:
            print(f"{step:6d} {energy:16.6f} {fmax:12.5f} {volume:12.3f}", flush=True)

    return report


def _sentence(outcome: Relaxed, fmax: float) -> str:
    text = f"{outcome.energy:.6f} eV, largest force {outcome.fmax:.2g} eV/angstrom"
    if outcome.converged:
        return f"converged after {outcome.steps} steps: {text}"
    why = "stopped" if outcome.interrupted else "not converged"
    return f"{why} after {outcome.steps} steps: {text}, wanted {fmax:g}; repeat with --restart"


def _write(path: Path, file_format: str, atoms: Atoms) -> None:
    from ase.io import write

    from ..base.files import whole_file
    from ..run.outputs import frame_of

    with whole_file(path) as temporary:
        write(str(temporary), frame_of(atoms), format=file_format)
