"""Models with random weights of the sizes that DeePMD-kit begins a training with, as records of a `.dpa2` file
(docs/model-format.md); neither torch nor DeePMD-kit is needed. `published_models.py --dpa2` writes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

Records = dict[str, Any]
# what DPA-2 has beside the parts below
NOT_MADE = ("update_g1_has_attn", "update_g2_has_g1g1", "update_h2")


class Weights:
    """Random records in the order of their making."""

    def __init__(self, precision: str):
        self.rng = np.random.default_rng(1)
        self.precision = precision
        self.records: Records = {}

    def put(self, **values: Any) -> None:
        self.records |= {name.replace("__", "."): value for name, value in values.items()}

    def normal(self, name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> None:
        value = mean + scale * self.rng.normal(size=shape)
        self.records[name] = value.astype(self.precision)

    def constant(self, name: str, value: Any) -> None:
        self.records[name] = np.array(value, dtype=self.precision)

    def dense(self, name: str, n_in: int, n_out: int, *, bias: bool = True) -> None:
        self.normal(f"{name}.w", n_in, n_out, scale=(n_in + n_out) ** -0.5)
        if bias:
            self.normal(f"{name}.b", n_out)

    def net(self, name: str, widths: Sequence[int], *, idt: bool = False, last: bool = False):
        """Layers with DeePMD-kit's skip connections; `last`: a linear one follows."""
        layers = list(itertools.pairwise(widths))
        skip = [1 if n_out == n_in else 2 if n_out == 2 * n_in else 0 for n_in, n_out in layers]
        self.records[f"{name}.layers"] = len(layers) + last
        self.records[f"{name}.skip"] = np.array([*skip, *[0] * last], dtype=np.int64)
        for k, (n_in, n_out) in enumerate(layers):
            self.dense(f"{name}.{k}", n_in, n_out)
            if idt and skip[k]:
                self.normal(f"{name}.{k}.idt", n_out, scale=0.001, mean=0.1)
        if last:
            self.dense(f"{name}.{len(layers)}", widths[-1], 1)

    def block(self, name: str, count: int, rcut: float, rcut_smth: float, nsel: int) -> None:
        """A block's cutoff and its statistics, of natural size."""
        self.records |= {f"{name}.rcut": rcut, f"{name}.rcut_smth": rcut_smth, f"{name}.nsel": nsel}
        self.records[f"{name}.activation"] = "tanh"
        self.constant(f"{name}.davg", np.zeros((count, 4)))
        self.constant(f"{name}.dstd", [[0.2, 0.12, 0.12, 0.12]] * count)


def random_records(config: dict, precision: str) -> Records:
    """A configuration of `published_models.py` as a model that was never trained.

    Raises
    ------
    SystemExit
        When it has parts that are not made here.
    """
    descriptor = config["descriptor"]
    dpa2 = descriptor["type"] == "dpa2"
    block = descriptor["repinit"] if dpa2 else descriptor
    missing = [name for name in NOT_MADE if dpa2 and descriptor["repformer"].get(name)]
    if missing or (dpa2 and block.get("tebd_input_mode") == "strip"):
        raise SystemExit(f"--dpa2 does not make {', '.join(missing) or 'strip embedding'}.")
    elements = config["type_map"]
    count, tebd, ng = len(elements), block["tebd_dim"], block["neuron"][-1]
    make = Weights(precision)
    make.put(model__kind="dpa2" if dpa2 else "dpa1", model__elements="\n".join(elements))
    make.put(model__precision=precision, model__fitting_precision=precision)
    make.put(descriptor__env_protection=0.0, descriptor__smooth=int(dpa2))
    make.put(descriptor__concat_tebd=1)
    make.records["type_embedding"] = make.rng.normal(0, 0.4, (count, tebd))
    make.block(
        "repinit", count, block["rcut"], block["rcut_smth"], block["nsel" if dpa2 else "sel"]
    )
    make.put(repinit__axis=block["axis_neuron"], repinit__mode="concat" if dpa2 else "strip")
    make.put(repinit__one_side=0)
    make.net("repinit.net", [1 + 2 * tebd if dpa2 else 1, *block["neuron"]])
    size = ng * block["axis_neuron"]
    if not dpa2:
        make.records["repinit.strip_table"] = make.rng.normal(size=(count, count, ng))
    else:
        size += three_body(make, block, count, tebd)
        repformer = descriptor["repformer"]
        size = transformed(make, size, repformer)
        repformers(make, repformer, count)
    make.put(fitting__activation="tanh")
    make.constant("fitting.bias_atom_e", np.zeros(count))
    make.put(fitting__vacuum=0)
    make.net("fitting.net", [size + tebd, *config["fitting_net"]["neuron"]], idt=True, last=True)
    make.records["fitting.out_bias"] = np.zeros(count)
    return make.records


def three_body(make: Weights, block: dict, count: int, tebd: int) -> int:
    """The three-body block, where there is one; how much it adds to the descriptor."""
    if not block.get("use_three_body"):
        return 0
    names = ("three_body_rcut", "three_body_rcut_smth", "three_body_sel")
    make.block("three_body", count, *(block[name] for name in names))
    neuron = [2, 4, 8]  # DeePMD-kit's default
    make.put(three_body__mode="concat")
    make.net("three_body.net", [1 + 2 * tebd, *neuron])
    return neuron[-1]


def transformed(make: Weights, size: int, repformer: dict) -> int:
    """The matrix that makes g1 of the first layer from `size` numbers of an atom; g1's own size."""
    g1 = repformer["g1_dim"]
    make.normal("g1_transform", size, g1, scale=(size + g1) ** -0.5)
    return g1


def repformers(make: Weights, c: dict, count: int) -> None:
    """All layers; the last one has no step of g2."""
    g2, heads = c["g2_dim"], c["attn2_nhead"]
    make.block("repformer", count, c["rcut"], c["rcut_smth"], c["nsel"])
    p = "repformer."
    for name in ("nlayers", "g1_dim", "g2_dim", "attn1_hidden", "attn1_nhead", "attn2_hidden"):
        make.records[p + name] = c[name]
    make.records |= {p + "axis": c["axis_neuron"], p + "direct_dist": 0, p + "attn2_nhead": heads}
    for name, switch in (
        ("has_conv", "update_g1_has_conv"),
        ("has_grrg", "update_g1_has_grrg"),
        ("has_drrd", "update_g1_has_drrd"),
        ("has_g1_attn", "update_g1_has_attn"),
        ("has_g1g1", "update_g2_has_g1g1"),
        ("has_g2_attn", "update_g2_has_attn"),
        ("update_h2", "update_h2"),
        ("attn2_gate", "attn2_has_gate"),
        ("use_sqrt_nnei", "use_sqrt_nnei"),
        ("g1_out_conv", "g1_out_conv"),
        ("g1_out_mlp", "g1_out_mlp"),
    ):
        make.records[p + name] = int(c[switch])
    make.records |= {p + "update_style": c["update_style"], p + "ln_eps": 1e-5}
    make.dense(p + "g2_embd", 1, g2)
    for layer in range(c["nlayers"]):
        one_layer(make, f"{p}{layer}.", c, last=layer == c["nlayers"] - 1)


def one_layer(make: Weights, p: str, c: dict, *, last: bool) -> None:
    """Those of g1_out_mlp and g1_out_conv with res_residual, as DPA-2's examples have them."""
    g1, g2, axis = c["g1_dim"], c["g2_dim"], c["axis_neuron"]
    hidden, heads, attention = c["attn2_hidden"], c["attn2_nhead"], c["update_g2_has_attn"]
    make.dense(p + "linear1", axis * (g1 + g2), g1)
    make.dense(p + "g1_self", g1, g1)
    make.dense(p + "conv", g2, g1, bias=False)
    if not last:
        make.dense(p + "linear2", g2, g2)
    if attention and not last:
        make.dense(p + "attn2.qk", g2, 2 * hidden * heads, bias=False)
        make.dense(p + "attn2.v", g2, g2 * heads, bias=False)
        make.dense(p + "attn2.head", g2 * heads, g2)
        make.constant(p + "attn2.ln.w", np.ones(g2))
        make.constant(p + "attn2.ln.b", np.zeros(g2))
    make.normal(p + "g1_residual", 3, g1, scale=0.01)
    if not last:
        make.normal(p + "g2_residual", 1 + attention, g2, scale=0.01)
