"""What the engine gives, and the same in ASE's names, units and signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class DeviceMemory:
    """What a step takes of a graphics processor's memory."""

    needed: float  #: bytes
    free: float  #: bytes that this engine could have, those that it holds included
    atoms: int  #: how many would fit


@dataclass(frozen=True)
class Result:
    """Results for one structure of n atoms; what was not asked for is None."""

    energy: float  #: eV
    energies: np.ndarray  #: (n,) eV
    forces: np.ndarray | None  #: (n, 3) eV/angstrom
    virial: np.ndarray | None  #: (3, 3) eV, -dE/dstrain
    virials: np.ndarray | None  #: (n, 3, 3) eV; they add up to the virial


def as_ase(result: Result, atoms: Atoms) -> dict[str, Any]:
    """Results in ASE's names, units, signs and Voigt order (xx, yy, zz, yz, xz, xy).

    The stress is dE/dstrain / volume; `stresses` add up to it.
    """
    results: dict[str, Any] = {
        "energy": result.energy,
        "free_energy": result.energy,
        "energies": result.energies,
    }
    if result.forces is not None and result.virial is not None:
        results["forces"] = result.forces
        if atoms.cell.rank == 3:
            results["stress"] = stress_of(result.virial, atoms)
            if result.virials is not None:
                results["stresses"] = _voigt(-result.virials / atoms.cell.volume)
    return results


def stress_of(virial: np.ndarray, atoms: Atoms) -> np.ndarray:
    """The stress (6,) of ASE from a virial (3, 3)."""
    return _voigt(-virial / atoms.cell.volume)


def _voigt(stress: np.ndarray) -> np.ndarray:
    """The symmetric part of (..., 3, 3) as (..., 6); an atom's own stress need not be symmetric."""
    symmetric = (stress + np.swapaxes(stress, -1, -2)) / 2
    return symmetric[..., [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
