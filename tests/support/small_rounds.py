"""Settings of runs of rounds that take half a minute: 24 atoms of water, a small student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ase.io import write
from dpa2md.structures import water_box

STUDENT = {
    "descriptor": {
        "type": "se_atten_v2", "rcut": 4.0, "rcut_smth": 0.5, "sel": "auto", "neuron": [8, 16],
        "axis_neuron": 4, "attn_layer": 0, "precision": "float32",
    },
    "fitting_net": {"neuron": [16, 16], "precision": "float32"},
}  # fmt: skip
EXPLORING = {
    "structures": ["box.xyz"], "temperatures": [300], "min_atoms": 24, "steps": 60, "interval": 3,
    "perturbed": 4, "frames_per_round": 8, "report_steps": 10,
}  # fmt: skip


def distill_settings(folder: Path, **changes: Any) -> Path:
    """A distill.json in the folder, and the structure that it names."""
    values = {"teacher": "water", "student": STUDENT, "rounds": 2, "train_steps": 300,
              "final_train_steps": 320, "learning_rate": [0.01, 1e-4], **EXPLORING}  # fmt: skip
    return _written(folder / "distill.json", values | changes)


def loop_settings(folder: Path, pretrained: Path, **changes: Any) -> Path:
    """A loop.json in the folder, labelled by the shipped model as a calculator of ASE."""
    label = {"calculator": "dpa2md.calculator:DPA2Calculator", "arguments": {"path": "water"}}
    values = {"pretrained": str(pretrained), "label": label, "rounds": 2, "train_steps": 10,
              "final_train_steps": 10, "learning_rate": [1e-4, 1e-5], "held_out_part": 0.25,
              "force_error": 1e-6,
              **EXPLORING}  # fmt: skip
    return _written(folder / "loop.json", values | changes)


def _written(path: Path, values: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path.parent / "box.xyz", water_box(8), format="extxyz")
    given = {name: value for name, value in values.items() if value is not ...}
    path.write_text(json.dumps(given))
    return path
