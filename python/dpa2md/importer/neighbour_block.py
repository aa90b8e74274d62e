"""What all blocks of a descriptor share: a neighbour list and the statistics of its environment."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ModelError, UnsupportedModelError
from .weights import Weights

Records = dict[str, Any]


def statistics(block: Any, count: int, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """davg and dstd, (nt, 4), which must be the same in all of the block's slots."""
    statistics = []
    for name in ("mean", "stddev"):
        array = weights.take(name, count, block.nsel, 4)
        if not (array == array[:, :1]).all():
            raise UnsupportedModelError(
                f"The model's statistics {name!r} differ between neighbour slots, as no trained "
                "DPA-2 model's do; refused."
            )
        statistics.append(array[:, 0].copy())
    davg, dstd = statistics
    if not (dstd > 0).all():
        raise ModelError("The model's statistics 'stddev' are not positive; the file is damaged.")
    return davg, dstd


def list_records(name: str, block: Any, davg: np.ndarray, dstd: np.ndarray) -> Records:
    """What every block with a neighbour list has."""
    return {
        f"{name}.rcut": block.rcut,
        f"{name}.rcut_smth": block.rcut_smth,
        f"{name}.nsel": block.nsel,
        f"{name}.activation": block.activation,
        f"{name}.davg": davg,
        f"{name}.dstd": dstd,
    }
