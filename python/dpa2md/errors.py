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


class InputError(ValueError):
    """The input or the data of a training can't be used."""
