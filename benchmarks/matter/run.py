"""Pretrains on several classes of matter, fine-tunes with few frames, and writes the errors of held-out frames.

    python benchmarks/matter/run.py --data DATA --out OUT [--only NAME ...] [--csv RESULTS]

DATA is what `data.py` wrote. Every training has a folder in OUT; the same command goes on where it was stopped, and
skips what is done. What there is to do is in `plan.py`. Every command is one that a user could type. --csv writes the
tables of what is done: RESULTS-heads.csv and RESULTS-few-shot.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read, write
from dpa2md.base.files import whole_file
from dpa2md.bench import machine
from plan import (
    BATCH,
    DESCRIPTOR,
    FITTING,
    LOSS,
    PRETRAININGS,
    RATE,
    SCRATCH,
    TYPE_MAP,
    WARMUP,
    FewShot,
    Pretraining,
    few_shots,
    learning_rate,
)

sys.path.insert(0, str(Path(__file__).parent.parent))
from provenance import commit, write_tables

DONE = "done.json"


def dpa2md(folder: Path, *arguments: str | Path, threads: int | None = 1) -> str:
    """Run the command in a folder; returns what it printed."""
    command = [sys.executable, "-m", "dpa2md", *map(str, arguments)]
    command += [] if threads is None else ["--threads", str(threads)]
    with (folder / "log.txt").open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"failed, see {log.name}: {' '.join(command)}")
    return done.stdout


def errors(folder: Path, model: Path, frames: Path) -> dict[str, Any]:
    """Errors of all frames: forces in eV/angstrom, energies in meV/atom, after no shift."""
    said = json.loads(dpa2md(folder, "eval", model, frames, "--json"))
    rmse = {row["quantity"]: row["RMSE"] for row in said["errors"]}
    return {
        "held out": said["structures"],
        "force RMSE": rmse["force"],
        "energy RMSE": 1e3 * rmse["energy"],
    }


def finish(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the results, with who made them."""
    result = [who() | row for row in rows]
    with whole_file(folder / DONE) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def training_files(data: Path, name: str) -> list[Path]:
    """One for each number of atoms."""
    return sorted((data / name).glob("*.extxyz"), key=lambda path: int(path.stem))


def sections(data: Path, names: Sequence[str]) -> dict[str, Any]:
    """Of an input: data to train on, and held out."""
    files = [path for name in names for path in training_files(data, name)]
    held_out = [data / f"{name}-held-out.extxyz" for name in names]
    return {
        "training_data": {"systems": [str(p) for p in files], "batch_size": BATCH},
        "validation_data": {"systems": [str(p) for p in held_out], "batch_size": 1},
    }


def pretraining_input(plan: Pretraining, data: Path) -> dict[str, Any]:
    """DeePMD-kit's input: of one task, or of several that share the descriptor."""
    training = {"numb_steps": plan.steps, "seed": 1, "disp_freq": 200, "save_freq": 2000}
    out: dict[str, Any] = {"learning_rate": learning_rate(RATE, plan.steps)}
    parts = {head: sections(data, names) for head, names in plan.heads.items()}
    if len(parts) == 1:
        (part,) = parts.values()
        model = {"type_map": TYPE_MAP, "descriptor": DESCRIPTOR, "fitting_net": FITTING}
        return out | {"model": model, "loss": LOSS, "training": training | part}
    head = {"type_map": "map", "descriptor": "common", "fitting_net": FITTING}
    model = {
        "shared_dict": {"map": TYPE_MAP, "common": DESCRIPTOR},
        "model_dict": dict.fromkeys(parts, head),
    }
    weights = {head: plan.weights.get(head, 1.0) for head in parts}
    training |= {"data_dict": parts, "model_prob": weights}
    return out | {
        "model": model,
        "loss_dict": dict.fromkeys(parts, LOSS),
        "training": training,
    }


def pretrained_checkpoint(out: Path, name: str) -> Path:
    folder = out / "pretraining" / name
    return folder / (folder / "checkpoint").read_text().strip()


def pretrain(plan: Pretraining, data: Path, out: Path) -> None:
    """From its newest checkpoint, where there is one; errors of every head and data set."""
    folder = out / "pretraining" / plan.name
    if (folder / DONE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input.json").write_text(json.dumps(pretraining_input(plan, data), indent=1))
    again = (folder / "checkpoint").exists()
    start = ["--restart", pretrained_checkpoint(out, plan.name)] if again else []
    dpa2md(folder, "train", "input.json", "--no-progress", "-o", "model.dpa2", *start)
    several = len(plan.heads) > 1
    rows = [
        {"pretraining": plan.name, "steps": plan.steps, "head": head, "data": name}
        | errors(
            folder,
            folder / (f"model.{head}.dpa2" if several else "model.dpa2"),
            data / f"{name}-held-out.extxyz",
        )
        for head, names in plan.heads.items()
        for name in names
    ]
    finish(folder, rows)


def train_new(run: FewShot, folder: Path, held_out: Path) -> None:
    """From random parameters, with the settings of `dpa2md finetune`."""
    seed = {"seed": run.seed}
    data = {
        "model": {
            "type_map": TYPE_MAP,
            "descriptor": DESCRIPTOR | seed,
            "fitting_net": FITTING | seed,
        },
        "learning_rate": learning_rate(run.rate, run.steps, WARMUP),
        "loss": LOSS,
        "training": {
            "training_data": {"systems": ["frames.extxyz"], "batch_size": "auto"},
            "validation_data": {"systems": [str(held_out)], "batch_size": "auto"},
            "numb_steps": run.steps,
            "seed": run.seed,
            "disp_freq": run.steps // 20,
        },
    }
    (folder / "input.json").write_text(json.dumps(data))
    dpa2md(folder, "train", "input.json", "--no-progress", "-o", "tuned.dpa2")


def tune(run: FewShot, folder: Path, held_out: Path, out: Path) -> None:
    several = next(len(p.heads) > 1 for p in PRETRAININGS if p.name == run.arm.pretraining)
    head = ["--new-head"]
    if run.arm.head:
        head = ["--head", run.arm.head] if several else []
    options = ["--steps", run.steps, "--lr", run.rate, "--seed", run.seed, "--overwrite"]
    dpa2md(
        folder,
        *("finetune", pretrained_checkpoint(out, run.arm.pretraining), "frames.extxyz"),
        *("--validation", held_out, *head, *map(str, options)),
        *("--no-progress", "-o", "tuned.dpa2"),
    )


def few_shot(run: FewShot, data: Path, out: Path) -> None:
    """A draw of frames by the seed, the same for all arms; then as many steps in every arm."""
    folder = out / "few-shot" / run.name
    if (folder / DONE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    pool = [frame for path in training_files(data, run.target) for frame in read(path, ":")]
    drawn = np.random.default_rng(run.seed).choice(len(pool), run.frames, replace=False)
    write(folder / "frames.extxyz", [pool[i] for i in drawn])
    held_out = data / f"{run.target}-held-out.extxyz"
    if run.arm.pretraining == SCRATCH:
        train_new(run, folder, held_out)
    else:
        tune(run, folder, held_out, out)
    row = {"target": run.target, "start": run.arm.name, "frames": run.frames, "steps": run.steps}
    row |= {"learning rate": run.rate, "seed": run.seed}
    finish(folder, [row | errors(folder, folder / "tuned.dpa2", held_out)])
    for left in folder.glob("*.pt"):
        left.unlink()


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{v:.4g}") if "RMSE" in key else v for key, v in row.items()}


def who() -> dict[str, str]:
    return {"machine": machine(), "commit": commit()}


def read_done(path: Path) -> list[dict[str, Any]]:
    """The rows of `finish`."""
    return list(json.loads(path.read_text()))


def tables(out: Path, results: str) -> None:
    """Of what is done; the columns are those of `finish`."""
    for name, folder in (("heads", "pretraining"), ("few-shot", "few-shot")):
        paths = sorted(out.glob(f"{folder}/*/{DONE}"))
        rows = [rounded(row) for path in paths for row in read_done(path)]
        if rows:
            write_tables(Path(f"{results}-{name}.csv"), [rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="pretrainings and targets of few-shot runs")
    parser.add_argument("--csv", metavar="RESULTS")
    args = parser.parse_args()
    data, out = args.data.resolve(), args.out.resolve()
    os.environ["OMP_NUM_THREADS"] = "1"
    for plan in PRETRAININGS:
        if not args.only or plan.name in args.only:
            pretrain(plan, data, out)
    for run in few_shots():
        ready = run.arm.pretraining == SCRATCH or not args.only
        ready = ready or (out / "pretraining" / run.arm.pretraining / DONE).exists()
        if ready and (not args.only or run.target in args.only):
            few_shot(run, data, out)
    if args.csv:
        tables(out, args.csv)


if __name__ == "__main__":
    main()
