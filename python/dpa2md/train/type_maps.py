"""A pretrained model with another type map: cut, in another order, or with new elements.

Numbers go where DeePMD-kit's `change_type_map` puts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..importer.config import read_config
from ..importer.nets import skip_kind
from .initial import new_embedding
from .parameters import TrainableModel

_EMBEDDING = "atomic_model.descriptor.type_embedding.embedding.embedding_net.layers.0.matrix"
_BY_TYPE = {"mean": 0, "stddev": 0, "bias_atom_e": 0, "out_bias": 1, "out_std": 1}  # axes
_ONE = ("stddev", "out_std")  # what new elements have, 0 in the others
_STATISTICS = ("mean", "stddev")


def is_statistic(name: str) -> bool:
    """Whether the tensor has means or deviations of environments, (nt, nsel, 4)."""
    return name.split(".")[-1] in _STATISTICS


def with_elements(
    model: TrainableModel, elements: Sequence[str], seed: int, head: str = ""
) -> dict[str, np.ndarray]:
    """All tensors of a model for another type map.

    Parameters
    ----------
    model
        The model.
    elements
        The new type map. Elements that the model lacks get a random row of the type embedding, no
        energy, and statistics that scale nothing.
    seed, head
        Choose the random rows, as in `initial_tensors`.

    Returns
    -------
    dict
        Name to float64 array, new.
    """
    old = model.model.elements
    if list(elements) == old:  # not even rounded
        return {name: array.copy() for name, array in model.tensors.items()}
    known = [k for k, name in enumerate(elements) if name in old]
    places = [old.index(elements[k]) for k in known]
    moved = {}
    for name, array in model.tensors.items():
        axis = _BY_TYPE.get(name.split(".")[-1])
        if axis is not None:
            shape = [len(elements) if k == axis else n for k, n in enumerate(array.shape)]
            out = np.full(shape, float(name.endswith(_ONE)))
            np.moveaxis(out, axis, 0)[known] = np.moveaxis(array, axis, 0)[places]
            moved[name] = out
        elif name == _EMBEDDING and not model.model.descriptor.use_econf_tebd:
            rows = [new_embedding(seed, head, element, array.shape[1]) for element in elements]
            moved[name] = _embedding(array, rows, known, places)
        else:
            moved[name] = array.copy()
    return moved


def _embedding(
    matrix: np.ndarray, rows: list[np.ndarray], known: list[int], places: list[int]
) -> np.ndarray:
    """The layer's matrix (nt, dim). A layer that adds its input has the identity beside it."""
    rows = list(rows)
    whole = matrix + _identity(*matrix.shape)
    for k, place in zip(known, places, strict=True):
        rows[k] = whole[place]
    return np.array(rows) - _identity(len(rows), matrix.shape[1])


def _identity(inputs: int, outputs: int) -> np.ndarray | float:
    copies = skip_kind(inputs, outputs)
    return np.tile(np.eye(inputs), copies) if copies else 0.0


def config_with_elements(config: Mapping[str, Any], elements: Sequence[str]) -> dict[str, Any]:
    """The configuration of a model for another type map.

    What is listed by type keeps its elements; exclusions and energies of elements that are left out
    go. `fitting_net.atom_ener` stays: only whether it has an entry changes the model.

    Raises
    ------
    ModelError
        When the configuration is that of no model.
    """
    old = read_config(dict(config)).elements
    places = {old.index(name): k for k, name in enumerate(elements) if name in old}
    out = dict(config) | {"type_map": list(elements)}
    for key, change in (("pair_exclude_types", _pairs), ("atom_exclude_types", _types)):
        if key in out:
            out[key] = change(out[key], places)
    for part, change in (("descriptor", _pairs), ("fitting_net", _types)):
        if part not in out:
            continue
        section = out[part] = dict(out[part])
        if section.get("exclude_types"):
            section["exclude_types"] = change(section["exclude_types"], places)
        section |= {
            key: value
            for key, value in (("ntypes", len(elements)), ("type_map", list(elements)))
            if section.get(key) is not None
        }
    preset = out.get("preset_out_bias")
    if isinstance(preset, dict):
        out["preset_out_bias"] = {
            name: _values(row, places, len(old), len(elements)) for name, row in preset.items()
        }
    return out


def _types(types: Sequence[int] | None, places: Mapping[int, int]) -> list[Any]:
    return [places[k] for k in types or () if k in places]


def _pairs(pairs: Sequence[Sequence[int]] | None, places: Mapping[int, int]) -> list[Any]:
    return [[places[i], places[j]] for i, j in pairs or () if i in places and j in places]


def _values(row: Any, places: Mapping[int, int], count: int, new_count: int) -> Any:
    """An entry for each element, null for new ones; what is no such list is refused elsewhere."""
    if not isinstance(row, list) or len(row) != count:
        return row
    out: list[Any] = [None] * new_count
    for old, new in places.items():
        out[new] = row[old]
    return out
