"""The published configurations beside DeePMD-kit, one after the other: a table, a CSV file, a chart.

    python benchmarks/against_deepmd.py FOLDER --peer-python PYTHON [NAME ...] [--atoms 768] [--steps 5]
        [--csv F.csv] [--plot F.png]

FOLDER holds what `published_models.py` wrote (NAME-float32.pt, ...) or what DeePMD-kit made of it: frozen or compressed
(.pth), compiled (.pt2, by `dp convert-backend`); NAME is such a file's name without its ending, by default all that there are. Each model is
evaluated by both programs in turn (`dpa2md bench --against`): one core, processor time, energy, forces and virial of the
shipped liquid water, repeated. Leave the machine alone meanwhile.

The chart shows how many times as fast dpa2md is: the median, and the least and largest ratio of a pair of runs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpa2md.bench import compare, machine, replicated
from dpa2md.cli.options import print_table
from dpa2md.report.plots import check_picture, new_figure, save_figure
from dpa2md.structures import equilibrated_water
from provenance import commit, write_tables


def measured(model: Path, peer_python: str, natoms: int, steps: int) -> dict[str, Any]:
    """A row of the table."""
    [timing] = compare(
        model, model, peer_python, None, [replicated(equilibrated_water(), natoms)], steps
    )
    return {
        "model": model.name,
        "atoms": timing.natoms,
        "us/atom": round(timing.per_atom, 1),
        "DeePMD-kit us/atom": round(timing.peer_per_atom, 1),
        "ratio": round(statistics.median(timing.ratios), 1),
        "least": round(min(timing.ratios), 1),
        "most": round(max(timing.ratios), 1),
        "MB": round(timing.peak),
        "DeePMD-kit MB": round(timing.peer_peak),
        "eV/atom apart": float(f"{timing.energy_difference:.1e}"),
    }


def draw(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """A bar for every model."""
    figure, [axis] = new_figure(1, size=(6.4, 0.8 + 0.34 * len(rows)))
    places = range(len(rows), 0, -1)
    ratios = [row["ratio"] for row in rows]
    spread = [
        [row["ratio"] - row["least"] for row in rows],
        [row["most"] - row["ratio"] for row in rows],
    ]
    axis.barh(places, ratios, xerr=spread, height=0.62, color="#4477aa", ecolor="#999999")
    for place, row in zip(places, rows, strict=True):
        axis.text(0.4, place, f"{row['ratio']:.0f}", va="center", color="white", fontsize="small")
    axis.set_yticks(
        places, [f"{row['model'].removesuffix('.pt')}, {row['atoms']} atoms" for row in rows]
    )
    axis.set(xlabel="times as fast as DeePMD-kit", xlim=(0, None))
    axis.set_title(title, fontsize="small")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", metavar="NAME", nargs="*")
    parser.add_argument("--peer-python", required=True, help="one that has deepmd-kit and torch")
    parser.add_argument("--atoms", type=int, default=768)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.plot:
        check_picture(args.plot)
    models = sorted(p for p in args.folder.iterdir() if p.suffix in {".pt", ".pth", ".pt2"})
    if args.names:
        models = [p for name in args.names for p in models if p.stem == name]
    if not models:
        parser.error(f"{args.folder} has no .pt, .pth or .pt2 file of these names")
    rows = []
    for model in models:
        rows.append(measured(model, args.peer_python, args.atoms, args.steps))
        print_table(rows[-1:])
    print()
    print_table(rows)
    if args.csv:
        who = {"machine": machine(), "commit": commit()}
        write_tables(args.csv, [[who | row for row in rows]])
    if args.plot:
        draw(rows, args.plot, f"energy, forces and virial of water, one core of {machine()}")


if __name__ == "__main__":
    main()
