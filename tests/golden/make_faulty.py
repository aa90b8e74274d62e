"""Makes `faulty.npz`: models that break a rule of physics in DeePMD-kit itself, as `dpa2md check` says.

`davg_strip_exclude` has a jump where an excluded pair crosses the cutoff: with a davg that is not zero,
an excluded neighbour inside the cutoff counts otherwise than an empty slot. `uneven_dstd` has statistics
that differ over x, y and z, so that turning a structure changes its energy.

In the environment that `make_golden.py` describes, after it:

    cd tests
    python -m golden.make_faulty
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from deepmd.infer import DeepPot

from .configs import CASES
from .systems import all_structures

HERE = Path(__file__).parent
STEP = 1e-4  # angstrom, on either side of the cutoff


def crossing(positions: np.ndarray, rcut: float) -> np.ndarray:
    """(2, n, 3): the second atom just inside and just outside of the first one's cutoff."""
    moved = np.repeat(positions[None], 2, axis=0)
    moved[:, 1] = positions[0] + np.array([[rcut - STEP, 0, 0], [rcut + STEP, 0, 0]])
    return moved


def turning(positions: np.ndarray) -> np.ndarray:
    """(2, n, 3): as it is, and after a quarter turn about z, which rounds nothing."""
    return np.stack([positions, positions[:, [1, 0, 2]] * [-1, 1, 1]])


def main() -> None:
    torch.set_default_dtype(torch.float64)
    molecule = all_structures()["molecule"]
    # an excluded pair needs an O and an H in front
    order = [np.flatnonzero(molecule.kinds == kind)[0] for kind in (0, 1)]
    order += [k for k in range(len(molecule)) if k not in order]
    positions, kinds = molecule.positions[order], molecule.kinds[order]
    arrays = {"kinds": kinds}
    for name in ("davg_strip_exclude", "uneven_dstd"):
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(HERE / "models.zip") as archive:
                path = archive.extract(f"{name}.pt", folder)
            potential = DeepPot(path, no_jit=True, nlist_backend="native")
        pair = turning(positions)
        if name == "davg_strip_exclude":
            pair = crossing(positions, potential.get_rcut())
        types = np.asarray(CASES[name].used)[kinds]
        energy, forces, _ = potential.eval(pair, None, types)
        arrays |= {f"{name}/positions": pair, f"{name}/energy": energy[:, 0]}
        arrays |= {f"{name}/forces": forces}
        print(name, energy[:, 0], np.abs(forces).max())
    np.savez_compressed(HERE / "faulty.npz", **arrays)


if __name__ == "__main__":
    main()
