"""New frames by molecular dynamics that may end early, or by shaking structures."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread

from ..calculator import DPA2Calculator
from ..dynamics import Settings
from ..errors import Explosion, RunError
from ..md import Report, run_md
from .distances import Distances, smallest_distances, violation
from .notes import begin, note_of, write_note

# eV/angstrom. A student of water with a force error of 0.2 is 1 to 2 off along a run that stays
# liquid; where one collapses, it is 3 off after 5 fs and 7 after 10.
MAX_DEVIATION = 3.0


@dataclasses.dataclass(frozen=True)
class Guard:
    """What ends a run at a saved frame; `run_md` calls it."""

    max_force: float = 50.0  #: eV/angstrom, of any atom
    teacher: DPA2Calculator | None = None  #: the model that the run's is compared with
    max_deviation: float = MAX_DEVIATION  #: eV/angstrom, of any atom's force from the teacher's
    limits: Distances = dataclasses.field(default_factory=dict)  #: angstrom by pairs of elements

    def __post_init__(self) -> None:
        for name in ("max_force", "max_deviation"):
            if not getattr(self, name) > 0:
                raise RunError(f"{name} is {getattr(self, name)}; give a positive number.")

    def __call__(self, step: int, atoms: Atoms) -> str | None:
        """Why the run should end, or None."""
        try:
            if found := violation(atoms, self.limits):
                return found
            forces = atoms.get_forces()
            largest = float(np.linalg.norm(forces, axis=1).max())
            if not largest <= self.max_force:
                return f"a force of {largest:.1f} eV/angstrom, above {self.max_force:g}"
            if self.teacher is None:
                return None
            off = forces - self.teacher.results_for(atoms)["forces"]
        except ValueError as error:
            return str(error).rstrip(". ")
        deviation = float(np.linalg.norm(off, axis=1).max())
        if not deviation <= self.max_deviation:
            return (
                f"a force {deviation:.2f} eV/angstrom off the watching model's, above "
                f"{self.max_deviation:g}"
            )
        return None

    def describe(self) -> dict[str, Any]:
        """The guard as JSON can hold it."""
        described: dict[str, Any] = {"max_force": self.max_force, "limits": dict(self.limits)}
        if self.teacher is not None:
            described["watch"] = describe_model(self.teacher)
            described["max_deviation"] = self.max_deviation
        return described


@dataclasses.dataclass(frozen=True)
class Exploration:
    """What came of an exploration."""

    frames: int  #: in the output
    steps: int  #: the step of the last frame
    reason: str | None = None  #: why the run ended early; None: it reached its last step
    interrupted: bool = False  #: by Ctrl-C or SIGTERM; the same call goes on
    seconds: float = 0.0  #: of wall time, of the last call
    distances: Mapping[str, float] = dataclasses.field(default_factory=dict)  #: over all frames

    @property
    def facts(self) -> dict[str, Any]:
        """What the note says of it."""
        facts = dataclasses.asdict(self)
        del facts["interrupted"]
        return facts


def explore(
    atoms: Atoms,
    settings: Settings,
    output: Path,
    *,
    start: str = "",
    guard: Guard | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Exploration:
    """Run molecular dynamics for new frames; a run that blows up ends with the frames before.

    The run is that of `dpa2md.md.run_md`. Until it ends, the frames are in ``NAME.part.extxyz``
    with a checkpoint; the same call goes on from there after a kill. Then ``NAME.json`` tells how
    far it came, why it ended, and the smallest distances of each pair of elements. The frame that
    ended a run early is in ``NAME.part.failed.extxyz``.

    Parameters
    ----------
    atoms
        With a calculator; changed in place. Of a structure with velocities these are the first
        ones.
    settings
        How to run.
    output
        An .extxyz file. Each frame's info has `start`, `ensemble`, `temperature` (K) and `pressure`
        (bar) that were asked for, `step` and `time` (ps).
    start
        What the structure is called in the frames.
    guard
        What ends the run at a saved frame.
    overwrite
        Begin again where there is an output, or work on it.
    report
        As of `run_md`.

    Raises
    ------
    RunError
        When the run can't start or be continued, or the output is that of another request.
    ValueError
        When the first structure can't be computed.
    """
    if output.suffix != ".extxyz":
        raise RunError(f"{output}: name the frames' file .extxyz.")
    guard = guard or Guard()
    request = _request(atoms, settings, start, guard)
    part, log, checkpoint = (output.with_suffix(s) for s in (".part.extxyz", ".csv", ".npz"))
    working = (part, checkpoint, log, part.with_suffix(".failed.extxyz"))
    done = begin(output, request, overwrite=overwrite, working=working)
    if done is not None:
        return Exploration(**{f.name: done[f.name] for f in _FACTS})
    atoms.info |= _origin(settings, start)
    began = time.perf_counter()
    interrupted, reason = False, None
    try:
        outcome = run_md(
            atoms,
            settings,
            trajectory=part,
            log=log,
            checkpoint=checkpoint,
            restart=True,
            report=report,
            watch=guard,
        )
        interrupted = outcome.interrupted
        if outcome.reason:
            reason = f"step {outcome.last_step}: {outcome.reason}"
    except Explosion as end:
        reason = f"step {end.step}: {end.reason}"
    finally:
        if not checkpoint.exists():  # it can't start, and there is nothing to go on with
            note_of(output).unlink(missing_ok=True)
    steps = [int(frame.info["step"]) for frame in iread(part)]
    found = Exploration(
        len(steps), steps[-1], reason, interrupted, round(time.perf_counter() - began, 3)
    )
    if interrupted:
        return found
    found = dataclasses.replace(found, distances=smallest_distances(iread(part)))
    write_note(note_of(output), request, "finished", **found.facts)
    os.replace(part, output)
    checkpoint.unlink(missing_ok=True)
    return found


_FACTS = [f for f in dataclasses.fields(Exploration) if f.name != "interrupted"]


def perturbed(
    structures: Sequence[Atoms],
    copies: int,
    *,
    rattle: float = 0.05,
    strain: float = 0.03,
    seed: int = 1,
    limits: Distances | None = None,
) -> list[Atoms]:
    """Copies of structures with random strains and displacements.

    Parameters
    ----------
    structures
        What is copied, without velocities.
    copies
        Of each structure, fewer where copies are nearer than the limits allow.
    rattle
        Standard deviation of every coordinate's displacement, angstrom.
    strain
        The six components of the strain are evenly distributed from -`strain` to `strain`.
    seed
        Of the random numbers.
    limits
        Smallest distances, angstrom by pairs of elements.

    Raises
    ------
    RunError
        For a strain of a structure that is not periodic in three directions, or numbers that make
        no sense.
    """
    if copies < 1 or not 0 <= rattle < np.inf or not 0 <= strain < 1:
        raise RunError(
            f"{copies} copies with a rattle of {rattle} and a strain of {strain} can't be made; "
            "give 1 copy or more, a rattle of 0 or more and a strain below 1."
        )
    found = []
    for number, atoms in enumerate(structures):
        if strain and not (atoms.cell.rank == 3 and atoms.pbc.all()):
            raise RunError(
                f"structure {number} is not periodic in three directions; give --strain 0."
            )
        for copy in range(copies):
            moved = _moved(atoms, rattle, strain, np.random.default_rng([seed, number, copy]))
            moved.info |= {"perturbed": copy, "rattle": rattle, "strain": strain}
            if not violation(moved, limits or {}):
                found.append(moved)
    return found


def _moved(atoms: Atoms, rattle: float, strain: float, rng: np.random.Generator) -> Atoms:
    moved = atoms.copy()
    moved.arrays.pop("momenta", None)
    lower = np.tril(rng.uniform(-strain, strain, (3, 3)))
    change = lower + np.tril(lower, -1).T
    if strain:
        moved.set_cell(atoms.cell.array @ (np.eye(3) + change), scale_atoms=True)
    moved.positions += rattle * rng.standard_normal(moved.positions.shape)
    return moved


def describe_model(calculator: DPA2Calculator) -> dict[str, Any]:
    """Which model it is and how it computes, as JSON can hold it."""
    engine = calculator.engine
    described = {"name": Path(engine.path).name, "sha256": engine.checksum, **engine.settings}
    return described | ({"dispersion": str(calculator.dispersion)} if calculator.dispersion else {})


def _request(atoms: Atoms, settings: Settings, start: str, guard: Guard) -> dict[str, Any]:
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.pbc, atoms.cell.array, atoms.positions, atoms.get_momenta()):
        digest.update(np.ascontiguousarray(array).tobytes())
    return {
        "structure": {"name": start, "sha256": digest.hexdigest()},
        "model": describe_model(atoms.calc),
        "settings": {
            k: v for k, v in dataclasses.asdict(settings).items() if k not in settings.idle()
        },
        "guard": guard.describe(),
    }


def _origin(settings: Settings, start: str) -> dict[str, Any]:
    """What later stages group frames by."""
    origin: dict[str, Any] = {"start": start, "ensemble": settings.ensemble}
    if settings.temperature_end is None:
        origin["temperature"] = settings.temperature
    if settings.ensemble == "npt" and settings.pressure_end is None:
        origin["pressure"] = settings.pressure
    return origin
