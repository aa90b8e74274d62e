"""Exceptions of dpa2md; each message is one sentence that names the thing and the remedy."""

from __future__ import annotations


class ModelError(ValueError):
    """A model file is damaged, malicious, or describes something that dpa2md can't compute."""


class UnsupportedModelError(ModelError):
    """The file is in order, but the model uses a feature outside dpa2md's scope."""


class HeadError(ModelError):
    """A multi-task file needs a head (branch) name, or has no head of the name given."""


class RunError(RuntimeError):
    """A molecular dynamics run can't start or be continued, or has exploded."""


class Explosion(RunError):
    """A molecular dynamics run has exploded: `step` (its number) and `reason` say where and why."""

    def __init__(self, message: str, step: int, reason: str):
        super().__init__(message)
        self.step, self.reason = step, reason


class InputError(ValueError):
    """The input or the data of a training can't be used."""
