"""The `.dpa2` container: what is written is read back, and every kind of damage is refused."""

from __future__ import annotations

import errno
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from dpa2md.errors import ModelError
from dpa2md.model_file import MAGIC, is_model_file, read_model, write_model

RECORDS = {
    "model.kind": "dpa2",
    "meta.source": "größe.pt",
    "empty": "",
    "repinit.nsel": 120,
    "negative": -(2**62),
    "flag": True,
    "repinit.rcut": 6.0,
    "w": np.arange(6, dtype=np.float64).reshape(2, 3),
    "b": np.array([1.5, -0.0, 3.25e-30], dtype=np.float32),
    "mask": np.eye(2, dtype=np.int64),
    "four": np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2),
    "nothing": np.zeros((0, 3)),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.dpa2"
    write_model(path, RECORDS)
    return path


def test_round_trip_keeps_values_types_and_order(file):
    records = read_model(file)
    assert list(records) == list(RECORDS)
    for name, value in RECORDS.items():
        if isinstance(value, np.ndarray):
            assert records[name].dtype == value.dtype and records[name].shape == value.shape
            assert records[name].tobytes() == value.tobytes()
        else:
            assert records[name] == value
    assert type(records["repinit.nsel"]) is int and type(records["repinit.rcut"]) is float


def test_layout_is_the_documented_one(tmp_path):
    """Built here from the document's tables alone."""
    path = tmp_path / "one.dpa2"
    write_model(path, {"abc": np.array([1.0, 2.0], dtype=np.float32)})
    record = struct.pack("<HBBQ", 3, 4, 1, 2) + b"abc"
    record += bytes(-len(record) % 8) + struct.pack("<2f", 1.0, 2.0)
    header = MAGIC + struct.pack("<IIQII", 1, 1, len(record), zlib.crc32(record), 0)
    assert path.read_bytes() == header + record


def test_big_endian_and_strided_arrays_are_stored_alike(tmp_path):
    array = np.arange(12, dtype=np.float64).reshape(3, 4)
    for number, variant in enumerate((array, array.astype(">f8"), array.T.copy().T)):
        write_model(tmp_path / f"{number}.dpa2", {"w": variant})
    assert len({(tmp_path / f"{number}.dpa2").read_bytes() for number in range(3)}) == 1


def test_every_flipped_bit_is_refused(file):
    write_model(file, {name: RECORDS[name] for name in ("model.kind", "repinit.nsel", "b")})
    data = file.read_bytes()
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(ModelError):
                read_model(file)


def test_every_truncation_is_refused(file):
    data = file.read_bytes()
    for size in range(len(data)):
        file.write_bytes(data[:size])
        with pytest.raises(ModelError):
            read_model(file)
    file.write_bytes(data + b"\0")
    with pytest.raises(ModelError):
        read_model(file)


def with_payload(path, payload: bytes, count: int = 1):
    """A file whose header fits its payload: only the reader's own checks are left."""
    header = MAGIC + struct.pack("<IIQII", 1, count, len(payload), zlib.crc32(payload), 0)
    path.write_bytes(header + payload)
    return path


def record(name: bytes, kind: int, shape: tuple[int, ...], data: bytes) -> bytes:
    head = struct.pack(f"<HBB{len(shape)}Q", len(name), kind, len(shape), *shape) + name
    return head + bytes(-len(head) % 8) + data + bytes(-len(data) % 8)


@pytest.mark.parametrize(
    "payload",
    [
        record(b"w", 3, (2**61,), bytes(8)),
        record(b"w", 3, (2**40, 2**40), bytes(8)),
        record(b"w", 3, (0, 2**63), b""),
        record(b"w", 3, (2**32, 2**32, 2**32, 2**32), bytes(8)),
        record(b"w", 9, (1,), bytes(8)),
        record(b"w", 3, (1, 1, 1, 1, 1), bytes(8)),
        record(b"w", 1, (), b"a"),
        record(b"w", 1, (2,), b"\xff\xfe"),
        record(b"\xff", 2, (), bytes(8)),
        struct.pack("<HBB", 60000, 3, 0) + bytes(12),
    ],
    ids=["huge", "huge product", "huge empty", "overflow", "kind", "dims", "text scalar",
         "text bytes", "name", "name length"],
)  # fmt: skip
def test_impossible_records_are_refused_without_allocating(tmp_path, payload):
    path = with_payload(tmp_path / "bad.dpa2", payload)
    tracemalloc.start()
    with pytest.raises(ModelError):
        read_model(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20  # the file has below 100 bytes; the rest is Python's own


def test_repeated_names_and_leftover_bytes_are_refused(tmp_path):
    one = record(b"w", 2, (), bytes(8))
    with pytest.raises(ModelError, match="twice"):
        read_model(with_payload(tmp_path / "two.dpa2", one + one, count=2))
    with pytest.raises(ModelError, match="after the last"):
        read_model(with_payload(tmp_path / "more.dpa2", one + one, count=1))


def test_random_damage_behind_a_right_checksum_never_escapes(tmp_path, file):
    """Whatever the payload, the reader returns records or raises ModelError."""
    payload = file.read_bytes()[32:]
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(800):
        damaged = bytearray(payload)
        for position in rng.integers(len(damaged), size=rng.integers(1, 6)):
            damaged[position] = rng.integers(256)
        try:
            read_model(with_payload(tmp_path / "fuzz.dpa2", bytes(damaged), len(RECORDS)))
        except ModelError:
            refused += 1
    assert refused > 150  # the damage did reach the structure, not only the numbers


def test_messages_name_the_file_and_the_remedy(tmp_path):
    path = tmp_path / "text.dpa2"
    path.write_bytes(b"DPA2MD\n" + bytes(40))
    with pytest.raises(ModelError, match="text.dpa2.*text mode.*convert"):
        read_model(path)
    path.write_bytes(MAGIC + struct.pack("<IIQII", 2, 0, 0, 0, 0))
    with pytest.raises(ModelError, match="version 2.*update"):
        read_model(path)
    assert is_model_file(path) and not is_model_file(__file__)


@pytest.mark.parametrize(
    "value", [np.zeros(2, np.int32), np.zeros(2, np.complex128), np.zeros((1,) * 5), "x" * 2**16]
)
def test_what_has_no_form_in_a_file_is_refused(tmp_path, value):
    records = {value: 1} if isinstance(value, str) else {"w": value}
    with pytest.raises(ModelError):
        write_model(tmp_path / "bad.dpa2", records)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_model(file, {"w": 1})
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
