"""Makes `descriptors.npz`: what DeePMD-kit's `DeepPot.eval_descriptor` gives for golden models.

In the environment that `make_golden.py` describes, after it:

    cd tests
    python -m golden.make_descriptors
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from deepmd.infer import DeepPot

from .configs import CASES
from .systems import all_structures, atom_parameters, frame_parameters, periodic_box

HERE = Path(__file__).parent
# DPA-2 with and without the type embedding in the output, with three elements, with parameters of
# the fitting net; DPA-1 in both input modes, with and without it.
MODELS = ["full", "no_output_tebd", "tebd_bias_strip", "fparam_aparam_case", "dpa1", "dpa1_davg"]
# Periodic and tilted; free; a cell smaller than the cutoff.
STRUCTURES = ["triclinic", "molecule", "metal_2"]


def main() -> None:
    torch.set_default_dtype(torch.float64)
    structures = all_structures()
    arrays = {}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(HERE / "models.zip") as archive:
                path = archive.extract(f"{name}.pt", folder)
            potential = DeepPot(path, no_jit=True, nlist_backend="native")
        for label in STRUCTURES:
            structure = structures[label]
            box = periodic_box(structure, potential.get_rcut())
            nf, na = potential.get_dim_fparam(), potential.get_dim_aparam()
            descriptor = potential.eval_descriptor(
                structure.positions[None],
                None if box is None else box.reshape(1, 9),
                structure.types(CASES[name].used),
                fparam=frame_parameters(nf) if nf else None,
                aparam=atom_parameters(len(structure), na)[None] if na else None,
            )
            arrays[f"{name}/{label}"] = descriptor.reshape(len(structure), -1)
            print(name, label, arrays[f"{name}/{label}"].shape)
    np.savez_compressed(HERE / "descriptors.npz", **arrays)


if __name__ == "__main__":
    main()
