"""Learning rates of whole trainings against DeePMD-kit's, and sentences of what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dpa2md.errors import InputError
from dpa2md.train.schedule import read_schedule

from .reference_cases import SCHEDULES

REFERENCES = np.load(Path(__file__).with_name("references.npz"))


@pytest.mark.parametrize("name", SCHEDULES)
def test_as_deepmd(name):
    section, steps = SCHEDULES[name]
    schedule = read_schedule(section, steps, "learning_rate")
    rates = [schedule.rate(step) for step in range(steps)]
    # the same formulas; a power of a factor that is rounded once loses some hundred roundings
    np.testing.assert_allclose(rates, REFERENCES[f"rate/{name}"], rtol=1e-13)
    assert schedule.start == section["start_lr"]


def test_references_are_schedules():
    """They differ, warm up and come down."""
    found = {key for key in REFERENCES if key.startswith("rate/")}
    assert found == {f"rate/{name}" for name in SCHEDULES}
    assert REFERENCES["rate/cosine_warmup"][0] == 0
    assert len(np.unique(REFERENCES["rate/exp"])) == 20
    assert len(np.unique(REFERENCES["rate/exp_smooth"])) == 200


@pytest.mark.parametrize(
    "section, words",
    [
        ({}, "lacks start_lr"),
        ({"start_lr": 0}, "start_lr = 0"),
        ({"start_lr": "1e-3"}, "start_lr"),
        ({"start_lr": 1e-3, "type": "step"}, "type = 'step' is not supported"),
        ({"start_lr": 1e-3, "type": ["exp"]}, "type = ['exp'] is not supported"),
        ({"start_lr": 1e-3, "stop_lr": 1e-5, "stop_lr_ratio": 0.1}, "stop_lr and stop_lr_ratio"),
        ({"start_lr": 1e-3, "stop_lr": -1e-5}, "stop_lr = -1e-05"),
        ({"start_lr": 1e-3, "warmup_steps": 3, "warmup_ratio": 0.1}, "warmup_steps and warmup_"),
        ({"start_lr": 1e-3, "warmup_steps": 100}, "a warmup of 100 steps"),
        ({"start_lr": 1e-3, "decay_steps": 0}, "decay_steps = 0"),
        ({"start_lr": 1e-3, "decay_rate": 1.1}, "decay_rate = 1.1"),
        ({"start_lr": 1e-3, "type": "cosine", "decay_steps": 9}, "learning_rate.decay_steps"),
        ({"start_lr": 1e-3, "type": "wsd", "stop_lr": 0}, "wsd"),
        ({"start_lr": 1e-3, "type": "wsd", "decay_phase_ratio": 0}, "decay_phase_ratio = 0"),
        ({"start_lr": 1e-3, "type": "wsd", "decay_type": "exp"}, "decay_type = 'exp'"),
    ],
)
def test_refused(section, words):
    with pytest.raises(InputError) as error:
        read_schedule(section, 100, "learning_rate")
    assert words in str(error.value) and str(error.value).count(". ") == 0
