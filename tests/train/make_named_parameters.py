"""Writes named_parameters.json: what DeePMD-kit's modules give as parameters to be trained.

With DeePMD-kit 3.2.0 and torch installed, at the top of this repository:

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/train/make_named_parameters.py
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from deepmd.pt.model.model import get_model

from tests.golden.configs import CASES

# A label, the configuration, and what to set `trainable` of one part to.
LABELS = {
    **{
        name: (name, "", True)
        for name in ("strip", "fparam_aparam_case", "res_residual_h2", "dpa1_one_side", "tebd_bias")
    },
    # its trainable_ln is false, which the descriptor's own trainable overwrites
    "layer_norm_fixed": ("layer_norm_fixed", "", True),
    "descriptor_frozen": ("layer_norm_fixed", "descriptor", False),
    "fitting_frozen": ("layer_norm_fixed", "fitting_net", False),
    "fitting_layer_frozen": ("layer_norm_fixed", "fitting_net", [True, False, True, True]),
}


def main() -> None:
    found = {}
    for label, (name, part, trainable) in LABELS.items():
        config = copy.deepcopy(CASES[name].model)
        if part:
            config[part]["trainable"] = trainable
        parameters = [
            [key, list(tensor.shape)]
            for key, tensor in get_model(config).named_parameters()
            if tensor.requires_grad and tensor.numel()  # places for compressed tables are empty
        ]
        found[label] = {
            "case": name,
            "part": part,
            "trainable": trainable,
            "parameters": parameters,
        }
    lines = [f"{json.dumps(label)}: {json.dumps(entry)}" for label, entry in found.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (Path(__file__).parent / "named_parameters.json").write_text(text)


if __name__ == "__main__":
    main()
