"""Files of DeePMD-kit's exportable PyTorch backend (`dp --pt-expt`): their names, and which lists they mean.

That backend evaluates a model over all neighbours within a cutoff (its graph route) wherever it can, and else
over the nearest `sel` of them, as the other backends always do. Which of the two a file means shows in its
metadata, or, of a checkpoint, in its configuration and one switch among its tensors.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import ModelError, UnsupportedModelError
from .config import Model
from .old_files import Tensors

_DESCRIPTOR = "atomic_model.descriptor."
_DENSE = _DESCRIPTOR + "graph_lower_disabled"
# A compiled training run wraps the model, and keeps copies of its tensors beside it.
_COPIES = re.compile(r"compiled_forward_lower\.|.*\._task_|_task_")
_RENAMED = (
    (re.compile(r"^original_model\."), ""),
    (re.compile(r"\._module_networks\."), ".networks."),
    (re.compile(r"\.embeddings(_strip)?\."), r".filter_layers\1."),
    (re.compile(r"^atomic_model\.fitting_net\.nets\."), "atomic_model.fitting_net.filter_layers."),
    (re.compile(r"\.type_embedding\.embedding_net\."), ".type_embedding.embedding.embedding_net."),
    (re.compile(r"\.w$"), ".matrix"),
    (re.compile(r"\.b$"), ".bias"),
)
_KINDS = {"nlist": False, "graph": True, "dpa1_canonical": True}  # of a metadata.json


def is_exportable(tensors: Tensors) -> bool:
    """Whether the tensors of one head are named as that backend names them."""
    return any("_module_networks." in name for name in tensors)


def in_common_names(tensors: Tensors) -> Tensors:
    """The tensors of one head under the names that the PyTorch backend gives them."""
    named = {}
    for name, tensor in tensors.items():
        if _COPIES.match(name) or name.endswith(_DENSE):
            continue
        for pattern, ours in _RENAMED:
            name = pattern.sub(ours, name)
        named[name] = tensor
    return named


def takes_all_neighbors(config: dict[str, Any], tensors: Tensors) -> bool:
    """Whether that backend evaluates a checkpoint over all neighbours within the cutoff.

    Raises
    ------
    ModelError
        When the switch that decides it has an impossible form.
    """
    for name in (_DENSE, "original_model." + _DENSE):  # absent in files from before it
        if name in tensors:
            switch = tensors[name]
            array = switch.numpy() if hasattr(switch, "numpy") else switch
            if array.shape != ():
                raise ModelError(f"The tensor {name!r} is no single switch; the file is damaged.")
            if array != 0:
                return False
    descriptor = config.get("descriptor")
    if not isinstance(descriptor, dict) or descriptor.get("type") != "dpa2":
        return True
    blocks = [descriptor.get(name) for name in ("repinit", "repformer")]
    return all(
        isinstance(block, dict)
        and block.get("use_three_body", False) is False
        and block.get("set_davg_zero", True) is True
        for block in blocks
    )


def exported_for_all_neighbors(metadata: Any) -> bool:
    """The same of a `.pte` or `.pt2` file, by its metadata.json (None: a file without).

    Raises
    ------
    ModelError
        When the metadata is no dictionary.
    UnsupportedModelError
        When it names a kind of neighbour list that dpa2md doesn't know.
    """
    if metadata is None:
        return False
    if not isinstance(metadata, dict):
        raise ModelError("The file's metadata.json is no dictionary; the file is damaged.")
    kind = metadata.get("lower_input_kind", "nlist")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UnsupportedModelError(
            f"The file was exported for the neighbour lists {kind!r:.40}, which dpa2md doesn't know; "
            "convert the checkpoint that it was made from."
        )
    return _KINDS[kind]


def refuse_cut_exclusions(model: Model) -> None:
    """Refuse a model whose excluded pairs that backend does not let use up slots of the shorter lists.

    It takes them out of the nearest `sel` of repinit and closes the gaps before it cuts the lists of three-body terms
    and repformers; the other backends, like dpa2md, leave the gaps.
    """
    if model.pair_exclude and model.descriptor.kind == "dpa2":
        raise UnsupportedModelError(
            "The model has pair_exclude_types, with which DeePMD-kit's exportable backend (--pt-expt) cuts full lists "
            "in a way that dpa2md does not; convert it with --all-neighbors, where no list is cut."
        )
