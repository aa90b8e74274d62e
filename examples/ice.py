"""Proton-ordered ice XI, the crystal of the examples phonons.py, elastic.py and neb.py.

The shipped water model has seen liquid water only. It keeps ice together, with frequencies like those of
ice, but in a cell that is too small and far too stiff: the examples show how a calculation goes, not
numbers about ice.
"""

from __future__ import annotations

from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.spacegroup import crystal
from dpa2md import DPA2Calculator
from dpa2md.cli_options import DEFAULT_MODEL

# Space group Cmc2_1, 8 molecules of heavy water at 5 K, fractional coordinates and angstrom:
# A. J. Leadbetter et al., J. Chem. Phys. 82, 424 (1985).
_SITES = {
    "O1": (0, 0.6648, 0.0631),
    "O2": (0.5, 0.8255, -0.0631),
    "H1": (0, 0.6636, 0.1963),
    "H2": (0, 0.5363, 0.0183),
    "H3": (0.6766, -0.2252, -0.0183),
}
_CELL = [4.465, 7.858, 7.292, 90, 90, 90]


def ice_xi(primitive: bool = False) -> Atoms:
    """Ice XI as measured, 24 atoms; or 12 in the primitive cell."""
    symbols = [name[0] for name in _SITES]
    sites = list(_SITES.values())
    ice = crystal(symbols, sites, spacegroup=36, cellpar=_CELL, primitive_cell=primitive)
    return Atoms(ice.symbols, ice.positions, cell=ice.cell, pbc=True)


def relaxed_ice(primitive: bool = False, fmax: float = 0.001) -> Atoms:
    """The same with the model's own positions and cell, to forces below `fmax` (eV/angstrom).

    In float64: derivatives are taken from differences of these forces.
    """
    ice = ice_xi(primitive)
    ice.calc = DPA2Calculator(DEFAULT_MODEL, precision="float64")
    BFGS(FrechetCellFilter(ice), logfile=None).run(fmax=fmax, steps=500)
    return ice
