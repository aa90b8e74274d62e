"""Distils a teacher of each class of matter, trains its student's architecture on the labels, too, and compares.

    python benchmarks/matter/distill.py --data DATA --out OUT [--only NAME ...] [--csv RESULTS [--deepmd PYTHON]]

DATA and OUT are those of `run.py`, whose pretrainings have to be there; what there is to do is in `plan.py`. A teacher
is a pretrained model that was tuned on all labels of the target, or the shipped water model. The same command goes on
where it was stopped. --csv writes the table of what is done, RESULTS-students.csv; with --deepmd a student is timed
beside its teacher in DeePMD-kit.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import yaml
from ase import Atoms
from ase.io import read, write
from costs import costs
from plan import DISTILLATIONS, RATE, Distillation, FewShot
from run import DONE, dpa2md, errors, finish, read_done, rounded, training_files, tune, write_tables

SHIPPED = "water"
TEACHER, STUDENT = "teacher", "student"


def structures(plan: Distillation, data: Path) -> list[Atoms]:
    """Frames of each composition, without their labels."""
    frames = [f for path in training_files(data, plan.target) for f in read(path, ":")]
    large = [f for f in frames if len(f) >= plan.smallest * max(map(len, frames))]
    of: dict[str, list[Atoms]] = {}
    for frame in large:
        of.setdefault(frame.get_chemical_formula(), []).append(frame)
    kept = []
    for group in of.values():
        kept += [f.copy() for f in group[:: -(-len(group) // plan.starts)]]
    for frame in kept:
        frame.calc = None
    return kept


def teacher(plan: Distillation, data: Path, out: Path, folder: Path) -> str:
    """The model's name in the settings."""
    if plan.arm is None:
        return SHIPPED
    if not (folder / "tuned.dpa2").exists():
        frames = [f for path in training_files(data, plan.target) for f in read(path, ":")]
        write(folder / "frames.extxyz", frames)
        run = FewShot(plan.target, plan.arm, len(frames), plan.tuning, seed=1, rate=RATE)
        tune(run, folder, data / f"{plan.target}-held-out.extxyz", out)
    return str(folder / "tuned.dpa2")


def distil(plan: Distillation, name: str, data: Path, folder: Path) -> Path:
    """Run it; returns the student."""
    write(folder / "structures.extxyz", structures(plan, data))
    settings = {
        "teacher": name,
        "structures": ["structures.extxyz@:"],
        "temperatures": list(plan.temperatures),
        "held_out": [str(data / f"{plan.target}-held-out.extxyz")],
        "rounds": plan.rounds,
        "train_steps": plan.steps,
        "final_train_steps": plan.final_steps,
    }
    (folder / "distill.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    dpa2md(folder, "distill", "distill.yaml", "--no-progress", threads=None)
    return folder / "run" / "student.dpa2"


def train_on_labels(plan: Distillation, data: Path, folder: Path) -> Path:
    """The same architecture and schedule as the student's last round, with the data's own labels."""
    model = folder / "labels" / "model.dpa2"
    if model.exists():
        return model
    model.parent.mkdir(exist_ok=True)
    last = max((folder / "run").glob("round-*/040-train/input.json"))
    section = json.loads(last.read_text())
    training = section["training"]
    training["training_data"]["systems"] = [str(p) for p in training_files(data, plan.target)]
    training["numb_steps"] = plan.final_steps
    # its atoms may have more neighbours than those of the student's frames
    section["model"]["descriptor"]["sel"] = "auto:1.25"
    (model.parent / "input.json").write_text(json.dumps(section, indent=1))
    dpa2md(model.parent, "train", "input.json", "--no-progress", "-o", model.name)
    return model


def compare(plan: Distillation, data: Path, out: Path) -> None:
    folder = out / "distillation" / plan.target
    if (folder / DONE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    name = teacher(plan, data, out, folder)
    models = {
        TEACHER: name,
        STUDENT: distil(plan, name, data, folder),
        "student's architecture on the labels": train_on_labels(plan, data, folder),
    }
    held_out = data / f"{plan.target}-held-out.extxyz"
    finish(
        folder,
        [
            {"target": plan.target, "model": kind, "file": str(model)}
            | errors(folder, Path(model), held_out)
            for kind, model in models.items()
        ],
    )


def table(data: Path, out: Path, python: str | None) -> list[dict[str, Any]]:
    """Of what is done; times are measured now. What has the student's sizes costs what it does."""
    lines = []
    plans = {plan.target: plan for plan in DISTILLATIONS}
    for path in sorted(out.glob(f"distillation/*/{DONE}")):
        rows = read_done(path)
        models = {row["model"]: row["file"] for row in rows if row["model"] in (TEACHER, STUDENT)}
        plan = plans[path.parent.name]
        took = costs(plan, models, python, data, path.parent)
        for row in rows:
            shown = {key: value for key, value in row.items() if key != "file"}
            lines.append(rounded(shown) | took.get(row["model"], took[STUDENT]))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="targets")
    parser.add_argument("--csv", metavar="RESULTS")
    parser.add_argument("--deepmd", metavar="PYTHON", help="one that has deepmd-kit with torch")
    args = parser.parse_args()
    data, out = args.data.resolve(), args.out.resolve()
    os.environ["OMP_NUM_THREADS"] = "1"
    for plan in DISTILLATIONS:
        if not args.only or plan.target in args.only:
            compare(plan, data, out)
    if args.csv:
        write_tables(Path(f"{args.csv}-students.csv"), [table(data, out, args.deepmd)])


if __name__ == "__main__":
    main()
