"""Which golden models get which type map, and what of their tensors is kept."""

from __future__ import annotations

import numpy as np

# Cuts, permutations, and elements that the model lacks; widths of the type embedding that are the
# number of elements or twice that, before or after, add the identity.
TYPE_MAPS = {
    "medium": ["H", "O"],
    "five_elements": ["Fe", "H", "Cl", "O"],
    "all_118_elements": ["O", "H", "U"],
    "identity_tebd_skip": ["Cl", "O"],
    "tebd_8_of_4": ["Na", "Cl", "O", "K", "H"],
    "tebd_8_of_8": ["La", "O", "H", "Fe"],
    "tebd_8_of_2": ["H", "O", "Na", "Cl"],
    "electron_configuration_4": ["Na", "K", "O"],
    "davg_strip": ["H", "C", "O"],
    "davg_repformer": ["C", "H", "O"],
    "three_body_strip_skips": ["H", "O", "C"],
    "tebd_bias_strip": ["Na", "Li", "H"],
    "dpa1_davg": ["C", "H", "O", "N"],
    "se_atten_v2_econf": ["Cl", "Br", "Na"],
}
_KINDS = ("mean", "stddev", "out_bias", "out_std", "bias_atom_e")
EMBEDDING = "type_embedding.embedding.embedding_net.layers.0.matrix"


def is_by_element(name: str) -> bool:
    """Whether a tensor depends on the type map."""
    return name.endswith((*_KINDS, EMBEDDING)) and "._networks." not in name


def short(name: str, array: np.ndarray) -> np.ndarray:
    """Statistics (nt, nsel, 4) are equal over the slots; the first is kept."""
    return array[:, :1] if name.endswith(("mean", "stddev")) else array
