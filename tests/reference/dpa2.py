"""DPA-2 (D. Zhang et al., npj Comput. Mater. 10, 293, 2024) and DPA-1 without attention, as DeePMD-kit
evaluates them: one line of numpy for one formula, padded neighbour slots, no speed.

`evaluate` returns the energies and a trace: every intermediate by its name in docs/story.md. Derivatives come from
finite differences. A model is the dictionary of records of its .dpa2 file (docs/model-format.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .neighbors import Slots, block_slots, environment, sorted_neighbors
from .nets import activation, net, quintic_table

SHIFT = 20.0  # of attention logits: a slot at the cutoff is like an empty one


def evaluate(
    m: dict[str, Any],
    x: np.ndarray,
    types: np.ndarray,
    cell: np.ndarray | None = None,
    pbc: np.ndarray | bool = False,
    fparam: np.ndarray | None = None,
    aparam: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Energies (n,), eV, of the atoms at `x` (n, 3), angstrom, and all that leads to them."""
    types = np.asarray(types)
    pbc = np.broadcast_to(pbc, 3)
    cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float)
    rcut = float(m["repinit.rcut"])
    lists = sorted_neighbors(np.asarray(x, dtype=float), types, cell, pbc, rcut)
    t: dict[str, np.ndarray] = {}
    # the row of an empty slot, and of an atom of negative type: zeros
    tebd = np.vstack([m["type_embedding"], np.zeros_like(m["type_embedding"][:1])])

    repinit = slots(m, "repinit", lists, types)
    repinit.em[repinit.zeroed] = 0
    t["repinit"] = repinit_descriptor(m, repinit, types, tebd)
    if m["model.kind"] == "dpa1":
        t["descriptor"] = t["repinit"]
    else:
        parts = [t["repinit"]]
        if "three_body.rcut" in m:
            three = slots(m, "three_body", lists, types)
            three.em[three.zeroed] = 0
            t["three_body"] = three_body_descriptor(m, three, types, tebd)
            parts.append(t["three_body"])
        g1 = np.concatenate(parts, axis=1)
        g1 = g1 @ m["g1_transform"] if "g1_transform" in m else g1
        g1 = g1 + tebd[types] @ m["tebd_transform"] if "tebd_transform" in m else g1
        t["g1_transform"] = g1
        t["descriptor"] = repformers(m, slots(m, "repformer", lists, types), g1, t)
    if m["descriptor.concat_tebd"]:
        t["descriptor"] = np.concatenate([t["descriptor"], tebd[types]], axis=1)
    t["energies"] = fitting(m, t["descriptor"], types, fparam, aparam)
    return t


def slots(m: dict[str, Any], name: str, lists: list, types: np.ndarray) -> Slots:
    """The neighbours of one block with its environment matrix."""
    block = {key: m[f"{name}.{key}"] for key in ("rcut", "rcut_smth", "davg", "dstd")}
    ntypes = len(m["type_embedding"])
    none = np.zeros((ntypes, ntypes), dtype=int)
    by_model, by_descriptor = m.get("model.pair_exclude", none), m.get("descriptor.exclude", none)
    if name == "repformer":  # the slot becomes empty, whoever excludes the pair
        by_model, by_descriptor = by_model | by_descriptor, none
    nsel = int(m[f"{name}.nsel"])
    room = None if m.get("model.all_neighbors", 0) else nsel
    s = block_slots(lists, float(block["rcut"]), nsel, room, types, by_model, by_descriptor)
    environment(s, block, float(m["descriptor.env_protection"]), types)
    return s


# ---- repinit and three-body


def neighbor_types(s: Slots, types: np.ndarray) -> np.ndarray:
    """(n, nsel), -1 where a slot is empty."""
    return np.where(s.real, types[s.index], -1)


def repinit_descriptor(
    m: dict[str, Any], s: Slots, types: np.ndarray, tebd: np.ndarray
) -> np.ndarray:
    """M = em^T g / nsel, D = M^T M[:, :axis]; (n, ng * axis)."""
    tj, ti = neighbor_types(s, types), np.broadcast_to(types[:, None], s.index.shape)
    em0 = s.em[..., :1]
    smooth, one_side = m["descriptor.smooth"], m["repinit.one_side"]
    if m["repinit.mode"] == "concat":
        inputs = [em0, tebd[tj]] + ([] if one_side else [tebd[ti]])
        g = net(m, "repinit", np.concatenate(inputs, axis=-1))
    else:
        alone = quintic_table(m, em0[..., 0]) if "repinit.table" in m else net(m, "repinit", em0)
        gate = strip_factor(m, "repinit", np.zeros_like(ti) if one_side else ti, tj)
        g = alone * (1 + gate * (s.sw[..., None] if smooth else 1))
    moment = np.einsum("njc,njg->ncg", s.em, g) / s.nsel
    d = np.einsum("ncg,nca->nga", moment, moment[..., : int(m["repinit.axis"])])
    return d.reshape(len(types), -1)


def strip_factor(m: dict[str, Any], name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """T of two types; of an empty slot zero, which its switch makes of it anyway."""
    table = m[f"{name}.strip_table"]
    return np.where((a >= 0)[..., None] & (b >= 0)[..., None], table[a, b], 0.0)


def three_body_descriptor(
    m: dict[str, Any], s: Slots, types: np.ndarray, tebd: np.ndarray
) -> np.ndarray:
    """sum_jk c_jk g_jk / nsel^2 with c_jk = h_j . h_k, j = k too; (n, ng)."""
    h = s.em[..., 1:]
    c = np.einsum("njc,nkc->njk", h, h)[..., None]
    tj = neighbor_types(s, types)
    a = np.broadcast_to(tj[:, :, None], c.shape[:3])
    b = np.broadcast_to(tj[:, None, :], c.shape[:3])
    if m["three_body.mode"] == "concat":
        g = net(m, "three_body", np.concatenate([c, tebd[a], tebd[b]], axis=-1))
    else:
        sw = s.sw[:, :, None, None] * s.sw[:, None, :, None] if m["descriptor.smooth"] else 1.0
        g = net(m, "three_body", c) * (1 + strip_factor(m, "three_body", a, b) * sw)
    return (c * g).sum(axis=(1, 2)) / s.nsel**2


# ---- repformers


class Layer:
    """The weights of one repformer layer, and what all layers share of the neighbours."""

    def __init__(self, m: dict[str, Any], number: int, s: Slots, h2: np.ndarray):
        self.m, self.number, self.s, self.h2 = m, number, s, h2
        self.smooth = bool(m["descriptor.smooth"])
        self.act = activation(m["repformer.activation"])
        count = s.real.sum(axis=1)[:, None]
        root = bool(m["repformer.use_sqrt_nnei"])
        if self.smooth:
            self.mean = 1 / s.nsel
            self.scale = 1 / np.sqrt(s.nsel) if root else 1 / s.nsel
        else:
            self.mean = 1 / (1e-4 + count)
            self.scale = (1 / (1e-4 + np.sqrt(count)) if root else 1 / (1e-4 + count))[..., None]
        # what weights a neighbour: its switch, or whether it is there
        self.sw = s.sw if self.smooth else s.real.astype(float)

    def has(self, switch: str) -> bool:
        return bool(self.m[f"repformer.{switch}"])

    def size(self, name: str) -> int:
        return int(self.m[f"repformer.{name}"])

    def weight(self, name: str) -> np.ndarray:
        return self.m[f"repformer.{self.number}.{name}"]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weight(f"{name}.w") + self.weight(f"{name}.b")

    def symmetrised(self, x: np.ndarray) -> np.ndarray:
        """S = h2^T (x sw) c, then flatten(S[:, :axis]^T S / 3); (n, axis * d)."""
        s = np.einsum("njc,njd->ncd", self.h2, x * self.sw[..., None]) * self.scale
        out = np.einsum("nca,ncd->nad", s[..., : self.size("axis")], s) / 3
        return out.reshape(len(x), -1)

    def softmax(self, logits: np.ndarray, sw: np.ndarray) -> np.ndarray:
        """Over the last axis, in which an empty slot has the logit -SHIFT (smooth) or is left out."""
        n, width = self.s.real.shape
        others = [1] * (logits.ndim - 2)
        real = self.s.real.reshape(n, *others, width)
        if self.smooth:
            logits = (logits + SHIFT) * sw - SHIFT
        top = np.max(np.where(real, logits, -SHIFT), axis=-1, keepdims=True)
        weights = np.where(real, np.exp(logits - top), 0.0)
        total = weights.sum(axis=-1, keepdims=True)
        if self.smooth:
            slots = self.slot_factors(logits).reshape(weights.shape)
            empty = np.maximum(self.s.nsel - self.s.real.sum(axis=1), 0).reshape(n, *others, 1)
            total = (weights * slots).sum(axis=-1, keepdims=True) + empty * np.exp(-SHIFT - top)
        return weights / np.maximum(total, 1e-300) * (sw if self.smooth else 1.0)

    def slot_factors(self, z: np.ndarray) -> np.ndarray:
        """What e^z counts in the denominator: 1, but of an atom with more neighbours than slots f(z, share)
        (csrc/model/slot_shares.h)."""
        f = np.ones_like(z)
        for i in np.flatnonzero(self.s.real.sum(axis=1) > self.s.nsel):
            share = slot_shares(self.s.sw[i], self.s.nsel)
            above = z[i] + SHIFT
            up, down = np.maximum(above, 0), np.minimum(above, 0)
            low = share + (1 - share) * (np.exp(down / share) - np.exp(down / share - down))
            f[i] = np.where(above >= 0, 1 - (1 - share) * np.exp(-up), low)
        return f

    # -- of atoms

    def g1_updates(self, g1: np.ndarray, g2: np.ndarray) -> list[np.ndarray]:
        gg1 = np.where(self.s.real[..., None], g1[self.s.index], 0.0)  # (n, nsel, g1)
        updates, concat = [], []
        if self.has("g1_out_mlp"):
            updates.append(self.act(self.linear("g1_self", g1)))
        else:
            concat.append(g1)
        if self.has("has_conv"):
            proj = self.weight("conv.w")
            if self.has("g1_out_conv"):
                updates.append(self.mean * (gg1 * self.sw[..., None] * (g2 @ proj)).sum(axis=1))
            else:
                concat.append(self.mean * (g2 * self.sw[..., None] * (gg1 @ proj)).sum(axis=1))
        if self.has("has_grrg"):
            concat.append(self.symmetrised(g2))
        if self.has("has_drrd"):
            concat.append(self.symmetrised(gg1))
        updates.append(self.act(self.linear("linear1", np.concatenate(concat, axis=1))))
        if self.has("has_g1_attn"):
            updates.append(self.g1_attention(g1, gg1))
        return updates

    def g1_attention(self, g1: np.ndarray, gg1: np.ndarray) -> np.ndarray:
        """An atom asks, its neighbours answer."""
        hidden, heads = self.size("attn1_hidden"), self.size("attn1_nhead")
        n, nsel = self.s.index.shape
        q = (g1 @ self.weight("attn1.q.w")).reshape(n, hidden, heads)
        kv = (gg1 @ self.weight("attn1.kv.w")).reshape(n, nsel, -1, heads)
        k, v = kv[:, :, :hidden], kv[:, :, hidden:]
        logits = np.einsum("ndh,njdh->nhj", q, k) / np.sqrt(hidden)
        a = self.softmax(logits, self.s.sw[:, None, :])
        out = np.einsum("nhj,njdh->nhd", a, v).reshape(n, -1)  # head slowest
        return self.linear("attn1.head", out)

    # -- of pairs

    def g2_updates(self, g1: np.ndarray, g2: np.ndarray, a: np.ndarray | None) -> list[np.ndarray]:
        updates = [self.act(self.linear("linear2", g2))]
        if self.has("has_g1g1"):
            gg1 = np.where(self.s.real[..., None], g1[self.s.index], 0.0)
            updates.append((g1[:, None] * gg1 * self.sw[..., None]) @ self.weight("g1g1.w"))
        if self.has("has_g2_attn"):
            v = (g2 @ self.weight("attn2.v.w")).reshape(*g2.shape, self.size("attn2_nhead"))
            mixed = np.einsum("nhjk,nkdh->njdh", a, v).reshape(*g2.shape[:2], -1)  # head fastest
            updates.append(self.layer_norm(self.linear("attn2.head", mixed)))
        return updates

    def g2_attention_map(self, g2: np.ndarray) -> np.ndarray:
        """(n, heads, nsel, nsel): softmax(q k) (h2_j . h2_k) / sqrt(3)."""
        hidden, heads = self.size("attn2_hidden"), self.size("attn2_nhead")
        qk = (g2 @ self.weight("attn2.qk.w")).reshape(*g2.shape[:2], hidden, 2 * heads)
        q, k = qk[..., :heads], qk[..., heads:]
        logits = np.einsum("njdh,nkdh->nhjk", q, k) / np.sqrt(hidden)
        angle = np.einsum("njc,nkc->njk", self.h2, self.h2)[:, None]
        if self.has("attn2_gate"):
            logits = logits * angle
        both = (self.s.sw[:, :, None] * self.s.sw[:, None, :])[:, None]
        rows = self.s.real[:, None, :, None]
        return np.where(rows, self.softmax(logits, both), 0.0) * angle / np.sqrt(3)

    def h2_update(self, a: np.ndarray) -> np.ndarray:
        head = self.weight("attn2.h2_head.w")[:, 0]
        return np.einsum("nhjk,nkc,h->njc", a, self.h2, head)

    def layer_norm(self, x: np.ndarray) -> np.ndarray:
        variance = x.var(axis=-1, keepdims=True)  # biased
        y = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(
            variance + float(self.m["repformer.ln_eps"])
        )
        return y * self.weight("attn2.ln.w") + self.weight("attn2.ln.b")

    def add(self, x: np.ndarray, updates: list[np.ndarray], residual: str) -> np.ndarray:
        style = self.m["repformer.update_style"]
        if style == "res_residual":
            vectors = self.weight(residual)
            return x + sum(v * u for v, u in zip(vectors, updates, strict=True))
        if style == "res_avg":
            return (x + sum(updates)) / np.sqrt(len(updates) + 1)
        return x + sum(updates) / np.sqrt(len(updates))


def slot_shares(sw: np.ndarray, nsel: int) -> np.ndarray:
    """Shares h(u sw) of nsel slots, h(t) = t (2 - t) up to t = 1, then 1: u makes them add up to nsel."""

    def shares(u: float) -> np.ndarray:
        t = np.minimum(u * sw, 1)
        return np.maximum(t * (2 - t), 1e-12)

    low, high = 0.0, 1.0
    while shares(high).sum() < nsel and high < 1e12:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if shares(middle).sum() < nsel else (low, middle)
    return shares(high)


def repformers(m: dict[str, Any], s: Slots, g1: np.ndarray, t: dict[str, np.ndarray]) -> np.ndarray:
    """All layers; g1.L, g2.L and h2.L in the trace are what layer L reads."""
    act = activation(m["repformer.activation"])
    real = s.real[..., None]
    direct = bool(m["repformer.direct_dist"])
    rcut = float(m["repformer.rcut"])
    length = s.r[..., None] / rcut if direct else s.em[..., :1]
    g1 = act(g1)
    g2 = np.where(real, act(length @ m["repformer.g2_embd.w"] + m["repformer.g2_embd.b"]), 0.0)
    h2 = np.where(real, s.vec / rcut if direct else s.em[..., 1:], 0.0)
    layers = int(m["repformer.nlayers"])
    for number in range(layers):
        t[f"g1.{number}"], t[f"g2.{number}"], t[f"h2.{number}"] = g1, g2, h2
        layer = Layer(m, number, s, h2)
        new_g1 = layer.add(g1, layer.g1_updates(g1, g2), "g1_residual")
        if number < layers - 1:
            a = None
            if layer.has("has_g2_attn") or layer.has("update_h2"):
                t[f"attention.{number}"] = a = layer.g2_attention_map(g2)
            updates = layer.g2_updates(g1, g2, a)
            g2 = np.where(real, layer.add(g2, updates, "g2_residual"), 0.0)
            if layer.has("update_h2"):
                h2 = np.where(real, layer.add(h2, [layer.h2_update(a)], "h2_residual"), 0.0)
        g1 = new_g1
    t[f"g1.{layers}"] = g1
    return g1


# ---- fitting


def fitting(
    m: dict[str, Any],
    descriptor: np.ndarray,
    types: np.ndarray,
    fparam: np.ndarray | None,
    aparam: np.ndarray | None,
) -> np.ndarray:
    """E_i = net + bias_atom_e[type] + out_bias[type]; zero for a virtual atom."""
    n = len(types)
    extra = []
    if "fitting.fparam_avg" in m:
        given = m.get("fitting.default_fparam") if fparam is None else np.ravel(fparam)
        scaled = (given - m["fitting.fparam_avg"]) * m["fitting.fparam_inv_std"]
        extra.append(np.broadcast_to(scaled, (n, len(scaled))))
    if "fitting.aparam_avg" in m:
        extra.append((aparam - m["fitting.aparam_avg"]) * m["fitting.aparam_inv_std"])
    if "fitting.case_embedding" in m:
        case = m["fitting.case_embedding"]
        extra.append(np.broadcast_to(case, (n, len(case))))

    def value(d: np.ndarray) -> np.ndarray:
        return net(m, "fitting", np.concatenate([d, *extra], axis=1), linear_last=True)[:, 0]

    e = value(descriptor)
    if m["fitting.vacuum"]:
        e = e - value(np.zeros_like(descriptor))
    e = e + m["fitting.bias_atom_e"][types]
    if "fitting.exclude" in m:
        e = np.where(m["fitting.exclude"][types] != 0, 0.0, e)
    e = e + m["fitting.out_bias"][types]
    if "model.atom_exclude" in m:
        e = np.where(m["model.atom_exclude"][types] != 0, 0.0, e)
    return np.where(types >= 0, e, 0.0)


# ---- derivatives


def slope(
    m: dict[str, Any],
    x: np.ndarray,
    types: np.ndarray,
    cell: np.ndarray | None = None,
    pbc: np.ndarray | bool = False,
    moves: np.ndarray | float = 0.0,
    strain: np.ndarray | float = 0.0,
    step: float = 1e-4,
    **parameters: Any,
) -> float:
    """dE/dt as atoms go by t `moves` (n, 3) and space by the strain t `strain` (3, 3), by central differences that are
    extrapolated from two steps (Richardson)."""
    cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float)

    def energy(t: float) -> float:
        f = np.eye(3) + t * np.asarray(strain)
        moved = (x + t * np.asarray(moves)) @ f
        return evaluate(m, moved, types, cell @ f, pbc, **parameters)["energies"].sum()

    d = [(energy(h) - energy(-h)) / (2 * h) for h in (step, 2 * step)]
    return (4 * d[0] - d[1]) / 3


def forces_and_virial(
    m: dict[str, Any],
    x: np.ndarray,
    types: np.ndarray,
    cell: np.ndarray | None = None,
    pbc: np.ndarray | bool = False,
    **parameters: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """-dE/dx (n, 3) and -dE/dstrain (3, 3)."""
    forces, virial = np.zeros_like(x), np.zeros((3, 3))
    for name, out in (("moves", forces), ("strain", virial)):
        for k in np.ndindex(*out.shape):
            unit = np.zeros_like(out)
            unit[k] = 1
            out[k] = -slope(m, x, types, cell, pbc, **{name: unit}, **parameters)
    return forces, virial
