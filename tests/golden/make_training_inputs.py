"""Makes `training_inputs.json`: what DeePMD-kit makes of a training's input before it trains.

Next to the inputs: how often it draws systems and tasks, and how many steps it takes.

In the environment that `make_golden.py` describes:

    cd tests
    python -m golden.make_training_inputs
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from deepmd.dpmodel.train.schedule import resolve_step_schedule
from deepmd.dpmodel.utils.training_utils import compute_total_numb_batch
from deepmd.pt.utils.dataloader import get_sampler_from_params
from deepmd.pt.utils.multi_task import preprocess_shared_params
from deepmd.utils.argcheck import normalize
from deepmd.utils.compat import update_deepmd_input

from .training_inputs import BATCHES, RULES, RUNS, inputs

HERE = Path(__file__).parent


def completed(data: dict[str, Any]) -> dict[str, Any]:
    """As ``dp --pt train`` before it builds a model; links of shared parameters are next to it."""
    links: dict[str, Any] = {}
    multi_task = "model_dict" in data["model"]
    if multi_task:
        data["model"], links = preprocess_shared_params(data["model"])
    data = normalize(update_deepmd_input(data, warning=False), multi_task=multi_task)
    return {"input": data, "links": {name: link["links"] for name, link in links.items()}}


class Loaders:
    """What a sampler asks of DeePMD-kit's data."""

    index = BATCHES
    total_batch = sum(BATCHES)

    def __len__(self) -> int:
        return len(BATCHES)


def drawn(rule: dict[str, Any]) -> dict[str, Any]:
    """How often each system is drawn, and the batches of an epoch."""
    weights = get_sampler_from_params(Loaders(), rule).weights.numpy()
    return {
        "rule": rule,
        "probabilities": (weights / weights.sum()).tolist(),
        "epoch": compute_total_numb_batch(BATCHES, weights),
    }


def planned(run: dict[str, Any]) -> dict[str, Any]:
    """The steps of a run, and how often each task is drawn."""
    epochs = run["epochs"]
    found = resolve_step_schedule(
        run["training"],
        multi_task=len(epochs) > 1,
        model_keys=list(epochs),
        training_data={name: np.zeros(count) for name, count in run["systems"].items()},
        epoch_length=epochs.__getitem__,
    )
    probabilities = None if found.model_prob is None else found.model_prob.tolist()
    return run | {"steps": found.num_steps, "probabilities": probabilities}


def main() -> None:
    found = {
        "inputs": {name: completed(data) for name, data in inputs().items()},
        "draws": [drawn(rule) for rule in RULES],
        "runs": [planned(run) for run in RUNS],
    }
    (HERE / "training_inputs.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
