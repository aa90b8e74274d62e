"""D3 dispersion on top of a model: python examples/dispersion.py

For models trained on a functional without dispersion; give the name of that functional, here PBE as an
example (adding dispersion to a model whose training data had it counts it twice). D3 is computed by
the package dftd3: pip install dftd3
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ase import Atoms
from dpa2md import DPA2Calculator
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import equilibrated_water


def main(arguments: Sequence[str] | None = None) -> Atoms:
    """Runs the example; returns the structure with its calculator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functional", default="PBE")
    parser.add_argument("--damping", default="bj")
    args = parser.parse_args(arguments)
    atoms = equilibrated_water()
    atoms.calc = DPA2Calculator(DEFAULT_MODEL, d3=args.functional, d3_damping=args.damping)
    total = atoms.get_potential_energy()
    d3 = atoms.calc.dispersion.compute(atoms, forces=False)["energy"]
    for name, energy in (("model", total - d3), ("D3", d3), ("together", total)):
        print(f"{name:8} {energy / len(atoms):12.6f} eV/atom")
    return atoms


if __name__ == "__main__":
    main()
