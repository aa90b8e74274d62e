"""A molecule in ice turns by 180 degrees: python examples/neb.py --plot neb.png

A nudged elastic band with a climbing image between two states that differ only in which of the
molecule's protons is which, so that their energies must be equal. On the way two hydrogen bonds break.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.mep import NEB
from ase.optimize import FIRE
from ice import relaxed_ice

OXYGEN = 4  # the first of the molecules (O2) whose protons are equivalent


def turned(ice: Atoms, angle: float) -> Atoms:
    """`ice` with one molecule turned about its axis of symmetry by `angle` degrees."""
    distances = ice.get_distances(OXYGEN, range(len(ice)), mic=True)
    protons = [i for i in np.argsort(distances) if ice.symbols[i] == "H"][:2]
    bonds = Atoms("H2", ice.get_distances(OXYGEN, protons, mic=True, vector=True))
    bonds.rotate(angle, bonds.positions.sum(axis=0))
    image = ice.copy()
    image.calc = ice.calc
    image.positions[protons] = ice.positions[OXYGEN] + bonds.positions
    return image


def energy_path(images: int, fmax: float) -> np.ndarray:
    """Energies (images,) along the relaxed path, eV, from the first one."""
    crystal = relaxed_ice()
    ice = crystal.repeat((2, 1, 1))
    ice.calc = crystal.calc
    band = [turned(ice, angle) for angle in np.linspace(0, 180, images)]
    for climb in (False, True):  # a band that is near the path already climbs better
        neb = NEB(band, climb=climb, method="improvedtangent", allow_shared_calculator=True)
        FIRE(neb, logfile=None).run(fmax=fmax if climb else 3 * fmax, steps=300)
    energies = np.array([image.get_potential_energy() for image in band])
    return energies - energies[0]


def plot(energies: np.ndarray, file: str) -> None:
    """Draws the path into `file`."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    axes.plot(np.linspace(0, 1, len(energies)), energies, "o-")
    axes.set(xlabel="path", ylabel="energy (eV)", title="A molecule turns in ice XI")
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> np.ndarray:
    """Runs the example; returns the energies along the path, eV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=7, help="odd, so that one is in the middle")
    parser.add_argument("--fmax", type=float, default=0.03, help="eV/angstrom")
    parser.add_argument("--plot", metavar="FILE")
    args = parser.parse_args(arguments)
    energies = energy_path(args.images, args.fmax)
    print("energies along the path (eV):", *energies.round(3))
    print(f"barrier {energies.max():.3f} eV, end {energies[-1]:.1e} eV")
    if args.plot:
        plot(energies, args.plot)
    return energies


if __name__ == "__main__":
    main()
