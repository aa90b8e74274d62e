"""Elastic constants of ice XI from stresses: python examples/elastic.py --plot elastic.png

The relaxed crystal is strained both ways along each of the six components, its atoms are relaxed
again, and the central difference of the stresses is a column of the stiffness matrix. Its asymmetry
tells the error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from dpa2md.elastic import moduli, stiffness
from ice import relaxed_ice

FMAX = 0.0005  # eV/angstrom; moves a stress by far less than the strain does
# Hexagonal ice at -16 degrees Celsius, GPa: P. H. Gammon et al., J. Glaciol. 29, 433 (1983), abstract.
MEASURED = {"C11": 13.929, "C12": 7.082, "C13": 5.765, "C33": 15.010, "C44": 3.014}


def plot(matrix: np.ndarray, file: str) -> None:
    """Draws the matrix into `file`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.5, 3.8), layout="constrained")
    image = axes.imshow(matrix, cmap="Blues", vmin=0)
    for (i, j), value in np.ndenumerate(matrix.round(1) + 0.0):  # no -0.0
        dark = value > matrix.max() / 2
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", color="w" if dark else "k")
    labels = ["xx", "yy", "zz", "yz", "xz", "xy"]
    axes.set_xticks(range(6), labels)
    axes.set_yticks(range(6), labels)
    axes.set_title("Stiffness of ice XI, shipped water model")
    figure.colorbar(image, label="GPa")
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> np.ndarray:
    """Runs the example; returns the stiffness matrix (6, 6), GPa."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strain", type=float, default=0.005)
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args(arguments)
    crystal = relaxed_ice(fmax=FMAX)
    matrix = stiffness(crystal, args.strain, FMAX)
    found = moduli(matrix)
    print("cell of the model (angstrom):", *crystal.cell.lengths().round(3))
    print("stiffness (GPa):")
    for row in matrix.round(2) + 0.0:  # no -0.00
        print("".join(f"{value:8.2f}" for value in row))
    print(f"bulk and shear modulus (GPa): {found.bulk:.2f}, {found.shear:.2f}")
    print("measured, hexagonal ice:", ", ".join(f"{k} {v}" for k, v in MEASURED.items()))
    if args.plot:
        plot(matrix, args.plot)
    return matrix


if __name__ == "__main__":
    main()
