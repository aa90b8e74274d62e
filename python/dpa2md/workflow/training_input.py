"""DeePMD-kit's input.json of a round's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DATA = "data"  # the folder of the frames, next to the input
CHECKPOINT = "model.ckpt"
_CURVE_LINES = 50
_SAVES = 20  # checkpoints of a training, of which the last few stay
_WARMUP = 0.05  # part of the steps in which the rate rises: Adam's first steps undo a trained model
_WARMUP_START = 0.1  # of the first rate
# A new model learns forces first. Energies and virials come in as the learning rate falls.
_NEW = {
    "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 10,
    "start_pref_v": 0.02, "limit_pref_v": 0.2,
}  # fmt: skip
# A pretrained one has them right: forces alone would spoil its energies.
_PRETRAINED = {
    "start_pref_e": 0.2, "limit_pref_e": 20, "start_pref_f": 100, "limit_pref_f": 60,
    "start_pref_v": 0.02, "limit_pref_v": 1,
}  # fmt: skip


def training_input(
    model: Mapping[str, Any],
    *,
    steps: int,
    rates: tuple[float, float],
    batch: int | str,
    seed: int,
    pretrained: bool,
) -> dict[str, Any]:
    """The input of a training that both trainers read.

    The learning rate falls from the first to the last of `rates` within the steps: a schedule that
    ends before them wastes the rest.

    Parameters
    ----------
    model
        The whole model section.
    batch
        As `batch_size` of DeePMD-kit.
    seed
        Of parameters and batches.
    pretrained
        Whether the model starts with trained parameters that should hardly change.
    """
    return {
        "model": dict(model),
        "learning_rate": {
            "type": "exp",
            "start_lr": rates[0],
            "stop_lr": rates[1],
            "decay_steps": steps // 100 + 1,
            "warmup_steps": int(_WARMUP * steps),
            "warmup_start_factor": _WARMUP_START,
        },
        "loss": {"type": "ener", **(_PRETRAINED if pretrained else _NEW)},
        "training": {
            "training_data": {"systems": [DATA], "batch_size": batch},
            "numb_steps": steps,
            "seed": seed,
            "disp_file": "lcurve.out",
            "disp_freq": -(-steps // _CURVE_LINES),
            "save_ckpt": CHECKPOINT,
            "save_freq": -(-steps // _SAVES),
            "max_ckpt_keep": 3,
        },
    }
