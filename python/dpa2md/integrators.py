"""The integrators of ASE that a run's settings stand for, and what they aim at while they run."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units

from .dynamics import BAR, PS, Settings
from .errors import RunError

# ASE's integrators with the barostat of Martyna, Tobias and Klein.
_MTK = {"isotropic": "IsotropicMTKNPT", "anisotropic": "MaskedMTKNPT", "full": "MTKNPT"}


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
    make = {"nve": _verlet, "nvt": _thermostatted, "npt": _barostatted}[settings.ensemble]
    common: dict[str, Any] = {"atoms": atoms, "timestep": settings.timestep * units.fs}
    try:
        return make(settings, common, rng)
    except ImportError:
        name = settings.barostat if settings.ensemble == "npt" else settings.thermostat
        other = "--barostat berendsen" if settings.ensemble == "npt" else "--thermostat langevin"
        way = "" if settings.cell_change != "isotropic" else f", or use {other}"
        raise RunError(f"The installed ASE has no {name} for this: update ase{way}.") from None
    except NotImplementedError as error:
        raise RunError(f"ASE can't run this: {str(error).rstrip('.')}.") from None


def _verlet(settings: Settings, common: dict[str, Any], rng: np.random.Generator) -> Any:
    from ase.md.verlet import VelocityVerlet

    return VelocityVerlet(**common)


def _thermostatted(settings: Settings, common: dict[str, Any], rng: np.random.Generator) -> Any:
    heat: dict[str, Any] = {**common, "temperature_K": settings.temperature}
    if settings.thermostat == "langevin":
        from ase.md.langevin import Langevin

        # fixcm would bend the distribution of velocities.
        return Langevin(**heat, friction=settings.friction / PS, rng=rng, fixcm=False)
    if settings.thermostat == "bussi":
        from ase.md.bussi import Bussi

        return Bussi(**heat, taut=settings.taut * units.fs, rng=rng)
    from ase.md.nose_hoover_chain import NoseHooverChainNVT

    return NoseHooverChainNVT(**heat, tdamp=settings.taut * units.fs)


def _barostatted(settings: Settings, common: dict[str, Any], rng: np.random.Generator) -> Any:
    atoms = common["atoms"]
    if not (atoms.cell.rank == 3 and all(atoms.pbc)):
        raise RunError("Constant pressure needs a structure that is periodic in three directions.")
    if settings.cell_change == "anisotropic" and not np.allclose(atoms.cell.angles(), 90):
        raise RunError(
            "A cell whose lengths alone change (--cell-change anisotropic) must have right angles; "
            "take full."
        )
    push: dict[str, Any] = {
        **common,
        "temperature_K": settings.temperature,
        "pressure_au": settings.pressure * BAR,
    }
    taut, taup = settings.taut * units.fs, settings.taup * units.fs
    if settings.barostat == "mtk":
        from ase.md import nose_hoover_chain

        if not hasattr(nose_hoover_chain, _MTK[settings.cell_change]):
            raise ImportError
        if settings.cell_change == "anisotropic":
            push["mask"] = np.ones(3, dtype=bool)
        make = getattr(nose_hoover_chain, _MTK[settings.cell_change])
        return make(**push, tdamp=taut, pdamp=taup)
    from ase.md.nptberendsen import NPTBerendsen

    return NPTBerendsen(
        **push, taut=taut, taup=taup, compressibility_au=settings.compressibility / BAR
    )


def default_barostat() -> str:
    """ "mtk" where the installed ASE has it, else "berendsen"."""
    try:
        from ase.md.nose_hoover_chain import IsotropicMTKNPT  # noqa: F401
    except ImportError:
        return "berendsen"
    return "mtk"


def parts_of(dynamics: Any) -> dict[str, Any]:
    """An integrator, and the objects in which it keeps the variables of chains, by their names."""
    names = ("_thermostat", "_barostat")
    inner = {name: getattr(dynamics, name) for name in names if hasattr(dynamics, name)}
    return {"": dynamics, **inner}


def set_targets(dynamics: Any, temperature: float, pressure: float) -> None:
    """Let an integrator aim at another temperature and pressure from the next step on.

    Parameters
    ----------
    dynamics
        From `make_dynamics`, with a thermostat.
    temperature
        K.
    pressure
        bar; of no account without a barostat.

    Raises
    ------
    RunError
        When the installed ASE keeps them where they can't be changed.
    """
    kT = units.kB * temperature
    try:
        if hasattr(dynamics, "set_temperature"):  # Langevin, Berendsen
            dynamics.set_temperature(temperature_K=temperature)
        elif hasattr(dynamics, "target_kinetic_energy"):  # Bussi
            dynamics.temp = kT
            dynamics.target_kinetic_energy = kT * dynamics.ndof / 2
        else:
            _heat_chains(dynamics, kT)
    except AttributeError:
        raise RunError(
            "The installed ASE can't change the temperature of this thermostat."
        ) from None
    for name in ("pressure", "_pressure_au"):
        if name in vars(dynamics):
            setattr(dynamics, name, pressure * BAR)


# What is proportional to the temperature: the masses of the chains, so that their periods stay, and
# the momenta of these, so that their velocities stay.
_THERMAL = {"_kT", "_temperature_K", "_Q", "_p_eta", "_W", "_R", "_p_xi", "_p_eps", "_p_g", "_p_c"}


def _heat_chains(dynamics: Any, kT: float) -> None:
    ratio = kT / dynamics._thermostat._kT
    for part in parts_of(dynamics).values():
        for name in _THERMAL & vars(part).keys():
            setattr(part, name, ratio * getattr(part, name))
