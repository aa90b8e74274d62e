"""Evaluates model files with DeePMD-kit, for test_export_deepmd.py: INDEX.json in, RESULTS.npz out.

INDEX.json: file name to {"used": types, "head": name or null}; the structure is `five_elements`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from deepmd.infer import DeepPot

from tests.golden.systems import all_structures, atom_parameters, frame_parameters

structure = all_structures()["five_elements"]
found = {}
for file, entry in json.loads(Path(sys.argv[1]).read_text()).items():
    options = {"no_jit": True, "nlist_backend": "native"} if file.endswith(".pt") else {}
    if entry["head"]:
        options["head"] = entry["head"]
    potential = DeepPot(file, **options)
    nfparam, naparam = potential.get_dim_fparam(), potential.get_dim_aparam()
    energy, forces, virial, *_ = potential.eval(
        structure.positions[None],
        structure.cell.reshape(1, 9),
        structure.types(tuple(entry["used"])),
        fparam=frame_parameters(nfparam) if nfparam else None,
        aparam=atom_parameters(len(structure), naparam)[None] if naparam else None,
    )
    found[f"{file}/energy"] = energy[0, 0]
    found[f"{file}/forces"] = forces[0]
    found[f"{file}/virial"] = virial[0].reshape(3, 3)
np.savez(sys.argv[2], **found)
