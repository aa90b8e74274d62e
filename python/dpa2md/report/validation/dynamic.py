"""What the molecular dynamics of the models says: thermodynamics, structure, diffusion, density, drift."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from ...errors import RunError
from ..distributions import Triplet, angle_distribution, first_minimum, shells
from ..transport import (
    Diffusion,
    Mean,
    block_mean,
    diffusion,
    drift,
    finite_size_correction,
    unwrapped,
)
from .runs import Run

_STRUCTURES = 200  # frames that distributions are made from, at most
_BIN = 0.05  # angstrom
_RMAX = 10.0  # angstrom
_COLUMNS = {
    "temperature / K": "temperature_K",
    "potential energy / (eV/atom)": "potential_energy_eV",
    "pressure / bar": "pressure_bar",
    "volume / A3": "volume_A3",
}
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Thermo:
    """Means along the production run of one model."""

    model: str  #: its name
    picoseconds: float  #: length of the run
    means: dict[str, Mean]  #: by quantity with its unit
    times: np.ndarray  #: (n,) ps
    series: dict[str, np.ndarray]  #: the same quantities over time, each (n,)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One distribution of every model on one grid."""

    name: str  #: the elements, as O-H or H-O-H
    x: np.ndarray  #: (bins,) angstrom or degrees
    values: dict[str, np.ndarray]  #: g or probability per degree by model, each (bins,)
    difference: (
        float | None
    )  #: of two models: half of the area between the curves, of the area of one
    noise: float  #: the same between the halves of the last model's run


@dataclasses.dataclass(frozen=True)
class Radial(Curve):
    """Pairs of one kind."""

    end: float | None  #: angstrom, of the first shell of the last model
    peaks: dict[str, tuple[float, float]]  #: place (angstrom) and height of the highest, by model
    neighbors: dict[str, float]  #: in the mean up to `end`, by model; none without an `end`


@dataclasses.dataclass(frozen=True)
class Angular(Curve):
    """Triplets of one kind."""

    means: dict[str, float]  #: degrees, by model
    numbers: dict[str, float]  #: of angles a frame, by model


@dataclasses.dataclass(frozen=True)
class Transport:
    """How one element moves in one model."""

    model: str  #: its name
    element: str  #: chemical symbol
    result: Diffusion  #: the curve and the coefficient
    correction: float  #: angstrom^2/ps times mPa s, see `finite_size_correction`


@dataclasses.dataclass(frozen=True)
class Density:
    """In the NPT run of one model."""

    model: str  #: its name
    density: Mean  #: g/cm3
    times: np.ndarray  #: (n,) ps
    series: np.ndarray  #: (n,) g/cm3


@dataclasses.dataclass(frozen=True)
class Drift:
    """Of the total energy at constant energy."""

    model: str  #: its name
    slope: float  #: meV/atom/ps
    deviation: float  #: meV/atom, standard deviation from the line
    timestep: float  #: fs
    times: np.ndarray  #: (n,) ps
    energies: np.ndarray  #: (n,) meV/atom, the first one is 0


def thermo(runs: Sequence[Run], natoms: int) -> list[Thermo]:
    """The means of every finished production run."""
    out = []
    for run in runs:
        rows = run.table()
        series = {}
        for title, column in _COLUMNS.items():
            values = rows[column] / (natoms if "atom" in title else 1)
            if np.isfinite(values).all():
                series[title] = values
        means = {title: block_mean(values) for title, values in series.items()}
        out.append(Thermo(run.name, float(rows["time_ps"][-1]), means, rows["time_ps"], series))
    return out


def radial(runs: Sequence[Run], report: Progress) -> list[Radial]:
    """The radial distributions of all pairs of elements."""
    frames = {run.name: run.frames(most=_STRUCTURES) for run in runs}
    last = frames[runs[-1].name]
    pairs = list(combinations_with_replacement(elements_of(last[0]), 2))
    heights = min(1 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1).max() for atoms in last)
    rmax = min(_RMAX, max(heights / 2, 4.0))
    bins = max(10, int(rmax / _BIN))
    out = []
    for k, pair in enumerate(pairs):
        if _counted(last[0], *pair):
            out.append(_radial(frames, runs[-1].name, pair, rmax, bins))
        report("radial distributions", k + 1, len(pairs))
    return out


def elements_of(atoms: Atoms) -> list[str]:
    """The elements in the order in which they come."""
    return list(dict.fromkeys(atoms.symbols))


def _counted(atoms: Atoms, first: str, second: str) -> bool:
    """Whether there is a pair apart from an atom and its own images."""
    symbols = list(atoms.symbols)
    return first != second or symbols.count(first) > 1 or len(symbols) == 1


def _radial(
    frames: dict[str, list[Atoms]], last: str, pair: tuple[str, str], rmax: float, bins: int
) -> Radial:
    found = {name: shells(part, *pair, rmax, bins) for name, part in frames.items()}
    edges = found[last][0]
    r = (edges[1:] + edges[:-1]) / 2
    values = {name: g for name, (_, g, _) in found.items()}
    halves = [shells(part, *pair, rmax, bins)[1] for part in _halves(frames[last])]
    end = first_minimum(r, values[last])
    neighbors = {}
    if end is not None:
        neighbors = {name: float(np.interp(end, edges[1:], n)) for name, (_, _, n) in found.items()}
    peaks = {name: (float(r[g.argmax()]), float(g.max())) for name, g in values.items()}
    return Radial(
        "-".join(pair), r, values, _between(values), _apart(*halves), end, peaks, neighbors
    )


def angular(runs: Sequence[Run], radials: Sequence[Radial], report: Progress) -> list[Angular]:
    """The distributions of bond angles within the first shells of the last model."""
    cutoffs = {}
    for curve in radials:
        first, second = curve.name.split("-")
        if curve.end is not None:
            cutoffs[first, second] = curve.end
    found: dict[str, dict[Triplet, np.ndarray]] = {}
    numbers: dict[str, dict[Triplet, float]] = {}
    for k, run in enumerate(runs):
        frames = run.frames(most=_STRUCTURES)
        angles, found[run.name], numbers[run.name] = angle_distribution(frames, cutoffs)
        report("bond angles", k + 1, len(runs))
    halves = [angle_distribution(part, cutoffs)[1] for part in _halves(frames)]
    triplets = sorted({t for parts in numbers.values() for t in parts})
    counts = {t: {name: parts.get(t, 0.0) for name, parts in numbers.items()} for t in triplets}
    nothing = np.zeros(len(angles))
    out = []
    for triplet in sorted(triplets, key=lambda t: -max(counts[t].values())):
        values = {name: parts.get(triplet, nothing) for name, parts in found.items()}
        means = {
            name: float(np.average(angles, weights=g)) if g.any() else float("nan")
            for name, g in values.items()
        }
        noise = _apart(*(half.get(triplet, nothing) for half in halves))
        name, number = "-".join(triplet), counts[triplet]
        out.append(Angular(name, angles, values, _between(values), noise, means, number))
    return out


def transport(runs: Sequence[Run], temperature: float) -> list[Transport]:
    """The diffusion of every element in every model.

    Raises
    ------
    RunError
        When the runs are too short.
    """
    out = []
    for run in runs:
        frames = run.frames()
        if len(frames) < 2:
            raise RunError("the run has a single frame; run longer")
        positions = unwrapped(frames)
        interval = frames[1].info["time"] - frames[0].info["time"]
        volume = float(np.mean([atoms.get_volume() for atoms in frames]))
        correction = finite_size_correction(temperature, volume)
        for element in elements_of(frames[0]):
            own = positions[:, frames[0].symbols == element]
            out.append(Transport(run.name, element, diffusion(own, interval), correction))
    return out


def density(runs: Sequence[Run]) -> list[Density]:
    """The mean density of every NPT run."""
    out = []
    for run in runs:
        rows = run.table()
        values = rows["density_g_cm3"]
        out.append(Density(run.name, block_mean(values), rows["time_ps"], values))
    return out


def drifts(runs: Sequence[Run], natoms: int, timestep: float) -> list[Drift]:
    """The drift of every run at constant energy.

    Raises
    ------
    RunError
        When the runs are too short.
    """
    out = []
    for run in runs:
        rows = run.table("nve")
        if len(rows) < 3:
            raise RunError("the run has fewer than 3 rows; run longer")
        times = rows["time_ps"]
        energies = 1000 * (rows["total_energy_eV"] - rows["total_energy_eV"][0]) / natoms
        slope, deviation = drift(times, energies)
        out.append(Drift(run.name, slope, deviation, timestep, times, energies))
    return out


def _halves(frames: list[Atoms]) -> list[list[Atoms]]:
    half = len(frames) // 2
    return [frames[:half] or frames, frames[half:]]


def _apart(one: np.ndarray, two: np.ndarray) -> float:
    """Half of the area between two curves, of the mean area of both: 0 the same, 1 nothing in common."""
    area = float((one + two).sum())
    return float(np.abs(one - two).sum()) / area if area else 0.0


def _between(values: dict[str, np.ndarray]) -> float | None:
    return _apart(*values.values()) if len(values) == 2 else None
