"""Molecular dynamics with DeePMD-kit's DPA-2 models through a compiled core, without libtorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import __version__
    from .batch import descriptors, evaluate
    from .calculator import DPA2Calculator
    from .conversion import convert, list_heads
    from .deviation import ModelDeviation, model_deviation
    from .engine import Engine

__all__ = [
    "DPA2Calculator",
    "Engine",
    "ModelDeviation",
    "__version__",
    "convert",
    "descriptors",
    "evaluate",
    "list_heads",
    "model_deviation",
]

_HOMES = {
    "DPA2Calculator": ".calculator",
    "Engine": ".engine",
    "ModelDeviation": ".deviation",
    "__version__": "._core",
    "convert": ".conversion",
    "descriptors": ".batch",
    "evaluate": ".batch",
    "list_heads": ".conversion",
    "model_deviation": ".deviation",
}


def __getattr__(name: str) -> Any:
    """Import what needs ASE or the compiled core at its first use, so that the rest stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dpa2md' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
