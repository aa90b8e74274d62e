"""What is trained: the model, the pretrainings and their heads, the targets and their few-shot runs, the students."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TYPE_MAP = ["H", "Be", "C", "O", "Na", "Si", "Cl", "Ge", "W"]
# The DPA-2 of the shipped water model, with room for the neighbours of dense beryllium.
DESCRIPTOR: dict[str, Any] = {
    "type": "dpa2",
    "repinit": {
        "tebd_dim": 8,
        "rcut": 6.0,
        "rcut_smth": 0.5,
        "nsel": 150,
        "neuron": [12, 25, 50],
        "axis_neuron": 8,
        "use_three_body": True,
        "three_body_sel": 50,
        "three_body_rcut": 4.0,
        "three_body_rcut_smth": 3.5,
    },
    "repformer": {
        "rcut": 4.0,
        "rcut_smth": 3.5,
        "nsel": 50,
        "nlayers": 3,
        "g1_dim": 64,
        "g2_dim": 16,
        "attn2_hidden": 16,
        "attn2_nhead": 2,
        "attn1_hidden": 64,
        "attn1_nhead": 2,
        "axis_neuron": 4,
        "update_h2": False,
        "update_g1_has_attn": False,
        "update_g2_has_g1g1": False,
        "update_style": "res_residual",
        "update_residual": 0.01,
        "update_residual_init": "norm",
        "attn2_has_gate": True,
        "use_sqrt_nnei": True,
        "g1_out_conv": True,
        "g1_out_mlp": True,
    },
    "precision": "float32",
    "add_tebd_to_repinit_out": False,
}
FITTING = {"neuron": [120, 120, 120], "resnet_dt": True, "precision": "float32"}
# That of `dpa2md finetune`, everywhere, and its learning rate.
LOSS = {
    "type": "ener",
    "start_pref_e": 0.2,
    "limit_pref_e": 20,
    "start_pref_f": 100,
    "limit_pref_f": 60,
    "start_pref_v": 0.02,
    "limit_pref_v": 1,
}
RATE = 1e-3
BATCH = "auto:48"  # frames with so many atoms together, in pretraining
STOP_PART = 0.02  # the last learning rate, of the first
WARMUP = 0.1
FRAMES = (10, 50)
SEEDS = (1, 2, 3)
SCRATCH = "scratch"
NEW_HEAD = ""


@dataclass(frozen=True)
class Pretraining:
    """Data sets that share a descriptor: a fitting net for each of `heads` (name: data sets).

    `weights`: the steps of a head in proportion to those of others; 1 where a head is not named.
    """

    name: str
    heads: dict[str, tuple[str, ...]]
    steps: int
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """Where a few-shot run starts: a pretraining and its head, a new head, or nothing."""

    pretraining: str = SCRATCH
    head: str = NEW_HEAD

    @property
    def name(self) -> str:
        if self.pretraining == SCRATCH:
            return SCRATCH
        return f"{self.pretraining}-{self.head or 'new'}"


@dataclass(frozen=True)
class FewShot:
    """One run of a few frames of a target."""

    target: str
    arm: Arm
    frames: int
    steps: int
    seed: int
    rate: float = RATE

    @property
    def name(self) -> str:
        return "_".join(
            [self.target, self.arm.name, f"{self.frames}f", f"{self.steps}s", f"{self.rate:g}"]
            + [str(self.seed)]
        )


HEADS: dict[str, tuple[str, ...]] = {
    "metals": ("be", "w", "alloy"),
    "silicon": ("si", "ge"),
    "molecules": ("molecules",),
    "water": ("water",),
    "salt": ("nacl",),
}


def without(left_out: str) -> dict[str, tuple[str, ...]]:
    """The heads of all data sets but one."""
    heads = {head: tuple(n for n in names if n != left_out) for head, names in HEADS.items()}
    return {head: names for head, names in heads.items() if names}


PRETRAININGS = (
    Pretraining("two", {"be": ("be",), "w": ("w",)}, 20_000),
    Pretraining("one", {"metals": ("be", "w")}, 20_000),
    Pretraining(
        "wide", {"metals": ("be", "w"), "si": ("si",), "molecules": ("molecules",)}, 20_000
    ),
    *(
        Pretraining(f"no-{name}", without(name), 20_000)
        for name in ("alloy", "ge", "molecules", "water", "nacl")
    ),
    Pretraining("all", HEADS, 100_000, {"metals": 3, "silicon": 2, "molecules": 2}),
)
TARGETS: dict[str, tuple[tuple[int, ...], tuple[Arm, ...]]] = {  # steps, arms
    "alloy": (
        (300, 2000),
        (
            Arm(),
            *(Arm("two", "be"), Arm("one", "metals")),
            *(Arm("wide", "metals"), Arm("no-alloy", "metals")),
        ),
    ),
    "ge": ((500,), (Arm(), Arm("wide", "si"), Arm("no-ge", "silicon"))),
    "molecules": ((500,), (Arm(), Arm("no-molecules", "water"), Arm("no-molecules"))),
    "water": ((500,), (Arm(), Arm("wide", "molecules"), Arm("no-water", "molecules"))),
    "nacl": ((500,), (Arm(), Arm("no-nacl", "metals"), Arm("no-nacl"))),
}
# Other rates than RATE: target, arm, steps, rates.
RATES: tuple[tuple[str, Arm, int, tuple[float, ...]], ...] = (
    ("alloy", Arm(), 300, (2e-3, 3e-3)),
    ("alloy", Arm(), 2000, (3e-3,)),
    ("alloy", Arm("two", "be"), 300, (5e-4, 2e-4)),
    ("alloy", Arm("two", "be"), 2000, (5e-4,)),
)


@dataclass(frozen=True)
class Distillation:
    """A teacher of a target, and the rounds in which its student learns."""

    target: str
    temperatures: tuple[int, ...]
    arm: Arm | None = None  # tuned on all labels of the target; None: the shipped water model
    tuning: int = 0  # steps
    starts: int = 1  # structures of each composition, from all through its frames
    smallest: float = 0.8  # atoms of a structure, of the most that a frame has
    rounds: int = 3
    steps: int = 4000
    final_steps: int = 16_000


DISTILLATIONS = (
    Distillation("water", (300, 400)),
    Distillation("alloy", (300, 1000), Arm("two", "be"), 8000),
    Distillation("ge", (300, 1000), Arm("wide", "si"), 4000, smallest=0.1),
    Distillation("molecules", (300, 1000), Arm("wide", "molecules"), 8000, starts=4, smallest=0.1),
    Distillation("nacl", (1300,), Arm("no-nacl"), 4000),
)


def few_shots() -> Iterator[FewShot]:
    """All, those that need the same pretraining together."""
    for target, (steps, arms) in TARGETS.items():
        for arm, n, frames, seed in itertools.product(arms, steps, FRAMES, SEEDS):
            yield FewShot(target, arm, frames, n, seed)
    for target, arm, n, rates in RATES:
        for rate, frames, seed in itertools.product(rates, FRAMES, SEEDS):
            yield FewShot(target, arm, frames, n, seed, rate)


def learning_rate(rate: float, steps: int, warmup: float = 0.0) -> dict[str, Any]:
    """From `rate` to its last value at the end, after a warmup of a part of the steps."""
    section: dict[str, Any] = {"type": "exp", "start_lr": rate, "stop_lr": STOP_PART * rate}
    section["decay_steps"] = steps // 100 + 1
    if warmup:
        section |= {"warmup_ratio": warmup, "warmup_start_factor": warmup}
    return section
