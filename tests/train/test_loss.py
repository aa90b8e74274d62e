"""Losses and their derivatives: DeePMD-kit's numbers, finite differences, sentences of what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from dpa2md.errors import InputError
from dpa2md.train.loss import BatchLabels, BatchResults, EnergyLoss, LossResult, Prefactor
from dpa2md.train.loss_settings import read_loss
from dpa2md.train.penalty import Huber

from .reference_cases import BATCHES, LOSSES, Batch

REFERENCES = np.load(Path(__file__).with_name("references.npz"))
ROUNDING = 1e-12  # both sides add up some hundred numbers in float64
EVALUATED = [(name, batch) for name, case in LOSSES.items() for batch in case.batches]
FIELDS = {"energy": "energy", "force": "forces", "virial": "virial", "atom_ener": "energies"}


def results_of(batch: Batch) -> BatchResults:
    real = batch.types >= 0
    return BatchResults(batch.atom_energy[real], batch.force[real], batch.virial)


def labels_of(batch: Batch, missing: tuple[str, ...] = ()) -> BatchLabels:
    """Without padding; numbers of atoms come one after another."""
    real = batch.types >= 0
    found = {
        field: batch.labels[key] if key in ("energy", "virial") else batch.labels[key][real]
        for key, field in FIELDS.items()
        if key not in missing
    }
    return BatchLabels(natoms=real.sum(1), counted=batch.counted[real] == 1, **found)


def evaluate(name: str, batch: str) -> LossResult:
    case = LOSSES[name]
    loss = read_loss(case.section, "loss")
    return loss.evaluate(
        case.rate, results_of(BATCHES[batch]), labels_of(BATCHES[batch], case.missing)
    )


@pytest.mark.parametrize("name, batch", EVALUATED)
def test_as_deepmd(name, batch):
    """Value, derivatives, and what lcurve.out shows; atoms that pad a frame have no derivative there."""
    found = evaluate(name, batch)
    expected = {key: REFERENCES[f"loss/{name}/{batch}/{key}"] for key in ("value", "dvirial")}
    real = BATCHES[batch].types >= 0
    for key in ("datom_energy", "dforce"):
        padded = REFERENCES[f"loss/{name}/{batch}/{key}"]
        # the energy of a frame sums up its padding, too; models give 0 there
        assert key == "datom_energy" or not padded[~real].any()
        expected[key] = padded[real]
    np.testing.assert_allclose(found.value, expected["value"], rtol=ROUNDING)
    for key, derivative in {
        "datom_energy": found.denergies,
        "dforce": found.dforces,
        "dvirial": found.dvirial,
    }.items():
        # a derivative is the difference of numbers of the size of 3 with rounding of their last digit
        np.testing.assert_allclose(derivative, expected[key], rtol=1e-10, atol=1e-13, err_msg=key)


@pytest.mark.parametrize("name, batch", EVALUATED)
def test_shown_as_deepmd(name, batch):
    """The columns of lcurve.out: the same names, nan where labels are missing."""
    start = f"loss/{name}/{batch}/shown/"
    expected = {k.removeprefix(start): REFERENCES[k] for k in REFERENCES if k.startswith(start)}
    shown = evaluate(name, batch).shown
    assert set(shown) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(shown[key], value, rtol=1e-10, err_msg=key)


def test_references_cover_every_case():
    """Every term is in some case with and without labels, and no reference is left over."""
    found = {tuple(key.split("/")[1:3]) for key in REFERENCES if key.startswith("loss/")}
    assert found == set(EVALUATED)
    names = {key.rsplit("/", 1)[1] for key in REFERENCES if "/shown/" in key}
    expected = {f"{kind}_{term}" for kind in ("rmse", "mae") for term in ("e", "f", "v", "ae")}
    assert names == expected | {"rmse"}


@pytest.mark.parametrize(
    "name", ["all", "intensive", "huber_lengths", "huber_deltas", "mae_lengths"]
)
def test_derivatives_by_differences(name):
    """Along a random direction in all that a model computes."""
    batch, case = BATCHES["mixed_excluded"], LOSSES[name]
    loss, labels, results = read_loss(case.section, "loss"), labels_of(batch), results_of(batch)
    rng = np.random.default_rng(1)
    direction = {key: rng.normal(size=x.shape) for key, x in vars(results).items()}
    # the atom whose force deviates by nothing sits in the kink of a length
    direction["forces"][1] = 0
    step = 1e-6
    values = [
        loss.evaluate(
            case.rate,
            BatchResults(**{k: x + sign * step * direction[k] for k, x in vars(results).items()}),
            labels,
        ).value
        for sign in (1, -1)
    ]
    found = loss.evaluate(case.rate, results, labels)
    slope = (
        np.sum(found.denergies * direction["energies"])
        + np.sum(found.dforces * direction["forces"])
        + np.sum(found.dvirial * direction["virial"])
    )
    # rounding of values of the size of 1, divided by the step: 1e-10; slopes are some tens
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-8)


def test_excluded_atoms_do_not_count():
    """Neither their forces nor their number."""
    batch = BATCHES["excluded"]
    labels = labels_of(batch)
    counted = labels.counted
    assert 0 < np.count_nonzero(~counted)
    results = results_of(batch)
    forces = np.where(counted[:, None], results.forces, 1e3)
    loss = EnergyLoss()
    found = loss.evaluate(0.3, dataclasses.replace(results, forces=forces), labels)
    assert found.value == loss.evaluate(0.3, results, labels).value
    assert not found.dforces[~counted].any() and found.dforces[counted].any()


def test_a_frame_of_excluded_atoms_is_refused():
    labels = labels_of(BATCHES["mixed"])
    counted = np.repeat(np.arange(4) != 2, labels.natoms)
    with pytest.raises(InputError, match="frame 2 of a batch"):
        EnergyLoss().evaluate(
            1.0, results_of(BATCHES["mixed"]), dataclasses.replace(labels, counted=counted)
        )


def test_prefactor():
    prefactor = Prefactor(1000.0, 1.0)
    assert [prefactor.at(rate) for rate in (1.0, 0.5, 0.0)] == [1000.0, 500.5, 1.0]


def test_read():
    loss = read_loss({"huber_delta": [1, 2, 3], "use_huber": True, "start_pref_pf": 1.0}, "loss")
    assert loss == EnergyLoss(
        energy_penalty=Huber(1), force_penalty=Huber(2), virial_penalty=Huber(3)
    )


@pytest.mark.parametrize(
    "section, words",
    [
        ({"type": "ener_spin"}, "loss.type = 'ener_spin' is not supported"),
        ({"start_pref_pf": 1, "limit_pref_pf": 1}, "start_pref_pf and limit_pref_pf are not"),
        ({"start_pref_gf": 1, "limit_pref_gf": 1}, "generalized forces"),
        ({"limit_pref_h": 1}, "Hessians"),
        ({"relative_f": 1.0}, "relative_f"),
        ({"enable_atom_ener_coeff": True}, "enable_atom_ener_coeff"),
        ({"loss_func": "rmse"}, "loss.loss_func = 'rmse'"),
        ({"f_use_norm": True}, "f_use_norm needs"),
        ({"use_huber": True, "huber_delta": [1, 2]}, "huber_delta"),
        ({"use_huber": True, "huber_delta": [1, 2, None]}, "huber_delta"),
        ({"start_pref_e": "1"}, "start_pref_e"),
        ({"start_pref_f": -1}, "start_pref_f"),
        ({"start_pref_x": 1}, "start_pref_x"),
        ({"start_pref_e": 0, "limit_pref_f": 0}, "no term"),
    ],
)
def test_refused(section, words):
    with pytest.raises(InputError) as error:
        read_loss(section, "loss")
    assert words in str(error.value) and str(error.value).count(". ") == 0
