"""Writes statistics.npz: what DeePMD-kit computes from the systems in statistics_frames.py.

With DeePMD-kit 3.2.0 and torch installed, at the top of this repository:

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/train/make_statistics.py

`MODEL/TENSOR`: the tensors `mean`, `stddev`, `out_bias`, ... of a new model with those statistics,
for every model of `statistics_frames.MODELS`; `atomic/...` with atomic energies of the last system;
`heads/HEAD/...` of two heads that share descriptor and fitting net; `change/...` of the golden
model `se_atten_v2` after a change of its bias by the same systems' energies.
"""

from __future__ import annotations

import copy
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper
from deepmd.pt.utils.multi_task import preprocess_shared_params

from tests.golden.suite import MODELS as GOLDEN
from tests.train.statistics_frames import MODELS, Frame, systems, with_atomic

WORDS = ("mean", "stddev", "out_bias", "out_std", "param_avg", "param_inv_std")


def sample(frames: list[Frame], elements: int) -> dict:
    """One system as DeePMD-kit's data loader packs it."""

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(frame, name) for frame in frames]))

    first = frames[0]
    count, n = len(frames), len(first.types)
    kinds = np.bincount(first.types, minlength=elements)
    found = {
        "coord": stacked("positions").reshape(count, n, 3),
        "atype": stacked("types"),
        "box": stacked("cell").reshape(count, 9) if first.pbc.any() else None,
        "natoms": torch.from_numpy(np.tile([n, n, *kinds], (count, 1))),
    }
    if first.energy is not None:
        energies = np.array([frame.energy for frame in frames])[:, None]
        found |= {"energy": torch.from_numpy(energies), "find_energy": np.float32(1.0)}
    if first.atom_energies is not None:
        found |= {"atom_energy": stacked("atom_energies")[..., None],
                  "find_atom_energy": np.float32(1.0)}  # fmt: skip
    if first.fparam is not None:
        found |= {"fparam": stacked("fparam"), "find_fparam": np.float32(1.0)}
        found |= {"aparam": stacked("aparam"), "find_aparam": np.float32(1.0)}
    return found


def statistics_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {
        name: tensor.numpy().copy()
        for name, tensor in module.state_dict().items()
        if name.endswith(WORDS) and "bias_atom_e" not in name
    }


def of_one(config: dict, data: list[list[Frame]]) -> dict[str, np.ndarray]:
    model = get_model(copy.deepcopy(config))
    samples = [sample(frames, len(config["type_map"])) for frames in data]
    model.compute_or_load_stat(lambda: samples)
    return statistics_of(model)


def of_heads() -> dict[str, np.ndarray]:
    """Two heads with one system each, trained at 3 to 1."""
    config = copy.deepcopy(MODELS["se_atten_v2"])
    head = {"type_map": "types", "descriptor": "descriptor", "fitting_net": "net"}
    parts = {
        "types": config.pop("type_map"),
        "descriptor": config.pop("descriptor"),
        "net": config.pop("fitting_net"),
    }
    params = {"shared_dict": parts, "model_dict": {"one": config | head, "two": config | head}}
    params, links = preprocess_shared_params(copy.deepcopy(params))
    models = {name: get_model(copy.deepcopy(p)) for name, p in params["model_dict"].items()}
    wrapper = ModelWrapper(models, model_params=params)
    for model, frames in zip(models.values(), systems(), strict=False):
        samples = [sample(frames, 4)]
        model.compute_or_load_stat(lambda samples=samples: samples)
    wrapper.share_params(links, {"one": 0.75, "two": 0.25}, data_stat_protect=0.005, resume=False)
    return {
        f"{name}/{key}": value
        for name, model in models.items()
        for key, value in statistics_of(model).items()
    }


def of_changed_bias() -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        data = GOLDEN["se_atten_v2"].write(Path(folder)).read_bytes()
    state = torch.load(io.BytesIO(data), weights_only=True)["model"]
    wrapper = ModelWrapper(get_model(state["_extra_state"]["model_params"]))
    wrapper.load_state_dict(state)
    model = wrapper.model["Default"]
    frames = [systems()[0], systems()[2]]  # of the two elements that it has
    model.change_out_bias([sample(f, 2) for f in frames], "change-by-statistic")
    return statistics_of(model)


def main() -> None:
    found = {name: of_one(config, systems()) for name, config in MODELS.items()}
    *first, last = systems()
    found["atomic"] = of_one(MODELS["zero_averages"], [*first, with_atomic(last)])
    found["heads"] = of_heads()
    found["change"] = of_changed_bias()
    arrays = {f"{name}/{key}": value for name, one in found.items() for key, value in one.items()}
    for key, value in arrays.items():
        if key.endswith(("mean", "stddev")):  # equal in all slots: the first one is kept
            assert (value == value[:, :1]).all(), key
            arrays[key] = value[:, :1]
    np.savez_compressed(Path(__file__).parent / "statistics.npz", **arrays)


if __name__ == "__main__":
    main()
