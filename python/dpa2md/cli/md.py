"""The sub-command ``dpa2md md``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .md_settings import add_settings, settings_of
from .options import (
    add_dispersion_options,
    add_engine_options,
    add_model,
    add_progress_option,
    add_structure,
    load_calculator,
    load_structure,
    named_model,
    new_parser,
)

if TYPE_CHECKING:
    from ase import Atoms

    from ..dynamics import Settings
    from ..md import Outcome

_EXAMPLES = """\
examples:
  dpa2md md water water                 the shipped model and liquid, NVT, 300 K
  dpa2md md cu.dpa2 POSCAR --ensemble nve --temperature 600 --steps 20000
  dpa2md md m.pt box.cif --head Water --ensemble npt --pressure 1 --plots
  dpa2md md m.dpa2 ice.cif --ensemble npt --cell-change full
  dpa2md md universal tungsten.cif      a rough model of Be-W, Si, Ge, NaCl, CHO
  dpa2md md m.dpa2 ice.cif --temperature 100 --temperature-end 400
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
    add_structure(parser)
    model = parser.add_argument_group("model")
    add_engine_options(model)
    add_dispersion_options(model)
    run_group = parser.add_argument_group("run")
    add_settings(run_group)
    run_group.add_argument(
        "--new-velocities",
        action="store_true",
        help="draw them, though the structure has some",
    )
    out = parser.add_argument_group("output")
    out.add_argument(
        "--traj",
        type=Path,
        default=Path("md.traj"),
        metavar="FILE",
        help="trajectory, .traj or .xyz (default: md.traj); its .settings.json tells how it was made",
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
    out.add_argument(
        "--rdf", metavar="A-B", help="elements of that (default: O-O, or the commonest)"
    )
    add_progress_option(out)
    out.add_argument("--quiet", action="store_true", help="no table on the screen")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit status, 130 when it was interrupted."""
    from ..md import run_md
    from .progress import Progress

    settings = settings_of(args)
    files = _outputs(args)
    atoms = _start(args, settings)
    elements = _rdf_elements(args, atoms)
    atoms.calc = load_calculator(args, [atoms])
    bar = sys.stderr.isatty() if args.progress is None else args.progress
    progress = Progress(
        settings.steps, settings.timestep, len(atoms), table=not args.quiet, bar=bar
    )
    if not args.quiet:
        _introduce(args, atoms, settings, files["checkpoint"])
    try:
        outcome = run_md(
            atoms,
            settings,
            trajectory=files["trajectory"],
            log=files["log"],
            checkpoint=files["checkpoint"],
            record=files["record"],
            about=_about(args),
            restart=args.restart,
            report=progress.report,
        )
    finally:
        progress.finish()
    return _finish(args, files, elements, outcome, progress.speed(outcome.last_step))


def _start(args: argparse.Namespace, settings: Settings) -> Atoms:
    """The structure, without velocities where new ones are wanted."""
    atoms = load_structure(args.structure, args.elements)
    if args.new_velocities:
        atoms.arrays.pop("momenta", None)
    elif settings.ensemble == "nve" and args.temperature is not None and atoms.has("momenta"):
        raise RunError(
            f"{args.structure} has velocities, and nve keeps them: leave out --temperature, or add "
            "--new-velocities."
        )
    return atoms


def _introduce(
    args: argparse.Namespace, atoms: Atoms, settings: Settings, checkpoint: Path
) -> None:
    print(f"{Path(named_model(args)).name} on {atoms.calc.description}")
    print(f"{len(atoms)} atoms, {_plan(settings)}")
    if args.restart and checkpoint.exists():
        print(f"continuing from {checkpoint}")
    elif args.restart:
        print(f"no {checkpoint} yet: starting at step 0")


def _plan(s: Settings) -> str:
    text = f"{s.ensemble.upper()}, to step {s.steps} of {s.timestep:g} fs"
    if s.ensemble == "nve":
        return text
    text += f", {_range(s.temperature, s.temperature_end)} K"
    if s.ensemble == "nvt":
        return f"{text} ({s.thermostat})"
    cell = {"isotropic": "", "anisotropic": ", lengths of the cell", "full": ", all of the cell"}
    how = s.barostat + cell[s.cell_change]
    return f"{text}, {_range(s.pressure, s.pressure_end)} bar ({how})"


def _range(begin: float, end: float | None) -> str:
    return f"{begin:g}" if end is None else f"{begin:g} to {end:g}"


def _about(args: argparse.Namespace) -> dict[str, Any]:
    """The command line, as JSON can hold it."""
    given = {k: v for k, v in vars(args).items() if v is not None and k not in ("run", "command")}
    options = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
    return {"folder": str(Path.cwd()), "structure": args.structure, "options": options}


def _finish(
    args: argparse.Namespace,
    files: dict[str, Path],
    elements: tuple[str, str] | None,
    outcome: Outcome,
    speed: str,
) -> int:
    if outcome.first_step == outcome.last_step:
        print(f"The run has already reached step {outcome.last_step}; raise --steps to go on.")
    elif not args.quiet:
        print(f"{outcome}: {speed}")
    if outcome.interrupted:
        print(f"Stopped at step {outcome.last_step}; repeat the command with --restart to go on.")
        return 130
    if args.plots:
        _plot(files, elements)
    if not args.quiet:
        print("wrote " + ", ".join(map(str, files.values())))
    return 0


def _rdf_elements(args: argparse.Namespace, atoms: Atoms) -> tuple[str, str] | None:
    """Whose radial distribution is to be drawn: known before the run, not after it; None: nobody's."""
    if not args.plots:
        if args.rdf:
            raise RunError("--rdf is for a picture: add --plots, or leave out --rdf.")
        return None
    from ..report.plots import check_matplotlib

    check_matplotlib()
    symbols = atoms.get_chemical_symbols()
    periodic = atoms.cell.rank == 3 and all(atoms.pbc)
    if args.rdf is None:
        common = "O" if "O" in symbols else max(set(symbols), key=symbols.count)
        return (common, common) if periodic else None
    first, _, second = args.rdf.partition("-")
    if not (first in symbols and second in symbols):
        raise RunError(
            f"--rdf {args.rdf}: give two elements of the structure with a hyphen, out of "
            f"{' '.join(sorted(set(symbols)))}."
        )
    if not periodic:
        raise RunError(f"--rdf {args.rdf}: the structure must be periodic in three directions.")
    return first, second


def _plot(files: dict[str, Path], elements: tuple[str, str] | None) -> None:
    from ase.io import iread

    from ..report.plots import plot_rdf, plot_thermo

    thermo, rdf = _pictures(files)
    print(f"wrote {plot_thermo(files['log'], thermo)}")
    if elements:
        frames = list(iread(files["trajectory"], ":", do_not_split_by_at_sign=True))
        print(f"wrote {plot_rdf(frames, rdf, *elements)}")


def _pictures(files: dict[str, Path]) -> tuple[Path, Path]:
    trajectory = files["trajectory"]
    return files["log"].with_suffix(".png"), trajectory.with_name(f"{trajectory.stem}.rdf.png")


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    from ..run.outputs import check_trajectory_name

    files = {
        "trajectory": args.traj,
        "log": args.log or args.traj.with_suffix(".csv"),
        "checkpoint": args.checkpoint or args.traj.with_suffix(".checkpoint.npz"),
        "record": args.traj.with_suffix(".settings.json"),
    }
    paths = [*files.values(), *(_pictures(files) if args.plots else ())]
    if len(set(paths)) < len(paths):
        raise RunError(
            "--traj, --log, --checkpoint and what is beside them must be different files."
        )
    if args.restart and args.overwrite:
        raise RunError("--restart and --overwrite contradict each other; give one.")
    check_trajectory_name(files["trajectory"])
    for path in paths:
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
