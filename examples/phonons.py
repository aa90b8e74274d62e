"""Phonons of ice XI with ase.phonons: python examples/phonons.py --plot phonons.png

Forces after small displacements in a supercell give the force constants, and those the bands. The
supercell must be larger than the range of the forces: try whether the bands still change. Prints the
frequencies at the zone centre; three of them, the translations, should be zero.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import units
from ase.dft.kpoints import BandPath
from ase.phonons import Phonons
from ice import relaxed_ice

# The zone of ice XI is a flattened hexagonal one; points as fractions of the primitive cell's reciprocal vectors.
POINTS = {"G": (0, 0, 0), "Y": (0.5, 0.5, 0), "S": (0, 0.5, 0), "Z": (0, 0, 0.5)}
PATH = "YGSGZ"


def bands(supercell: Sequence[int]) -> tuple[BandPath, np.ndarray]:
    """The path and the frequencies (points, 3 n) along it, 1/cm; imaginary ones are negative."""
    ice = relaxed_ice(primitive=True)
    with tempfile.TemporaryDirectory() as folder:
        phonons = Phonons(ice, ice.calc, supercell=tuple(supercell), name=str(Path(folder) / "ice"))
        phonons.run()
        phonons.read(acoustic=True)
    path = BandPath(ice.cell, path=PATH, special_points=POINTS).interpolate(npoints=100)
    return path, phonons.band_structure(path.kpts, verbose=False) / units.invcm


def plot(path: BandPath, frequencies: np.ndarray, file: str) -> None:
    """Draws the bands into `file`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    x, ticks, labels = path.get_linear_kpoint_axis()
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axes.plot(x, frequencies, color="tab:blue", linewidth=0.8)
    axes.set_xticks(ticks, [label.replace("G", "Γ") for label in labels])
    axes.set(xlim=(x[0], x[-1]), ylabel="frequency (1/cm)", title="Ice XI, shipped water model")
    axes.grid(axis="x")
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> np.ndarray:
    """Runs the example; returns the frequencies at the zone centre, 1/cm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--supercell", type=int, nargs=3, default=(4, 4, 3))
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args(arguments)
    path, frequencies = bands(args.supercell)
    centre = frequencies[np.argmin(np.linalg.norm(path.kpts, axis=1))]
    print("frequencies at the zone centre (1/cm):", *centre.round(1))
    if args.plot:
        plot(path, frequencies, args.plot)
    return centre


if __name__ == "__main__":
    main()
