"""Makes the starting structure of the demonstration: python examples/equilibrate_water.py OUT.extxyz

A box made from nothing is relaxed and run at 300 K until it is a liquid. Run it again when the
model changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write
from ase.optimize import FIRE
from dpa2md import DPA2Calculator
from dpa2md.cli.progress import Progress
from dpa2md.dynamics import Settings
from dpa2md.md import run_md
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import water_box


def main() -> None:
    """Relaxes, runs and writes the box."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--molecules", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1600, help="of 0.5 fs")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()

    atoms = water_box(args.molecules, seed=1)
    atoms.calc = DPA2Calculator(args.model, threads=args.threads)
    FIRE(atoms, logfile=None).run(fmax=1.0, steps=60)
    # Strong friction takes out the heat of the first hydrogen bonds.
    settings = Settings(steps=args.steps, friction=10.0)
    progress = Progress(settings.steps, settings.timestep, len(atoms), table=True, bar=False)
    run_md(atoms, settings, report=progress.report)
    write(args.output, tidied(atoms), format="extxyz")


def tidied(atoms: Atoms) -> Atoms:
    """Whole molecules with their oxygens inside the cell, at rest as a whole, rounded."""
    side = atoms.cell.lengths()
    oxygens = atoms.positions[::3].repeat(3, axis=0)
    positions = atoms.positions - side * np.floor(oxygens / side)
    masses = atoms.get_masses()[:, None]
    momenta = atoms.get_momenta()
    momenta -= masses / masses.sum() * momenta.sum(axis=0)
    clean = Atoms(atoms.symbols, positions.round(5), cell=atoms.cell.array.round(6), pbc=True)
    clean.set_momenta(momenta.round(6))
    return clean


if __name__ == "__main__":
    main()
