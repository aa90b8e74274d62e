"""Averages over training data that a model is scaled with: environments, frame and atom parameters.

They are those of DeePMD-kit 3.2.0 for the same frames (its `EnvMatStatSe`, and the fitting net's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .._core import neighbor_list
from ..errors import InputError
from ..importer.config import Model
from .multi_task import MultiTaskModel
from .parameters import TrainableModel

_PROTECTION = 1e-2  # the least standard deviation of environments
_UNSEEN = 1e-1  # that of an element without atoms
_FITTING = "atomic_model.fitting_net."


class Sample(Protocol):
    """A frame of n atoms with what statistics need of it; None for what it hasn't got."""

    @property
    def positions(self) -> np.ndarray:
        """(n, 3) angstrom."""

    @property
    def types(self) -> np.ndarray:
        """(n,) indices of the type map."""

    @property
    def cell(self) -> np.ndarray:
        """(3, 3) angstrom."""

    @property
    def pbc(self) -> np.ndarray:
        """(3,)."""

    @property
    def energy(self) -> float | None:
        """In eV."""

    @property
    def atom_energies(self) -> np.ndarray | None:
        """(n,) eV."""

    @property
    def fparam(self) -> np.ndarray | None:
        """(nfparam,)."""

    @property
    def aparam(self) -> np.ndarray | None:
        """(n, naparam)."""


@dataclass(frozen=True)
class Moments:
    """Sums over entries of several kinds at once; arrays of one shape."""

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    def __mul__(self, weight: float) -> Moments:
        return Moments(self.count * weight, self.total * weight, self.squares * weight)

    def average(self) -> np.ndarray:
        """The mean; 0 where there are no entries."""
        return self.total / np.maximum(self.count, 1e-300)

    def deviation(self, protection: float) -> np.ndarray:
        """The standard deviation, at least `protection`; 0.1 where there are no entries."""
        variance = self.squares / np.maximum(self.count, 1e-300) - self.average() ** 2
        found = np.sqrt(np.clip(variance, 0.0, None))
        found = np.where(found < protection, protection, found)
        return np.where(self.count == 0, _UNSEEN, found)


def set_statistics(model: TrainableModel, frames: Sequence[Sample]) -> None:
    """Set means and standard deviations of environments and parameters from frames of the data.

    Parameters
    ----------
    model
        Its tensors `mean`, `stddev`, `fparam_*` and `aparam_*` are written to. A mean stays zero
        where the configuration has `set_davg_zero` (the default).
    frames
        DeePMD-kit takes the first `data_stat_nbatch` batches of every system.

    Raises
    ------
    InputError
        When there are no frames, or the model takes parameters that a frame does not have.
    """
    _set_environment(model, environment_moments(model.model, frames))
    set_parameter_statistics(model, frames)


def set_parameter_statistics(model: TrainableModel, frames: Sequence[Sample]) -> None:
    """Only those of frame and atom parameters; DeePMD-kit does so, too, when a fine-tuning with a
    new fitting net sets the energy bias. InputError as `set_statistics`."""
    _set_parameters(model, _parameter_moments(model, frames))


def set_shared_statistics(
    model: MultiTaskModel,
    frames: Mapping[str, Sequence[Sample]],
    probabilities: Mapping[str, float],
) -> None:
    """The same for all heads: what heads share has the statistics of all their frames.

    Parameters
    ----------
    model
        The heads.
    frames
        Of each head.
    probabilities
        How often each head is trained. They weigh the fitting nets' parameters; environments are
        added up without weights, as DeePMD-kit does.

    Raises
    ------
    InputError
        As `set_statistics`.
    """
    environments = {h: environment_moments(m.model, frames[h]) for h, m in model.heads.items()}
    parameters = {h: _parameter_moments(m, frames[h]) for h, m in model.heads.items()}
    for head, owner, block in _shared(model, ".mean"):
        environments[owner][block] += environments[head][block]
    for head, owner, kind in _shared(model, "param_avg"):
        weight = probabilities[head] / probabilities[owner]
        parameters[owner][kind] += parameters[head][kind] * weight
    for head, owner, block in _shared(model, ".mean"):
        environments[head][block] = environments[owner][block]
    for head, owner, kind in _shared(model, "param_avg"):
        parameters[head][kind] = parameters[owner][kind]
    for head, one in model.heads.items():
        _set_environment(one, environments[head])
        _set_parameters(one, parameters[head])


def _shared(model: MultiTaskModel, end: str) -> list[tuple[str, str, str]]:
    """Head, owner and block (or kind of parameter) of shared statistics whose names end so."""
    found = []
    for (head, name), (owner, _) in model.links.items():
        if name.endswith(end):
            stem = name.removesuffix("_avg").removesuffix(".mean")
            found.append((head, owner, stem.split(".")[-1]))
    return found


def environment_moments(model: Model, frames: Sequence[Sample]) -> dict[str, Moments]:
    """Sums over the environment matrices, unscaled, of every block with a neighbour list.

    Every one of the `nsel` slots of an atom counts, an empty one as zeros.

    Returns
    -------
    dict
        Name of the block in a checkpoint (`repinit`, `repinit_three_body`, `repformers`,
        `se_atten`) to sums (nt, 2): of the radial entry and of the three others.
    """
    if not frames:
        raise InputError("There are no frames for the statistics; name at least one system.")
    blocks = _blocks(model)
    count = len(model.elements)
    sums = {name: np.zeros((3, count, 2)) for name in blocks}
    largest = max(block.rcut for block in blocks.values())
    for frame in frames:
        types = np.asarray(frame.types)
        pairs = _pairs(frame, largest)
        atoms = np.bincount(types, minlength=count)
        for name, block in blocks.items():
            sums[name] += _frame_sums(model, block, types, pairs, atoms)
    return {name: Moments(*array) for name, array in sums.items()}


# ---- environments


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a frame, by atom and then by distance."""

    atom: np.ndarray
    neighbor: np.ndarray
    vector: np.ndarray
    distance: np.ndarray


def _blocks(model: Model) -> dict[str, Any]:
    descriptor = model.descriptor
    if descriptor.kind != "dpa2":
        return {"se_atten": descriptor.repinit}
    blocks = {"repinit": descriptor.repinit, "repformers": descriptor.repformer}
    if descriptor.three_body is not None:
        blocks["repinit_three_body"] = descriptor.three_body
    return blocks


def _pairs(frame: Sample, rcut: float) -> _Pairs:
    positions = np.ascontiguousarray(frame.positions, dtype=float)
    cell = np.ascontiguousarray(frame.cell, dtype=float)
    first, neighbor, shift = neighbor_list(
        positions, cell, np.asarray(frame.pbc, dtype=np.intc), rcut
    )
    atom = np.repeat(np.arange(len(positions)), np.diff(first))
    vector = positions[neighbor] + shift - positions[atom]
    distance = np.linalg.norm(vector, axis=1)
    order = np.lexsort((distance, atom))
    return _Pairs(atom[order], neighbor[order], vector[order], distance[order])


def _frame_sums(
    model: Model, block: Any, types: np.ndarray, pairs: _Pairs, atoms: np.ndarray
) -> np.ndarray:
    """Count, sum and sum of squares, (3, nt, 2), of one frame."""
    inside = pairs.distance <= block.rcut
    atom, neighbor = pairs.atom[inside], pairs.neighbor[inside]
    first = np.searchsorted(atom, np.arange(len(types)))
    kept = np.arange(len(atom)) - first[atom] < block.nsel  # the nearest have the slots
    kept &= ~_excluded(model, types)[types[atom], types[neighbor]]
    r, vector = pairs.distance[inside][kept], pairs.vector[inside][kept]
    u = np.clip((r - block.rcut_smth) / (block.rcut - block.rcut_smth), 0.0, 1.0)
    switch = 1.0 + u**3 * (-10.0 + 15.0 * u - 6.0 * u**2)
    protected = r + model.descriptor.env_protection
    radial = (switch / protected)[:, None]
    angular = vector * (switch / protected**2)[:, None]
    kind, size = types[atom[kept]], len(atoms)
    sums = np.zeros((3, size, 2))
    for column, entries in enumerate((radial, angular)):
        sums[0, :, column] = atoms * block.nsel * entries.shape[1]
        sums[1, :, column] = np.bincount(kind, entries.sum(axis=1), size)
        sums[2, :, column] = np.bincount(kind, (entries**2).sum(axis=1), size)
    return sums


def _excluded(model: Model, types: np.ndarray) -> np.ndarray:
    """Pairs of elements whose slots are empty or zero, bool (nt, nt)."""
    count = len(model.elements)
    excluded = np.zeros((count, count), dtype=bool)
    for i, j in (*model.pair_exclude, *model.descriptor.exclude):
        excluded[i, j] = excluded[j, i] = True
    return excluded


def _set_environment(model: TrainableModel, moments: Mapping[str, Moments]) -> None:
    config = model.config["descriptor"]
    for name, sums in moments.items():
        where = f"atomic_model.descriptor.{name}"
        section = {"se_atten": config, "repformers": config.get("repformer")}.get(
            name, config.get("repinit")
        )
        if not section.get("set_davg_zero", True):
            mean = model.tensors[f"{where}.mean"]
            mean[...] = 0.0
            mean[..., 0] = sums.average()[:, :1]
        deviation = sums.deviation(_PROTECTION)
        stddev = model.tensors[f"{where}.stddev"]
        stddev[..., 0] = deviation[:, :1]
        stddev[..., 1:] = deviation[:, 1:, None]


# ---- frame and atom parameters


def _parameter_moments(model: TrainableModel, frames: Sequence[Sample]) -> dict[str, Moments]:
    """Sums over frame parameters (`fparam`) and atom parameters (`aparam`), where there are any."""
    fitting = model.model.fitting
    found = {}
    if fitting.nfparam:
        default = fitting.default_fparam
        rows = [default if f.fparam is None else f.fparam for f in frames]
        found["fparam"] = _moments(_given(rows, "fparam"), fitting.nfparam)
    if fitting.naparam:
        found["aparam"] = _moments(_given([f.aparam for f in frames], "aparam"), fitting.naparam)
    return found


def _given(rows: Sequence[Any], name: str) -> list[np.ndarray]:
    for index, row in enumerate(rows):
        if row is None:
            raise InputError(
                f"The model takes {name}, and frame {index} of the statistics has none; give the "
                f"data a file {name}.npy."
            )
    return [np.asarray(row, dtype=float) for row in rows]


def _moments(rows: Sequence[np.ndarray], width: int) -> Moments:
    values = np.concatenate([row.reshape(-1, width) for row in rows])
    return Moments(np.full(width, float(len(values))), values.sum(axis=0), (values**2).sum(axis=0))


def _set_parameters(model: TrainableModel, moments: Mapping[str, Moments]) -> None:
    protection = model.config.get("data_stat_protect", 1e-2)
    for kind, sums in moments.items():
        model.tensors[f"{_FITTING}{kind}_avg"][:] = sums.average()
        model.tensors[f"{_FITTING}{kind}_inv_std"][:] = 1.0 / sums.deviation(protection)
