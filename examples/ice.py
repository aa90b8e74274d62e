"""Proton-ordered ice XI, the crystal of the examples phonons.py, elastic.py and neb.py.

The shipped water model has seen liquid water only. It keeps ice together, with frequencies like those of
ice, but in a cell that is too small and far too stiff: the examples show how a calculation goes, not
numbers about ice.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.spacegroup import crystal
from dpa2md import DPA2Calculator

# Space group Cmc2_1, 8 molecules, angstrom, at 5 K: www.sklogwiki.org/SklogWiki/index.php/Ice_XI
_CELL = np.array([4.465, 7.859, 7.292])
# Oxygens where they are in ideal hexagonal ice, in fractions of the cell, and the neighbours that
# their protons point to: O1 gives one upwards along c and one within the mirror plane, O2 both
# across it (the space group makes the second one).
_O1, _O2 = np.array([0, 2 / 3, 1 / 16]), np.array([1 / 2, 5 / 6, -1 / 16])
_BONDS = [(_O1, [0, 2 / 3, 7 / 16]), (_O1, [0, 1 / 3, -1 / 16]), (_O2, [1, 2 / 3, 1 / 16])]
_OH = 0.96  # angstrom


def ice_xi(primitive: bool = False) -> Atoms:
    """Ice XI in its measured cell with ideal angles, to be relaxed: 24 atoms, or 12 in the primitive cell."""
    hydrogens = []
    for oxygen, neighbour in _BONDS:
        bond = neighbour - oxygen
        hydrogens.append(oxygen + bond * _OH / np.linalg.norm(bond * _CELL))
    cell = [*_CELL, 90, 90, 90]
    sites = [_O1, _O2, *hydrogens]
    ice = crystal("OOHHH", sites, spacegroup=36, cellpar=cell, primitive_cell=primitive)
    return Atoms(ice.symbols, ice.positions, cell=ice.cell, pbc=True)


def relaxed_ice(primitive: bool = False, fmax: float = 0.001) -> Atoms:
    """The same with the model's own positions and cell, to forces below `fmax` (eV/angstrom).

    In float64: derivatives are taken from differences of these forces.
    """
    ice = ice_xi(primitive)
    ice.calc = DPA2Calculator("water", precision="float64")
    BFGS(FrechetCellFilter(ice), logfile=None).run(fmax=fmax, steps=500)
    return ice
