"""Energies of elements that are added to the net's (`out_bias`), by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .parameters import TrainableModel
from .statistics import Sample

_BIAS, _STD = "atomic_model.out_bias", "atomic_model.out_std"


@dataclass(frozen=True)
class EnergyBias:
    """The result of a fit.

    Attributes
    ----------
    bias
        (nt,) eV; what was added when the fit was to differences.
    std
        (nt,) eV; the spread of what the fit left over.
    rmse
        eV/atom, of the frames' energies.
    ambiguous
        The elements whose energies the frames can't tell apart, as those of a single composition:
        the fit takes the smallest energies, which say nothing for another composition. Isolated
        atoms' energies in `preset_out_bias` or other compositions help.
    """

    bias: np.ndarray
    std: np.ndarray
    rmse: float
    ambiguous: list[str]


def set_energy_bias(model: TrainableModel, frames: Sequence[Sample]) -> EnergyBias:
    """Replace the bias by that of the energies themselves, for a new net ("set-by-statistic").

    Atomic energies, where frames have them, count before total ones. Elements with an entry in the
    configuration's `preset_out_bias` have that one. `fitting_net.rcond` and the values in
    `atom_ener` change nothing, as in DeePMD-kit.

    Raises
    ------
    InputError
        When no frame has an energy.
    """
    found = _fit(model, frames, None, _preset(model))
    return _store(model, found, added=False)


def change_energy_bias(
    model: TrainableModel, frames: Sequence[Sample], predicted: Sequence[np.ndarray]
) -> EnergyBias:
    """Add the bias of what the model misses, for a trained net ("change-by-statistic").

    Parameters
    ----------
    model
        The model.
    frames
        Frames with energies.
    predicted
        The model's own atomic energies of each frame, (n,), with its bias, eV.

    Raises
    ------
    InputError
        When no frame has an energy.

    Notes
    -----
    An element of `preset_out_bias` ends with that energy. DeePMD-kit adds it to what there is.
    """
    preset = _preset(model) - model.tensors[_BIAS].ravel()
    return _store(model, _fit(model, frames, predicted, preset), added=True)


def _preset(model: TrainableModel) -> np.ndarray:
    """Energies that are given, NaN for the other elements."""
    elements = model.model.elements
    given = (model.config.get("preset_out_bias") or {}).get("energy") or [None] * len(elements)
    values = [np.nan if value is None else np.ravel(value).astype(float) for value in given]
    if len(values) != len(elements) or any(np.size(value) != 1 for value in values):
        raise InputError(
            "preset_out_bias.energy should have one energy, or null, for each element of the "
            f"type_map ({', '.join(elements)})."
        )
    return np.array([np.ravel(value)[0] for value in values])


def _fit(
    model: TrainableModel,
    frames: Sequence[Sample],
    predicted: Sequence[np.ndarray] | None,
    preset: np.ndarray,
) -> EnergyBias:
    offsets: Sequence[Any] = [0.0] * len(frames) if predicted is None else predicted
    whole = [
        (f.types, f.energy - np.sum(p))
        for f, p in zip(frames, offsets, strict=True)
        if f.energy is not None
    ]
    atomic = [
        (f.types, np.ravel(f.atom_energies) - p)
        for f, p in zip(frames, offsets, strict=True)
        if f.atom_energies is not None
    ]
    if not whole and not atomic:
        raise InputError("No frame has an energy, from which the energies of elements come.")
    count = len(model.model.elements)
    found = EnergyBias(np.zeros(count), np.zeros(count), 0.0, [])
    if whole:
        found = _least_squares(model, whole, preset)
    return _with_atomic(found, atomic, bool(whole)) if atomic else found


def _least_squares(
    model: TrainableModel, whole: Sequence[tuple[np.ndarray, float]], preset: np.ndarray
) -> EnergyBias:
    """Of total energies; the least norm where they leave a choice."""
    elements = model.model.elements
    counts = np.array([np.bincount(t, minlength=len(elements)) for t, _ in whole], dtype=float)
    counts[:, model.model.atom_exclude] = 0.0
    energies = np.array([energy for _, energy in whole])
    atoms = np.array([len(t) for t, _ in whole])
    is_given = ~np.isnan(preset)
    rest = energies - counts[:, is_given] @ preset[is_given]
    free = np.where(is_given, 0.0, counts)
    bias, _, rank, _ = np.linalg.lstsq(free, rest, rcond=None)
    left = rest - free @ bias
    std = np.full(len(elements), left.std())
    bias[is_given] = preset[is_given]
    seen = np.flatnonzero(free.any(axis=0))
    ambiguous = _undetermined(free, seen, elements) if rank < len(seen) else []
    return EnergyBias(bias, std, float(np.sqrt(np.mean((left / atoms) ** 2))), ambiguous)


def _undetermined(counts: np.ndarray, seen: np.ndarray, elements: list[str]) -> list[str]:
    """Elements that have a part in a change of energies which no frame would notice."""
    _, values, directions = np.linalg.svd(counts[:, seen], full_matrices=True)
    rank = int((values > values[0] * 1e-12).sum())
    free = np.abs(directions[rank:]).max(axis=0) > 1e-9
    return [elements[k] for k in seen[free]]


def _with_atomic(
    found: EnergyBias, atomic: Sequence[tuple[np.ndarray, np.ndarray]], has_whole: bool
) -> EnergyBias:
    """Averages of atomic energies, where an element has any, in the place of the fit's."""
    types = np.concatenate([t for t, _ in atomic])
    energies = np.concatenate([energy for _, energy in atomic])
    bias, std = found.bias.copy(), found.std.copy()
    for kind in np.unique(types):
        bias[kind], std[kind] = energies[types == kind].mean(), energies[types == kind].std()
    return EnergyBias(bias, std, found.rmse, found.ambiguous if has_whole else [])


def _store(model: TrainableModel, found: EnergyBias, added: bool) -> EnergyBias:
    bias = model.tensors[_BIAS]
    bias[...] = found.bias.reshape(bias.shape) + (bias if added else 0.0)
    model.tensors[_STD][...] = found.std.reshape(bias.shape)
    return found
