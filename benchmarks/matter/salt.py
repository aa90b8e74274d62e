"""Frames of molten NaCl with CHGNet's energies, forces and stresses: OUT/nacl/64.extxyz and OUT/nacl-held-out.extxyz.

    pip install chgnet==0.4.2       (BSD-3; it brings torch: an environment of its own, which needs nothing of dpa2md)
    python benchmarks/matter/salt.py OUT

A melt of 64 atoms moves in the dynamics of CHGNet's r2SCAN model. Labels of a model are no DFT: no DFT data of an ionic
melt were found that may be used and are small enough.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from chgnet.model import CHGNet
from chgnet.model.dynamics import CHGNetCalculator

DENSITY = 1.54  # g/cm^3, of molten NaCl at 1100 K
MELTING, TEMPERATURE = 3000, 1300  # K
STEP = 2 * units.fs
START = 500  # steps at each temperature
INTERVAL = 10  # steps between frames
FRAMES, HELD_OUT = 220, 22


def melt(calculator: CHGNetCalculator) -> list[Atoms]:
    """A run at constant volume; the frames of its last part."""
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True) * 2
    mass = atoms.get_masses().sum() / units.mol
    atoms.set_cell(np.eye(3) * (1e24 * mass / DENSITY) ** (1 / 3), scale_atoms=True)
    atoms.calc = calculator
    rng = np.random.default_rng(1)
    MaxwellBoltzmannDistribution(atoms, temperature_K=MELTING, rng=rng)
    dynamics = Langevin(atoms, STEP, temperature_K=MELTING, friction=0.02 / units.fs, rng=rng)
    dynamics.run(START)
    dynamics.set_temperature(temperature_K=TEMPERATURE)
    dynamics.run(START)
    frames = []
    for _ in range(FRAMES):
        dynamics.run(INTERVAL)
        results = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
        frame.calc = SinglePointCalculator(frame, **results)
        frames.append(frame)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = CHGNet.load(model_name="r2scan", use_device="cpu", verbose=False)
    frames = melt(CHGNetCalculator(model, use_device="cpu", on_isolated_atoms="ignore"))
    (args.out / "nacl").mkdir(parents=True, exist_ok=True)
    write(args.out / "nacl" / "64.extxyz", frames[:-HELD_OUT])
    write(args.out / "nacl-held-out.extxyz", frames[-HELD_OUT:])


if __name__ == "__main__":
    main()
