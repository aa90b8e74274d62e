"""What a validation report is asked for, and what can be refused before any work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ...comparison import labelled
from ...dynamics import Settings
from ...engine import Engine
from ...errors import RunError
from ...integrators import default_barostat

#: The sections of a report, in its order.
SECTIONS = (
    "errors",
    "thermo",
    "rdf",
    "adf",
    "diffusion",
    "density",
    "drift",
    "solid",
    "speed",
)
DYNAMIC = ("thermo", "rdf", "adf", "diffusion", "density", "drift")  # made from molecular dynamics
_FRAMES = 1000  # of a production run, about
_CHECKPOINTS = 10  # frames between two checkpoints


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model of the report."""

    name: str  #: how the report calls it
    path: Path  #: anything that `Engine` takes
    head: str | None = None  #: of a multi-task model
    precision: str | None = None  #: None: that of the training


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Of the molecular dynamics: an equilibration, the run that is analysed, and one at constant energy."""

    ensemble: str = "nvt"  #: nvt, npt
    temperature: float = 300.0  #: K
    pressure: float = 1.0  #: bar, with npt
    timestep: float = 0.5  #: fs
    steps: int = 20000  #: of the run that is analysed
    equilibration: int | None = None  #: steps before it; None: a fifth of `steps`
    seed: int = 1  #: of velocities and thermostats

    def __post_init__(self) -> None:
        if self.ensemble not in ("nvt", "npt"):
            raise RunError(f"--ensemble {self.ensemble}: a report runs nvt or npt.")
        if self.steps < 1 or (self.equilibration or 0) < 0:
            raise RunError("--steps must be 1 or more and --equilibration not negative.")
        self.stages()  # which check the rest

    def stages(self) -> dict[str, Settings]:
        """The three runs by name, each of which goes on from the one before.

        The thermostat of the run that is analysed rescales all velocities alike (Bussi): friction would
        slow diffusion.
        """
        common: dict[str, Any] = {"timestep": self.timestep, "seed": self.seed}
        heat = {**common, "temperature": self.temperature}
        if self.ensemble == "npt":
            heat |= {"ensemble": "npt", "pressure": self.pressure, "barostat": default_barostat()}
        first = self.steps // 5 if self.equilibration is None else self.equilibration
        begin = heat if self.ensemble == "npt" else {**heat, "friction": 10.0}
        main = heat if self.ensemble == "npt" else {**heat, "thermostat": "bussi"}
        return {
            "equilibration": _stage(first, begin),
            "production": _stage(self.steps, main),
            "nve": _stage(max(self.steps // 4, 1), {**common, "ensemble": "nve"}),
        }


def _stage(steps: int, settings: dict[str, Any]) -> Settings:
    interval = max(1, steps // _FRAMES)
    return Settings(
        steps=steps, interval=interval, checkpoint_interval=_CHECKPOINTS * interval, **settings
    )


@dataclasses.dataclass(frozen=True)
class Request:
    """Everything that a report is made from."""

    subjects: tuple[Subject, ...]  #: one, or two: the second one is what the first is compared with
    frames: tuple[Atoms, ...] = ()  #: with labels, as `read_structures` gives them
    labels: str = ""  #: what the file of `frames` is called
    structure: Atoms | None = None  #: where the runs begin
    solid: Atoms | None = None  #: a crystal, for its equation of state and elastic constants
    conditions: Conditions = Conditions()
    sections: tuple[str, ...] = ()  #: out of `SECTIONS`; none: all that can be made
    lammps: bool = False  #: time LAMMPS, too
    threads: int | None = None  #: None: all cores
    device: str = "cpu"  #: as of `Engine`
    low_memory: bool = False  #: as of `Engine`

    def __post_init__(self) -> None:
        if not 1 <= len(self.subjects) <= 2:
            raise RunError("A report is of one model or of two.")
        if len({subject.name for subject in self.subjects}) < len(self.subjects):
            raise RunError("Two models of a report need two names.")
        for name in self.sections:
            if name not in SECTIONS:
                raise RunError(f"--only {name}: the sections are {', '.join(SECTIONS)}.")
        if not self.frames and self.structure is None and self.solid is None:
            raise RunError(
                "There is nothing to report on: give labelled frames by --labels, a structure to run by "
                "--structure, or a crystal by --solid."
            )
        if self.frames and len(self.subjects) == 1 and not labelled(self.frames):
            raise RunError(
                f"{self.labels}: the frames have no labels; take others, or name a second model to compare "
                "with."
            )
        periodic = self.structure is None or _periodic(self.structure)
        if self.conditions.ensemble == "npt" and not periodic:
            raise RunError(
                "--ensemble npt needs a structure that is periodic in three directions; use nvt."
            )
        missing = self.missing()
        for name in self.sections:
            if name in missing:
                raise RunError(f"--only {name}: {missing[name]}.")
        if not self.wanted():
            raise RunError("None of the sections can be made: " + _joined(missing) + ".")

    def missing(self) -> dict[str, str]:
        """The sections that can't be made, each with the reason and the remedy."""
        out: dict[str, str] = {}
        if not self.frames:
            out["errors"] = "there are no labelled frames (--labels)"
        if self.structure is None:
            out |= dict.fromkeys((*DYNAMIC, "speed"), "there is no structure to run (--structure)")
        elif not _periodic(self.structure):
            why = "the structure isn't periodic in three directions"
            out |= dict.fromkeys(("rdf", "adf", "diffusion", "density", "speed"), why)
        elif self.conditions.ensemble != "npt":
            out["density"] = "the volume is constant (add --ensemble npt)"
        if self.solid is None:
            out["solid"] = "no crystal is given (--solid)"
        elif not _periodic(self.solid):
            out["solid"] = "the crystal isn't periodic in three directions"
        return {name: out[name] for name in SECTIONS if name in out}

    def wanted(self) -> tuple[str, ...]:
        """The sections that will be made, in their order."""
        missing = self.missing()
        asked = self.sections or SECTIONS
        return tuple(name for name in SECTIONS if name in asked and name not in missing)

    def check(self, engines: tuple[Engine, ...]) -> None:
        """Raise `RunError` when a model lacks an element of a structure."""
        parts = (
            (self.labels, self.frames),
            ("--structure", (self.structure,)),
            ("--solid", (self.solid,)),
        )
        for source, structures in parts:
            elements = {e for atoms in structures if atoms is not None for e in set(atoms.symbols)}
            for subject, engine in zip(self.subjects, engines, strict=True):
                unknown = sorted(elements - set(engine.elements))
                if unknown:
                    raise RunError(
                        f"{source}: {subject.name} has no {' and no '.join(unknown)}; it knows "
                        f"{' '.join(engine.elements[:20])}."
                    )


def _periodic(atoms: Atoms) -> bool:
    return atoms.cell.rank == 3 and bool(np.all(atoms.pbc))


def _joined(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in reasons.items())
