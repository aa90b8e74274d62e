"""A training of seconds: small models, and frames whose atoms repel each other."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.training_data import Example, write_npy

DPA1 = {
    "type": "se_atten_v2", "rcut": 4.0, "rcut_smth": 0.5, "sel": 30, "neuron": [4, 8],
    "axis_neuron": 3, "tebd_dim": 3, "attn_layer": 0, "precision": "float32", "seed": 1,
}  # fmt: skip
DPA2 = {
    "type": "dpa2", "precision": "float32", "seed": 1,
    "repinit": {"rcut": 4.0, "rcut_smth": 0.5, "nsel": 30, "neuron": [4, 8], "axis_neuron": 3,
                "tebd_dim": 3, "use_three_body": True, "three_body_rcut": 3.0,
                "three_body_rcut_smth": 0.5, "three_body_sel": 20},
    "repformer": {"rcut": 3.0, "rcut_smth": 0.5, "nsel": 20, "nlayers": 2, "g1_dim": 8, "g2_dim": 6,
                  "attn2_hidden": 4, "attn2_nhead": 2, "attn1_hidden": 4, "attn1_nhead": 2,
                  "axis_neuron": 3, "update_style": "res_residual"},
}  # fmt: skip
FITTING = {"neuron": [12, 12], "precision": "float32", "seed": 1}
LOSS = {
    "start_pref_e": 1.0, "limit_pref_e": 1.0, "start_pref_f": 100.0, "limit_pref_f": 100.0,
    "start_pref_v": 0.1, "limit_pref_v": 0.1,
}  # fmt: skip


def repelling(frames: int = 4, seed: int = 0, strength: float = 1.0) -> Example:
    """Twelve atoms H, C, O in a box; each pair's energy is a Gaussian of its distance."""
    rng = np.random.default_rng(seed)
    elements = ["H", "C", "O"] * 4
    sites = 2.0 * np.array([[i, j, k] for i in range(3) for j in range(2) for k in range(2)])
    box = np.diag([9.0, 6.5, 6.5])
    coord = sites + rng.normal(scale=0.12, size=(frames, 12, 3))
    rows: dict[str, list[Any]] = {"energy": [], "force": [], "virial": []}
    for x in coord:
        d = x[:, None] - x[None]
        d -= np.round(d @ np.linalg.inv(box)) @ box  # farther images have exp(-5) and less
        r2 = (d**2).sum(-1) + 1e9 * np.eye(12)
        pair = strength * np.exp(-r2 / 2)
        force = (pair[..., None] * d).sum(1)  # -d/dx of the sum over pairs i < j
        rows["energy"].append(pair.sum() / 2 - 12 * 3.0)
        rows["force"].append(force)
        rows["virial"].append(
            (d[..., :, None] * (pair[..., None] * d)[..., None, :]).sum((0, 1)) / 2
        )
    arrays = {name: np.array(values) for name, values in rows.items()}
    return Example(elements, {"coord": coord, "box": np.tile(box, (frames, 1, 1)), **arrays})


def write_anew(folder: Path, data: Example) -> None:
    """A system in the place of what there was."""
    shutil.rmtree(folder, ignore_errors=True)
    write_npy(folder, data)


def single(folder: Path, descriptor: dict[str, Any] = DPA1, **training: Any) -> dict[str, Any]:
    """An input of one task, and its data in the folder."""
    write_anew(folder / "data", repelling())
    write_anew(folder / "held_out", repelling(2, seed=9))
    return deepcopy({
        "model": {"type_map": ["H", "C", "O"], "descriptor": descriptor,
                  "fitting_net": FITTING},
        "learning_rate": {"type": "exp", "start_lr": 0.02, "stop_lr": 1e-4, "decay_steps": 10},
        "loss": LOSS,
        "training": {"training_data": {"systems": ["data"], "batch_size": 2},
                     "validation_data": {"systems": ["held_out"], "batch_size": 1, "numb_btch": 2},
                     "numb_steps": 60, "seed": 3, "disp_freq": 5, "save_freq": 20} | training,
    })  # fmt: skip


def double(folder: Path, **training: Any) -> dict[str, Any]:
    """An input of two tasks with one descriptor, and their data in the folder."""
    write_anew(folder / "weak", repelling())
    write_anew(folder / "strong", repelling(seed=1, strength=2.0))
    head = {"type_map": "map", "descriptor": "common", "fitting_net": FITTING}
    data = {
        name: {"training_data": {"systems": [name], "batch_size": 2}} for name in ("weak", "strong")
    }
    data["weak"]["validation_data"] = {"systems": ["weak"], "batch_size": 1}
    return deepcopy({
        "model": {"shared_dict": {"map": ["H", "C", "O"], "common": DPA1},
                  "model_dict": {"weak": head, "strong": head}},
        "learning_rate": {"type": "exp", "start_lr": 0.02, "stop_lr": 1e-4, "decay_steps": 10},
        "loss_dict": {"weak": LOSS, "strong": LOSS},
        "training": {"data_dict": data, "numb_steps": 120, "seed": 3, "disp_freq": 5,
                     "save_freq": 40} | training,
    })  # fmt: skip
