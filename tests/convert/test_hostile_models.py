"""Model files are untrusted: nothing in them is executed, and damage ends in a ModelError.

The proof is a sentinel file: each attack would make it, as the control at the top shows.
"""

from __future__ import annotations

import copy
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dpa2md.conversion import convert, list_heads, load_records
from dpa2md.errors import ModelError
from dpa2md.model_file import write_model as save_records

from tests.support.checkpoints import (
    dpa1_config,
    make_tensors,
    pickled,
    tensor,
    write_checkpoint,
    write_model,
    write_zip,
)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """A file that no test may find; attacks make it in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sentinel"
    yield path
    assert not path.exists()


def refused(tmp_path: Path, data_pkl: bytes, suffix: str = ".pt", match: str | None = None) -> None:
    path = write_zip(tmp_path / f"evil{suffix}", data_pkl, [np.zeros(4)])
    with pytest.raises(ModelError, match=match):
        load_records(path)
    with pytest.raises(ModelError):
        list_heads(path)


SYSTEM = b"cos\nsystem\n(" + text("touch sentinel") + b"tR."
CALL = b"(" + text("open('sentinel', 'w')") + b"tR."
ATTACKS = {
    "os.system": SYSTEM,
    "posix.system": SYSTEM.replace(b"cos", b"cposix"),
    "builtins.eval": b"cbuiltins\neval\n" + CALL,
    "builtins.exec": b"cbuiltins\nexec\n" + CALL,
    "__builtin__.eval": b"c__builtin__\neval\n" + CALL,
    "stack global": text("os") + text("system") + b"\x93(" + text("touch sentinel") + b"tR.",
    "subprocess": b"csubprocess\ncheck_call\n(](" + text("touch") + text("sentinel") + b"etR.",
    "INST": b"(" + text("touch sentinel") + b"ios\nsystem\n.",
    "OBJ": b"(cos\nsystem\n" + text("touch sentinel") + b"o.",
    "nested in a model": b"}(" + text("model") + SYSTEM[:-1] + b"u.",
    "nested in arguments": b"ccollections\nOrderedDict\n(" + SYSTEM[:-1] + b"tR.",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_calls_are_never_made(tmp_path, sentinel, attack):
    refused(tmp_path, b"\x80\x02" + ATTACKS[attack])
    refused(tmp_path, b"\x80\x02" + ATTACKS[attack], suffix=".pth")


@pytest.mark.parametrize("attack", ["os.system", "builtins.eval", "stack global", "INST"])
def test_the_attacks_are_real(tmp_path, monkeypatch, attack):
    """The control: Python's own unpickler runs them, so the sentinel does prove something."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(ATTACKS[attack])
    assert (tmp_path / "sentinel").exists()


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
EVIL = b"c__torch__.evil\nEvil\n"
TRICKS = {
    "importlib": b"cimportlib\nimport_module\n(" + text("os") + b"tR.",
    "torch.load": b"ctorch\nload\n(" + text("sentinel") + b"tR.",
    "torch.hub": b"ctorch.hub\nload\n(" + text("x/y") + text("z") + b"tR.",
    "torch.ops": b"ctorch.ops\nload_library\n(" + text("sentinel") + b"tR.",
    "torch.storage._load_from_bytes": b"ctorch.storage\n_load_from_bytes\n(C\x03abctR.",
    "torch._utils attribute": b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
    "_rebuild_wrapper_subclass": b"ctorch._utils\n_rebuild_wrapper_subclass\n)R.",
    "numpy reconstruct": b"cnumpy.core.multiarray\n_reconstruct\n)R.",
    "tensor of a global": TENSOR + b"(" + TENSOR + b"K\x00)))NNtR.",
    "tensor of a number": TENSOR + b"(K\x01K\x00))tR.",
    "tensor of nothing": TENSOR + b")R.",
    "calling a tensor": tensor("DoubleStorage", "0", 4, 0, (4,), (1,)) + b"(tR.",
    "calling text": text("system") + b"(tR.",
    "calling a stored type": b"ctorch\nDoubleStorage\n(tR.",
    "calling a script class": EVIL + b"(tR.",
    "a script class with arguments": EVIL + b"(K\x01t\x81.",
    "an object of a builder": TENSOR + b")\x81.",
    "state with __setstate__": EVIL + b")\x81}(" + text("__setstate__") + SYSTEM[:-1] + b"ub.",
    "state for a builder": TENSOR + b"}b.",
    "state for text": text("x") + b"}b.",
    "attributes that are no text": EVIL + b")\x81}(K\x01K\x02ub.",
    "OrderedDict of a call": b"ccollections\nOrderedDict\n(](K\x01K\x02etR.",
    "a codec": b"c_codecs\nencode\n(" + text("x") + text("rot13") + b"tR.",
    "a numpy type of objects": b"cnumpy\ndtype\n(" + text("O8") + b"tR.",
    "a numpy type of a list": b"cnumpy\ndtype\n(]tR.",
    "a scalar of text": b"cnumpy.core.multiarray\nscalar\n(" + text("f8") + b"NtR.",
    "persistent number": b"K\x01Q.",
    "persistent text": text("storage") + b"Q.",
    "persistent pair": b"(" + text("storage") + b"K\x01tQ.",
    "persistent module": b"(" + text("module") + b"ctorch\nDoubleStorage\n" + text("0")
    + text("cpu") + b"K\x04tQ.",
    "persistent without type": b"(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\x04tQ.",
    "persistent path": b"(" + text("storage") + b"ctorch\nDoubleStorage\n" + text("../version")
    + text("cpu") + b"K\x04tQ.",
    "ascii persistent": b"P0\n.",
    "extension": b"\x82\x01.",
    "python 2 text": b"S'x'\n.",
    "new object with keywords": EVIL + b")}\x92.",
    "frozen set": b"(\x91.",
    "next buffer": b"\x97.",
    "huge bytes": b"\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "huge text": b"X" + struct.pack("<I", 2**32 - 1) + b"x.",
    "huge integer": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "wide integer": b"\x8a\xff" + b"\x01" * 255 + b".",
    "empty": b"",
    "only a stop": b".",
    "no mark": b"t.",
    "no memo": b"h\x05.",
    "no end": b"}",
    "bad utf-8": b"X\x02\x00\x00\x00\xff\xfe.",
    "key of a tuple": b"}(" + b")K\x01u.",
    "odd items": b"}(K\x01u.",
    "items of a list": b"](K\x01K\x02u.",
    "entries of a dictionary": b"}(K\x01e.",
    "a list": b"].",
    "no model": b"}.",
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_odd_pickles_are_refused(tmp_path, sentinel, trick):
    refused(tmp_path, b"\x80\x02" + TRICKS[trick])


@pytest.mark.parametrize(
    "place",
    [
        ("DoubleStorage", "0", 4, 0, (5,), (1,)),
        ("DoubleStorage", "0", 4, 1, (4,), (1,)),
        ("DoubleStorage", "0", 4, 0, (2, 2), (3, 1)),
        ("DoubleStorage", "0", 4, 0, (2**30, 2**30), (0, 0)),
        ("DoubleStorage", "0", 4, 0, (2**31 - 1,), (0,)),
        ("DoubleStorage", "0", 4, -1, (2,), (1,)),
        ("DoubleStorage", "0", 4, 3, (2,), (-1,)),
        ("DoubleStorage", "0", 4, 0, (-2,), (1,)),
        ("DoubleStorage", "0", 4, 0, (2, 2), (1,)),
        ("DoubleStorage", "0", 4, 0, (1,) * 9, (1,) * 9),
        ("DoubleStorage", "0", 5, 0, (4,), (1,)),
        ("DoubleStorage", "0", 2**31 - 1, 0, (4,), (1,)),
        ("FloatStorage", "0", 4, 0, (4,), (1,)),
        ("DoubleStorage", "7", 4, 0, (4,), (1,)),
        ("QInt8Storage", "0", 4, 0, (4,), (1,)),
        ("DoubleStorage", "0", 4, 2**31 - 1, (1,), (1,)),
    ],
)
def test_tensors_stay_inside_their_storage(tmp_path, place):
    refused(tmp_path, b"\x80\x02" + tensor(*place) + b".", match="refused unread|no entry")


def peak_memory(path: Path) -> int:
    """Most bytes that Python held while it refused a file."""
    tracemalloc.start()
    with pytest.raises(ModelError):
        load_records(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_is_bounded_by_the_file(tmp_path):
    memo = b"\x80\x02N" + b"r" + struct.pack("<I", 2**32 - 1) + b"0."
    assert peak_memory(write_zip(tmp_path / "memo.pt", memo, [])) < 4e6
    bomb = pickled({"model": {}}, [])[:-1] + b"0" + b"N" * 10 + b" " * 50_000_000
    path = write_zip(tmp_path / "bomb.pt", bomb, [], compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000 and peak_memory(path) < 4e6


def nest(levels: int, twice: bool) -> bytes:
    """A list in a list in a list, or each holding the one below twice (2^levels leaves)."""
    out = b"]r\x00\x00\x00\x00"
    for level in range(1, levels):
        below = b"j" + struct.pack("<I", level - 1)
        out += b"0]r" + struct.pack("<I", level) + b"(" + below * (2 if twice else 1) + b"e"
    return out


@pytest.mark.parametrize("levels, twice", [(50, True), (20_000, False)])
def test_nesting_is_bounded(tmp_path, levels, twice):
    """A kilobyte can describe 2^50 entries, or a recursion deeper than any stack."""
    state = b"}(" + text("_extra_state") + b"}(" + text("model_params") + b"}(" + text("info")
    state += nest(levels, twice) + b"uuu"
    refused(tmp_path, b"\x80\x02" + state + b".", match="nested without end")


def test_frozen_modules_may_hold_themselves(tmp_path):
    name = b"c__torch__.deepmd.pt.model.model.ener_model\nEnergyModel\n"
    script = text("model_def_script") + text('{"type_map": ["O"]}')
    loop = b"\x80\x02" + name + b")\x81q\x00}(" + script + text("a") + b"h\x00" + text("b")
    loop += b"h\x00ub."
    refused(tmp_path, loop, suffix=".pth", match="nested without end")
    for bad in ("[", "[" * 100_000, "3", "null"):
        frozen = b"\x80\x02" + name + b")\x81}(" + text("model_def_script") + text(bad) + b"ub."
        refused(tmp_path, frozen, suffix=".pth", match="model_def_script")
    spin = b"\x80\x02" + name.replace(b"EnergyModel", b"SpinModel") + b")\x81."
    refused(tmp_path, spin, suffix=".pth", match="SpinModel")


# Archives -----------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path):
    return write_model(tmp_path / "good.pt", dpa1_config(), make_tensors(dpa1_config()))


def outcome(path: Path):
    """The arrays read from a file, or None when it is refused; anything else fails the test."""
    try:
        records = load_records(path)
    except ModelError as error:
        assert path.name in str(error) and "\n" not in str(error)
        return None
    return {name: value for name, value in records.items() if name[:5] != "meta."}


def test_truncated_checkpoints_are_refused(good):
    data = good.read_bytes()
    for size in range(0, len(data), 97):
        good.write_bytes(data[:size])
        assert outcome(good) is None


def test_flipped_bits_are_refused_or_change_nothing(good):
    """Checksums guard the numbers; a flip in what torch doesn't read may go unnoticed."""
    data = good.read_bytes()
    before = outcome(good)
    rng = np.random.default_rng(2)
    refused_count = 0
    for _ in range(600):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        good.write_bytes(damaged)
        after = outcome(good)
        if after is None:
            refused_count += 1
        else:
            assert after.keys() == before.keys()
            assert all(np.array_equal(after[name], before[name]) for name in before)
    assert refused_count > 200


def test_random_pickles_are_refused(tmp_path):
    """Damage behind a right checksum: the reader's own checks alone stand."""
    config = dpa1_config()
    arrays: list[np.ndarray] = []
    tensors = {f"model.Default.{k}": v for k, v in make_tensors(config).items()}
    state = tensors | {"_extra_state": {"model_params": config}}
    data = pickled({"model": state}, arrays)
    rng = np.random.default_rng(3)
    refused_count = 0
    for _ in range(600):
        damaged = bytearray(data)
        for position in rng.integers(len(data), size=rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path = write_zip(tmp_path / "fuzz.pt", bytes(damaged), arrays)
        refused_count += outcome(path) is None
    assert refused_count > 300


def test_archives_of_other_forms_are_refused(tmp_path):
    arrays: list[np.ndarray] = []
    data = pickled({"model": {}}, arrays)
    path = tmp_path / "odd.pt"
    for names in (["a/data.pkl", "b/version"], ["data.pkl"], ["a/version"]):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, data)
        assert outcome(path) is None
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", data)
    assert outcome(path) is None
    path.write_bytes(pickle.dumps({"model": {}}))
    assert outcome(path) is None
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/byteorder", b"big")
    with pytest.raises(ModelError, match="big-endian"):
        load_records(path)


def test_entries_that_share_bytes_are_refused(tmp_path):
    """A directory can list one block of bytes many times, making a small file look large."""
    path = write_zip(tmp_path / "shared.pt", b"N" * 2000, [])
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.infolist()[0]
        for k in range(50):
            copy = zipfile.ZipInfo(f"shared/data/{k}")
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.compress_size = copy.file_size = first.file_size
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    with pytest.raises(ModelError, match="not laid out"):
        load_records(path)


# Trees --------------------------------------------------------------------------------------------


ARRAY = "model: {'@class': Model, '@variables': {out_bias: {'@class': np.ndarray, %s}}}"


@pytest.mark.parametrize(
    "content",
    [
        "!!python/object/apply:os.system ['touch sentinel']",
        "a: !!python/name:os.system",
        "a: !!python/object/new:os.system [touch sentinel]",
        "? [1, 2]\n: 3",
        "model: &a [*a, *a]",
        "[" * 50_000,
        "a: " + "{a: " * 50_000,
        "a: 1\n--- \nb: 2",
        "a: 'unfinished",
        "\x00",
        "model: {}",
        ARRAY % "dtype: object, value: []",
        ARRAY % "dtype: float64, value: [[1], 2]",
        "",
    ],
)
def test_odd_yaml_is_refused(tmp_path, sentinel, content):
    pytest.importorskip("yaml")
    path = tmp_path / "model.yaml"
    path.write_text(content)
    assert outcome(path) is None


def test_yaml_that_repeats_itself_is_refused(tmp_path):
    """The billion laughs: 40 lines, each with the line above it ten times."""
    pytest.importorskip("yaml")
    lines = ["l0: &l0 [1, 1]"]
    lines += [f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 10)}]" for k in range(1, 40)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(lines))
    assert peak_memory(path) < 1e8


def test_hdf5_files_stay_inside_themselves(tmp_path):
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret.dp"
    with h5py.File(secret, "w") as file:
        file["out"] = np.ones((1, 1, 1))
    path = tmp_path / "model.dp"
    variables = '{"model": {"@class": "Model", "@variables": {"out_bias": "/%s"}}}'
    for name in ("external", "soft", "virtual", "zipped", "empty", "text", "group", "none", "a/b"):
        with h5py.File(path, "w") as file:
            file.attrs["json"] = variables % name
            file["external"] = h5py.ExternalLink("secret.dp", "/out")
            file["soft"] = h5py.SoftLink("/external")
            layout = h5py.VirtualLayout((1, 1, 1), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "out", shape=(1, 1, 1))
            file.create_virtual_dataset("virtual", layout)
            file.create_dataset("zipped", data=np.zeros((1000, 1000)), compression="gzip")
            file.create_dataset("empty", shape=(2**20, 2**10), dtype="f8")  # no bytes behind it
            file["text"] = "touch sentinel"
            file.create_group("group")
        with pytest.raises(ModelError, match="array"):
            load_records(path)
    with h5py.File(path, "w") as file:  # half of a surrogate pair is a name that HDF5 can't look up
        file.attrs["json"] = variables % "\\ud800"
    assert outcome(path) is None
    for content in ("{", "[]", '{"model": 1}', "[" * 100_000):
        with h5py.File(path, "w") as file:
            file.attrs["json"] = content if len(content) < 60_000 else content[:60_000]
        assert outcome(path) is None
    data = path.read_bytes()
    for size in range(0, len(data), 499):
        path.write_bytes(data[:size])
        assert outcome(path) is None


def test_pt2_without_weights_is_refused_by_name(tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data/aotinductor/model.so", b"\x7fELF")
    with pytest.raises(ModelError, match="compiled code"):
        load_records(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/extra/model.json", "{" * 1000)
    with pytest.raises(ModelError, match="JSON"):
        load_records(path)


def test_names_that_are_no_text(good, tmp_path):
    """A file name of any bytes converts; text that is none is refused."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.pt"))
    odd.write_bytes(good.read_bytes())
    assert load_records(convert(odd, tmp_path / "odd.dpa2"))["meta.source"] == "\ufffd.pt"
    with pytest.raises(ModelError, match="not text"):
        save_records(tmp_path / "half.dpa2", {"meta.source": "\ud800"})


def test_files_are_only_read(good):
    before = {path: path.read_bytes() for path in good.parent.iterdir()}
    load_records(good)
    assert {path: path.read_bytes() for path in good.parent.iterdir()} == before
    assert os.listdir(good.parent) == [good.name]


def test_a_head_of_a_hostile_name_stays_a_name(tmp_path):
    config = dpa1_config()
    name = "../../etc; touch sentinel"
    tensors = {f"model.{name}.{k}": v for k, v in make_tensors(config).items()}
    path = write_checkpoint(tmp_path / "heads.pt", {"model_dict": {name: config}}, tensors)
    assert load_records(path, head=name)["meta.head"] == name


ODD_VALUES = [None, [], {}, "", "x", -1, 0, 1.5, float("nan"), float("inf"), True, [[1]], ["a"],
              {"a": 1}, 10**9, [None], {"@class": "np.ndarray"}]  # fmt: skip


def paths(tree, path=()):
    """Paths to all entries of a tree of dictionaries and lists."""
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield (*path, key)
            yield from paths(value, (*path, key))


def test_odd_values_anywhere_in_a_configuration(tmp_path):
    """Any entry of the configuration may be of any type: records or a ModelError, nothing else."""
    branch = dpa1_config() | {"model_branch_alias": ["other"]}
    tensors = {f"model.a.{k}": v for k, v in make_tensors(dpa1_config()).items()}
    plain = {"model_dict": {"a": branch}, "shared_dict": {}}
    refused_count = 0
    for path in paths(plain):
        for value in ODD_VALUES:
            params = copy.deepcopy(plain)
            target = params
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
            file = write_checkpoint(tmp_path / "odd.pt", params, tensors)
            try:
                load_records(file, head="a")
            except ModelError:
                refused_count += 1
    assert refused_count > 100
