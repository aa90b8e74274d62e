"""Runs of rounds on the command line: the plan, the moving line, the table at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_progress_option, print_table
from .progress import Line, clock

if TYPE_CHECKING:
    from ..workflow.journal import Progress
    from ..workflow.settings import Kind, Settings
    from ..workflow.verdict import RoundState


def add_run_options(group: argparse._ArgumentGroup) -> None:
    """Options of a run of rounds."""
    add = group.add_argument
    add("--folder", type=Path, default=Path("run"), metavar="RUN", help="default: run")
    add("--dry-run", action="store_true", help="read and check everything, print the plan, stop")
    add(
        "--retry-failed", action="store_true",
        help="start jobs anew that were set aside, and what follows from them",
    )  # fmt: skip
    add_progress_option(group)


def run_rounds(settings: str, kind: Kind, args: argparse.Namespace) -> int:
    """Plan, start or continue a run; returns the exit status, 130 when it was interrupted."""
    from ..workflow.driver import load, run

    read = load(settings, kind)
    if args.dry_run:
        return _dry_run(read, args.folder)
    bar = sys.stderr.isatty() if args.progress is None else args.progress
    line = RoundsLine()
    try:
        result = run(read, kind, args.folder, line.report if bar else None, args.retry_failed)
    except KeyboardInterrupt:
        line.finish()
        print("stopped; the same command goes on.", file=sys.stderr)
        return 130
    finally:
        line.finish()
    print_table([row(state) for state in result.rounds])
    print(f"round {result.round}: {result.rounds[result.round - 1].why}")
    print(f"wrote {result.model}" + (f", {result.report}" if result.report else ""))
    return 0


def _dry_run(settings: Settings, folder: Path) -> int:
    """Print the plan."""
    from ..workflow.driver import plan

    inputs, planned, jobs = plan(settings, folder)
    sizes = ", ".join(str(len(atoms)) for atoms in inputs.structures)
    print(
        f"{Path(settings.model).name}: {' '.join(inputs.elements)}; structures of {sizes} atoms, {inputs.timestep:g} fs"
    )
    for sentence in inputs.warnings:
        print(f"warning: {sentence}")
    rows = [
        {"round": number, "stage": name, "jobs": stage.jobs, "": stage.what, "time": clock(stage.seconds)}
        for number in range(1, planned.rounds + 1)
        for name, stage in planned.round(number).items()
    ]  # fmt: skip
    print_table(rows)
    costs = planned.costs
    print(
        f"in all about {clock(planned.seconds)}, {planned.workers} jobs at a time; measured now: "
        f"{1e6 * costs.model:.1f} us/atom a step of {Path(settings.model).name}, "
        f"{1e6 * costs.student:.1f} of the model to be trained, {1e3 * costs.training:.1f} ms a "
        "step of training"
    )
    print("the first jobs:")
    for job in jobs:
        print(f"{job.name}/run.sh")
        for line in "\n".join(job.commands).splitlines():
            print(f"    {line}")
    return 0


def row(state: RoundState) -> dict[str, Any]:
    """A round in a table."""
    runs = f"{state.early} of {state.runs} early" if state.early else f"{state.runs}"
    return {
        "round": state.round,
        "explored": state.explored,
        "not mastered": state.candidates,
        "trained on": state.frames,
        "steps": state.steps,
        "force / (eV/angstrom)": _number(state.force_error),
        "energy / (meV/atom)": _number(state.energy_error, 1e3),
        "runs": runs,
        "": "" if state.good else "stepped back",
    }


def _number(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.4g}"


class RoundsLine:
    """The moving line of a run."""

    def __init__(self) -> None:
        self._line = Line()

    def report(self, progress: Progress) -> None:
        """Show where the run is."""
        self._line.draw(progress.done, progress.jobs, *pieces(progress))

    def finish(self) -> None:
        """End the line."""
        self._line.wipe()


def pieces(progress: Progress) -> tuple[Sequence[str], Sequence[str]]:
    """What must be seen of a run, and what may be where there is room."""
    where = f"round {progress.round}/{progress.rounds} " if progress.round else ""
    needed = [f"{where}{progress.stage} {progress.done}/{progress.jobs}"]
    more = [f"{progress.frames} frames"] if progress.frames else []
    needed.append(f"ETA {clock(progress.left)}")
    if progress.force_error is not None:
        more.append(f"last error {progress.force_error:.3f} eV/angstrom")
    return needed, more
