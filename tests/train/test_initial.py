"""Initial tensors: names, shapes, order as in DeePMD-kit's checkpoints, values as it draws them."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from dpa2md.errors import ModelError
from dpa2md.importer.contents import Source
from dpa2md.importer.torch_zip import Tensor, TorchZip
from dpa2md.importer.unpickle import read_pickle
from dpa2md.train.initial import initial_tensors
from dpa2md.train.layout import precision_of
from dpa2md.train.multi_task import MultiTaskModel
from dpa2md.train.parameters import TrainableModel

from tests.golden.bases import FULL, merge
from tests.golden.suite import MODELS

PLAIN = [
    name for name, golden in MODELS.items() if golden.head is None and not golden.set
]  # one head, of the PyTorch backend


def state(path) -> dict:
    with closing(TorchZip(path)) as archive:
        return read_pickle(archive)["model"]


@pytest.mark.parametrize("name", PLAIN)
def test_names_shapes_order_and_types(name, tmp_path):
    """Of all tensors, as in the state dict that DeePMD-kit wrote for the same configuration."""
    path = MODELS[name].write(tmp_path)
    found = state(path)
    config = found["_extra_state"]["model_params"]
    expected = {
        key.removeprefix("model.Default."): value
        for key, value in found.items()
        if isinstance(value, Tensor) and "._networks." not in key
    }
    tensors = initial_tensors(config, 1)
    assert list(tensors) == list(expected)
    assert [array.shape for array in tensors.values()] == [t.shape for t in expected.values()]
    model = TrainableModel(config, tensors).model
    for key, tensor in expected.items():
        assert np.dtype(precision_of(key, model)) == np.dtype(tensor.storage.dtype), key


# Widths that give every kind of tensor some hundreds of numbers.
LARGE = merge(
    FULL,
    {
        "descriptor": {
            "repinit": {"neuron": [30, 60, 60], "resnet_dt": True, "tebd_input_mode": "strip"},
            "repformer": {
                "g1_dim": 60, "g2_dim": 40, "update_h2": True, "attn1_hidden": 20,
                "attn2_hidden": 20, "nlayers": 4,
            },
            "use_tebd_bias": True,
            "add_tebd_to_repinit_out": True,
        },
        "fitting_net": {"neuron": [60, 60, 60]},
    },
)  # fmt: skip


def test_distributions():
    """Standard deviations as DeePMD-kit's MLPLayer has them: 1/sqrt(in + out) for matrices, 1 for
    biases, 0.1 +- 0.001 for time steps, a Glorot uniform for the transformation of g1."""
    model = TrainableModel(LARGE, initial_tensors(LARGE, 11))
    scaled: dict[str, list[np.ndarray]] = {}
    for name, array in model.tensors.items():
        kind = name.split(".")[-1]
        if "attn2_lm" in name:
            assert np.array_equal(array, np.full(40, float(kind == "matrix")))
        elif "_residual" in name:
            scaled.setdefault("residual", []).append(array / 0.3)
        elif "g1_shape_tranform" in name:
            unit = array * np.sqrt(sum(array.shape) / 6)
            assert np.abs(unit).max() <= 1 and np.abs(unit).max() > 0.99
            scaled.setdefault("uniform", []).append(unit * np.sqrt(3))
        elif kind == "matrix":
            part = "descriptor" if ".descriptor." in name else "fitting"
            scaled.setdefault(part, []).append(array * np.sqrt(sum(array.shape)))
        elif kind == "bias":
            scaled.setdefault(kind, []).append(array)
        elif kind == "idt":
            scaled.setdefault(kind, []).append((array - 0.1) / 0.001)
    assert len(scaled) == 6
    for kind, arrays in scaled.items():
        values = np.concatenate([array.ravel() for array in arrays])
        count = len(values)
        assert count > 200
        # five standard errors of the mean, and of the standard deviation of normal numbers
        assert abs(values.mean()) < 5 / np.sqrt(count), kind
        assert abs(values.std() - 1) < 5 / np.sqrt(2 * count), kind


def test_residuals_of_both_kinds():
    model = merge(LARGE, {"descriptor": {"repformer": {"update_residual_init": "const"}}})
    tensors = initial_tensors(model, 1)
    residuals = [array for name, array in tensors.items() if "_residual" in name]
    assert residuals and all((array == 0.3).all() for array in residuals)
    bad = merge(LARGE, {"descriptor": {"repformer": {"update_residual_init": "zero"}}})
    with pytest.raises(ModelError, match="update_residual_init = 'zero'"):
        initial_tensors(bad, 1)


def test_streams():
    """A tensor's numbers depend on seed, head and its name only."""
    first = initial_tensors(LARGE, 3)
    more = initial_tensors(merge(LARGE, {"descriptor": {"use_tebd_bias": False}}), 3)
    assert all(np.array_equal(array, first[name]) for name, array in more.items())
    assert len(more) == len(first) - 1
    name = "atomic_model.fitting_net.filter_layers.networks.0.layers.0.matrix"
    for other in (initial_tensors(LARGE, 4), initial_tensors(LARGE, 3, "head")):
        assert not np.isclose(first[name], other[name]).any()


def test_constants():
    """Everything that statistics set later is neutral, as in DeePMD-kit's constructors."""
    config = merge(
        LARGE,
        {"fitting_net": {"numb_fparam": 2, "default_fparam": [0.3, 1.5], "numb_aparam": 1,
                         "dim_case_embd": 3}},
    )  # fmt: skip
    tensors = initial_tensors(config, 1)
    ones = ("stddev", "out_std", "fparam_inv_std", "aparam_inv_std")
    zeros = ("mean", "out_bias", "bias_atom_e", "fparam_avg", "aparam_avg", "case_embd")
    seen = set()
    for name, array in tensors.items():
        kind = name.split(".")[-1]
        if kind in ones + zeros:
            seen.add(kind)
            assert (array == float(kind in ones)).all(), name
    assert len(seen) == 10
    values = tensors["atomic_model.fitting_net.default_fparam_tensor"]
    assert values.tolist() == [0.3, 1.5]


def test_reading_completes_files_without_unused_tensors(tmp_path):
    """Older files lack tensors that change no energy: they get what a constructor gives them."""
    whole = TrainableModel.read(MODELS["medium"].write(tmp_path))
    unused = ("compress", "out_std", "type_embd_data", "min_nbor_dist")
    kept = {k: v for k, v in whole.tensors.items() if not any(word in k for word in unused)}
    model = TrainableModel.from_source(Source(whole.config, kept))
    assert list(model.tensors) == list(whole.tensors)
    assert (model.tensors["atomic_model.out_std"] == 1).all()
    assert model.tensors["min_nbor_dist"] == -1
    whole = TrainableModel.read(MODELS["default_fparam"].write(tmp_path))
    name = "atomic_model.fitting_net.default_fparam_tensor"
    kept = {key: array for key, array in whole.tensors.items() if key != name}
    model = TrainableModel.from_source(Source(whole.config, kept))
    assert np.array_equal(model.tensors[name], whole.tensors[name])


def test_case_embeddings_tell_heads_apart():
    """By their alphabetical places, as in DeePMD-kit."""
    config = merge(LARGE, {"fitting_net": {"dim_case_embd": 2}})
    model = MultiTaskModel.initial({"b": config, "a": config}, [], 1)
    name = "atomic_model.fitting_net.case_embd"
    assert list(model.heads) == ["b", "a"]
    assert model.heads["a"].tensors[name].tolist() == [1, 0]
    assert model.heads["b"].tensors[name].tolist() == [0, 1]
    with pytest.raises(ModelError, match="dim_case_embd = 2 is less than"):
        MultiTaskModel.initial(dict.fromkeys("abc", config), [], 1)
    with pytest.raises(ModelError, match="differ in dim_case_embd"):
        MultiTaskModel.initial({"a": config, "b": LARGE}, [], 1)
