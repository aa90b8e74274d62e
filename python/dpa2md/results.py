"""What an engine gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DeviceMemory:
    """What a step takes of a graphics processor's memory."""

    needed: float  #: bytes
    free: float  #: bytes that this engine could have, those that it holds included
    atoms: int  #: how many would fit


@dataclass(frozen=True)
class Result:
    """Results for one structure of n atoms; the last three are None when no forces were asked for."""

    energy: float  #: eV
    energies: np.ndarray  #: (n,) eV
    forces: np.ndarray | None  #: (n, 3) eV/angstrom
    virial: np.ndarray | None  #: (3, 3) eV, -dE/dstrain
    virials: np.ndarray | None  #: (n, 3, 3) eV; they add up to the virial
