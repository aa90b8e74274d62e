"""From settings and tensors to the records of docs/model-format.md, section by section."""

from __future__ import annotations

import numpy as np

from ..errors import ModelError, UnsupportedModelError
from .config import Fitting, Model
from .descriptor_config import Descriptor, EmbeddingBlock
from .neighbour_block import Records, list_records, statistics
from .nets import Layer, evaluate, skip_kind
from .repformer_records import repformer_records
from .tables import strip_nets, take_layers, type_inputs, type_layers
from .weights import Weights


def build_records(model: Model, weights: Weights, all_neighbors: bool = False) -> Records:
    """All records of a model but `meta.*`; `all_neighbors` when DeePMD-kit evaluates it by its graph route.

    Raises
    ------
    ModelError
        When a tensor is missing, has a wrong shape, or is one too many.
    """
    count = len(model.elements)
    atomic = weights.scope("atomic_model")
    descriptor, fitting = model.descriptor, model.fitting
    records: Records = {
        "model.kind": descriptor.kind,
        "model.elements": "\n".join(model.elements),
        "model.precision": descriptor.precision,
        "model.fitting_precision": fitting.precision,
    }
    if all_neighbors:
        records["model.all_neighbors"] = 1
    if model.pair_exclude:
        records["model.pair_exclude"] = _pair_matrix(model.pair_exclude, count)
    if model.atom_exclude:
        records["model.atom_exclude"] = _type_mask(model.atom_exclude, count)
    weights_d = atomic.scope("descriptor", descriptor.precision)
    records |= _descriptor_records(descriptor, model.elements, weights_d, all_neighbors)
    width = descriptor.repformer.g1_dim if descriptor.repformer else _axis_width(descriptor.repinit)
    width += descriptor.tebd_dim if descriptor.concat_tebd else 0
    weights_f = atomic.scope("fitting_net", fitting.precision)
    records |= _fitting_records(fitting, width, count, weights_f)
    records["fitting.out_bias"] = atomic.take("out_bias", 1, count, 1).reshape(count)
    weights.finish()
    return records


def _pair_matrix(pairs: list[tuple[int, int]], count: int) -> np.ndarray:
    matrix = np.zeros((count, count), dtype=np.int64)
    for i, j in pairs:
        matrix[i, j] = matrix[j, i] = 1
    return matrix


def _type_mask(indices: list[int], count: int) -> np.ndarray:
    mask = np.zeros(count, dtype=np.int64)
    mask[indices] = 1
    return mask


def _axis_width(block: EmbeddingBlock) -> int:
    return block.neuron[-1] * block.axis


# Nets ---------------------------------------------------------------------------------------------


def _net_records(name: str, layers: list[Layer], linear_end: bool = False) -> Records:
    records: Records = {f"{name}.layers": len(layers)}
    skips = [skip_kind(*w.shape) for w, _, _ in layers]
    if linear_end:
        skips[-1] = 0
    records[f"{name}.skip"] = np.array(skips, dtype=np.int64)
    for k, (w, b, idt) in enumerate(layers):
        records[f"{name}.{k}.w"] = w
        if b is not None:
            records[f"{name}.{k}.b"] = b
        if idt is not None:
            records[f"{name}.{k}.idt"] = idt
    return records


# Descriptor ---------------------------------------------------------------------------------------


def _descriptor_records(
    descriptor: Descriptor, elements: list[str], weights: Weights, all_neighbors: bool
) -> Records:
    count = len(elements)
    records: Records = {
        "descriptor.env_protection": descriptor.env_protection,
        "descriptor.smooth": int(descriptor.smooth),
        "descriptor.concat_tebd": int(descriptor.concat_tebd),
    }
    if descriptor.exclude:
        records["descriptor.exclude"] = _pair_matrix(descriptor.exclude, count)
    tebd = _type_embedding(descriptor, elements, weights)
    records["type_embedding"] = tebd
    repinit = descriptor.repinit
    is_dpa2 = descriptor.kind == "dpa2"
    weights_r = weights.scope("repinit" if is_dpa2 else "se_atten")
    records |= _repinit_records(repinit, tebd, weights_r)
    if "repinit.strip_table" not in records:  # a compressed model has one
        records |= _strip_records(descriptor, "repinit", tebd, weights)
    _check_averages(records, descriptor.smooth, all_neighbors)
    if descriptor.repformer is None:
        return records
    width = _axis_width(repinit)
    if descriptor.three_body is not None:
        width += descriptor.three_body.neuron[-1]
        records |= _three_body_records(
            descriptor.three_body, tebd, weights.scope("repinit_three_body")
        )
        records |= _strip_records(descriptor, "three_body", tebd, weights)
    g1_dim = descriptor.repformer.g1_dim
    if width != g1_dim:
        records["g1_transform"] = weights.take("g1_shape_tranform.matrix", width, g1_dim)
    if descriptor.add_tebd:
        records["tebd_transform"] = weights.take(
            "tebd_transform.matrix", descriptor.tebd_dim, g1_dim
        )
        if weights.has("tebd_transform.bias"):
            raise UnsupportedModelError("The model's tebd_transform has a bias; refused.")
    return records | repformer_records(descriptor.repformer, count, weights.scope("repformers"))


def _type_embedding(descriptor: Descriptor, elements: list[str], weights: Weights) -> np.ndarray:
    """The evaluated table, float64 (nt, tebd_dim), without the row for padding."""
    old = weights.scope("type_embedding.embedding")
    if old.has("weight"):  # files of early 2024 hold the table itself
        table = old.take("weight", len(elements) + 1, descriptor.tebd_dim)
        return table[:-1].astype(np.float64)
    layers = type_layers(descriptor, elements, weights)
    return evaluate(layers, type_inputs(descriptor, elements), "linear")


def _repinit_records(block: EmbeddingBlock, tebd: np.ndarray, weights: Weights) -> Records:
    count, tebd_dim = tebd.shape
    davg, dstd = statistics(block, count, weights)
    records = list_records("repinit", block, davg, dstd)
    records |= {
        "repinit.axis": block.axis,
        "repinit.mode": block.mode,
        "repinit.one_side": int(block.one_side),
    }
    concat = block.mode == "concat"
    pair_width = tebd_dim if block.one_side else 2 * tebd_dim
    if weights.shape("compress_data.0") != (0,):
        return records | _tabulated_records(block, count, weights)
    layers = take_layers(
        weights.scope("filter_layers.networks.0"),
        [1 + pair_width if concat else 1, *block.neuron],
        block.resnet_dt,
    )
    records |= _net_records("repinit.net", layers)
    if concat:
        return records
    if weights.shape("type_embd_data") != (0,):
        records["repinit.strip_table"] = _compressed_types(block, count, weights)
    return records


def _strip_records(
    descriptor: Descriptor, block: str, tebd: np.ndarray, weights: Weights
) -> Records:
    """The table of a block's strip net, where it has one."""
    return {
        net.record: net.table(net.layers(weights), tebd)
        for net in strip_nets(descriptor)
        if net.record.startswith(f"{block}.")
    }


def _check_averages(records: Records, smooth: bool, all_neighbors: bool) -> None:
    """Refuse averages of repinit that make DeePMD-kit's energy no function of the positions, or one that jumps."""
    if not np.any(records["repinit.davg"]):
        return
    if all_neighbors:
        raise UnsupportedModelError(
            "The model has nonzero averages (davg) and DeePMD-kit takes all neighbours for this file, "
            "so that its energy jumps when an atom crosses the cutoff; train with set_davg_zero."
        )
    if not (records["repinit.mode"] == "strip" and smooth):
        raise UnsupportedModelError(
            "The model has nonzero averages (davg) in a descriptor whose empty neighbour slots are "
            "not gated off, where DeePMD-kit's energy depends on the order of the atoms; train "
            "with set_davg_zero, or with tebd_input_mode strip and smooth."
        )


def _compressed_types(block: EmbeddingBlock, count: int, weights: Weights) -> np.ndarray:
    """T of a compressed model, with the rows and columns of the padding type removed."""
    if block.mode != "strip":
        raise ModelError("The file has compressed types in a model without strip; it is damaged.")
    padded = count + 1
    weights.skip("filter_layers_strip")
    ng = block.neuron[-1]
    if block.one_side:
        return weights.take("type_embd_data", padded, ng)[None, :count].copy()
    table = weights.take("type_embd_data", padded * padded, ng)
    return table.reshape(padded, padded, ng)[:count, :count].copy()


def _tabulated_records(block: EmbeddingBlock, count: int, weights: Weights) -> Records:
    """A compressed model: quintic coefficients instead of the net of em_0."""
    if block.mode != "strip" or block.resnet_dt:
        raise ModelError(
            "The file is a compressed model without strip, or with resnet_dt, which DeePMD-kit "
            "does not write; it is damaged."
        )
    lower, upper, maximum, fine, coarse, _ = info = weights.take("compress_info.0", 6)
    table = weights.take("compress_data.0", None, 6 * block.neuron[-1])
    ordered = 0 < fine <= coarse and lower < upper <= maximum
    rows = (upper - lower) / fine + (maximum - upper) / coarse if ordered else np.inf
    if not len(table) >= rows - 1.5:  # the bounds are rounded in float32
        raise ModelError("The compressed model's table does not span its range; it is damaged.")
    weights.skip("filter_layers")
    return {
        "repinit.table": table,
        "repinit.table_info": info[:5].astype(np.float64),
        "repinit.strip_table": _compressed_types(block, count, weights),
    }


def _three_body_records(block: EmbeddingBlock, tebd: np.ndarray, weights: Weights) -> Records:
    if weights.shape("compress_data.0") != (0,) or weights.shape("type_embd_data") != (0,):
        raise UnsupportedModelError(
            "The model's three-body block is compressed, which is not supported; "
            "convert the uncompressed model."
        )
    count, tebd_dim = tebd.shape
    davg, dstd = statistics(block, count, weights)
    if (davg[:, 1:] != 0).any():
        raise UnsupportedModelError(
            "The model's three-body block has nonzero averages (davg) of vectors, which break "
            "rotational symmetry; refused."
        )
    records = list_records("three_body", block, davg, dstd)
    records["three_body.mode"] = block.mode
    concat = block.mode == "concat"
    layers = take_layers(
        weights.scope("filter_layers.networks.0"),
        [1 + 2 * tebd_dim if concat else 1, *block.neuron],
        block.resnet_dt,
    )
    records |= _net_records("three_body.net", layers)
    return records


# Fitting ------------------------------------------------------------------------------------------


def _fitting_records(fitting: Fitting, width: int, count: int, weights: Weights) -> Records:
    records: Records = {
        "fitting.activation": fitting.activation,
        "fitting.bias_atom_e": weights.take("bias_atom_e", count, 1).reshape(count),
        "fitting.vacuum": int(fitting.vacuum),
    }
    if fitting.nfparam:
        width += fitting.nfparam
        for name in ("fparam_avg", "fparam_inv_std"):
            records[f"fitting.{name}"] = weights.take(name, fitting.nfparam)
        if fitting.default_fparam is not None:
            records["fitting.default_fparam"] = _default_fparam(fitting, weights)
    if fitting.naparam:
        width += 0 if fitting.aparam_is_mask else fitting.naparam
        for name in ("aparam_avg", "aparam_inv_std"):
            array = weights.take(name, fitting.naparam)
            if not fitting.aparam_is_mask:
                records[f"fitting.{name}"] = array
    if fitting.ncase:
        width += fitting.ncase
        records["fitting.case_embedding"] = weights.take("case_embd", fitting.ncase)
    net = weights.scope("filter_layers.networks.0")
    widths = [width, *fitting.neuron]
    layers = take_layers(net, widths, fitting.resnet_dt)
    final = net.scope(f"layers.{len(layers)}")
    layers.append((final.take("matrix", fitting.neuron[-1], 1), final.take("bias", 1), None))
    return records | _net_records("fitting.net", layers, linear_end=True)


def _default_fparam(fitting: Fitting, weights: Weights) -> np.ndarray:
    """What DeePMD-kit uses when the caller gives none: a tensor, in the precision of the net."""
    if weights.has("default_fparam_tensor"):
        values = weights.take("default_fparam_tensor", fitting.nfparam)
    else:
        values = np.array(fitting.default_fparam, dtype=fitting.precision)
    return values.astype(np.float64)
