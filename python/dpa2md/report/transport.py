"""How far atoms go: mean squared displacements, diffusion, and errors of means along a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from ..errors import RunError

# B. Duenweg and K. Kremer, J. Chem. Phys. 99, 6983 (1993); I.-C. Yeh and G. Hummer, J. Phys. Chem. B 108,
# 15873 (2004): of a cubic lattice.
_CUBIC = 2.837297
_LAGS = 100  # points of a curve
# Exponents of what counts as diffusive: cages of a liquid and its noise leave some 0.2 of 1.
_DIFFUSIVE = (0.7, 1.25)
# angstrom^2; before that an atom has not left its place, and a hydrogen may only have turned about its molecule.
_LEAST = 1.0


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean along a run, with its standard error from blocks."""

    value: float  #: the mean
    error: float  #: standard error, nan where there are too few values


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """What a mean squared displacement says."""

    lags: np.ndarray  #: (k,) ps
    displacement: np.ndarray  #: (k,) angstrom^2, the mean over atoms and time origins
    window: tuple[float, float]  #: ps; the part of the curve that the line is fitted to
    coefficient: Mean  #: angstrom^2/ps, a sixth of the slope there
    exponent: float  #: d ln(displacement) / d ln(lag) there: 1 diffusive, 0 bound, 2 ballistic

    @property
    def motion(self) -> str:
        """diffusive; or bound (to places), or too short (a time): then there is no coefficient."""
        if self.exponent < _DIFFUSIVE[0]:
            return "bound"
        reached = np.interp(self.window[1], self.lags, self.displacement)
        far = self.exponent < _DIFFUSIVE[1] and reached > _LEAST
        return "diffusive" if far else "too short"


def block_mean(values: np.ndarray, blocks: int = 5) -> Mean:
    """The mean of a time series (n,), and its standard error from the means of equal blocks.

    The blocks must be longer than the memory of the series (H. Flyvbjerg and H. G. Petersen, J. Chem.
    Phys. 91, 461 (1989)).
    """
    if len(values) < 2 * blocks:
        return Mean(float(np.mean(values)) if len(values) else float("nan"), float("nan"))
    means = [part.mean() for part in np.array_split(values, blocks)]
    return Mean(float(np.mean(values)), float(np.std(means, ddof=1) / np.sqrt(blocks)))


def unwrapped(frames: Sequence[Atoms]) -> np.ndarray:
    """Positions (frames, n, 3) without jumps at the faces of the cell, relative to the centre of mass.

    Displacements between wrapped positions are added up, each reduced in the cell of its frame; so a cell
    that breathes adds nothing to them (S. von Buelow, J. T. Bullerjahn and G. Hummer, J. Chem. Phys. 153,
    021101 (2020)). Between two frames an atom must go less than half a cell.

    Raises
    ------
    RunError
        When frames have different atoms.
    """
    out = np.empty((len(frames), len(frames[0]), 3))
    masses = frames[0].get_masses()
    before = None
    for k, atoms in enumerate(frames):
        if not np.array_equal(atoms.numbers, frames[0].numbers):
            raise RunError(f"Frame {k} has other atoms than the first one.")
        now = atoms.get_positions(wrap=bool(atoms.pbc.any()))
        if before is None:
            out[k] = now
        else:
            step = now - before
            cell = atoms.cell.complete()
            turns = np.round(cell.scaled_positions(step)) * atoms.pbc
            out[k] = out[k - 1] + step - turns @ cell.array
        before = now
    return out - np.average(out, axis=1, weights=masses)[:, None]


def mean_squared_displacement(positions: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """The mean over atoms and over all time origins.

    Parameters
    ----------
    positions
        (frames, n, 3), angstrom, unwrapped.
    lags
        (lags,), in frames, each less than their number.

    Returns
    -------
    ndarray
        (lags,), angstrom^2.
    """
    means = []
    for lag in lags:
        moved = positions[lag:] - positions[: len(positions) - lag]
        means.append(np.einsum("fnx,fnx->", moved, moved) / (moved.shape[0] * moved.shape[1]))
    return np.array(means)


def diffusion(positions: np.ndarray, interval: float, blocks: int = 4) -> Diffusion:
    """The diffusion coefficient of some atoms.

    The line is fitted between an eighth and a half of a block's length; the slope is of the whole run, its
    error from the slopes of the blocks.

    Parameters
    ----------
    positions
        (frames, n, 3), angstrom, as `unwrapped` gives them.
    interval
        ps between two frames.
    blocks
        Equal parts of the run.

    Raises
    ------
    RunError
        With fewer than 16 frames a block.
    """
    length = len(positions) // blocks
    if length < 16:
        raise RunError(
            f"Diffusion needs {16 * blocks} frames or more and there are {len(positions)}; run longer."
        )
    curve = np.unique(np.linspace(0, len(positions) // 2, _LAGS).astype(int))
    fitted = np.unique(np.linspace(length // 8, length // 2, 25).astype(int))
    whole = mean_squared_displacement(positions, fitted)
    slopes = [
        _slope(fitted, mean_squared_displacement(positions[k * length : (k + 1) * length], fitted))
        for k in range(blocks)
    ]
    error = np.std(slopes, ddof=1) / np.sqrt(blocks)
    return Diffusion(
        curve * interval,
        mean_squared_displacement(positions, curve),
        (float(fitted[0] * interval), float(fitted[-1] * interval)),
        Mean(_slope(fitted, whole) / 6 / interval, float(error) / 6 / interval),
        _slope(np.log(fitted), np.log(np.maximum(whole, 1e-300))),
    )


def finite_size_correction(temperature: float, volume: float) -> float:
    """What to add to a diffusion coefficient for an infinite cubic box, times the viscosity.

    Parameters
    ----------
    temperature
        K.
    volume
        angstrom^3

    Returns
    -------
    float
        angstrom^2/ps times mPa s: divide it by the viscosity of the model in mPa s.
    """
    joule = 1.380649e-23 * temperature
    metres = 1e-10 * volume ** (1 / 3)
    square_metres = _CUBIC * joule / (6 * np.pi * 1e-3 * metres)
    return float(square_metres * 1e8)  # 1 m^2/s is 1e8 angstrom^2/ps


def drift(times: np.ndarray, energies: np.ndarray) -> tuple[float, float]:
    """The slope of energies over times, and the standard deviation from that line; both arrays (n,)."""
    line = np.polyfit(times, energies, 1)
    return float(line[0]), float(np.std(energies - np.polyval(line, times)))


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.polyfit(x, y, 1)[0])
