"""The molecular dynamics loop: steps, outputs, checkpoints, and continuing from one."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import write

from .base.files import whole_file
from .base.interrupt import interruptible
from .dynamics import BAR, Settings, draw_velocities
from .errors import Explosion, RunError
from .integrators import make_dynamics, set_targets
from .run.checkpoint import load_checkpoint, restore_atoms, restore_dynamics, save_checkpoint
from .run.outputs import ThermoLog, check_trajectory_name, frame_of, open_frames
from .run.record import describe_run, load_record, save_record


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run did."""

    first_step: int  #: the step the run went on from
    last_step: int  #: the last step that was done
    seconds: float  #: of wall time
    interrupted: bool  #: stopped by Ctrl-C or SIGTERM
    reason: str | None = None  #: why the watch ended the run; None: it didn't

    def __str__(self) -> str:
        return f"steps {self.first_step} to {self.last_step} in {self.seconds:.1f} s"


# Called after every step with the step number, and with the thermo row at logged steps.
Report = Callable[[int, "dict[str, float] | None"], None]
# Called with the step number and the atoms at logged steps; a text ends the run and says why.
Watch = Callable[[int, Atoms], "str | None"]


def run_md(
    atoms: Atoms,
    settings: Settings,
    *,
    trajectory: Path | None = None,
    log: Path | None = None,
    checkpoint: Path | None = None,
    record: Path | None = None,
    about: Mapping[str, Any] | None = None,
    restart: bool = False,
    report: Report | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Run molecular dynamics up to step ``settings.steps``.

    Parameters
    ----------
    atoms
        With a calculator; without momenta they are drawn at the temperature. Changed in place.
    trajectory, log, checkpoint
        Files to write, each optional. Continuing from a periodic checkpoint repeats the unbroken
        run bit for bit on the same machine with the same versions. Every frame of the trajectory has
        its ``info["step"]`` and ``info["time"]`` (ps).
    record, about
        A JSON file that gets the settings, the model's checksum and the versions, and `about`; a
        continued run is appended to it.
    restart
        Continue from `checkpoint` if it exists.
    report
        Called as ``report(step, row)`` after every step; row is a dict at logged steps, else None.
    watch
        Called as ``watch(step, atoms)`` at logged steps, before anything is written of the step. A
        text ends the run: it is the outcome's `reason`, the outputs end with the logged step
        before, and the frame is saved beside the trajectory as after an explosion. Step 0 is not
        asked about: it is what was given.

    Raises
    ------
    RunError
        When the run can't start or be continued.
    Explosion
        When the run explodes; then the last frame is saved beside the trajectory, or the table,
        where there is one.
    """
    if trajectory is not None:
        check_trajectory_name(trajectory)
    rng = np.random.default_rng(settings.seed)
    arrays, facts = None, None
    if restart and checkpoint is not None and checkpoint.exists():
        arrays, facts = load_checkpoint(checkpoint)
        _check_same(checkpoint, facts, settings, atoms)
        restore_atoms(checkpoint, atoms, arrays)
    elif not atoms.has("momenta"):
        draw_velocities(atoms, settings.temperature, rng)
    dynamics = make_dynamics(atoms, settings, rng)
    if checkpoint is not None and arrays is not None and facts is not None:
        restore_dynamics(checkpoint, dynamics, rng, arrays, facts)
    run = _Run(atoms, settings, dynamics, rng, checkpoint, report, watch)
    done = facts["step"] if facts and facts["step"] != _NOTHING_YET else None
    earlier = load_record(record) if record and facts else []
    if facts is None:
        atoms.get_forces()  # what can't be computed leaves no files behind
        run.save(_NOTHING_YET)
    if record and (done is None or done < settings.steps):
        save_record(record, [*earlier, describe_run(atoms, settings, done or 0, about or {})])
    with contextlib.ExitStack() as stack:
        run.open_outputs(stack, trajectory, log, facts)
        return run.loop(done)


# The step of a checkpoint that is older than the outputs: whenever a run is killed, there is a checkpoint for
# the outputs that are there.
_NOTHING_YET = -1


class _Run:
    def __init__(
        self,
        atoms: Atoms,
        settings: Settings,
        dynamics: Any,
        rng: np.random.Generator,
        checkpoint: Path | None,
        report: Report | None,
        watch: Watch | None,
    ):
        self.atoms, self.settings, self.dynamics, self.rng = atoms, settings, dynamics, rng
        self.checkpoint, self.report, self.watch = checkpoint, report, watch
        self.outputs: dict[str, Any] = {}
        self.failed_frame: Path | None = None

    def open_outputs(
        self,
        stack: contextlib.ExitStack,
        trajectory: Path | None,
        log: Path | None,
        facts: dict[str, Any] | None,
    ) -> None:
        beside = trajectory or log
        self.failed_frame = beside.with_suffix(".failed.extxyz") if beside else None
        for name, path, opener in (("log", log, ThermoLog), ("frames", trajectory, open_frames)):
            if path is None:
                continue
            at = facts["outputs"].get(name) if facts else None
            self.outputs[name] = opener(path, at)
            stack.callback(self.outputs[name].close)

    def loop(self, done: int | None) -> Outcome:
        """Step from after `done`; None: from the start, which is logged as step 0."""
        first = done or 0
        began = time.perf_counter()
        step = first
        with interruptible() as interrupted:
            if done is None:
                self._log(0)
                self.save(0)
            stop = False
            while step < self.settings.steps and not stop:
                step += 1
                self._step(step)
                if reason := self._objection(step):
                    self._save_failed()
                    return Outcome(first, step, time.perf_counter() - began, False, reason)
                row = self._log(step) if step % self.settings.interval == 0 else None
                stop = interrupted.is_set()
                last = stop or step == self.settings.steps
                if last or step % self.settings.steps_between_checkpoints == 0:
                    self.save(step)
                if self.report and row is None:
                    self.report(step, None)
        return Outcome(first, step, time.perf_counter() - began, step < self.settings.steps)

    def _step(self, step: int) -> None:
        """Do one step; a run that explodes ends here, with its last frame saved."""
        try:
            if self.settings.ramped:
                set_targets(self.dynamics, *self.settings.targets(step))
            self.dynamics.step()
            temperature = self.atoms.get_temperature()
        except (ValueError, FloatingPointError) as error:
            self._explode(step, str(error).rstrip(". "))
        if not temperature <= self.settings.limit:  # also when it is not a number
            self._explode(step, f"the temperature is {temperature:.0f} K")

    def _objection(self, step: int) -> str | None:
        """Why the watch wants the run to end here."""
        if self.watch is None or step % self.settings.interval:
            return None
        return self.watch(step, self.atoms)

    def _explode(self, step: int, why: str) -> None:
        self._save_failed()
        saved = f"; the frame is in {self.failed_frame}" if self.failed_frame else ""
        raise Explosion(
            f"The run failed at step {step} ({why}){saved}: relax the structure first, or take a "
            "smaller timestep.",
            step,
            why,
        ) from None

    def _save_failed(self) -> None:
        if self.failed_frame:
            frame = self.atoms.copy()  # without the calculator, whose results may be missing
            with whole_file(self.failed_frame) as temporary:
                write(temporary, frame, format="extxyz")

    def _log(self, step: int) -> dict[str, float]:
        row = thermo(self.atoms, step, self.settings.timestep)
        if "log" in self.outputs:
            self.outputs["log"].write(row)
        if "frames" in self.outputs:
            self.outputs["frames"].write(frame_of(self.atoms, step=step, time=row["time_ps"]))
        if self.report:
            self.report(step, row)
        return row

    def save(self, step: int) -> None:
        """Write the checkpoint, if one is wanted."""
        if self.checkpoint is None:
            return
        facts = {
            "step": step,
            "physics": self.settings.physics(),
            "model": _model_name(self.atoms),
            "outputs": {name: output.position() for name, output in self.outputs.items()},
        }
        save_checkpoint(self.checkpoint, self.atoms, self.dynamics, self.rng, facts)
        # A continued run starts with a new neighbour list, whose order decides the last bits of
        # every sum; so this run, too, goes on with a new one.
        self.atoms.calc.reset()
        if hasattr(self.atoms.calc, "forget_neighbors"):
            self.atoms.calc.forget_neighbors()


def thermo(atoms: Atoms, step: int, timestep: float) -> dict[str, float]:
    """One row of the thermo table (`dpa2md.run.outputs.COLUMNS`); without a cell some are nan.

    Parameters
    ----------
    atoms
        With a calculator.
    step
        The number of steps so far.
    timestep
        Of one step, fs.

    Returns
    -------
    dict
        Column to number; the names of the columns carry the units.
    """
    atoms.get_forces()  # with these come energy and stress
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    pressure = volume = density = float("nan")
    if atoms.cell.rank == 3:
        volume = float(atoms.get_volume())
        density = float(atoms.get_masses().sum()) / volume / (units.mol * 1e-24)
        stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
        pressure = -float(np.trace(stress)) / 3 / BAR
    return {
        "step": step,
        "time_ps": step * timestep / 1000,
        "potential_energy_eV": float(potential),
        "kinetic_energy_eV": float(kinetic),
        "total_energy_eV": float(potential + kinetic),
        "temperature_K": float(atoms.get_temperature()),
        "pressure_bar": pressure,
        "volume_A3": volume,
        "density_g_cm3": density,
    }


def _model_name(atoms: Atoms) -> str:
    engine = getattr(atoms.calc, "engine", None)
    if engine is None:
        return ""
    dispersion = getattr(atoms.calc, "dispersion", None)
    return f"{Path(engine.path).name} in {engine.precision}" + (
        f" with {dispersion}" if dispersion else ""
    )


def _check_same(path: Path, facts: dict[str, Any], settings: Settings, atoms: Atoms) -> None:
    usual = {field.name: field.default for field in dataclasses.fields(Settings)}
    for name, value in settings.physics().items():
        old = facts["physics"].get(name, usual[name])  # what was not a setting then
        if old != value:
            raise RunError(
                f"{path}: the checkpoint was made with {name} {old}, not {value}; "
                "give the same settings, or start again from its last frame."
            )
    if facts["model"] != _model_name(atoms):
        raise RunError(
            f"{path}: the checkpoint was made with {facts['model']}, not {_model_name(atoms)}; "
            "give the same model, or start again from its last frame."
        )
