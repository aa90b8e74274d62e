"""What the references of losses, learning rates and optimizers are made of; numpy only.

Random numbers come from numpy's RandomState, whose streams never change between versions of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Batch:
    """Computed and labelled numbers of frames that are padded to the same width, as DeePMD-kit has them.

    `types` (frames, width): -1 where a frame has no atom. `counted` (frames, width): 1 for an atom of a
    type that is not excluded. A label is (frames, ...) like what it belongs to.
    """

    types: np.ndarray
    counted: np.ndarray
    atom_energy: np.ndarray
    force: np.ndarray
    virial: np.ndarray
    labels: dict[str, np.ndarray]


def _batch(seed: int, natoms: list[int], excluded: tuple[int, ...] = ()) -> Batch:
    rng = np.random.RandomState(seed)
    frames, width = len(natoms), max(natoms)
    real = np.arange(width) < np.array(natoms)[:, None]
    types = np.where(real, rng.randint(3, size=(frames, width)), -1)
    types[:, 0] = 0  # never excluded
    energies = rng.normal(scale=3, size=(frames, width)) * real
    forces = rng.normal(size=(frames, width, 3)) * real[..., None]
    virial = rng.normal(scale=2, size=(frames, 3, 3))
    # The deviations are on both sides of a Huber loss's 0.01, for an atom; one atom has none.
    energy = energies.sum(1) + rng.normal(scale=0.1, size=frames)
    force = forces + rng.normal(scale=0.02, size=forces.shape)
    force[0, 1] = forces[0, 1]
    labels = {
        "energy": energy[:, None],
        "force": force,
        "virial": virial + rng.normal(scale=0.1, size=virial.shape),
        "atom_ener": energies[..., None] + rng.normal(scale=0.02, size=(frames, width, 1)),
    }
    counted = real & ~np.isin(types, excluded)
    return Batch(types, counted.astype(np.int32), energies, forces, virial, labels)


BATCHES = {
    "equal": _batch(1, [5, 5, 5]),
    "mixed": _batch(2, [5, 3, 4, 1]),
    "excluded": _batch(3, [6, 6], excluded=(2,)),
    "mixed_excluded": _batch(4, [4, 6, 2], excluded=(1,)),
}


@dataclass(frozen=True)
class LossCase:
    """A loss section, what it is evaluated for, and the learning rate as part of the first."""

    section: dict
    batches: tuple[str, ...] = tuple(BATCHES)
    missing: tuple[str, ...] = ()  # labels that the system does not have
    rate: float = 0.3


_ALL = {
    f"{end}_pref_{name}": value
    for name, values in {"e": (0.5, 2), "f": (100, 1), "v": (0.2, 3), "ae": (4, 1.5)}.items()
    for end, value in zip(("start", "limit"), values, strict=True)
}
LOSSES = {
    "default": LossCase({}),
    "all": LossCase(_ALL),
    "start": LossCase(_ALL, ("mixed",), rate=1.0),
    "end": LossCase(_ALL, ("mixed",), rate=0.0),
    "intensive": LossCase(_ALL | {"intensive_ener_virial": True}),
    "huber": LossCase(_ALL | {"use_huber": True}),
    "huber_deltas": LossCase(_ALL | {"use_huber": True, "huber_delta": [0.02, 0.03, 0.01]}),
    "huber_lengths": LossCase(_ALL | {"use_huber": True, "f_use_norm": True, "huber_delta": 0.03}),
    "huber_intensive": LossCase(
        _ALL | {"use_huber": True, "intensive_ener_virial": True}, ("mixed",)
    ),
    "mae": LossCase(_ALL | {"loss_func": "mae"}),
    "mae_lengths": LossCase(_ALL | {"loss_func": "mae", "f_use_norm": True}),
    "mae_huber": LossCase(_ALL | {"loss_func": "mae", "use_huber": True}, ("mixed",)),
    "half_terms": LossCase({"start_pref_e": 0, "limit_pref_v": 2, "start_pref_ae": 3}, ("equal",)),
    "no_virial": LossCase(_ALL, ("mixed",), missing=("virial",)),
    "forces_only": LossCase(_ALL, ("equal",), missing=("energy", "virial", "atom_ener")),
    "mae_no_forces": LossCase(_ALL | {"loss_func": "mae"}, ("equal",), missing=("force",)),
}

# Learning rates: the section and the number of steps.
SCHEDULES: dict[str, tuple[dict, int]] = {
    "exp": ({"start_lr": 1e-3, "stop_lr": 3.5e-8, "decay_steps": 50}, 1000),
    "exp_default": ({"start_lr": 1e-3}, 12000),
    "exp_short": ({"start_lr": 1e-3, "stop_lr": 1e-5}, 730),
    "exp_100": ({"start_lr": 1e-3, "stop_lr": 1e-5}, 1010),
    "exp_not_100": ({"start_lr": 1e-3, "stop_lr": 1e-5}, 1009),
    "exp_equal": ({"start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 300}, 300),
    "exp_one_step": ({"start_lr": 1e-3, "stop_lr": 1e-5}, 1),
    "exp_rate": ({"start_lr": 1e-2, "stop_lr": 1e-3, "decay_steps": 40, "decay_rate": 0.8}, 900),
    "exp_rate_long": ({"start_lr": 1e-2, "decay_steps": 4000, "decay_rate": 0.5}, 900),
    "exp_to_zero": ({"start_lr": 1e-3, "stop_lr": 0.0, "decay_steps": 10}, 100),
    "exp_ratio": ({"start_lr": 2e-3, "stop_lr_ratio": 1e-3, "decay_steps": 7}, 300),
    "exp_smooth": ({"start_lr": 1e-3, "stop_lr": 1e-6, "decay_steps": 30, "smooth": True}, 200),
    "exp_warmup": (
        {"start_lr": 1e-3, "stop_lr": 1e-6, "decay_steps": 30, "warmup_steps": 45},
        300,
    ),
    "exp_warmup_ratio": (
        {"start_lr": 1e-3, "stop_lr": 1e-6, "warmup_ratio": 0.1, "warmup_start_factor": 0.2},
        777,
    ),
    "cosine": ({"type": "cosine", "start_lr": 1e-3, "stop_lr": 1e-6}, 321),
    "cosine_warmup": ({"type": "cosine", "start_lr": 1e-3, "warmup_steps": 21}, 321),
    "wsd": ({"type": "wsd", "start_lr": 1e-3, "stop_lr": 1e-6}, 333),
    "wsd_cosine": (
        {"type": "wsd", "start_lr": 1e-3, "decay_type": "cosine", "decay_phase_ratio": 0.5},
        200,
    ),
    "wsd_linear_all": (
        {
            "type": "wsd",
            "start_lr": 1e-3,
            "stop_lr": 1e-6,
            "decay_type": "linear",
            "decay_phase_ratio": 1.0,
            "warmup_steps": 20,
        },
        200,
    ),
    "wsd_one": (
        {"type": "wsd", "start_lr": 1e-3, "stop_lr": 1e-6, "decay_phase_ratio": 1e-3},
        50,
    ),
}


@dataclass(frozen=True)
class OptimizerCase:
    """An optimizer section, and `gradient_max_norm`."""

    section: dict
    max_norm: float = 0.0
    steps: int = 12
    shapes: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {"matrix": (3, 4), "bias": (4,)}
    )

    def start(self) -> dict[str, np.ndarray]:
        """The parameters before the first step."""
        rng = np.random.RandomState(5)
        return {name: rng.normal(size=shape) for name, shape in self.shapes.items()}

    def gradients(self) -> list[dict[str, np.ndarray]]:
        """One by each parameter, in each step; their lengths differ a lot."""
        rng = np.random.RandomState(6)
        return [
            {
                name: 3.0 ** rng.randint(-6, 3) * rng.normal(size=s)
                for name, s in self.shapes.items()
            }
            for _ in range(self.steps)
        ]


# The learning rates of their steps.
OPTIMIZER_SCHEDULE = {"start_lr": 1e-2, "stop_lr": 1e-4, "decay_steps": 2, "warmup_steps": 2}
OPTIMIZERS = {
    "adam": OptimizerCase({}),
    "adam_decay": OptimizerCase({"type": "Adam", "weight_decay": 0.05}),
    "adam_betas": OptimizerCase({"type": "Adam", "adam_beta1": 0.8, "adam_beta2": 0.95}),
    "adamw": OptimizerCase({"type": "AdamW"}),
    "adamw_decay": OptimizerCase({"type": "AdamW", "weight_decay": 0.05}),
    "adam_clipped": OptimizerCase({"type": "Adam"}, max_norm=1.0),
    "adamw_clipped": OptimizerCase({"type": "AdamW", "weight_decay": 0.01}, max_norm=0.1),
}
