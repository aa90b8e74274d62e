"""Trains the same models with `dpa2md train` and `dp --pt train`, some seeds each: do they learn the same?

    python benchmarks/learning.py DATA --dp DP --out OUT [--seeds 4] [--csv RESULTS.csv] [--picture PICTURE.png]

DATA has systems of liquid water, data_0 to data_3; the last one is held out. Every training has a folder in OUT; the
same command goes on where it was stopped, and skips what is done. Errors are those of all held-out frames, computed by
dpa2md for the models of both programs. DP is DeePMD-kit's program.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from dpa2md.base.files import whole_file
from dpa2md.bench import machine
from dpa2md.cli.options import print_table
from dpa2md.report.plots import check_picture, new_figure, save_figure
from provenance import commit, write_tables
from training import run_in

STEPS = 1000
OURS, THEIRS = "dpa2md", "DeePMD-kit"
EXAMPLE = Path(__file__).parent.parent / "examples" / "train_water.json"
DPA1 = {
    "type": "se_atten_v2",
    "sel": 120,
    "rcut": 6.0,
    "rcut_smth": 0.5,
    "neuron": [25, 50, 100],
    "axis_neuron": 12,
    "attn_layer": 0,
    "precision": "float32",
}
DPA1_FITTING = {"neuron": [240, 240, 240], "resnet_dt": True, "precision": "float32"}
SCHEDULE = {"type": "exp", "decay_steps": 20, "start_lr": 1e-3, "stop_lr": 1e-5}
LOSS = {
    "type": "ener",
    "start_pref_e": 0.02,
    "limit_pref_e": 1,
    "start_pref_f": 1000,
    "limit_pref_f": 10,
    "start_pref_v": 0,
    "limit_pref_v": 0,
}
SHOWN = {"rmse_f_val": "forces, eV/angstrom", "rmse_e_val": "energy, eV/atom"}
COLORS = {"DPA-1": "#4477aa", "DPA-2": "#cc6677"}


def models() -> dict[str, dict[str, Any]]:
    """The model sections: of DPA-2 that of the shipped water model."""
    dpa2 = json.loads(EXAMPLE.read_text())["model"]
    return {
        "DPA-1": {"type_map": ["O", "H"], "descriptor": DPA1, "fitting_net": DPA1_FITTING},
        "DPA-2": dpa2,
    }


def section(model: dict[str, Any], data: Path, seed: int) -> dict[str, Any]:
    """The input of one training, for both programs."""
    model = copy.deepcopy(model)
    model["descriptor"]["seed"] = model["fitting_net"]["seed"] = seed
    return {
        "model": model,
        "learning_rate": SCHEDULE,
        "loss": LOSS,
        "training": {
            "training_data": {
                "systems": [str(data / f"data_{k}") for k in range(3)],
                "batch_size": 1,
            },
            "validation_data": {"systems": [str(data / "data_3")], "batch_size": 1, "numb_btch": 4},
            "numb_steps": STEPS,
            "disp_freq": 50,
            "save_freq": STEPS,
            "seed": seed,
        },
    }


def trained(program: str, dp: str, folder: Path) -> tuple[Path, float]:
    """The model that a program trained from input.json, and the minutes that it took."""
    command = [dp, "--pt", "train", "input.json", "--skip-neighbor-stat"]
    if program == OURS:
        command = [sys.executable, "-m", "dpa2md", "train", "input.json"]
        command += ["--no-progress", "--threads", "1"]
    began = time.monotonic()
    run_in(folder, command, threads=1)
    return folder / f"model.ckpt-{STEPS}.pt", (time.monotonic() - began) / 60


def errors(model: Path, frames: Path) -> dict[str, float]:
    """Of all frames."""
    command = [sys.executable, "-m", "dpa2md", "eval", str(model), str(frames), "--json"]
    said = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=True)
    rmse = {row["quantity"]: row["RMSE"] for row in json.loads(said.stdout)["errors"]}
    return {
        "force RMSE / eV/angstrom": round(rmse["force"], 4),
        "energy RMSE / meV/atom": round(1e3 * rmse["energy"], 2),
    }


def row(name: str, program: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Of one training, which is done if it was not."""
    folder = args.out / f"{name}_{program}_{seed}"
    done = folder / "done.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)  # what was cut off
        folder.mkdir(parents=True)
        section_of = section(models()[name], args.data.resolve(), seed)
        (folder / "input.json").write_text(json.dumps(section_of, indent=1))
        model, minutes = trained(program, args.dp, folder)
        what = {"model": name, "program": program, "seed": seed, "steps": STEPS}
        result = what | errors(model, args.data / "data_3") | {"minutes": round(minutes, 1)}
        with whole_file(done) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n")
    return dict(json.loads(done.read_text()))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the seeds of each model and program: median, least and most."""
    lines = []
    for key in dict.fromkeys((r["model"], r["program"]) for r in rows):
        line: dict[str, Any] = {"model": key[0], "program": key[1]}
        of = [r for r in rows if (r["model"], r["program"]) == key]
        for column in ("force RMSE / eV/angstrom", "energy RMSE / meV/atom"):
            values = [r[column] for r in of]
            line[column] = (
                f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
            )
        lines.append(line | {"seeds": len(of)})
    return lines


def draw(rows: list[dict[str, Any]], out: Path, picture: Path) -> None:
    """Held-out errors against the step: a line for each seed."""
    figure, axes = new_figure(len(SHOWN), size=(6.4, 6.0))
    labelled = set()
    for r in rows:
        curve = np.genfromtxt(
            out / f"{r['model']}_{r['program']}_{r['seed']}" / "lcurve.out", names=True
        )
        label = f"{r['model']}, {r['program']}"
        style = "--" if r["program"] == THEIRS else "-"
        for axis, column in zip(axes, SHOWN, strict=True):
            shown = None if label in labelled else label
            color = COLORS[r["model"]]
            axis.plot(curve["step"], curve[column], style, color=color, label=shown, lw=0.8)
        labelled.add(label)
    for axis, label in zip(axes, SHOWN.values(), strict=True):
        axis.set(ylabel=f"held-out {label}", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    axes[-1].set_xlabel("step")
    save_figure(figure, picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", metavar="DATA", type=Path)
    parser.add_argument("--dp", required=True, help="DeePMD-kit's program")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    if args.picture:
        check_picture(args.picture)
    rows = [
        row(name, program, seed + 1, args)
        for seed in range(args.seeds)
        for name in models()
        for program in (OURS, THEIRS)
    ]
    rows.sort(key=lambda r: (r["model"], r["program"] != OURS, r["seed"]))
    print_table(summary(rows))
    if args.csv:
        who = {"machine": machine(), "commit": commit()}
        write_tables(args.csv, [[who | r for r in rows]])
    if args.picture:
        draw(rows, args.out, args.picture)


if __name__ == "__main__":
    main()
