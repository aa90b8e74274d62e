"""The published DPA-2 configurations with random weights, to time.

    python benchmarks/published_models.py OUTDIR [small medium large ...] [--precision float32 float64]
    python benchmarks/published_models.py OUTDIR [small medium large dpa1] --dpa2

The first line writes DeePMD-kit's checkpoints, NAME-PRECISION.pt, and needs a Python that has deepmd-kit and torch. The
second writes NAME.dpa2 (float32; whatever runs it may choose another precision) without either. small, medium and large are DeePMD-kit's own examples of water
(`examples/water/dpa2/input_torch_*.json`); gen2.0 is the first generation (12 layers, g1 attention, g2 that
depends on g1, averaged updates), universal the medium one with 118 elements and strip embedding, dpa1 the
distilled student without attention. Time does not depend on the weights.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

from random_models import random_records

WITHOUT_TORCH = ("small", "medium", "large", "dpa1")

REPFORMER = {
    "rcut": 4.0,
    "rcut_smth": 3.5,
    "nsel": 48,
    "nlayers": 6,
    "g1_dim": 128,
    "g2_dim": 32,
    "attn2_hidden": 32,
    "attn2_nhead": 4,
    "attn1_hidden": 128,
    "attn1_nhead": 4,
    "axis_neuron": 4,
    "update_h2": False,
    "update_g1_has_conv": True,
    "update_g1_has_grrg": True,
    "update_g1_has_drrd": True,
    "update_g1_has_attn": False,
    "update_g2_has_g1g1": False,
    "update_g2_has_attn": True,
    "update_style": "res_residual",
    "update_residual": 0.01,
    "update_residual_init": "norm",
    "attn2_has_gate": True,
    "use_sqrt_nnei": True,
    "g1_out_conv": True,
    "g1_out_mlp": True,
}
REPINIT = {
    "tebd_dim": 8,
    "rcut": 6.0,
    "rcut_smth": 0.5,
    "nsel": 120,
    "neuron": [25, 50, 100],
    "axis_neuron": 12,
    "activation_function": "tanh",
    "three_body_sel": 48,
    "three_body_rcut": 4.0,
    "three_body_rcut_smth": 3.5,
    "use_three_body": True,
}
GEN20 = {
    "nlayers": 12,
    "update_g1_has_attn": True,
    "update_g2_has_g1g1": True,
    "update_style": "res_avg",
    "use_sqrt_nnei": False,
    "g1_out_conv": False,
    "g1_out_mlp": False,
}


def dpa2(repformer: dict, repinit: dict | None = None, **model: object) -> dict:
    """A DPA-2 model's configuration: the medium one, changed."""
    for old in ("update_residual", "update_residual_init"):
        if repformer.get("update_style") == "res_avg":
            repformer = {**repformer, old: REPFORMER[old]}
    return {
        "type_map": ["O", "H"],
        "descriptor": {
            "type": "dpa2",
            "repinit": {**REPINIT, **(repinit or {})},
            "repformer": {**REPFORMER, **repformer},
            "add_tebd_to_repinit_out": False,
            "seed": 1,
        },
        "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1},
        **model,
    }


def configurations(elements: Sequence[str]) -> dict[str, dict]:
    """Name -> model section of a training input; `elements` are the universal model's."""
    student = {
        "type_map": ["O", "H"],
        "descriptor": {
            "type": "dpa1",
            "rcut": 6.0,
            "rcut_smth": 0.5,
            "sel": 120,
            "neuron": [25, 50, 100],
            "axis_neuron": 16,
            "tebd_dim": 8,
            "tebd_input_mode": "strip",
            "attn_layer": 0,
            "seed": 1,
        },
        "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1},
    }
    return {
        "small": dpa2({"nlayers": 3, "update_g2_has_attn": False}),
        "medium": dpa2({}),
        "large": dpa2({"nlayers": 12}),
        "gen2.0": dpa2(GEN20, {"use_three_body": False}),
        "universal": dpa2({}, {"tebd_input_mode": "strip"}, type_map=list(elements)),
        "dpa1": student,
    }


def write(config: dict, precision: str, path: Path) -> None:
    """A checkpoint with random weights and an environment of natural size."""
    import torch
    from deepmd.pt.model.model import get_model
    from deepmd.pt.train.wrapper import ModelWrapper
    from deepmd.utils.argcheck import model_args

    config = copy.deepcopy(config)
    config["descriptor"]["precision"] = config["fitting_net"]["precision"] = precision
    config = model_args().normalize_value(config, trim_pattern="_*")
    torch.manual_seed(1)
    wrapper = ModelWrapper(get_model(config), model_params=config)
    with torch.no_grad():
        for key, value in wrapper.named_buffers():
            if key.endswith("stddev"):
                value[..., 0], value[..., 1:] = 0.2, 0.12
    torch.save({"model": wrapper.state_dict()}, path)


def write_without_torch(name: str, folder: Path) -> Path:
    """A model of dpa2md's own, in float32."""
    from dpa2md.model_file import write_model

    if name not in WITHOUT_TORCH:
        raise SystemExit(f"--dpa2 makes {', '.join(WITHOUT_TORCH)}, not {name}.")
    path = folder / f"{name}.dpa2"
    write_model(path, random_records(configurations(["O", "H"])[name], "float32"))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("outdir", type=Path)
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--precision", nargs="+", default=["float32", "float64"])
    parser.add_argument("--dpa2", action="store_true", help="without torch, as NAME.dpa2")
    args = parser.parse_args()
    args.outdir.mkdir(parents=True, exist_ok=True)
    if args.dpa2:
        for name in args.names or WITHOUT_TORCH:
            print(write_without_torch(name, args.outdir))
        return
    from deepmd.utils.econf_embd import electronic_configuration_embedding

    every = configurations(electronic_configuration_embedding)
    for name in args.names or every:
        for precision in args.precision:
            path = args.outdir / f"{name}-{precision}.pt"
            write(every[name], precision, path)
            print(path)


if __name__ == "__main__":
    main()
