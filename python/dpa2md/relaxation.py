"""Relaxing a structure: ASE's optimizers, with a trajectory from which a stopped run goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.trajectory import Trajectory

from .base.files import named_errors
from .base.interrupt import interruptible
from .dynamics import BAR
from .errors import RunError

OPTIMIZERS = ("fire", "bfgs", "lbfgs")


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """How to relax; see ``dpa2md relax --help``."""

    optimizer: str = "fire"  #: fire, bfgs, lbfgs
    cell: bool = False  #: relax the cell, too
    pressure: float = 0.0  #: bar, on the cell
    fmax: float = 0.01  #: eV/angstrom; with a cell, also for its generalized force
    steps: int = 1000  #: at most

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise RunError(f"Unknown optimizer {self.optimizer!r}; use {', '.join(OPTIMIZERS)}.")
        if not 0 < self.fmax < float("inf") or self.steps < 0:
            raise RunError("--fmax must be positive and --steps not negative.")
        if not np.isfinite(self.pressure):
            raise RunError(f"--pressure is {self.pressure}; give a number of bar.")
        if self.pressure and not self.cell:
            raise RunError("A pressure needs a cell that may change: add --cell.")


@dataclasses.dataclass(frozen=True)
class Relaxed:
    """What came of it."""

    converged: bool  #: the forces are below fmax
    interrupted: bool  #: stopped by Ctrl-C or SIGTERM
    steps: int  #: that were taken
    energy: float  #: eV
    fmax: float  #: eV/angstrom, the largest force on an atom
    volume: float  #: angstrom^3, nan without a cell


# Called after every step with its number, energy (eV), largest force (eV/angstrom), volume.
Report = Callable[[int, float, float, float], None]


def relax(
    atoms: Atoms,
    settings: Relaxation,
    *,
    trajectory: Path | None = None,
    restart: bool = False,
    report: Report | None = None,
) -> Relaxed:
    """Move `atoms`, which have a calculator, to the next minimum of the energy; changes them in place.

    Parameters
    ----------
    trajectory
        A .traj file that gets every step.
    restart
        Begin at the last frame of `trajectory` if it exists, and append to it. The optimizer begins
        without memory of earlier steps, which changes its path but not where it ends.

    Raises
    ------
    RunError
        When the trajectory is of other atoms, the cell can't be relaxed, or the energy explodes; the
        last good step is then in the trajectory.
    """
    if restart and trajectory is not None and trajectory.exists():
        _take_last(trajectory, atoms)
    target = _with_cell(atoms, settings.pressure) if settings.cell else atoms
    frames = Trajectory(str(trajectory), "a" if restart else "w", atoms) if trajectory else None
    optimizer = _optimizer(settings.optimizer)(target, logfile=None, trajectory=frames)
    converged = False
    step = -1
    with interruptible() as interrupted, named_errors(trajectory or Path()):
        try:
            for small in optimizer.irun(settings.fmax, settings.steps):
                converged = bool(small)
                step += 1
                if report:
                    report(step, *_state(atoms))
                if interrupted.is_set():
                    break
            outcome = Relaxed(converged, interrupted.is_set(), step, *_state(atoms))
        except (ValueError, FloatingPointError, np.linalg.LinAlgError) as error:
            where = f"; the last good step is in {trajectory}" if trajectory else ""
            raise RunError(
                f"The relaxation failed after step {max(step, 0)} ({str(error).rstrip('. ')}){where}."
            ) from None
        finally:
            if frames is not None:
                frames.close()
    return outcome


def _state(atoms: Atoms) -> tuple[float, float, float]:
    force = np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0)
    volume = atoms.get_volume() if atoms.cell.rank == 3 else float("nan")
    return float(atoms.get_potential_energy()), float(force), float(volume)


def _optimizer(name: str) -> Any:
    from ase import optimize

    return {"fire": optimize.FIRE, "bfgs": optimize.BFGS, "lbfgs": optimize.LBFGS}[name]


def _with_cell(atoms: Atoms, pressure: float) -> Any:
    """`atoms` whose cell is relaxed in the logarithm of its deformation."""
    if not (atoms.cell.rank == 3 and all(atoms.pbc)):
        raise RunError("--cell needs a structure that is periodic in three directions.")
    try:
        from ase.filters import FrechetCellFilter
    except ImportError:
        raise RunError("The installed ASE can't relax cells: update ase to 3.23.") from None
    return FrechetCellFilter(atoms, scalar_pressure=pressure * BAR)


def _take_last(trajectory: Path, atoms: Atoms) -> None:
    try:
        last = read(trajectory, -1, format="traj", do_not_split_by_at_sign=True)
    except Exception as error:  # noqa: BLE001 - a damaged file raises anything
        raise RunError(f"{trajectory}: this is no trajectory to go on from ({error}).") from None
    assert isinstance(last, Atoms)
    if not np.array_equal(last.numbers, atoms.numbers):
        raise RunError(f"{trajectory}: its atoms are not those of the structure; start again.")
    atoms.set_cell(last.cell)
    atoms.set_positions(last.positions, apply_constraint=False)
