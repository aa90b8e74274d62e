"""Tables and a picture of what `run.py --csv RESULTS` wrote, put into a page.

    python benchmarks/matter/results.py RESULTS docs/matter.md

RESULTS is the beginning of the files' names. A table stands in the page between `<!-- NAME -->` and `<!-- end -->`, and
the picture beside the page, with its name. Errors are those of all held-out frames: the median of the seeds, and in
brackets the least and the largest.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dpa2md.base.files import whole_file
from dpa2md.report.plots import check_picture, new_figure, save_figure

FORCE, ENERGY = "force RMSE", "energy RMSE"
UNITS = {FORCE: "eV/angstrom", ENERGY: "meV/atom"}
MEMORY = 16e3  # MB, that atoms may take
RATE = "0.001"  # of the runs of the tables, but that of the rates
COLORS = ("#666666", "#4477aa", "#66ccee", "#228833", "#cc6677", "#aa7700")
Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def numbers(rows: Sequence[Row], quantity: str, **chosen: str) -> list[float]:
    """Of the rows that have these values, one a seed."""
    wanted = {key.replace("_", " "): value for key, value in chosen.items()}
    return [float(r[quantity]) for r in rows if wanted.items() <= r.items()]


def cell(values: Sequence[float], quantity: str) -> str:
    """Empty where there was no run; of a single run without a range."""
    if not values:
        return ""
    digits = ".3f" if quantity == FORCE else ".1f"
    middle, least, most = (f(values) for f in (statistics.median, min, max))
    if len(values) == 1:
        return f"{middle:{digits}}"
    return f"{middle:{digits}} ({least:{digits}} to {most:{digits}})"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [list(header), ["---"] * len(header), *map(list, lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def columns(rows: Sequence[Row], target: str) -> list[tuple[str, str]]:
    """Steps and frames of a target's runs."""
    pairs = {(int(r["steps"]), int(r["frames"])) for r in rows if r["target"] == target}
    return [(str(steps), str(frames)) for steps, frames in sorted(pairs)]


def target_table(rows: Sequence[Row], target: str, quantity: str) -> str:
    """A line for each start: scratch first, then pretrained ones."""
    pairs = columns(rows, target)
    own = [r for r in rows if r["target"] == target and r["learning rate"] == RATE]
    starts = sorted(unique(r["start"] for r in own), key=lambda s: s != "scratch")
    header = [UNITS[quantity], *(f"{frames} frames, {steps} steps" for steps, frames in pairs)]
    lines = []
    for start in starts:
        line = [start]
        for steps, frames in pairs:
            found = numbers(own, quantity, start=start, steps=steps, frames=frames)
            line.append(cell(found, quantity))
        lines.append(line)
    return markdown(header, lines)


def rate_table(rows: Sequence[Row]) -> str:
    """Force errors of the runs that were made with several learning rates."""
    keys = ("target", "start", "frames", "steps")
    others = {tuple(r[key] for key in keys): r for r in rows if r["learning rate"] != RATE}
    rates = sorted(unique(r["learning rate"] for r in rows), key=float, reverse=True)
    lines = []
    for values in others:
        chosen = dict(zip(keys, values, strict=True))
        found = [cell(numbers(rows, FORCE, learning_rate=rate, **chosen), FORCE) for rate in rates]
        target, start, frames, steps = values
        lines.append([f"{target}, {start}, {frames} frames, {steps} steps", *found])
    return markdown([UNITS[FORCE], *rates], lines)


def head_table(rows: Sequence[Row]) -> str:
    header = ["pretraining", "steps", "head", "data", "held out", *UNITS.values()]
    lines = [
        [r["pretraining"], f"{int(r['steps']):,}", r["head"], r["data"], r["held out"]]
        + [f"{float(r[FORCE]):.3f}", f"{float(r[ENERGY]):.1f}"]
        for r in rows
    ]
    return markdown(header, lines)


def student_table(rows: Sequence[Row]) -> str:
    """A line for each target: force errors of teacher, student and the student's architecture."""
    lines = []
    for target in unique(r["target"] for r in rows):
        errors = [float(r[FORCE]) for r in rows if r["target"] == target]
        lines.append([target, *(f"{e:.3f}" for e in errors), f"{errors[1] / errors[0]:.2f}"])
    header = ["", "teacher", "student", "its architecture on the labels", "student / teacher"]
    return markdown(header, lines)


def cost_table(rows: Sequence[Row]) -> str:
    """A line for each target: times, and what fits into memory, of teacher and student and in DeePMD-kit."""
    lines = []
    for target in unique(r["target"] for r in rows):
        teacher, student, _ = (r for r in rows if r["target"] == target)
        times = [float(r["us/atom"]) for r in (teacher, student)]
        peer = student["DeePMD-kit us/atom"] and f"{float(student['DeePMD-kit us/atom']):,.0f}"
        line = [target, peer, *(f"{t:.1f}" for t in times)]
        line.append(student["times as fast"] and f"{float(student['times as fast']):.0f}")
        sizes = (student["DeePMD-kit kB/atom"], teacher["kB/atom"], student["kB/atom"])
        lines.append([*line, *(size and f"{MEMORY / float(size):,.0f}" for size in sizes)])
    header = ["", "DeePMD-kit, us/atom", "teacher", "student", "DeePMD-kit / student"]
    return markdown([*header, "DeePMD-kit, thousand atoms", "teacher", "student"], lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each target: errors against frames, full lines for the most steps."""
    check_picture(path)
    targets = unique(r["target"] for r in rows)
    figure, axes = new_figure(1, len(targets), size=(3.6 * len(targets), 3.8))
    for axis, target in zip(axes, targets, strict=True):
        own = [r for r in rows if r["target"] == target and r["learning rate"] == RATE]
        most = max(int(r["steps"]) for r in own)
        starts = sorted(unique(r["start"] for r in own), key=lambda s: s != "scratch")
        for start, color in zip(starts, COLORS, strict=False):
            for steps in sorted({int(r["steps"]) for r in own}):
                chosen = {"start": start, "steps": str(steps)}
                frames = sorted({int(r["frames"]) for r in own if chosen.items() <= r.items()})
                values = [numbers(own, FORCE, frames=str(n), **chosen) for n in frames]
                style = {"color": color, "marker": "o", "markersize": 4}
                style["label"] = start if steps == most else "_"  # which the legend leaves out
                middle = [statistics.median(v) for v in values]
                axis.plot(frames, middle, "-" if steps == most else "--", **style)
                for n, found in zip(frames, values, strict=True):
                    axis.plot([n, n], [min(found), max(found)], color=color, lw=1)
        least = min(int(r["steps"]) for r in own)
        dashed = f" (dashed: {least} steps)" if least < most else ""
        axis.set(title=f"{target}, {most} steps{dashed}", xscale="log", xlabel="labelled frames")
        axis.set_ylim(0, 1.08 * axis.dataLim.y1)
        axis.set_xticks(frames, map(str, frames))
        axis.set_xticks([], minor=True)
        axis.legend(fontsize="x-small", loc="lower left")
    axes[0].set_ylabel("held-out force RMSE, eV/angstrom")
    save_figure(figure, path)


def tables(results: str) -> dict[str, str]:
    """By their names in the page."""
    rows = read_rows(Path(f"{results}-few-shot.csv"))
    found = {
        f"{target} {quantity.split()[0]}": target_table(rows, target, quantity)
        for target in unique(r["target"] for r in rows)
        for quantity in UNITS
    }
    found["heads"] = head_table(read_rows(Path(f"{results}-heads.csv")))
    students = read_rows(Path(f"{results}-students.csv"))
    found |= {"students": student_table(students), "costs": cost_table(students)}
    return found | {"rates": rate_table(rows)}


def with_tables(page: str, found: Mapping[str, str]) -> str:
    """The page with these tables in their places; KeyError for a place without a table."""
    return re.sub(
        r"<!-- ([\w -]+) -->\n.*?<!-- end -->",
        lambda place: f"<!-- {place[1]} -->\n\n{found[place[1]]}\n\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results")
    parser.add_argument("page", type=Path)
    args = parser.parse_args()
    text = with_tables(args.page.read_text(), tables(args.results))
    with whole_file(args.page) as temporary:
        temporary.write_text(text)
    draw(read_rows(Path(f"{args.results}-few-shot.csv")), args.page.with_suffix(".png"))


if __name__ == "__main__":
    main()
