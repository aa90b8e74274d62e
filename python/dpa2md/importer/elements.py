"""Keeping some of a model's elements: a smaller file with the same energies for those elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ModelError
from .keys import first_lines

# Which axes of a record count elements.
_AXES = {
    "model.pair_exclude": (0, 1),
    "model.atom_exclude": (0,),
    "descriptor.exclude": (0, 1),
    "type_embedding": (0,),
    "repinit.davg": (0,),
    "repinit.dstd": (0,),
    "repinit.strip_table": (0, 1),
    "three_body.davg": (0,),
    "three_body.dstd": (0,),
    "three_body.strip_table": (0, 1),
    "repformer.davg": (0,),
    "repformer.dstd": (0,),
    "fitting.bias_atom_e": (0,),
    "fitting.out_bias": (0,),
    "fitting.exclude": (0,),
}


def keep_elements(records: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Reduce every array that counts elements to `names`, in their order.

    Raises
    ------
    ModelError
        When no element is named, one is named twice, or one is not in the model.
    """
    known = records["model.elements"].split("\n")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ModelError(
            f"The model has no element {', '.join(unknown)}; it has {first_lines(known, 120)}."
        )
    if not names or len(set(names)) != len(names):
        raise ModelError("--elements should name each element to keep once.")
    indices = [known.index(name) for name in names]
    kept = dict(records)
    for name, axes in _AXES.items():
        if name not in records:
            continue
        array = records[name]
        for axis in axes:
            if not (name == "repinit.strip_table" and axis == 0 and len(array) == 1 < len(known)):
                array = np.take(array, indices, axis=axis)
        kept[name] = np.ascontiguousarray(array)
    kept["model.elements"] = "\n".join(names)
    return kept
