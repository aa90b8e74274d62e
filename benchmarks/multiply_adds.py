"""The multiply-adds of a step, stage by stage, from a model's dimensions and a structure's real neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
from ase import Atoms
from dpa2md import _core
from dpa2md.model_file import Record

TABLE_ROWS = 6  # a table's numbers for a place and channel: value and two slopes at both ends

Records = Mapping[str, Record]
Counts = Mapping[str, np.ndarray]  # block -> (natoms,) neighbours


def multiply_adds(model: Records, near: Counts) -> dict[str, float]:
    """Multiply-adds of the matrix products of every stage, an atom and step with forces.

    A matrix product is a sum over channels or neighbours whose result is a matrix: (m, k) times (k, n) counts m n k.
    Counted is what the CPU backend does, with the real neighbours of each atom (vectors are filled up with more):
    weights folded (the g2 attention has one matrix a head for query and key, and one for value and output), the
    embeddings of repinit and three-body from tables, g2 and its product with conv's weight from a table, too, in
    the layers where they see nothing but the distance (`radial_layers`), no g2 update in the last layer, and the
    reverse sweep with what it computes again: the attention's map and what its layer norm reads (but not in the last
    pair step, whose reverse follows at once), linear2, the moments of grrg and drrd, the queries of the g1 attention.

    Not counted: what goes element by element (softmax, activations, gates, the sum of conv over g2's channels), sums
    of one row, tables, products of an environment vector with one weight.

    Parameters
    ----------
    model
        The records of a .dpa2 file.
    near
        For the blocks "repinit" and "repformer" the number of neighbours of every atom, (natoms,).

    Returns
    -------
    dict
        By the engine's names of the stages; those without matrix products are missing.
    """
    counted = repinit_products(model, near["repinit"])
    if model["model.kind"] == "dpa2":
        if "g1_transform" in model:
            counted["g1_transform"] = counted["g1_transform_backward"] = model["g1_transform"].size
        f = repformer(model)
        radial = radial_layers(f)
        for layer in range(f.nlayers):
            linear1 = model[f"repformer.{layer}.linear1.w"].size
            steps = {"node_step": node_products(f, linear1, near["repformer"], layer < radial)}
            if layer + 1 < f.nlayers and radial < f.nlayers:
                turns = layer + 2 == f.nlayers and not f.has_g1g1
                steps["pair_step"] = pair_products(f, near["repformer"], turns)
            for stage, (forward, backward) in steps.items():
                counted[stage] = counted.get(stage, 0) + forward
                counted[f"{stage}_backward"] = counted.get(f"{stage}_backward", 0) + backward
    counted["fitting"] = fitting_products(model)
    return {stage: float(np.mean(count)) for stage, count in counted.items()}


def embedding_width(model: Records, block: str) -> int:
    """Channels of the embedding of `repinit` or `three_body`."""
    if f"{block}.table" in model:
        return model[f"{block}.table"].shape[1] // TABLE_ROWS
    return model[f"{block}.net.{model[f'{block}.net.layers'] - 1}.w"].shape[1]


def repinit_products(model: Records, n: np.ndarray) -> dict[str, np.ndarray]:
    """M = em^T g of n neighbours, D = M^T M of the axis columns."""
    width = embedding_width(model, "repinit")
    moments, matrix = 4 * width * n, 4 * width * model["repinit.axis"]
    return {"repinit": moments + matrix, "repinit_backward": 2 * moments + 2 * matrix}


def repformer(model: Records) -> SimpleNamespace:
    """The dimensions and switches of the repformers."""
    prefix = "repformer."
    numbers = {k: v for k, v in model.items() if k.startswith(prefix) and isinstance(v, int)}
    return SimpleNamespace(**{k.removeprefix(prefix): v for k, v in numbers.items()})


def radial_layers(f: SimpleNamespace) -> int:
    """How many layers have a g2 that is a function of the distance and enters g1 by a table."""
    if f.nlayers == 0 or not f.has_conv or not f.g1_out_conv or f.has_g1_attn:
        return 0
    return 1 if f.has_g2_attn or f.has_g1g1 or f.update_h2 else f.nlayers


def node_products(
    f: SimpleNamespace, linear1: int, n: np.ndarray, radial: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Forward and backward of a layer's g1 update; `linear1`: size of its weight."""
    forward = backward = linear1 + f.g1_out_mlp * f.g1_dim**2 + 0 * n
    if f.has_conv and not radial:
        product = n * f.g1_dim * f.g2_dim  # (g2 sw)^T gg1, or a gradient of it
        forward, backward = forward + product, backward + 2 * product
    for width, present in ((f.g2_dim, f.has_grrg), (f.g1_dim, f.has_drrd)):
        moments, symmetric = 3 * width * n, 3 * f.axis * width
        forward = forward + present * (moments + symmetric)
        backward = backward + present * (3 * moments + 2 * symmetric)
    if f.has_g1_attn:
        dense, product = f.attn1_nhead * f.g1_dim**2, f.attn1_nhead * f.g1_dim * n
        forward = forward + 2 * dense + 2 * product  # query, value; logits, weighted sum
        backward = backward + 3 * dense + 5 * product
    return forward, backward


def pair_products(f: SimpleNamespace, n: np.ndarray, turns: bool) -> tuple[np.ndarray, np.ndarray]:
    """Forward and backward of a layer's g2 and h2 update; `turns`: one right after the other."""
    linear2, g1g1 = n * f.g2_dim**2, f.has_g1g1 * n * f.g1_dim * f.g2_dim
    forward, backward = linear2 + g1g1, 2 * linear2 + g1g1
    if not (f.has_g2_attn or f.update_h2):
        return forward, backward
    dense, product = f.attn2_nhead * n * f.g2_dim**2, f.attn2_nhead * n**2 * f.g2_dim
    gate = 3 * n**2  # h2 h2^T
    forward = forward + gate + dense + product  # query, logits
    backward = backward + gate + dense + product + 2 * gate + dense + 2 * product
    if f.has_g2_attn:
        forward = forward + product + dense  # map times g2, times value
        backward = backward + product + dense + dense + 2 * product
        if turns:
            backward = backward - gate - 2 * (dense + product)
    if f.update_h2:
        forward, backward = (
            forward + f.attn2_nhead * 3 * n**2,
            backward + f.attn2_nhead * 6 * n**2,
        )
    return forward, backward


def fitting_products(model: Records) -> float:
    """Both ways; the gradient of the first layer's input stops at what depends on positions."""
    sizes = [model[f"fitting.net.{k}.w"].shape for k in range(model["fitting.net.layers"])]
    if model["model.kind"] == "dpa2":
        width = model["repformer.g1_dim"]
    else:
        width = embedding_width(model, "repinit") * model["repinit.axis"]
    forward = sum(rows * columns for rows, columns in sizes)
    backward = forward - (sizes[0][0] - width) * sizes[0][1]
    return forward * (1 + model["fitting.vacuum"]) + backward


def lookups(model: Records, near: Counts, itemsize: int) -> dict[str, float]:
    """Bytes an atom that stages read from tables."""
    read = {}
    if model["model.kind"] == "dpa2":
        f = repformer(model)
        row = TABLE_ROWS * (f.g1_dim + f.g2_dim) * itemsize
        read["node_step"] = radial_layers(f) * near["repformer"] * row
        read["node_step_backward"] = read["node_step"]
    pairs = {"repinit": near["repinit"]}
    if "three_body" in near:
        pairs["three_body"] = near["three_body"] * (near["three_body"] + 1) / 2
    for block, count in pairs.items():
        row = TABLE_ROWS * embedding_width(model, block) * itemsize
        read[block] = read[f"{block}_backward"] = count * row
    return {stage: float(np.mean(count)) for stage, count in read.items()}


def neighbors(model: Records, atoms: Atoms) -> dict[str, np.ndarray]:
    """How many neighbours each atom has in each block, but for excluded pairs of types."""
    found = {}
    for block in ("repinit", "three_body", "repformer"):
        if f"{block}.nsel" in model:
            rcut, nsel = model[f"{block}.rcut"], model[f"{block}.nsel"]
            first = _core.neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, rcut)[0]
            found[block] = np.minimum(np.diff(first), nsel).astype(float)
    return found
