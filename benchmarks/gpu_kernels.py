"""Times of a step and of each of its kernels on a GPU, for several models, sizes and precisions.

    python benchmarks/gpu_kernels.py MODEL.dpa2 ... --json FILE [--atoms 192 1536 12288 98304]
        [--precision float32 float64] [--device cuda]
    python benchmarks/gpu_kernels.py --show FILE
    python benchmarks/gpu_kernels.py --markdown FILE

Liquid water, energy, forces and virial. FILE is written anew after every size, so that a run which is stopped has left what
it measured. A system that fails, for want of memory for example, is named, and the next one comes.

FILE holds the machine, the driver, the date and the commit, and `systems`: a list of model, precision, atoms, wall time of a
usual step (`ms/step`, the median; `fastest`), the sum over its kernels timed one by one (`kernels ms`), and the table of these
kernels as `dpa2md bench --kernels` prints it. `--show` prints a line of each system, `--markdown` the table of docs/cuda.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dpa2md import Engine, _core
from dpa2md.base.files import whole_file
from dpa2md.bench import measure, replicated
from dpa2md.cli.options import print_table
from dpa2md.doctor.cuda import nvidia_driver, nvidia_gpus
from dpa2md.engine import DEFAULT_SKIN
from dpa2md.errors import RunError
from dpa2md.kernels import kernel_rows, measure_kernels
from dpa2md.structures import equilibrated_water
from provenance import commit

SECONDS = 0.4  # that the steps of a measurement should take together
FEWEST, MOST = 3, 30  # steps


def steps_for(engine: Engine, atoms) -> int:
    """As many as fill the time, by two steps of which the first lists neighbours."""
    engine.compute_atoms([atoms], skin=DEFAULT_SKIN)
    start = time.perf_counter()
    engine.compute_atoms([atoms], skin=DEFAULT_SKIN)
    return max(FEWEST, min(MOST, int(SECONDS / (time.perf_counter() - start))))


def measured(engine: Engine, natoms: int) -> dict[str, Any]:
    """One system: its row of times, and its kernels."""
    atoms = replicated(equilibrated_water(), natoms)
    steps = steps_for(engine, atoms)
    usual = measure(engine, atoms, steps, by_stage=False)
    row: dict[str, Any] = {
        "atoms": len(atoms),
        "us/atom": round(usual.per_atom, 4),
        "ms/step": round(1e3 * statistics.median(usual.seconds), 4),
        "fastest": round(1e3 * min(usual.seconds), 4),
        "steps": steps,
    }
    try:
        kernels = measure_kernels(engine, atoms, max(FEWEST, steps // 4))
    except RunError as error:
        return row | {"no kernels": str(error)}
    return row | {
        "kernels ms": round(1e3 * kernels.seconds, 4),
        "kernels": kernel_rows(kernels),
    }


def systems(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All of them, the small ones of every model before the larger ones."""
    engines: dict[tuple[Path, str], Engine] = {}
    for natoms in args.atoms:
        for precision in args.precision:
            for model in args.models:
                of = {"model": model.stem, "precision": precision}
                try:
                    if (model, precision) not in engines:
                        engines[model, precision] = Engine(model, precision, device=args.device)
                    yield of | measured(engines[model, precision], natoms)
                except (ValueError, MemoryError) as error:
                    yield of | {"atoms": natoms, "failed": str(error)}
            if natoms >= 50_000:  # memory of one precision is not kept for the other
                engines.clear()


def show(found: list[dict[str, Any]]) -> None:
    """A line of each system."""
    rows = []
    for system in found:
        row = {name: system[name] for name in ("model", "precision", "atoms")}
        if "failed" in system:
            print(f"{', '.join(map(str, row.values()))}: {system['failed']}")
            continue
        kernels = system.get("kernels", [])
        longest = ", ".join(f"{k['kernel']} {k['share %']:.0f} %" for k in kernels[:3])
        rows.append(
            row
            | {name: system[name] for name in ("us/atom", "ms/step")}
            | {"kernels ms": system.get("kernels ms", float("nan")), "longest": longest}
        )
    if rows:
        print_table(rows)


def markdown(report: dict[str, Any]) -> None:
    """Microseconds an atom of each model and size, and milliseconds a step of the smallest."""
    found = [system for system in report["systems"] if "failed" not in system]
    sizes = sorted({system["atoms"] for system in found})
    named = dict.fromkeys((system["model"], system["precision"]) for system in found)
    times = {(s["model"], s["precision"], s["atoms"]): s for s in found}
    print(
        f"One {report['gpu']}, driver {report['driver']}, {report['build']}, {report['date']}, ",
        end="",
    )
    print(f"commit {report['commit']}:\n")
    print(f"| model, precision | {sizes[0]} atoms | {' | '.join(f'{n:,}' for n in sizes[1:])} |")
    print("|---" * (1 + len(sizes)) + "|")
    for name in sorted(named, key=lambda name: name[1]):
        cells = []
        for size in sizes:
            system = times.get((*name, size))
            cells.append(f"{system['us/atom']:.3g}" if system else "")
            if system and size == sizes[0]:
                cells[-1] += f" ({system['ms/step']:.2f} ms)"
        print(f"| {', '.join(name)} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", metavar="MODEL.dpa2", type=Path, nargs="*")
    parser.add_argument("--atoms", type=int, nargs="+", default=[192, 1536, 12288, 98304])
    parser.add_argument("--precision", nargs="+", default=["float32", "float64"])
    parser.add_argument("--device", default="cuda")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--json", metavar="FILE", type=Path)
    what.add_argument("--show", metavar="FILE", type=Path)
    what.add_argument("--markdown", metavar="FILE", type=Path)
    args = parser.parse_args()
    if args.show:
        return show(json.loads(args.show.read_text())["systems"])
    if args.markdown:
        return markdown(json.loads(args.markdown.read_text()))
    found: list[dict[str, Any]] = []
    about = {
        "gpu": "; ".join(nvidia_gpus()),
        "driver": nvidia_driver(),
        "build": _core.cuda_build,
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    print(", ".join(f"{name} {value}" for name, value in about.items() if value))
    for system in systems(args):
        found.append(system)
        kernels = system.get("kernels", [])
        print()
        print_table([{k: v for k, v in system.items() if k != "kernels"}])
        if kernels:
            print_table(kernels)
        sys.stdout.flush()
        with whole_file(args.json) as temporary:
            temporary.write_text(json.dumps(about | {"systems": found}, indent=1) + "\n")
    failed = sum("failed" in system for system in found)
    print(f"\n{len(found) - failed} systems measured, {failed} failed")
    sys.exit(1 if failed or not found else 0)


if __name__ == "__main__":
    main()
