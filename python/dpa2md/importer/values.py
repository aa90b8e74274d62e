"""Reading values that descriptor and fitting net have in common."""

from __future__ import annotations

import math

from ..errors import UnsupportedModelError
from .keys import Keys

_PRECISIONS = {"float64": "float64", "double": "float64", "default": "float64",
               "float32": "float32", "single": "float32"}  # fmt: skip
_PLAIN_ACTIVATIONS = ("tanh", "relu", "relu6", "softplus", "sigmoid", "silu", "gelu", "linear")
_ACTIVATION_ALIASES = {"none": "linear", "gelu_tf": "gelu"}


def precision(keys: Keys) -> str:
    """ "float64" or "float32"; the model is refused for another precision."""
    name = keys.text("precision", "float64")
    if name not in _PRECISIONS:
        raise UnsupportedModelError(
            f"The model has {keys.name('precision')} = {name!r:.30}; "
            "only float64 and float32 are supported."
        )
    return _PRECISIONS[name]


def activation(keys: Keys, default: str = "tanh") -> str:
    """The activation function's name in a .dpa2 file; the model is refused for an unknown one."""
    given = keys.take("activation_function", default)
    name = "linear" if given is None else str(given).lower()
    name = _ACTIVATION_ALIASES.get(name, name)
    if name in _PLAIN_ACTIVATIONS:
        return name
    family, _, threshold = name.partition(":")
    if family in ("silut", "custom_silu"):
        try:
            value = float(threshold or "3")
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return f"silut:{value!r}"
    raise UnsupportedModelError(
        f"The model has {keys.name('activation_function')} = {given!r:.60}, which is not one of "
        f"{', '.join(_PLAIN_ACTIVATIONS)}, silut:T."
    )
