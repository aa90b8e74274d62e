"""How well a run without a thermostat keeps its energy, in float32 and in float64.

    python benchmarks/nve_drift.py [--model M] [--steps 20000] [--timestep 0.5] [--device cuda] [--plot docs/nve.png]

Velocity Verlet from the shipped water (192 atoms) at 300 K. Prints the slope of a straight line through the total
energy, in meV an atom and 10 ps: what the rounding of forces and the tables add up to. (The total energy besides swings
with the time step; that is Verlet's, not the model's.)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet
from dpa2md import DPA2Calculator
from dpa2md.cli.progress import Progress
from dpa2md.dynamics import draw_velocities
from dpa2md.structures import equilibrated_water

SHIPPED = Path(__file__).parent.parent / "python" / "dpa2md" / "models" / "water.dpa2"
EVERY = 10  # steps between samples


def total_energies(
    model: Path, precision: str, steps: int, timestep: float, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Times in ps and total energies in meV an atom, from the first one on."""
    atoms = equilibrated_water()
    atoms.calc = DPA2Calculator(model, precision=precision, threads=1, device=device)
    draw_velocities(atoms, 300, np.random.default_rng(1))
    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    samples = []
    progress = Progress(steps, timestep, len(atoms), table=False, bar=sys.stderr.isatty())

    def sample() -> None:
        kinetic, potential = atoms.get_kinetic_energy(), atoms.get_potential_energy()
        samples.append((dynamics.nsteps * timestep / 1000, kinetic + potential))
        progress.report(dynamics.nsteps, None)

    dynamics.attach(sample, interval=EVERY)
    dynamics.run(steps)
    progress.finish()
    time, energy = np.array(samples).T
    return time, (energy - energy[0]) / len(atoms) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["float32", "float64"])
    parser.add_argument("--plot", metavar="PNG", type=Path)
    args = parser.parse_args()
    runs = {}
    for precision in args.precision:
        time, energy = total_energies(args.model, precision, args.steps, args.timestep, args.device)
        slope = np.polyfit(time, energy, 1)[0]
        runs[precision] = (time, energy, slope)
        print(
            f"{precision}: {10 * slope:+.4f} meV/atom in 10 ps, swing {energy.std():.4f} meV/atom",
            flush=True,
        )
    if args.plot:
        draw(runs, args.plot)


def draw(runs: dict[str, tuple[np.ndarray, np.ndarray, float]], path: Path) -> None:
    """The total energy of each run and the line through it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), constrained_layout=True)
    for precision, (time, energy, slope) in runs.items():
        (line,) = axes.plot(time, energy, lw=0.4, alpha=0.6)
        fit = slope * (time - time.mean()) + energy.mean()
        label = f"{precision}: {10 * slope:+.3f} meV/atom in 10 ps"
        axes.plot(time, fit, color=line.get_color(), lw=1.5, label=label)
    axes.set(xlabel="time (ps)", ylabel="total energy (meV/atom)")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
