"""The keys of distill.yaml and loop.yaml, with their defaults."""

from __future__ import annotations

from ..train.sections import REQUIRED, Key

_EXPLORING = {
    "structures": Key("list | text", REQUIRED),
    "temperatures": Key("list | number", REQUIRED),
    "pressures": Key("list | number", []),
    "min_atoms": Key("integer", 64, least=1),
    "steps": Key("integer", 2000, least=1),
    "timestep": Key("number | null", None, least=1e-3),
    "interval": Key("integer", 10, least=1),
    "perturbed": Key("integer", 10, least=0),
    "rattle": Key("number", 0.05, least=0.0),
    "strain": Key("number", 0.03, least=0.0),
    "max_force": Key("number", 50.0, least=0.0),
}
_SELECTING = {
    "frames_per_round": Key("integer", 100, least=2),
    "levels": Key("list | text", "auto"),
    "held_out_part": Key("number", 0.1, least=0.0),
}
_ENDING = {
    "rounds": Key("integer", 4, least=1),
    "force_error": Key("number", 0.05, least=0.0),
    "held_out": Key("list | text", []),
    "report_steps": Key("integer", 20000, least=1),
}
_TRAINING = {
    "trainer": Key("text", "dpa2md"),
    "ranks": Key("integer", 1, least=1),
    "train_steps": Key("integer", 4000, least=1),
    "final_train_steps": Key("integer | null", None, least=1),
    "batch": Key("integer | text", "auto"),
    "learning_rate": Key("list", [5e-3, 1e-5]),
}
_RUNNING = {
    "seed": Key("integer", 1, least=0),
    "threads": Key("integer | null", None, least=1),
    "workers": Key("integer", 1, least=1),
    "cluster": Key("table | null", None),
}

DISTILL = {
    "teacher": Key("text", REQUIRED),
    "head": Key("text | null", None),
    **_EXPLORING,
    **_SELECTING,
    **_ENDING,
    "student": Key("text | table", "small"),
    **_TRAINING,
    "label": Key("table | null", None),
    **_RUNNING,
}
FINETUNE = {
    "pretrained": Key("text", REQUIRED),
    "head": Key("text | null", None),
    "label": Key("table", REQUIRED),
    "data": Key("list | text", []),
    **_EXPLORING,
    **_SELECTING,
    **_ENDING,
    **_TRAINING,
    "train_steps": Key("integer", 1000, least=1),
    "learning_rate": Key("list", [1e-3, 2e-5]),
    **_RUNNING,
}
LABEL = {
    "calculator": Key("text | null", None),
    "arguments": Key("table", {}),
    "command": Key("text | null", None),
}
CLUSTER = {"machine": Key("text", REQUIRED), "resources": Key("text", REQUIRED)}

# What may be another when a run goes on: nothing that is done already depends on it.
CHANGEABLE = ("rounds", "force_error", "report_steps", "workers", "cluster")
