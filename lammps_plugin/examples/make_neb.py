"""Writes neb.data and neb.final, two energy minima of water.data's liquid: in the second one, a molecule has
turned by 110 degrees around one of its bonds, and found other hydrogen bonds.   python make_neb.py water.dpa2"""

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import FIRE
from dpa2md import DPA2Calculator
from dpa2md.structures import equilibrated_water

OXYGEN = 27  # of the molecule that turns; its hydrogens come next
here = Path(__file__).parent


def relax(atoms: Atoms) -> None:
    atoms.calc = DPA2Calculator(sys.argv[1])
    FIRE(atoms, maxstep=0.1).run(fmax=0.03, steps=1000)


def write(name: str, header: list[str], rows: list[str]) -> None:
    (here / name).write_text("\n".join([*header, *rows]) + "\n")


first = equilibrated_water()
relax(first)
second = first.copy()
bonds = first.get_distances(OXYGEN, [OXYGEN + 1, OXYGEN + 2], mic=True, vector=True)
turned = Atoms("H2", bonds)
turned.rotate(110, bonds[0])
second.positions[[OXYGEN + 1, OXYGEN + 2]] = first.positions[OXYGEN] + turned.positions
relax(second)

# LAMMPS takes the shortest way between images, so both may be wrapped into the cell.
types = [1 if symbol == "O" else 2 for symbol in first.get_chemical_symbols()]
places = [
    [f"{x[0]:.5f} {x[1]:.5f} {x[2]:.5f}" for x in atoms.get_positions(wrap=True)]
    for atoms in (first, second)
]
header = ["64 molecules of water in a minimum of the energy, angstrom", ""]
header += [f"{len(first)} atoms", "2 atom types", ""]
header += [f"0 {first.cell[0, 0]:.6f} {a}lo {a}hi" for a in "xyz"]
header += ["", "Masses", "", "1 15.999  # O", "2 1.008   # H", "", "Atoms # atomic", ""]
numbers = np.arange(1, len(first) + 1)
write(
    "neb.data", header, [f"{i} {t} {x}" for i, t, x in zip(numbers, types, places[0], strict=True)]
)
write("neb.final", [str(len(first))], [f"{i} {x}" for i, x in zip(numbers, places[1], strict=True)])
