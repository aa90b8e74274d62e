"""Steps of a training beside DeePMD-kit's, the two programs alternating: a table and a CSV file.

    python benchmarks/training.py INPUT.json ... --dp DP [--steps 100] [--rounds 3] [--threads 1] [--csv F.csv]

INPUT is a training input for both. Every round trains a few steps with `dpa2md train` and with `dp --pt train` (DP is
that program), without checkpoints and validation; the time of a step is what either says at its end, in which starting
and compiling do not count. DeePMD-kit gets the settings that are fastest for it: data in its own process, memory that
it may keep. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dpa2md.bench import machine
from dpa2md.cli.options import print_table
from provenance import commit, write_tables

QUIET = {"disp_freq": 20, "save_freq": 1000000}


def shortened(path: Path, steps: int) -> dict[str, Any]:
    """The input for so many steps, with absolute folders of data and nothing beside the steps."""
    data = json.loads(path.read_text())
    training = data["training"]
    training |= QUIET | {"numb_steps": steps}
    training.pop("validation_data", None)
    systems = training["training_data"]["systems"]
    training["training_data"]["systems"] = [str((path.parent / s).resolve()) for s in systems]
    return data


def run_in(folder: Path, command: list[str], threads: int) -> str:
    """What a program says while it trains in a folder, with the settings that are fastest for DeePMD-kit."""
    large = str(2**32)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "DP_INTRA_OP_PARALLELISM_THREADS": str(threads),
        "DP_INTER_OP_PARALLELISM_THREADS": "1",
        "NUM_WORKERS": "0",
        "MALLOC_TRIM_THRESHOLD_": large,
        "MALLOC_MMAP_THRESHOLD_": large,
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def run(command: list[str], data: dict[str, Any], threads: int) -> str:
    """The same in a folder of its own, with this input.json."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "input.json").write_text(json.dumps(data))
        return run_in(Path(folder), command, threads)


def our_step(data: dict[str, Any], threads: int) -> float:
    """Milliseconds."""
    command = [sys.executable, "-m", "dpa2md", "train", "input.json", "--no-progress"]
    said = run([*command, "--threads", str(threads)], data, threads)
    return 1000 / float(re.findall(r"([\d.]+) steps/s", said)[-1])


def their_step(dp: str, data: dict[str, Any], threads: int) -> float:
    """Milliseconds."""
    said = run([dp, "--pt", "train", "input.json", "--skip-neighbor-stat"], data, threads)
    return 1000 * float(re.findall(r"average training time: ([\d.]+) s/batch", said)[-1])


def measured(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """A row of the table."""
    data = shortened(path, args.steps)
    pairs = []
    for _ in range(args.rounds):
        pairs.append((our_step(data, args.threads), their_step(args.dp, data, args.threads)))
    ratios = [theirs / ours for ours, theirs in pairs]
    return {
        "input": path.stem,
        "threads": args.threads,
        "ms/step": round(statistics.median(ours for ours, _ in pairs), 1),
        "DeePMD-kit ms/step": round(statistics.median(theirs for _, theirs in pairs), 1),
        "ratio": round(statistics.median(ratios), 1),
        "least": round(min(ratios), 1),
        "most": round(max(ratios), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", metavar="INPUT.json", type=Path, nargs="+")
    parser.add_argument("--dp", required=True, help="DeePMD-kit's program")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    rows = [measured(path, args) for path in args.inputs]
    print_table(rows)
    if args.csv:
        who = {"machine": machine(), "commit": commit()}
        write_tables(args.csv, [[who | row for row in rows]])


if __name__ == "__main__":
    main()
