"""Writes type_maps.npz: tensors of golden models after DeePMD-kit's `change_type_map`.

With DeePMD-kit 3.2.0 and torch installed, at the top of this repository:

    OMP_NUM_THREADS=1 PYTHONPATH=. python tests/train/make_type_maps.py

`MODEL/TENSOR`: in float64, the tensors that depend on elements; of statistics, which are equal over
the slots, the first slot. The rows of new elements in the type embedding are random.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from deepmd.pt.model.model import get_model

from tests.golden.make_golden import in_precision
from tests.golden.suite import MODELS
from tests.train.type_map_cases import TYPE_MAPS, is_by_element, short


def changed(name: str, elements: list[str]) -> dict[str, np.ndarray]:
    """Of one model with another type map."""
    with tempfile.TemporaryDirectory() as folder:
        data = in_precision(MODELS[name].write(Path(folder)).read_bytes(), "float64")
    state = torch.load(io.BytesIO(data), weights_only=True)["model"]
    params = state.pop("_extra_state")["model_params"]
    model = get_model(params)
    model.load_state_dict({k.removeprefix("model.Default."): v for k, v in state.items()})
    model.change_type_map(elements)
    return {
        key: short(key, value.detach().numpy())
        for key, value in model.state_dict().items()
        if is_by_element(key)
    }


def main() -> None:
    arrays = {}
    for name, elements in TYPE_MAPS.items():
        for key, array in changed(name, elements).items():
            arrays[f"{name}/{key}"] = array
    np.savez_compressed(Path(__file__).parent / "type_maps.npz", **arrays)


if __name__ == "__main__":
    main()
