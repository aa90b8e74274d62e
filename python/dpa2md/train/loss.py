"""The loss of a batch of frames and its derivatives, as DeePMD-kit 3.2's loss `ener` has them.

A term is a prefactor times the mean cost of a deviation, computed minus label. Energies and virials deviate
by frame: the mean is over frames (and the nine components), of deviations divided by a power of the frame's
number of atoms. Forces and atomic energies deviate by atom: the mean is over all atoms of the batch. Atoms of
excluded types (`atom_exclude_types`) count neither there nor in the number of atoms.

DeePMD-kit divides by the number of atoms in float32, whatever the model's precision; here it is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..errors import InputError
from .penalty import SQUARED, Absolute, Penalty, Squared


@dataclass(frozen=True)
class Prefactor:
    """A prefactor that moves from `start` to `limit` with the learning rate.

    As in DeePMD-kit, there is no such term at any time where one of them is 0.
    """

    start: float = 0.0
    limit: float = 0.0

    @property
    def active(self) -> bool:
        """Whether there is such a term."""
        return self.start != 0 and self.limit != 0

    def at(self, rate: float) -> float:
        """The prefactor at a learning rate, given as part of the rate that training starts with."""
        return self.limit + (self.start - self.limit) * rate


@dataclass(frozen=True)
class BatchLabels:
    """Labels of the frames of a batch; None where their system has no such labels."""

    natoms: np.ndarray  #: (frames,) atoms of each frame
    energy: np.ndarray | None = None  #: (frames,) eV
    forces: np.ndarray | None = None  #: (atoms, 3) eV/angstrom, frame after frame
    virial: np.ndarray | None = None  #: (frames, 3, 3) eV, -dE/dstrain
    energies: np.ndarray | None = None  #: (atoms,) eV, of the atoms
    counted: np.ndarray | None = (
        None  #: (atoms,) false for atoms of excluded types; None: all count
    )


@dataclass(frozen=True)
class BatchResults:
    """What a model computes for the frames of a batch."""

    energies: np.ndarray  #: (atoms,) eV, frame after frame
    forces: np.ndarray  #: (atoms, 3) eV/angstrom
    virial: np.ndarray  #: (frames, 3, 3) eV, -dE/dstrain


@dataclass(frozen=True)
class LossResult:
    """The loss, its derivatives by what the model computes, and the numbers of lcurve.out."""

    value: float
    denergies: np.ndarray  #: (atoms,)
    dforces: np.ndarray  #: (atoms, 3)
    dvirial: np.ndarray  #: (frames, 3, 3)
    shown: dict[str, float]  #: rmse, rmse_e, ... or mae_e, ...; nan where labels are missing


@dataclass(frozen=True)
class EnergyLoss:
    """Which deviations count, how much and in what way.

    With squared costs the energy and virial terms are divided once by the number of atoms, or twice if
    `intensive`. With others, a deviation is divided by it before its cost is taken.
    """

    energy: Prefactor = Prefactor(0.02, 1.0)
    forces: Prefactor = Prefactor(1000.0, 1.0)
    virial: Prefactor = Prefactor()
    energies: Prefactor = Prefactor()  #: of the atoms
    energy_penalty: Penalty = SQUARED  #: of the atoms' energies, too
    force_penalty: Penalty = SQUARED
    virial_penalty: Penalty = SQUARED
    force_length: bool = False  #: a force's deviation counts by its length, not by components
    intensive: bool = False

    def evaluate(self, rate: float, results: BatchResults, labels: BatchLabels) -> LossResult:
        """The loss of a batch and its derivatives.

        Parameters
        ----------
        rate
            The step's learning rate as part of the rate that training starts with.
        results, labels
            Of the same frames and atoms.

        Raises
        ------
        InputError
            When no atom of a frame counts.
        """
        frames, atoms = len(labels.natoms), len(results.energies)
        frame_of = np.repeat(np.arange(frames), labels.natoms)
        counted = np.ones(atoms, bool) if labels.counted is None else labels.counted
        natoms = _count(frame_of, counted, frames)
        by_frame = partial(_of_frames, natoms=natoms, intensive=self.intensive)
        by_atom = partial(_of_atoms, counted=counted)
        term = partial(_term, rate)
        energy = np.bincount(frame_of, results.energies, frames)
        e = term(self.energy, energy, labels.energy, partial(by_frame, self.energy_penalty))
        cost = partial(by_atom, self.force_penalty, by_length=self.force_length)
        f = term(self.forces, results.forces, labels.forces, cost)
        cost = partial(by_frame, self.virial_penalty)
        v = term(self.virial, results.virial, labels.virial, cost)
        cost = partial(by_atom, self.energy_penalty)
        ae = term(self.energies, results.energies, labels.energies, cost)
        value = e.value + f.value + v.value + ae.value
        kind = "mae" if isinstance(self.energy_penalty, Absolute) else "rmse"
        shown = {
            f"{kind}_{name}": term.shown
            for name, term in {"e": e, "f": f, "v": v, "ae": ae}.items()
            if term.shown is not None
        }
        return LossResult(
            value, e.slopes[frame_of] + ae.slopes, f.slopes, v.slopes, shown | {"rmse": value**0.5}
        )


def _count(frame_of: np.ndarray, counted: np.ndarray, frames: int) -> np.ndarray:
    """How many atoms of each frame count, (frames,)."""
    natoms = np.bincount(frame_of, counted, frames)
    if not natoms.all():
        raise InputError(
            f"no atom of frame {int(np.argmin(natoms))} of a batch counts, all are of types in "
            "atom_exclude_types; leave the frame out."
        )
    return natoms


@dataclass(frozen=True)
class _Term:
    """A part of the loss, and its derivatives by what the model computes."""

    value: float
    slopes: np.ndarray
    shown: float | None  # the deviation in lcurve.out; None: it has no such column


def _term(
    rate: float,
    prefactor: Prefactor,
    computed: np.ndarray,
    label: np.ndarray | None,
    cost: Callable[[np.ndarray], _Term],
) -> _Term:
    """The prefactor times the mean cost; nothing without labels."""
    if label is None or not prefactor.active:
        return _Term(0.0, np.zeros_like(computed), np.nan if prefactor.active else None)
    term = cost(computed - label.reshape(computed.shape))
    now = prefactor.at(rate)
    return replace(term, value=now * term.value, slopes=now * term.slopes)


def _of_frames(
    penalty: Penalty, deviation: np.ndarray, natoms: np.ndarray, intensive: bool
) -> _Term:
    """The mean cost of deviations (frames, ...)."""
    once = (1 / natoms).reshape(-1, *(1,) * (deviation.ndim - 1))
    scale = np.sqrt(once) if isinstance(penalty, Squared) and not intensive else once
    return _Term(
        value=float(np.mean(penalty.value(scale * deviation))),
        slopes=scale * penalty.slope(scale * deviation) / deviation.size,
        shown=_typical(once * deviation, penalty),
    )


def _of_atoms(
    penalty: Penalty, deviation: np.ndarray, counted: np.ndarray, by_length: bool = False
) -> _Term:
    """The mean cost of deviations (atoms, ...)."""
    kept = deviation[counted]
    size = np.linalg.norm(kept, axis=1, keepdims=True) if by_length else kept
    slopes = np.zeros_like(deviation)
    slopes[counted] = penalty.slope(size) / size.size
    if by_length:  # of no length at all: no direction, and no slope
        slopes[counted] *= np.divide(kept, size, out=np.zeros_like(kept), where=size > 0)
    shown = _typical(size if isinstance(penalty, Absolute) else kept, penalty)
    return _Term(float(np.mean(penalty.value(size))), slopes, shown)


def _typical(deviation: np.ndarray, penalty: Penalty) -> float:
    """Root mean square of deviations, or their mean size where that is what costs."""
    if isinstance(penalty, Absolute):
        return float(np.mean(np.abs(deviation)))
    return float(np.sqrt(np.mean(deviation**2)))
