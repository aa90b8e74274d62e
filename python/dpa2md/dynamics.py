"""Settings of a run, and the velocities that it begins with."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from ase import Atoms, units

from .errors import RunError

BAR = 1e5 * units.Pascal
PS = 1000 * units.fs


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run; see ``dpa2md md --help``."""

    ensemble: str = "nvt"  #: nve, nvt, npt
    steps: int = 1000  #: up to and including this step
    timestep: float = 0.5  #: fs
    temperature: float = 300.0  #: K
    temperature_end: float | None = (
        None  #: K, reached in equal steps at the last one; None: constant
    )
    pressure: float = 1.0  #: bar
    pressure_end: float | None = None  #: bar, likewise
    thermostat: str = "langevin"  #: langevin, bussi, nose-hoover (nvt)
    barostat: str = "mtk"  #: mtk, berendsen (npt)
    cell_change: str = "isotropic"  #: isotropic, anisotropic (lengths), full (lengths, angles); npt
    friction: float = 1.0  #: 1/ps (langevin)
    taut: float = 100.0  #: fs, time constant of the other thermostats
    taup: float = 1000.0  #: fs, time constant of the barostat
    compressibility: float = 4.57e-5  #: 1/bar (berendsen); water's
    seed: int = 1  #: of velocities and thermostat
    interval: int = 100  #: steps between rows and frames
    checkpoint_interval: int | None = None  #: steps between checkpoints; None: interval
    max_temperature: float | None = None  #: K; None: 10 times the highest, at least 5000

    def __post_init__(self) -> None:
        _check(self)

    @property
    def limit(self) -> float:
        """The temperature (K) at which a run counts as exploded."""
        highest = max(self.temperature, self.temperature_end or 0)
        return self.max_temperature or max(5000.0, 10 * highest)

    @property
    def steps_between_checkpoints(self) -> int:
        """By default no more is lost than what lies between two rows of the table."""
        return self.checkpoint_interval or self.interval

    @property
    def ramped(self) -> bool:
        """Whether the temperature or the pressure changes on the way."""
        return self.temperature_end is not None or self.pressure_end is not None

    def targets(self, step: int) -> tuple[float, float]:
        """The temperature (K) and the pressure (bar) that step number `step` aims at."""
        done = step / self.steps

        def between(begin: float, end: float | None) -> float:
            return begin if end is None else begin + done * (end - begin)

        return (
            between(self.temperature, self.temperature_end),
            between(self.pressure, self.pressure_end),
        )

    def idle(self) -> set[str]:
        """The names of the settings that are of no account, such as a pressure at constant volume."""
        npt, nvt = self.ensemble == "npt", self.ensemble == "nvt"
        langevin = nvt and self.thermostat == "langevin"
        heeded = {
            "temperature_end": npt or nvt,
            "pressure": npt,
            "pressure_end": npt,
            "thermostat": nvt,
            "barostat": npt,
            "cell_change": npt,
            "friction": langevin,
            "taut": npt or (nvt and not langevin),
            "taup": npt,
            "compressibility": npt and self.barostat == "berendsen",
        }
        return {name for name, used in heeded.items() if not used}

    def physics(self) -> dict[str, Any]:
        """What must be the same when a run is continued; of a ramp its length, too."""
        free = {"steps", "interval", "checkpoint_interval", "max_temperature", "seed"}
        length = {"steps": self.steps} if self.ramped else {}
        values = dataclasses.asdict(self).items()
        return {k: v for k, v in values if k not in free | self.idle()} | length


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Draw momenta from the Maxwell-Boltzmann distribution, at rest as a whole.

    Parameters
    ----------
    atoms
        Their momenta are replaced.
    temperature
        K.
    rng
        Where the random numbers come from.
    """
    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)
    if len(atoms) > 1 and not atoms.constraints:
        momenta -= masses / masses.sum() * momenta.sum(axis=0)
    atoms.set_momenta(momenta)  # which heeds constraints


_NAMES = {
    "ensemble": ("nve", "nvt", "npt"),
    "thermostat": ("langevin", "bussi", "nose-hoover"),
    "barostat": ("mtk", "berendsen"),
    "cell_change": ("isotropic", "anisotropic", "full"),
}
_POSITIVE = (
    "timestep",
    "taut",
    "taup",
    "friction",
    "compressibility",
    "interval",
    "checkpoint_interval",
    "max_temperature",
)


def _check(s: Settings) -> None:
    for name, allowed in _NAMES.items():
        if getattr(s, name) not in allowed:
            raise RunError(f"Unknown {name} {getattr(s, name)!r}; use {', '.join(allowed)}.")
    for name in _POSITIVE:
        if getattr(s, name) is not None and not 0 < getattr(s, name) < float("inf"):
            raise RunError(f"{name} is {getattr(s, name)}; give a positive number.")
    for name in ("pressure", "pressure_end"):
        if not np.isfinite(getattr(s, name) or 0.0):
            raise RunError(f"{name} is {getattr(s, name)}; give a number of bar.")
    if s.steps < 0 or s.seed < 0 or not 0 <= s.temperature < float("inf"):
        raise RunError("The number of steps, the temperature and the seed can't be negative.")
    ends = [t for t in (s.temperature, s.temperature_end) if t is not None]
    if s.ensemble != "nve" and not all(0 < t < float("inf") for t in ends):
        raise RunError("A thermostat needs a temperature above 0; use nve, or give a temperature.")
    _check_targets(s)


def _check_targets(s: Settings) -> None:
    if s.ensemble == "nve" and s.temperature_end is not None:
        raise RunError("An end of the temperature needs a thermostat: use nvt or npt.")
    if s.ensemble != "npt" and s.pressure_end is not None:
        raise RunError("An end of the pressure needs a barostat: use npt.")
    if s.cell_change != "isotropic" and (s.ensemble, s.barostat) != ("npt", "mtk"):
        raise RunError(f"A cell change that is {s.cell_change} needs npt with the barostat mtk.")
