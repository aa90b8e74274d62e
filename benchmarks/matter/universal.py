"""Writes the pretrained model that the package ships, and how far each of its heads is to be trusted.

    python benchmarks/matter/universal.py --data DATA --out OUT python/dpa2md/models

DATA and OUT are those of `run.py`, whose pretraining "all" has to be done. Writes universal.pt, a checkpoint without
optimizer, and universal.json: the elements of each head, and the errors of the held-out frames of each data set.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ase.io import iread
from dpa2md.base.files import whole_file
from dpa2md.train.export import write_checkpoint
from dpa2md.train.multi_task import MultiTaskModel
from plan import PRETRAININGS, TYPE_MAP
from run import DONE, pretrained_checkpoint, training_files

NAME = "universal"
SOURCE = "all"


def elements(data: Path, names: tuple[str, ...]) -> list[str]:
    """Those of data sets, in the order of the type map."""
    files = [path for name in names for path in training_files(data, name)]
    found = {symbol for path in files for f in iread(path) for symbol in set(f.symbols)}
    return [element for element in TYPE_MAP if element in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    plan = next(p for p in PRETRAININGS if p.name == SOURCE)
    rows = json.loads((args.out / "pretraining" / SOURCE / DONE).read_text())
    heads = {
        head: {
            "elements": elements(args.data, names),
            "held out": {
                row["data"]: {
                    "frames": row["held out"],
                    "force": round(row["force RMSE"], 3),
                    "energy": round(row["energy RMSE"], 1),
                }
                for row in rows
                if row["head"] == head
            },
        }
        for head, names in plan.heads.items()
    }
    model = MultiTaskModel.read(pretrained_checkpoint(args.out, SOURCE))
    write_checkpoint(model, args.folder / f"{NAME}.pt", step=plan.steps - 1)
    with whole_file(args.folder / f"{NAME}.json") as temporary:
        temporary.write_text(json.dumps(heads, indent=1) + "\n")


if __name__ == "__main__":
    main()
