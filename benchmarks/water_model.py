"""How good the shipped water model is: errors against DFT data, and its liquid against theirs.

    python benchmarks/water_model.py DATA [--model M] [--trajectory md.traj] [--skip PS] [--plot PNG]

DATA is a folder in DeePMD-kit's npy format (type.raw, type_map.raw, set.*/{coord,box,energy,force}.npy) that the model
was not trained on; a trajectory is one that `dpa2md md` wrote.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread
from dpa2md import evaluate
from dpa2md.deepmd_data import read_folder
from dpa2md.report.distributions import radial_distribution

SHIPPED = Path(__file__).parent.parent / "python" / "dpa2md" / "models" / "water.dpa2"


def intact(atoms: Atoms, bond: float = 1.35) -> float:
    """Share of oxygens with exactly two hydrogens within `bond` angstrom."""
    oxygen = atoms.numbers == 8
    distances = atoms.get_all_distances(mic=True)[np.ix_(oxygen, ~oxygen)]
    return float(np.mean((distances < bond).sum(axis=1) == 2))


def rdf(frames: list[Atoms], rmax: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    return radial_distribution(frames, "O", "O", rmax=rmax, bins=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=SHIPPED)
    parser.add_argument("--trajectory", type=Path)
    parser.add_argument(
        "--skip", type=float, default=2.0, help="ps of the trajectory to leave out (default: 2)"
    )
    parser.add_argument(
        "--interval", type=float, default=0.05, help="ps between its frames (default: 0.05)"
    )
    parser.add_argument("--plot", metavar="PNG", help="draw both radial distributions")
    args = parser.parse_args()
    frames = read_folder(args.data)
    energy = np.array([a.get_potential_energy() for a in frames])
    force = np.array([a.get_forces() for a in frames])
    results = evaluate(args.model, frames)
    de = np.array([r["energy"] for r in results]) - energy
    df = np.array([r["forces"] for r in results]) - force
    natoms = len(frames[0])
    print(f"{len(frames)} frames of {natoms} atoms")
    print(
        f"force  RMSE {np.sqrt(np.mean(df**2)):.4f} eV/angstrom, MAE {np.abs(df).mean():.4f} "
        f"(forces themselves: rms {np.sqrt(np.mean(force**2)):.3f})"
    )
    print(
        f"energy RMSE {1e3 * np.sqrt(np.mean(de**2)) / natoms:.2f} meV/atom, mean {1e3 * de.mean() / natoms:+.2f}"
    )
    if not args.trajectory:
        return
    run = list(iread(args.trajectory))
    times = args.interval * np.arange(len(run))
    whole = np.array([intact(a) for a in run])
    broken = np.flatnonzero(whole < 1)
    print(
        f"trajectory of {times[-1]:.2f} ps, {np.mean([a.get_temperature() for a in run]):.0f} K on average: "
        + (
            f"first broken molecule at {times[broken[0]]:.2f} ps, {100 * whole[-1]:.0f} % intact at the end"
            if len(broken)
            else "all molecules intact"
        )
    )
    if args.plot:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(5.6, 3.4), constrained_layout=True)
        axes.plot(*rdf(frames), label="DFT data")
        axes.plot(
            *rdf([a for a, t in zip(run, times, strict=True) if t >= args.skip]),
            label="shipped model",
        )
        axes.set(xlabel="O–O distance (Å)", ylabel="g(r)", xlim=(2, 6))
        axes.legend(frameon=False)
        figure.savefig(args.plot, dpi=150)


if __name__ == "__main__":
    main()
