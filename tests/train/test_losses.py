"""Batches in which some frames have labels that others lack."""

from __future__ import annotations

import numpy as np
import pytest
from dpa2md.train.loss import BatchResults, EnergyLoss, Prefactor
from dpa2md.train.losses import batch_loss
from dpa2md.train.systems import Batch, LabeledFrame

LOSS = EnergyLoss(Prefactor(1.0, 1.0), Prefactor(2.0, 2.0), Prefactor(0.5, 0.5))
NONE = np.zeros(0, dtype=int)


def frame(n: int, seed: int, **missing: None) -> LabeledFrame:
    rng = np.random.default_rng(seed)
    labels = {
        "energy": rng.normal(),
        "forces": rng.normal(size=(n, 3)),
        "virial": rng.normal(size=(3, 3)),
    }
    types = np.zeros(n, dtype=int)
    return LabeledFrame(np.zeros((n, 3)), types, np.zeros((3, 3)), np.zeros(3), **labels | missing)


def results(n: int, frames: int) -> BatchResults:
    rng = np.random.default_rng(9)
    return BatchResults(
        rng.normal(size=n), rng.normal(size=(n, 3)), rng.normal(size=(frames, 3, 3))
    )


@pytest.mark.parametrize("missing", ["energy", "forces", "virial"])
def test_a_frame_without_a_label_has_no_slope(missing):
    whole = [frame(3, 0), frame(2, 1)]
    part = [whole[0], frame(2, 1, **{missing: None})]
    found = results(5, 2)
    full, less = (batch_loss(LOSS, 1.0, found, Batch.of(f), NONE) for f in (whole, part))
    alone = batch_loss(
        LOSS, 1.0, BatchResults(found.energies[:3], found.forces[:3], found.virial[:1]),
        Batch.of(whole[:1]), NONE,
    )  # fmt: skip
    slopes = {"energy": "denergies", "forces": "dforces", "virial": "dvirial"}
    for label, name in slopes.items():
        a, b = getattr(full, name), getattr(less, name)
        ends = (1, 1) if label == "virial" else (3, 3)
        # the frame that has all labels counts as before, the other one not at all
        np.testing.assert_allclose(a[: ends[0]], b[: ends[0]], rtol=1e-14)
        assert np.array_equal(a[ends[0] :], b[ends[0] :]) == (label != missing)
        assert b[ends[0] :].any() == (label != missing)
    short = {"energy": "rmse_e", "forces": "rmse_f", "virial": "rmse_v"}[missing]
    # what is shown is of the frame with a label
    assert less.shown[short] == pytest.approx(alone.shown[short], rel=1e-12)
    assert less.value < full.value


def test_no_labels_at_all():
    found = results(3, 1)
    none = batch_loss(LOSS, 1.0, found, Batch.of([frame(3, 0, virial=None)]), NONE)
    assert np.isnan(none.shown["rmse_v"]) and not none.dvirial.any()
    assert np.isfinite(none.value)


def test_excluded_types_do_not_count():
    one = frame(3, 0)
    types = np.array([0, 1, 0])
    moved = LabeledFrame(
        one.positions, types, one.cell, one.pbc, one.energy, one.forces, one.virial
    )
    found = batch_loss(LOSS, 1.0, results(3, 1), Batch.of([moved]), np.array([1]))
    assert not found.dforces[1].any() and found.dforces[[0, 2]].all()
