"""D3 dispersion on top of a model, by ASE's SumCalculator: python examples/dispersion.py

For models trained on a functional without dispersion; give the name of that functional, here PBE as an
example (adding dispersion to a model whose training data had it counts it twice). D3 is computed by
the package dftd3: pip install dftd3
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ase import Atoms
from ase.calculators.mixing import SumCalculator
from dpa2md import DPA2Calculator
from dpa2md.cli_options import DEFAULT_MODEL
from dpa2md.structures import equilibrated_water


def with_dispersion(atoms: Atoms, functional: str) -> Atoms:
    """`atoms` with the shipped model plus D3 with Becke-Johnson damping."""
    from dftd3.ase import DFTD3

    model = DPA2Calculator(DEFAULT_MODEL)
    atoms.calc = SumCalculator([model, DFTD3(method=functional, damping="d3bj")])
    return atoms


def main(arguments: Sequence[str] | None = None) -> Atoms:
    """Runs the example; returns the structure with its calculator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functional", default="PBE")
    args = parser.parse_args(arguments)
    atoms = with_dispersion(equilibrated_water(), args.functional)
    total = atoms.get_potential_energy()
    names = ["model", "D3"]
    for name, part in zip(names, atoms.calc.mixer.calcs, strict=True):
        energy = part.get_potential_energy(atoms)
        print(f"{name:8} {energy / len(atoms):12.6f} eV/atom")
    print(f"{'together':8} {total / len(atoms):12.6f} eV/atom")
    return atoms


if __name__ == "__main__":
    main()
