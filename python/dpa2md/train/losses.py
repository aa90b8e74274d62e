"""The loss of a batch of frames, whatever labels they have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .loss import BatchLabels, BatchResults, EnergyLoss, LossResult
from .systems import Batch, Label


def batch_loss(
    loss: EnergyLoss, rate: float, results: BatchResults, batch: Batch, excluded: np.ndarray
) -> LossResult:
    """The loss, and its derivatives by the results.

    A frame without a label counts as exact, so that each frame has the same weight in any batch;
    the deviations that are shown are those of the frames with one.

    Parameters
    ----------
    rate
        The learning rate as part of the rate that training starts with.
    excluded
        Types whose atoms have no energy of the net.
    """
    computed = {
        "e": (batch.energy, results.energies),
        "f": (batch.forces, results.forces),
        "v": (batch.virial, results.virial),
        "ae": (batch.atom_energies, results.energies),
    }
    frame_of = np.repeat(np.arange(len(batch)), batch.natoms)
    if not batch.energy.known.all():
        computed["e"] = batch.energy, np.bincount(frame_of, results.energies, len(batch))
    found = loss.evaluate(
        rate,
        results,
        BatchLabels(
            natoms=batch.natoms,
            energy=_filled(*computed["e"], frame_of),
            forces=_filled(*computed["f"], frame_of),
            virial=_filled(*computed["v"], frame_of),
            energies=_filled(*computed["ae"], frame_of),
            counted=~np.isin(batch.types, excluded) if len(excluded) else None,
        ),
    )
    shown = dict(found.shown)
    for name, (label, _) in computed.items():
        if label.known.any() and not label.known.all():
            part = label.known[frame_of].mean() if name in ("f", "ae") else label.known.mean()
            for kind, power in (("rmse", 0.5), ("mae", 1.0)):
                if f"{kind}_{name}" in shown:
                    shown[f"{kind}_{name}"] /= part**power
    return replace(found, shown=shown)


def _filled(label: Label, computed: np.ndarray, frame_of: np.ndarray) -> np.ndarray | None:
    """The values; what is computed where a frame has none; None where no frame has any."""
    if label.known.all():
        return label.values
    if not label.known.any():
        return None
    known = label.known if len(label.values) == len(label.known) else label.known[frame_of]
    return np.where(known.reshape(-1, *(1,) * (label.values.ndim - 1)), label.values, computed)
