"""Records that are small nets, evaluated for every element or for every pair of elements."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .descriptor_config import Descriptor, EmbeddingBlock
from .econf import configuration_table
from .nets import Layer, evaluate, skip_kind
from .weights import Weights


def take_layers(
    weights: Weights, widths: list[int], resnet_dt: bool, bias: bool = True
) -> list[Layer]:
    """The layers of an embedding net, `widths` from input to output."""
    layers = []
    for k, (n_in, n_out) in enumerate(pairwise(widths)):
        layer = weights.scope(f"layers.{k}")
        w = layer.take("matrix", n_in, n_out)
        b = layer.take("bias", n_out) if bias else None
        timestep = resnet_dt and skip_kind(n_in, n_out) > 0
        idt = layer.take("idt", n_out) if timestep else None
        layers.append((w, b, idt))
    return layers


def type_inputs(descriptor: Descriptor, elements: list[str]) -> np.ndarray:
    """What the layer of the type embedding sees, one row an element: float64 (nt, in)."""
    if descriptor.use_econf_tebd:
        return configuration_table(elements)
    return np.eye(len(elements))


def type_layers(descriptor: Descriptor, elements: list[str], weights: Weights) -> list[Layer]:
    """The one linear layer of the type embedding; `weights` are those of the descriptor."""
    widths = [118 if descriptor.use_econf_tebd else len(elements), descriptor.tebd_dim]
    scope = weights.scope("type_embedding.embedding.embedding_net")
    return take_layers(scope, widths, resnet_dt=False, bias=descriptor.use_tebd_bias)


@dataclass(frozen=True)
class StripNet:
    """A net of the type embeddings of two elements (or one), and the record of its values.

    `swapped`: the net reads (t_b, t_a) where the record is by (a, b).
    """

    record: str
    scope: str
    block: EmbeddingBlock
    tebd_dim: int
    one_side: bool = False
    swapped: bool = False

    def layers(self, weights: Weights) -> list[Layer]:
        """Its layers; `weights` are those of the descriptor."""
        width = self.tebd_dim if self.one_side else 2 * self.tebd_dim
        scope = weights.scope(self.scope)
        return take_layers(scope, [width, *self.block.neuron], self.block.resnet_dt)

    def inputs(self, tebd: np.ndarray) -> np.ndarray:
        """The rows that the net is evaluated for: (rows, in) of the elements' embeddings (n, dim)."""
        if self.one_side:
            return tebd
        count = len(tebd)
        return np.concatenate([np.repeat(tebd, count, axis=0), np.tile(tebd, (count, 1))], axis=1)

    def as_table(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Values for the rows of `inputs` as the record has them: (nI, count, ng)."""
        if self.one_side:
            return rows[None]
        table = rows.reshape(count, count, -1)
        return np.ascontiguousarray(table.transpose(1, 0, 2)) if self.swapped else table

    def table(self, layers: list[Layer], tebd: np.ndarray) -> np.ndarray:
        """The record: float64 (nI, nt, ng)."""
        rows = evaluate(layers, self.inputs(tebd), self.block.activation)
        return self.as_table(rows, len(tebd))


def strip_nets(descriptor: Descriptor) -> list[StripNet]:
    """The strip nets of a descriptor, the one of repinit (or DPA-1) first."""
    nets = []
    for block, record, scope in (
        (descriptor.repinit, "repinit", "repinit" if descriptor.kind == "dpa2" else "se_atten"),
        (descriptor.three_body, "three_body", "repinit_three_body"),
    ):
        if block is not None and block.mode == "strip":
            nets.append(
                StripNet(
                    f"{record}.strip_table",
                    f"{scope}.filter_layers_strip.networks.0",
                    block,
                    descriptor.tebd_dim,
                    one_side=block.one_side,
                    swapped=record == "repinit",
                )
            )
    return nets
