"""Time and memory of a step against DeePMD-kit, one core, the two alternating on the same structure.

    python benchmarks/against_deepmd.py MODEL.pt --peer-python PYTHON [--atoms 192 768] [--precision float32] [--csv F]

MODEL is a checkpoint or frozen model of DeePMD-kit; PYTHON one that has deepmd-kit. Each program runs in a process of
its own with one thread; energy, forces and virial are computed, the neighbour list included. What counts is the
processor time of the process, so that other work on the machine disturbs little. DeePMD-kit gets large malloc
thresholds: without them half of its time is page faults.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

PEER = """
import json, resource, sys, time
import numpy as np
from deepmd.infer import DeepPot
model = DeepPot(sys.argv[1])
for line in sys.stdin:
    x = json.loads(line)
    start = time.process_time()
    e, f, v = model.eval(np.array(x["x"]).reshape(1, -1), np.array(x["cell"]).reshape(1, -1), x["types"])[:3]
    used = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("result", json.dumps([used, float(e.ravel()[0]), float(np.abs(f).max()), peak]), flush=True)
"""

OURS = """
import json, resource, sys, time
import numpy as np
from dpa2md.engine import Engine
model = Engine(sys.argv[1], precision=sys.argv[2], threads=1)
for line in sys.stdin:
    x = json.loads(line)
    start = time.process_time()
    r = model.compute(np.array(x["x"]), x["types"], cell=np.array(x["cell"]), pbc=True)
    used = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("result", json.dumps([used, float(r.energy), float(np.abs(r.forces).max()), peak]), flush=True)
"""


class Program:
    """One of the two, waiting for structures on its standard input."""

    def __init__(self, command: list[str]):
        environment = dict(
            os.environ,
            OMP_NUM_THREADS="1",
            MALLOC_TRIM_THRESHOLD_=str(1 << 34),
            MALLOC_MMAP_THRESHOLD_=str(1 << 34),
        )
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def step(self, request: str) -> list[float]:
        """Processor seconds, energy in eV, largest force in eV/angstrom, peak memory in kB."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("result "):
                return json.loads(line.removeprefix("result "))
        raise SystemExit(f"{self.process.args[0]} stopped: run it by hand to see why.")


def machine() -> str:
    """The processor's name."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--peer-python", required=True, metavar="PYTHON")
    parser.add_argument("--atoms", type=int, nargs="+", default=[192, 768])
    parser.add_argument(
        "--precision", default="float32", help="of our run; the peer's is the model's"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--csv", metavar="FILE")
    args = parser.parse_args()
    from dpa2md.structures import water_box

    ours = Program([sys.executable, "-c", OURS, args.model, args.precision])
    peer = Program([args.peer_python, "-c", PEER, args.model])
    rows = []
    for natoms in args.atoms:
        atoms = water_box(natoms // 3, seed=1)
        types = [0 if z == 8 else 1 for z in atoms.numbers]
        rng = np.random.default_rng(0)
        times: list[tuple[float, float]] = []
        for repeat in range(args.repeats + 3):  # the first calls are slower and do not count
            x = atoms.positions + rng.normal(0, 0.01, atoms.positions.shape)
            request = json.dumps(
                {"x": x.tolist(), "cell": atoms.cell.array.tolist(), "types": types}
            )
            a, b = ours.step(request), peer.step(request)
            if repeat >= 3:
                times.append((a[0], b[0]))
        mine, theirs = (1e6 * statistics.median(t) / natoms for t in zip(*times, strict=True))
        ratios = [b / a for a, b in times]
        print(
            f"{natoms} atoms: dpa2md {mine:.0f}, DeePMD-kit {theirs:.0f} us/atom; ratio "
            f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}); "
            f"peak memory {a[3] / 1024:.0f} and {b[3] / 1024:.0f} MB; "
            f"energies differ by {abs(a[1] - b[1]) / natoms:.1e} eV/atom"
        )
        rows.append(
            [
                machine(),
                natoms,
                mine,
                theirs,
                statistics.median(ratios),
            ]
        )
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["machine", "atoms", "dpa2md us/atom", "DeePMD-kit us/atom", "ratio"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
