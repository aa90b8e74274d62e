"""A first run: liquid water with the shipped model, and a small student of it (``python -m dpa2md.demo``)."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

from .batch import evaluate
from .calculator import DPA2Calculator
from .cli import show_warning
from .cli.options import print_table
from .cli.progress import Progress
from .cli.rounds import RoundsLine, row
from .comparison import pair_up
from .dynamics import Settings
from .errors import RunError
from .md import Report, run_md
from .reading import read_structures
from .report.plots import plot_parity, plot_rdf, plot_thermo
from .shipped import DEFAULT_MODEL
from .structures import equilibrated_water
from .workflow import distill
from .workflow.driver import Result
from .workflow.journal import Progress as RoundsProgress


def main(argv: list[str] | None = None) -> int:
    """Run 192 atoms at 300 K, distil a student; leave trajectory, pictures, the student and its report.

    Returns the exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--student-steps", type=int, default=1400, help="of its last training")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    args = parser.parse_args(argv)
    warnings.showwarning = show_warning
    try:
        run_demo(args.model, args.steps, args.threads, args.output)
        distil_demo(args.model, 3 * args.steps, args.student_steps, args.threads, args.output)
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


def distil_demo(
    model: Path, steps: int, student_steps: int, threads: int | None, output: Path
) -> None:
    """Two rounds of a distillation, each with so many `steps` of molecular dynamics.

    The first student has holes where the teacher never went; the second has seen them.
    """
    settings = {
        "teacher": str(model.absolute()),
        "structures": ["water"],
        "temperatures": [350],
        "steps": steps,
        "interval": max(1, steps // 120),
        "perturbed": 0,
        "rounds": 2,
        "frames_per_round": 60,
        "student": "fast",
        "train_steps": 4 * student_steps // 7,
        "final_train_steps": student_steps,
        "report_steps": max(1, steps // 4),
        "threads": threads,
    }
    print(f"a student of {model.name}, in two rounds of {steps} steps:")
    stages: list[tuple[int, str]] = []
    line = RoundsLine()

    def show(progress: RoundsProgress) -> None:
        if sys.stderr.isatty():
            line.report(progress)
        elif (where := (progress.round, progress.stage)) not in stages:
            print(f"round {progress.round}: {progress.stage}", flush=True)
            stages.append(where)

    try:
        result = distill(settings, output / "distillation", report=show)
    finally:
        line.finish()
    print_table([row(state) for state in result.rounds])
    wrote = [result.model]
    try:
        wrote.append(_parity(result, output / "student-parity.png"))
    except RunError as error:  # matplotlib is optional
        print(error)
    for name, seconds in _speeds(result.report):
        print(f"{name}: {seconds:.1f} us/atom/step")
    print("wrote " + ", ".join(map(str, filter(None, [*wrote, result.report]))))


def _parity(result: Result, picture: Path) -> Path:
    """The student's forces against the teacher's, on frames that the student drove."""
    validated = sorted(
        result.model.parent.glob(f"round-{result.round}/050-validate/*/labelled.extxyz")
    )
    frames = [atoms for path in validated for atoms in read_structures(path)]
    pairs = pair_up(frames, evaluate(result.model, frames), None)
    return plot_parity(pairs, picture, "student against teacher")


def _speeds(report: Path | None) -> list[tuple[str, float]]:
    """Names of models, and the time of the fastest step of each in us/atom."""
    if report is None:
        return []
    rows = json.loads(report.with_suffix(".json").read_text())["speed"]["rows"]
    return [(row["model"], row["fastest"]) for row in rows]


def _sparse(report: Report, every: int) -> Report:
    """Pass a row on only every so many steps."""
    return lambda step, row: report(step, row if step % every == 0 else None)


if __name__ == "__main__":
    sys.exit(main())
