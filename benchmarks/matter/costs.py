"""Time and memory of a teacher and its student, and of the teacher in DeePMD-kit."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import read, write
from dpa2md import Engine
from dpa2md.bench import DEFAULT_SKIN, evaluation, moving, replicated
from plan import DESCRIPTOR, FITTING, Distillation
from run import dpa2md, training_files

ATOMS = 192  # at least, and REPEATS steps, for times
REPEATS = 40
PEER_ATOMS = (192, 768)  # at least; what the second takes more is the memory of its atoms
MILLION = 1_000_000
GAP = 3.0  # angstrom, around a molecule that is repeated
SHIPPED_SEL = {"repinit": {"nsel": 120, "three_body_sel": 56}, "repformer": {"nsel": 56}}


def structure(folder: Path) -> Path:
    """A periodic one to repeat: the first that the student started from; molecules in a cell each."""
    atoms = read(folder / "structures.extxyz", 0)
    if not atoms.pbc.all():
        atoms.center(vacuum=GAP)
        atoms.pbc = True
    path = folder / "timed.extxyz"
    write(path, atoms)
    return path


def speeds(models: dict[str, str], atoms: Atoms) -> dict[str, float]:
    """Processor time of a step in one thread, microseconds an atom: of each the least of REPEATS, in turn."""
    steps = {
        kind: evaluation(Engine(file, threads=1), atoms, DEFAULT_SKIN)
        for kind, file in models.items()
    }
    least = dict.fromkeys(steps, float("inf"))
    for moved in moving(atoms, REPEATS):
        for kind, step in steps.items():
            began = time.process_time()
            step(moved)
            least[kind] = min(least[kind], time.process_time() - began)
    return {kind: 1e6 * seconds / len(atoms) for kind, seconds in least.items()}


def kilobytes(model: str, timed: Path, folder: Path) -> float:
    """Of memory, an atom, in a system of a million."""
    words = ("--atoms", str(MILLION), "--structure", timed, "--json")
    said = json.loads(dpa2md(folder, "info", model, *words))
    return float(said["cost"]["memory / MB"]) * 1e3 / MILLION


def checkpoint(plan: Distillation, data: Path, folder: Path) -> Path:
    """One of the teacher that DeePMD-kit loads; of the shipped model one of the same sizes, after a step."""
    if plan.arm is not None:
        return next(folder.glob("tuned-*.pt"))
    path = folder / "sizes" / "model.ckpt-1.pt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        descriptor = DESCRIPTOR | {key: DESCRIPTOR[key] | sel for key, sel in SHIPPED_SEL.items()}
        systems = [str(p) for p in training_files(data, plan.target)]
        section = {
            "model": {"type_map": ["O", "H"], "descriptor": descriptor, "fitting_net": FITTING},
            "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 1},
            "loss": {"type": "ener", "start_pref_e": 1, "start_pref_f": 1},
            "training": {"training_data": {"systems": systems, "batch_size": 1}, "numb_steps": 1},
        }
        (path.parent / "input.json").write_text(json.dumps(section))
        dpa2md(path.parent, "train", "input.json", "--no-progress", "-o", "m.dpa2")
    return path


def beside(student: str, teacher: Path, python: str, timed: Path, folder: Path) -> dict[str, float]:
    """The student's steps and those of its teacher in DeePMD-kit, in turn."""
    words = ("--against", teacher, "--peer-python", python, "--steps", "6", "--json")
    sizes = [str(n) for n in PEER_ATOMS]
    said = dpa2md(folder, "bench", student, timed, "--atoms", *sizes, *words, threads=None)
    small, large = json.loads(said)["rows"]
    grown = large["DeePMD-kit MB"] - small["DeePMD-kit MB"]
    return {
        "DeePMD-kit us/atom": large["DeePMD-kit us/atom"],
        "DeePMD-kit kB/atom": round(1e3 * grown / (large["atoms"] - small["atoms"])),
        "times as fast": large["ratio"],
    }


def costs(
    plan: Distillation, models: dict[str, str], python: str | None, data: Path, folder: Path
) -> dict[str, dict[str, Any]]:
    """Columns of the table, of each model; those of DeePMD-kit belong to the last one, the student."""
    timed = structure(folder)
    atoms = replicated(read(timed), ATOMS)
    out: dict[str, dict[str, Any]] = {
        kind: {
            "atoms": len(atoms),
            "us/atom": round(each, 2),
            "kB/atom": round(kilobytes(models[kind], timed, folder), 2),
        }
        for kind, each in speeds(models, atoms).items()
    }
    peer: dict[str, Any] = dict.fromkeys(
        ("DeePMD-kit us/atom", "DeePMD-kit kB/atom", "times as fast"), ""
    )
    student = list(models)[-1]
    for kind, row in out.items():
        row |= peer
        if kind == student and python:
            teacher = checkpoint(plan, data, folder)
            row |= beside(models[student], teacher, python, timed, folder)
    return out
