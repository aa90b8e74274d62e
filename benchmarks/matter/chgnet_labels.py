"""Frames with energies, forces and stresses of CHGNet's r2SCAN model: another level of theory, and a melt.

    pip install chgnet==0.4.2       (BSD-3; with torch, in an environment of its own; it needs nothing of dpa2md)
    python benchmarks/matter/chgnet_labels.py water OUT         of OUT/water*.extxyz: OUT/water-r2scan*.extxyz
    python benchmarks/matter/chgnet_labels.py nacl OUT          a melt of 64 atoms in its own dynamics at 1300 K

A model's labels are no DFT: they stand in for a second level of theory where none can be computed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from chgnet.model import CHGNet
from chgnet.model.dynamics import CHGNetCalculator

EVERY = {"": 3, "-held-out": 1}  # of the frames of water
DENSITY = 1.54  # g/cm^3, of molten NaCl at 1100 K
INTERVAL = 10  # steps of 2 fs between frames


def labelled(atoms: Atoms, calculator: CHGNetCalculator) -> Atoms:
    frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
    frame.calc = calculator
    results = {
        "energy": frame.get_potential_energy(),
        "forces": frame.get_forces(),
        "stress": frame.get_stress(),
    }
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def water(out: Path, calculator: CHGNetCalculator) -> None:
    for suffix, step in EVERY.items():
        frames = read(out / f"water{suffix}.extxyz", f"::{step}")
        done = [labelled(frame, calculator) for frame in frames]
        write(out / f"water-r2scan{suffix}.extxyz", done)


def nacl(out: Path, calculator: CHGNetCalculator) -> None:
    """1 ps at 3000 K, 1 ps at 1300 K, then a frame every 20 fs; the last tenth is held out."""
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True) * 2
    mass = atoms.get_masses().sum() / units.mol
    atoms.set_cell(np.eye(3) * (1e24 * mass / DENSITY) ** (1 / 3), scale_atoms=True)
    atoms.calc = calculator
    rng = np.random.default_rng(1)
    MaxwellBoltzmannDistribution(atoms, temperature_K=3000, rng=rng)
    options = {"friction": 0.02 / units.fs, "rng": rng}
    dynamics = Langevin(atoms, 2 * units.fs, temperature_K=3000, **options)
    dynamics.run(500)
    dynamics.set_temperature(temperature_K=1300)
    dynamics.run(500)
    frames: list[Atoms] = []
    for _ in range(220):
        dynamics.run(INTERVAL)
        frames.append(labelled(atoms, calculator))
    write(out / "nacl.extxyz", frames[:198])
    write(out / "nacl-held-out.extxyz", frames[198:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["water", "nacl"])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = CHGNet.load(model_name="r2scan", use_device="cpu", verbose=False)
    calculator = CHGNetCalculator(model, use_device="cpu", on_isolated_atoms="ignore")
    (water if args.what == "water" else nacl)(args.out, calculator)


if __name__ == "__main__":
    main()
