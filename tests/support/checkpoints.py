"""Small checkpoints in torch's format, written without torch, for the tests of the converter.

`pickled` is an independent writer of the pickle instructions that torch uses, so that the reader is
not tested with its own tables. Numbers are random: only names, shapes and arithmetic are tested.
"""

from __future__ import annotations

import copy
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from dpa2md.conversion import load_records

STORAGES = {"float64": "DoubleStorage", "float32": "FloatStorage", "int64": "LongStorage"}


def pickled(value: Any, arrays: list[np.ndarray]) -> bytes:
    """A protocol-2 pickle of `value`; its arrays become tensors and are appended to `arrays`."""
    return b"\x80\x02" + _dump(value, arrays) + b"."


def _dump(value: Any, arrays: list[np.ndarray]) -> bytes:
    def dump(entry: Any) -> bytes:
        return _dump(entry, arrays)

    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw
    if isinstance(value, list):
        return b"](" + b"".join(map(dump, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(dump, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(dump(k) + dump(v) for k, v in value.items()) + b"u"
    arrays.append(value)
    steps = np.ascontiguousarray(value).strides[: value.ndim]  # it makes a scalar a vector
    strides = tuple(step // value.itemsize for step in steps)
    return tensor(STORAGES[value.dtype.name], str(len(arrays) - 1), value.size, 0, value.shape,
                  strides)  # fmt: skip


def tensor(
    storage: str, key: str, numel: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> bytes:
    """Pickle instructions for one tensor."""
    pid = b"(" + _dump("storage", []) + b"ctorch\n" + storage.encode() + b"\n"
    pid += _dump(key, []) + _dump("cpu", []) + _dump(numel, []) + b"tQ"
    rest = b"".join(_dump(part, []) for part in (offset, shape, stride, False))
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + rest + hooks + b"tR"


def write_zip(path: Path, data_pkl: bytes, arrays: list[np.ndarray], **options: Any) -> Path:
    """An archive as torch.save lays it out."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr(f"{path.stem}/data.pkl", data_pkl)
        archive.writestr(f"{path.stem}/byteorder", b"little")
        for key, array in enumerate(arrays):
            archive.writestr(f"{path.stem}/data/{key}", np.ascontiguousarray(array).tobytes())
        archive.writestr(f"{path.stem}/version", b"3\n")
    return path


def write_checkpoint(path: Path, params: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """A `.pt` file with the state of a training run."""
    arrays: list[np.ndarray] = []
    state = {**tensors, "_extra_state": {"model_params": params, "train_infos": {"lr": 0.001}}}
    return write_zip(path, pickled({"model": state, "optimizer": {}}, arrays), arrays)


def write_model(path: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """A `.pt` file with one model; `tensors` are named from the head on."""
    return write_checkpoint(path, config, {f"model.Default.{k}": v for k, v in tensors.items()})


_DPA2 = {
    "type_map": ["O", "H", "Si"],
    "descriptor": {
        "type": "dpa2",
        "repinit": {
            "rcut": 6.0, "rcut_smth": 0.5, "nsel": 20, "neuron": [3, 6, 6], "axis_neuron": 2,
            "tebd_dim": 4, "use_three_body": True, "three_body_neuron": [2, 5],
            "three_body_sel": 10, "three_body_rcut": 4.0, "three_body_rcut_smth": 3.0,
        },
        "repformer": {
            "rcut": 4.5, "rcut_smth": 3.5, "nsel": 12, "nlayers": 2, "g1_dim": 7, "g2_dim": 4,
            "axis_neuron": 3, "attn1_hidden": 3, "attn1_nhead": 2, "attn2_hidden": 5,
            "attn2_nhead": 2, "update_style": "res_residual", "update_h2": True,
        },
        "precision": "float64",
    },
    "fitting_net": {"neuron": [5, 5, 10], "resnet_dt": True, "precision": "float64"},
}  # fmt: skip

_DPA1 = {
    "type_map": ["O", "H"],
    "descriptor": {
        "type": "se_atten_v2", "rcut": 6.0, "rcut_smth": 0.5, "sel": 9, "neuron": [3, 6],
        "axis_neuron": 2, "tebd_dim": 2, "attn_layer": 0,
    },
    "fitting_net": {"neuron": [4], "resnet_dt": True},
}  # fmt: skip


def dpa2_config() -> dict[str, Any]:
    """A small DPA-2 model with everything switched on."""
    return copy.deepcopy(_DPA2)


def dpa1_config() -> dict[str, Any]:
    """A small attention-free DPA-1 model (strip)."""
    return copy.deepcopy(_DPA1)


class _Maker:
    def __init__(self, dtype: str):
        self.rng = np.random.default_rng(5)
        self.dtype = dtype
        self.tensors: dict[str, np.ndarray] = {}

    def add(self, name: str, *shape: int) -> None:
        self.tensors["atomic_model." + name] = self.rng.normal(size=shape).astype(self.dtype)

    def dense(self, name: str, n_in: int, n_out: int, bias: bool = True) -> None:
        self.add(f"{name}.matrix", n_in, n_out)
        if bias:
            self.add(f"{name}.bias", n_out)

    def net(self, name: str, widths: list[int], idt: bool = False, end: bool = False) -> None:
        """Layers under both names under which DeePMD-kit saves them."""
        prefix = f"{name}.networks.0.layers."
        for k in range(len(widths) - 1):
            self.dense(f"{prefix}{k}", widths[k], widths[k + 1])
            last = end and k == len(widths) - 2
            if idt and not last and widths[k + 1] in (widths[k], 2 * widths[k]):
                self.add(f"{prefix}{k}.idt", widths[k + 1])
        for key in [key for key in self.tensors if key.startswith("atomic_model." + prefix)]:
            self.tensors[key.replace(".networks.", "._networks.")] = self.tensors[key]

    def statistics(self, name: str, count: int, nsel: int) -> None:
        spread = self.rng.uniform(0.5, 1.5, (count, 1, 4)).repeat(nsel, axis=1).astype(self.dtype)
        self.tensors[f"atomic_model.{name}.mean"] = np.zeros_like(spread)
        self.tensors[f"atomic_model.{name}.stddev"] = spread
        for part in ("compress_info.0", "compress_data.0", "type_embd_data"):
            self.tensors[f"atomic_model.{name}.{part}"] = np.zeros(0, self.dtype)


def make_tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random tensors with the names and shapes that DeePMD-kit gives a model of this kind."""
    count = len(config["type_map"])
    descriptor, fitting = config["descriptor"], config["fitting_net"]
    make = _Maker(descriptor.get("precision", "float64"))
    make.add("out_bias", 1, count, 1)
    make.add("out_std", 1, count, 1)
    dpa2 = descriptor["type"] == "dpa2"
    block = descriptor["repinit"] if dpa2 else descriptor
    name = "descriptor.repinit" if dpa2 else "descriptor.se_atten"
    tebd, neuron = block["tebd_dim"], block["neuron"]
    n_in = 118 if descriptor.get("use_econf_tebd") else count
    make.dense("descriptor.type_embedding.embedding.embedding_net.layers.0", n_in, tebd,
               descriptor.get("use_tebd_bias", False))  # fmt: skip
    strip = not dpa2 or block.get("tebd_input_mode") == "strip"
    pair = tebd * (1 if block.get("type_one_side") else 2)
    idt = block.get("resnet_dt", False)
    make.statistics(name, count, block["nsel" if dpa2 else "sel"])
    make.net(f"{name}.filter_layers", [1 if strip else 1 + pair, *neuron], idt)
    if strip:
        make.net(f"{name}.filter_layers_strip", [pair, *neuron], idt)
    width = neuron[-1] * block["axis_neuron"]
    if dpa2:
        width = _repformer_tensors(make, block, descriptor["repformer"], count, strip, width)
    make.dtype = fitting.get("precision", "float64")
    make.add("fitting_net.bias_atom_e", count, 1)
    width += tebd if descriptor.get("concat_output_tebd", True) else 0
    for kind, key in (("fparam", "numb_fparam"), ("aparam", "numb_aparam")):
        if size := fitting.get(key, 0):
            make.add(f"fitting_net.{kind}_avg", size)
            make.add(f"fitting_net.{kind}_inv_std", size)
            width += size
    if size := fitting.get("dim_case_embd", 0):
        make.add("fitting_net.case_embd", size)
        width += size
    widths = [width, *fitting["neuron"], 1]
    make.net("fitting_net.filter_layers", widths, fitting.get("resnet_dt", True), end=True)
    for key in ("atomic_model.out_bias", "atomic_model.out_std"):
        make.tensors[key] = make.tensors[key].astype("float64")
    return make.tensors


def _repformer_tensors(
    make: _Maker, repinit: dict, rf: dict, count: int, strip: bool, width: int
) -> int:
    tebd, three = repinit["tebd_dim"], repinit["three_body_neuron"]
    name = "descriptor.repinit_three_body"
    make.statistics(name, count, repinit["three_body_sel"])
    make.net(f"{name}.filter_layers", [1 if strip else 1 + 2 * tebd, *three])
    if strip:
        make.net(f"{name}.filter_layers_strip", [2 * tebd, *three])
    make.dense("descriptor.g1_shape_tranform", width + three[-1], rf["g1_dim"], bias=False)
    g1, g2, axis = rf["g1_dim"], rf["g2_dim"], rf["axis_neuron"]
    make.statistics("descriptor.repformers", count, rf["nsel"])
    make.dense("descriptor.repformers.g2_embd", 1, g2)
    new = rf.get("g1_out_mlp", True)
    for k in range(rf["nlayers"]):
        layer = f"descriptor.repformers.layers.{k}."
        make.dense(layer + "linear1", axis * (g1 + g2) + (0 if new else g1 + g2), g1)
        make.dense(layer + "proj_g1g2", *((g2, g1) if new else (g1, g2)), bias=False)
        if new:
            make.dense(layer + "g1_self_mlp", g1, g1)
        n1, h1 = rf["attn1_nhead"], rf["attn1_hidden"]
        make.dense(layer + "loc_attn.mapq", g1, n1 * h1, bias=False)
        make.dense(layer + "loc_attn.mapkv", g1, n1 * (h1 + g1), bias=False)
        make.dense(layer + "loc_attn.head_map", g1 * n1, g1)
        n2, h2 = rf["attn2_nhead"], rf["attn2_hidden"]
        if k < rf["nlayers"] - 1:
            make.dense(layer + "linear2", g2, g2)
            make.dense(layer + "proj_g1g1g2", g1, g2, bias=False)
            make.dense(layer + "attn2g_map.mapqk", g2, 2 * n2 * h2, bias=False)
            make.dense(layer + "attn2_mh_apply.mapv", g2, g2 * n2, bias=False)
            make.dense(layer + "attn2_mh_apply.head_map", g2 * n2, g2)
            make.add(layer + "attn2_lm.matrix", g2)
            make.add(layer + "attn2_lm.bias", g2)
            if rf.get("update_h2"):
                make.dense(layer + "attn2_ev_apply.head_map", n2, 1, bias=False)
        if rf.get("update_style") == "res_residual":
            counts = [("g1", 4, g1)]
            counts += [("g2", 3, g2), ("h2", 1, 1)] if k < rf["nlayers"] - 1 else []
            for part, size, channels in counts:
                for r in range(size):
                    make.add(f"{layer}{part}_residual.{r}", channels)
    return g1


def records_of(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, np.ndarray] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """What the converter makes of a model; its tensors are `make_tensors(config)` by default."""
    tensors = make_tensors(config) if tensors is None else tensors
    return load_records(write_model(folder / "model.pt", config, tensors), **options)


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same records, to the bit and type, apart from their provenance."""
    first, second = (
        {name: value for name, value in records.items() if not name.startswith("meta.")}
        for records in (first, second)
    )
    assert first.keys() == second.keys()
    for name in first:
        assert type(first[name]) is type(second[name]), name
        if isinstance(first[name], np.ndarray):
            assert first[name].dtype == second[name].dtype, name
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        else:
            assert first[name] == second[name], name


SECTIONS = {
    "model": (),
    "descriptor": ("descriptor",),
    "descriptor.repinit": ("descriptor", "repinit"),
    "descriptor.repformer": ("descriptor", "repformer"),
    "fitting_net": ("fitting_net",),
}


def changed(config: dict[str, Any], section: str, **values: Any) -> dict[str, Any]:
    """A copy of a configuration with some keys of one section changed."""
    config = copy.deepcopy(config)
    target = config
    for key in SECTIONS[section]:
        target = target[key]
    target |= values
    return config
