"""The sub-command ``dpa2md md``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_options import (
    STRUCTURE_HELP,
    add_dispersion_options,
    add_engine_options,
    add_model,
    load_calculator,
    load_structure,
    named_model,
    new_parser,
)
from .errors import RunError

if TYPE_CHECKING:
    from ase import Atoms

    from .dynamics import Settings
    from .md import Outcome

_EXAMPLES = """\
examples:
  dpa2md md water water                 the shipped model and liquid, NVT, 300 K
  dpa2md md cu.dpa2 POSCAR --ensemble nve --temperature 600 --steps 20000
  dpa2md md m.pt box.cif --head Water --ensemble npt --pressure 1 --plots
  dpa2md md water start.xyz --steps 1000000 --restart   goes on where it stopped

Repeat the very same command with --restart to go on from the last checkpoint;
raise --steps to make a finished run longer. Ctrl-C finishes the step and saves
a checkpoint.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "md",
        "run molecular dynamics",
        "Run molecular dynamics of a structure with a model.",
        _EXAMPLES,
    )
    add_model(parser)
    parser.add_argument("structure", metavar="STRUCTURE", help=f"{STRUCTURE_HELP}; the last frame")
    model = parser.add_argument_group("model")
    add_engine_options(model)
    add_dispersion_options(model)
    run_group = parser.add_argument_group("run")
    _add_settings(run_group)
    out = parser.add_argument_group("output")
    out.add_argument(
        "--traj",
        type=Path,
        default=Path("md.traj"),
        metavar="FILE",
        help="trajectory, .traj or .xyz (default: md.traj)",
    )
    out.add_argument(
        "--log",
        type=Path,
        metavar="FILE.csv",
        help="thermo table (default: named like the trajectory)",
    )
    out.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE.npz",
        help="default: named like the trajectory, .checkpoint.npz",
    )
    out.add_argument(
        "--restart", action="store_true", help="go on from the checkpoint if there is one"
    )
    out.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    out.add_argument(
        "--plots",
        action="store_true",
        help="also draw the thermo table and a radial distribution (PNG)",
    )
    out.add_argument("--rdf", metavar="A-B", help="elements of that (default: O-O)")
    out.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a moving line (default: on a terminal)",
    )
    out.add_argument("--quiet", action="store_true", help="no table on the screen")
    parser.set_defaults(run=run)
    return parser


def _add_settings(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--ensemble", choices=["nve", "nvt", "npt"], default="nvt", help="default: nvt")
    add("--temperature", type=float, default=300.0, metavar="K", help="default: 300")
    add("--pressure", type=float, default=1.0, metavar="BAR", help="default: 1")
    add("--timestep", type=float, default=0.5, metavar="FS", help="default: 0.5")
    add("--steps", type=int, default=1000, metavar="N", help="up to this step (default: 1000)")
    add(
        "--thermostat",
        choices=["langevin", "bussi", "nose-hoover"],
        default="langevin",
        help="for nvt (default: langevin)",
    )
    add(
        "--barostat",
        choices=["mtk", "berendsen"],
        help="for npt; the cell keeps its shape (default: mtk where ASE has it)",
    )
    add("--friction", type=float, default=1.0, metavar="1/PS", help="of langevin (default: 1)")
    add(
        "--taut",
        type=float,
        default=100.0,
        metavar="FS",
        help="time constant of the other thermostats (default: 100)",
    )
    add(
        "--taup",
        type=float,
        default=1000.0,
        metavar="FS",
        help="time constant of the barostat (default: 1000)",
    )
    add(
        "--compressibility",
        type=float,
        default=4.57e-5,
        metavar="1/BAR",
        help="for berendsen (default: water's, 4.57e-5)",
    )
    add(
        "--interval",
        type=int,
        default=100,
        metavar="N",
        help="steps between rows and frames (default: 100)",
    )
    add(
        "--checkpoint-interval",
        type=int,
        metavar="N",
        help="steps between checkpoints (default: as --interval)",
    )
    add(
        "--max-temperature",
        type=float,
        metavar="K",
        help="stop above it (default: 10 times the temperature, at least 5000)",
    )
    add("--seed", type=int, default=1, help="of velocities and thermostat (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit status, 130 when it was interrupted."""
    from .md import run_md
    from .progress import Progress

    settings = _settings(args)
    files = _outputs(args)
    if args.plots:
        from .plots import check_matplotlib

        check_matplotlib()
    calculator = load_calculator(args)
    atoms = load_structure(args.structure)
    atoms.calc = calculator
    bar = sys.stderr.isatty() if args.progress is None else args.progress
    progress = Progress(
        settings.steps, settings.timestep, len(atoms), table=not args.quiet, bar=bar
    )
    if not args.quiet:
        print(f"{Path(named_model(args)).name} on {calculator.description}")
        print(f"{len(atoms)} atoms, {_plan(settings)}")
        if args.restart:
            found = files["checkpoint"].exists()
            print(
                f"{'continuing from' if found else 'no'} {files['checkpoint']}"
                + ("" if found else " yet: starting at step 0")
            )
    try:
        outcome = run_md(atoms, settings, **files, restart=args.restart, report=progress.report)
    finally:
        progress.finish()
    return _finish(args, files, outcome, progress.speed(outcome.last_step))


def _finish(args: argparse.Namespace, files: dict[str, Path], outcome: Outcome, speed: str) -> int:
    if outcome.first_step == outcome.last_step:
        print(f"The run has already reached step {outcome.last_step}; raise --steps to go on.")
    elif not args.quiet:
        print(f"{outcome}: {speed}")
    if outcome.interrupted:
        print(f"Stopped at step {outcome.last_step}; repeat the command with --restart to go on.")
        return 130
    if args.plots:
        _plot(args, files)
    if not args.quiet:
        print(f"wrote {files['trajectory']}, {files['log']}, {files['checkpoint']}")
    return 0


def _plot(args: argparse.Namespace, files: dict[str, Path]) -> None:
    from ase.io import iread

    from .plots import plot_rdf, plot_thermo

    print(f"wrote {plot_thermo(files['log'], files['log'].with_suffix('.png'))}")
    frames = list(iread(files["trajectory"], ":"))
    elements = args.rdf.split("-") if args.rdf else _rdf_elements(frames[0])
    if len(elements) != 2:
        raise RunError(f"--rdf {args.rdf}: give two elements like O-H.")
    if all(frames[0].pbc):
        name = files["trajectory"].with_name(f"{files['trajectory'].stem}.rdf.png")
        print(f"wrote {plot_rdf(frames, name, *elements)}")


def _rdf_elements(atoms: Atoms) -> list[str]:
    symbols = atoms.get_chemical_symbols()
    common = "O" if "O" in symbols else max(set(symbols), key=symbols.count)
    return [common, common]


def _settings(args: argparse.Namespace) -> Settings:
    from .dynamics import Settings, default_barostat

    if args.barostat is None:
        args.barostat = default_barostat()
        if args.ensemble == "npt" and args.barostat != "mtk":
            print(
                "The installed ASE has no MTK barostat: taking Berendsen's, whose fluctuations "
                "are too small; update ase for the right ones.",
                file=sys.stderr,
            )
    names = [field.name for field in dataclasses.fields(Settings)]
    return Settings(**{name: getattr(args, name) for name in names})


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    from .outputs import check_trajectory_name

    files = {
        "trajectory": args.traj,
        "log": args.log or args.traj.with_suffix(".csv"),
        "checkpoint": args.checkpoint or args.traj.with_suffix(".checkpoint.npz"),
    }
    if len(set(files.values())) < len(files):
        raise RunError("--traj, --log and --checkpoint must be different files.")
    if args.restart and args.overwrite:
        raise RunError("--restart and --overwrite contradict each other; give one.")
    check_trajectory_name(files["trajectory"])
    for path in files.values():
        if not path.parent.is_dir():
            raise RunError(f"{path.parent}: there is no such folder; make it first.")
        if path.exists() and not (args.overwrite or args.restart):
            raise RunError(f"{path} exists; add --restart to go on with that run, or --overwrite.")
    if args.restart and not files["checkpoint"].exists():
        for name in ("trajectory", "log"):
            if files[name].exists():
                raise RunError(
                    f"{files[name]} exists without the checkpoint "
                    f"{files['checkpoint']}; add --overwrite instead to start again."
                )
    return files


def _plan(s: Settings) -> str:
    text = f"{s.ensemble.upper()}, to step {s.steps} of {s.timestep:g} fs"
    if s.ensemble == "nve":
        return text
    text += f", {s.temperature:g} K"
    if s.ensemble == "nvt":
        return f"{text} ({s.thermostat})"
    return f"{text}, {s.pressure:g} bar ({s.barostat})"
