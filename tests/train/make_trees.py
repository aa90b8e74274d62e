"""Writes trees.json.gz: what DeePMD-kit serializes some golden models to, without numbers.

With DeePMD-kit 3.2.0 and torch installed, at the top of this repository:

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/train/make_trees.py
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
from deepmd.pt.utils.serialization import serialize_from_file

from tests.golden.suite import MODELS

NAMES = (
    "tebd_into_repformer", "random_05", "strip_one_side", "res_residual_h2", "all_exclusions",
    "fparam_aparam_case", "default_fparam", "identity_g1", "atom_ener", "medium_float32",
    "dpa1_one_side", "dpa1_strip", "se_atten_not_smooth", "se_atten_v2_econf",
)  # fmt: skip


def shapes_only(value):
    """Arrays as their type and shape, the rest as it is in JSON."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        return {str(key): shapes_only(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [shapes_only(entry) for entry in value]
    return value


def main() -> None:
    trees = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = MODELS[name].write(Path(folder))
            trees[name] = shapes_only(serialize_from_file(str(path))["model"])
    data = gzip.compress(json.dumps(trees).encode(), mtime=0)
    (Path(__file__).parent / "trees.json.gz").write_bytes(data)


if __name__ == "__main__":
    main()
