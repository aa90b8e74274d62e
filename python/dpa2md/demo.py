"""A first run: liquid water with the shipped model (``python -m dpa2md.demo``)."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from .calculator import DPA2Calculator
from .cli import show_warning
from .cli.progress import Progress
from .dynamics import Settings
from .errors import RunError
from .md import Report, run_md
from .report.plots import plot_rdf, plot_thermo
from .shipped import DEFAULT_MODEL
from .structures import equilibrated_water


def main(argv: list[str] | None = None) -> int:
    """Run 192 atoms at 300 K and leave trajectory, table and pictures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    args = parser.parse_args(argv)
    warnings.showwarning = show_warning
    try:
        run_demo(args.model, args.steps, args.threads, args.output)
    except (RunError, OSError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def run_demo(model: Path, steps: int, threads: int | None, output: Path) -> None:
    """NVT from an equilibrated start; frames every 10 steps, lines on the screen every 50."""
    from ase.io import iread

    atoms = equilibrated_water()
    atoms.calc = DPA2Calculator(model, threads=threads)
    settings = Settings(steps=steps, interval=10)
    output.mkdir(parents=True, exist_ok=True)
    trajectory, log = output / "water.traj", output / "water.csv"
    print(f"{len(atoms)} atoms of water, {Path(model).name} on {atoms.calc.engine.description}")
    progress = Progress(steps, settings.timestep, len(atoms), table=True, bar=sys.stderr.isatty())
    outcome = run_md(
        atoms, settings, trajectory=trajectory, log=log, report=_sparse(progress.report, 50)
    )
    progress.finish()
    print(f"{outcome}: {progress.speed(outcome.last_step)}")
    wrote = [trajectory, log]
    try:
        wrote.append(plot_thermo(log, output / "water-thermo.png"))
        wrote.append(plot_rdf(list(iread(trajectory, ":")), output / "water-rdf.png", "O", "O"))
    except RunError as error:  # matplotlib is optional
        print(error)
    print("wrote " + ", ".join(map(str, wrote)))


def _sparse(report: Report, every: int) -> Report:
    """Pass a row on only every so many steps."""
    return lambda step, row: report(step, row if step % every == 0 else None)


if __name__ == "__main__":
    sys.exit(main())
