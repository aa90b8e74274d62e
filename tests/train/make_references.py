"""Makes `references.npz`: losses, learning rates and optimizer steps by DeePMD-kit and torch.

In the environment that `tests/golden/make_golden.py` describes, in the project's folder:

    OMP_NUM_THREADS=1 python -m tests.train.make_references

The cases are in `reference_cases.py`. Everything is in float64; DeePMD-kit's loss divides by the number of
atoms in torch's default precision, which is set to float64 here.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from deepmd.dpmodel.utils.learning_rate import BaseLR
from deepmd.pt.loss.ener import EnergyStdLoss
from deepmd.pt_expt.train.gradient import clip_grad_norm_
from deepmd.utils.argcheck import learning_rate_args, loss_args, optimizer_args
from deepmd.utils.compat import convert_optimizer_v31_to_v32

from .reference_cases import (
    BATCHES,
    LOSSES,
    OPTIMIZER_SCHEDULE,
    OPTIMIZERS,
    SCHEDULES,
    Batch,
    LossCase,
    OptimizerCase,
)

START = 1e-3  # any learning rate


def complete(argument, section: dict) -> dict:
    """A section with the defaults of DeePMD-kit's schema, which refuses what it does not know."""
    section = argument.normalize_value(copy.deepcopy(section), trim_pattern="_*")
    argument.check_value(section, strict=True)
    return section


def evaluate(case: LossCase, batch: Batch) -> dict[str, np.ndarray]:
    """The loss, its derivatives, and what lcurve.out shows."""
    section = complete(loss_args(), {"type": "ener"} | case.section)
    loss = EnergyStdLoss(starter_learning_rate=START, **section)
    computed = {
        key: torch.from_numpy(getattr(batch, key).copy()).requires_grad_(True)
        for key in ("atom_energy", "force", "virial")
    }

    def model(**_):
        return {
            "energy": computed["atom_energy"].sum(1, keepdim=True),
            "atom_energy": computed["atom_energy"][..., None],
            "force": computed["force"],
            "virial": computed["virial"].reshape(-1, 9),
            "mask": torch.from_numpy(batch.counted),
        }

    labels: dict = {}
    for key, label in batch.labels.items():
        missing = key in case.missing  # the loader then gives zeros
        labels[key] = torch.from_numpy(label * (not missing))
        labels[f"find_{key}"] = 0.0 if missing else 1.0
    inputs = {"atype": torch.from_numpy(batch.types)}
    _, value, more = loss(inputs, model, labels, batch.types.shape[1], case.rate * START)
    value.backward()
    shown = {key: float(v) for key, v in more.items() if "l2_" not in key}
    result = {"value": np.array(value.item())}
    result |= {
        f"d{key}": np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        for key, x in computed.items()
    }
    return result | {f"shown/{key}": np.array(v) for key, v in shown.items()}


def rates(section: dict, steps: int) -> np.ndarray:
    """The learning rate of each step of a training."""
    schedule = BaseLR(**complete(learning_rate_args(), section), num_steps=steps)
    return np.array([schedule.value(step) for step in range(steps)])


def take_steps(case: OptimizerCase) -> dict[str, np.ndarray]:
    """The parameters after each step, (steps, ...), and the settings that torch's optimizer had."""
    section = convert_optimizer_v31_to_v32({"training": {}, "optimizer": dict(case.section)})
    section = complete(optimizer_args(), section["optimizer"])
    parameters = {key: torch.nn.Parameter(torch.from_numpy(x)) for key, x in case.start().items()}
    optimizer = getattr(torch.optim, section["type"])(
        parameters.values(),
        lr=0.0,
        betas=(section["adam_beta1"], section["adam_beta2"]),
        weight_decay=section["weight_decay"],
    )
    history = []
    for rate, gradients in zip(
        rates(OPTIMIZER_SCHEDULE, case.steps), case.gradients(), strict=True
    ):
        optimizer.param_groups[0]["lr"] = float(rate)
        for key, parameter in parameters.items():
            parameter.grad = torch.from_numpy(gradients[key])
        if case.max_norm > 0:
            clip_grad_norm_(parameters.values(), case.max_norm)
        optimizer.step()
        history.append({key: p.detach().numpy().copy() for key, p in parameters.items()})
    group = optimizer.param_groups[0]
    settings = np.array([*group["betas"], group["weight_decay"], group["eps"]])
    return {"settings": settings} | {key: np.array([h[key] for h in history]) for key in parameters}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    arrays = {}
    for name, case in LOSSES.items():
        for batch in case.batches:
            found = evaluate(case, BATCHES[batch])
            arrays |= {f"loss/{name}/{batch}/{key}": value for key, value in found.items()}
    for name, (section, steps) in SCHEDULES.items():
        arrays[f"rate/{name}"] = rates(section, steps)
    for name, optimizer in OPTIMIZERS.items():
        arrays |= {f"optimizer/{name}/{key}": v for key, v in take_steps(optimizer).items()}
    np.savez_compressed(Path(__file__).with_name("references.npz"), **arrays)


if __name__ == "__main__":
    main()
