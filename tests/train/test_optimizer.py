"""The optimizer's formulas, as its docstring has them, against torch's steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dpa2md.train.optimizer import Adam, Optimizer, clip_factor
from dpa2md.train.schedule import read_schedule

from .reference_cases import OPTIMIZER_SCHEDULE, OPTIMIZERS, OptimizerCase

REFERENCES = np.load(Path(__file__).with_name("references.npz"))


class Moments:
    """One parameter's x, m, v and t."""

    def __init__(self, x: np.ndarray):
        self.x, self.m, self.v, self.t = x, np.zeros_like(x), np.zeros_like(x), 0

    def reference_step(self, settings: Optimizer, gradient: np.ndarray, rate: float) -> None:
        if settings.kind == "AdamW":
            self.x = self.x * (1 - rate * settings.weight_decay)
        else:
            gradient = gradient + settings.weight_decay * self.x
        self.t += 1
        self.m = settings.beta1 * self.m + (1 - settings.beta1) * gradient
        self.v = settings.beta2 * self.v + (1 - settings.beta2) * gradient**2
        m = self.m / (1 - settings.beta1**self.t)
        v = self.v / (1 - settings.beta2**self.t)
        self.x = self.x - rate * m / (np.sqrt(v) + settings.epsilon)


def settings_of(case: OptimizerCase) -> Optimizer:
    keys = {"type": "Adam", "adam_beta1": 0.9, "adam_beta2": 0.999, "weight_decay": 0.0}
    keys |= case.section
    return Optimizer(keys["type"], keys["adam_beta1"], keys["adam_beta2"], keys["weight_decay"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_as_torch(name):
    case = OPTIMIZERS[name]
    settings = settings_of(case)
    schedule = read_schedule(OPTIMIZER_SCHEDULE, case.steps, "learning_rate")
    moments = {key: Moments(x) for key, x in case.start().items()}
    clipped = 0
    for step, gradients in enumerate(case.gradients()):
        length = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
        factor = clip_factor(length, case.max_norm)
        clipped += factor < 1
        for key, gradient in gradients.items():
            moments[key].reference_step(settings, factor * gradient, schedule.rate(step))
            # the same formula in another order
            np.testing.assert_allclose(
                moments[key].x, REFERENCES[f"optimizer/{name}/{key}"][step], rtol=1e-12, atol=1e-13
            )
    # some steps are cut and some are not, or the case would not tell them apart
    assert 0 < clipped < case.steps if case.max_norm else clipped == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_settings_as_deepmd(name):
    """AdamW's default decay is that of DeePMD-kit's conversion of older inputs, which comes first."""
    s = settings_of(OPTIMIZERS[name])
    found = [s.beta1, s.beta2, s.weight_decay, s.epsilon]
    assert found == list(REFERENCES[f"optimizer/{name}/settings"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_adam_takes_these_steps(name):
    """In place and in pieces of a vector, with the formulas above."""
    case = OPTIMIZERS[name]
    settings = settings_of(case)
    schedule = read_schedule(OPTIMIZER_SCHEDULE, case.steps, "learning_rate")
    start = case.start()
    vector = np.concatenate([[7.0], *(x.ravel() for x in start.values()), [8.0]])
    part = slice(1, len(vector) - 1)
    adam = Adam(settings, len(vector))
    for step, gradients in enumerate(case.gradients()):
        gradient = np.concatenate([gradients[key].ravel() for key in start])
        gradient = clip_factor(np.linalg.norm(gradient), case.max_norm) * gradient
        adam.step(vector, part, gradient, schedule.rate(step), step + 1)
        wanted = [REFERENCES[f"optimizer/{name}/{key}"][step].ravel() for key in start]
        np.testing.assert_allclose(vector[part], np.concatenate(wanted), rtol=1e-12, atol=1e-13)
    assert (vector[0], vector[-1]) == (7.0, 8.0)


def test_long_vectors():
    """Longer than what is done at a time: every entry as if it were alone."""
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 40000))
    settings = Optimizer("AdamW", 0.9, 0.999, 0.1)
    one = Moments(x.copy())
    adam = Adam(settings, len(x))
    for count in (1, 2):
        one.reference_step(settings, g, 0.1)
        adam.step(x, slice(0, len(x)), g.copy(), 0.1, count)
    np.testing.assert_allclose(x, one.x, rtol=1e-12, atol=1e-13)


def test_clip_factor():
    assert clip_factor(5.0, 0.0) == 1
    assert clip_factor(0.5, 1.0) == 1
    assert clip_factor(4.0, 1.0) == 1 / (4 + 1e-6)
    assert clip_factor(0.0, 1.0) == 1
