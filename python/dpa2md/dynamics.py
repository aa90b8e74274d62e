"""Settings of a run, and the integrators of ASE that they stand for."""

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
    pressure: float = 1.0  #: bar
    thermostat: str = "langevin"  #: langevin, bussi, nose-hoover (nvt)
    barostat: str = "mtk"  #: mtk, berendsen (npt)
    friction: float = 1.0  #: 1/ps (langevin)
    taut: float = 100.0  #: fs, time constant of the other thermostats
    taup: float = 1000.0  #: fs, time constant of the barostat
    compressibility: float = 4.57e-5  #: 1/bar (berendsen); water's
    seed: int = 1  #: of velocities and thermostat
    interval: int = 100  #: steps between rows and frames
    checkpoint_interval: int | None = None  #: steps between checkpoints; None: interval
    max_temperature: float | None = None  #: K; None: 10 times the temperature, at least 5000

    def __post_init__(self) -> None:
        _check(self)

    @property
    def limit(self) -> float:
        """The temperature (K) at which a run counts as exploded."""
        return self.max_temperature or max(5000.0, 10 * self.temperature)

    @property
    def steps_between_checkpoints(self) -> int:
        """By default no more is lost than what lies between two rows of the table."""
        return self.checkpoint_interval or self.interval

    def physics(self) -> dict[str, Any]:
        """What must be the same when a run is continued."""
        free = ("steps", "interval", "checkpoint_interval", "max_temperature", "seed")
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in free}


def make_dynamics(atoms: Atoms, settings: Settings, rng: np.random.Generator) -> Any:
    """ASE's integrator for these settings.

    Parameters
    ----------
    atoms
        With a calculator.
    settings
        How to run.
    rng
        Random numbers of the stochastic thermostats.

    Returns
    -------
    ase.md.md.MolecularDynamics
        Ready to be run.

    Raises
    ------
    RunError
        When the installed ASE lacks it, or it can't be used for this structure.
    """
    common: dict[str, Any] = {"atoms": atoms, "timestep": settings.timestep * units.fs}
    heat: dict[str, Any] = {**common, "temperature_K": settings.temperature}
    choice = {"nve": "verlet", "nvt": settings.thermostat, "npt": settings.barostat}
    name = choice[settings.ensemble]
    if settings.ensemble == "npt" and not (atoms.cell.rank == 3 and all(atoms.pbc)):
        raise RunError("Constant pressure needs a structure that is periodic in three directions.")
    try:
        if name == "verlet":
            from ase.md.verlet import VelocityVerlet

            return VelocityVerlet(**common)
        if name == "langevin":
            from ase.md.langevin import Langevin

            # fixcm would bend the distribution of velocities.
            return Langevin(**heat, friction=settings.friction / PS, rng=rng, fixcm=False)
        if name == "bussi":
            from ase.md.bussi import Bussi

            return Bussi(**heat, taut=settings.taut * units.fs, rng=rng)
        if name == "nose-hoover":
            from ase.md.nose_hoover_chain import NoseHooverChainNVT

            return NoseHooverChainNVT(**heat, tdamp=settings.taut * units.fs)
        push: dict[str, Any] = {**heat, "pressure_au": settings.pressure * BAR}
        times: dict[str, Any] = {"taut": settings.taut * units.fs, "taup": settings.taup * units.fs}
        if name == "mtk":
            from ase.md.nose_hoover_chain import IsotropicMTKNPT

            return IsotropicMTKNPT(**push, tdamp=times["taut"], pdamp=times["taup"])
        from ase.md.nptberendsen import NPTBerendsen

        return NPTBerendsen(**push, **times, compressibility_au=settings.compressibility / BAR)
    except ImportError:
        other = "--barostat berendsen" if settings.ensemble == "npt" else "--thermostat langevin"
        raise RunError(f"The installed ASE has no {name}: update ase, or use {other}.") from None
    except NotImplementedError as error:
        raise RunError(f"ASE can't run {name} here: {str(error).rstrip('.')}.") from None


def default_barostat() -> str:
    """ "mtk" where the installed ASE has it, else "berendsen"."""
    try:
        from ase.md.nose_hoover_chain import IsotropicMTKNPT  # noqa: F401
    except ImportError:
        return "berendsen"
    return "mtk"


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


def _check(s: Settings) -> None:
    for name, allowed in (
        ("ensemble", ("nve", "nvt", "npt")),
        ("thermostat", ("langevin", "bussi", "nose-hoover")),
        ("barostat", ("mtk", "berendsen")),
    ):
        if getattr(s, name) not in allowed:
            raise RunError(f"Unknown {name} {getattr(s, name)!r}; use {', '.join(allowed)}.")
    for name in ("timestep", "taut", "taup", "friction", "interval", "checkpoint_interval"):
        if getattr(s, name) is not None and not 0 < getattr(s, name) < float("inf"):
            raise RunError(f"{name} is {getattr(s, name)}; give a positive number.")
    if s.steps < 0 or not 0 <= s.temperature < float("inf"):
        raise RunError("The number of steps and the temperature can't be negative.")
    if s.ensemble != "nve" and s.temperature == 0:
        raise RunError("A thermostat needs a temperature above 0; use nve, or give a temperature.")
