"""Reading and writing ``.dpa2`` files (the format is described in docs/model-format.md).

A file is a 32-byte header and a sequence of named records: text, int64, float64 or float32 arrays
of up to four dimensions. Nothing in a file is ever executed, and every size in it is checked
against the real number of bytes before memory is allocated.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .base.files import whole_file
from .errors import ModelError

Record = str | int | float | np.ndarray

MAGIC = b"DPA2MD\r\n"
VERSION = 1
MAX_DIMS = 4

_HEADER = struct.Struct("<8sIIQII")
_RECORD = struct.Struct("<HBB")
_TEXT = 1
_KIND_OF_DTYPE = {"<i8": 2, "<f8": 3, "<f4": 4}
_DTYPE_OF_KIND = {kind: np.dtype(code) for code, kind in _KIND_OF_DTYPE.items()}


def write_model(path: str | os.PathLike, records: Mapping[str, Record]) -> None:
    """Write `records` to `path`.

    Parameters
    ----------
    path
        The file to make. It appears under this name only when it is complete.
    records
        Name to value: ``str`` (text), ``int`` or ``bool`` (an int64 scalar), ``float`` (a float64
        scalar), or an array of int64, float64 or float32 with at most four dimensions.

    Raises
    ------
    ModelError
        When a name or a value has no form in the file.
    """
    payload = b"".join(_pack(name, value) for name, value in records.items())
    header = _HEADER.pack(MAGIC, VERSION, len(records), len(payload), zlib.crc32(payload), 0)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(header)
        file.write(payload)


def read_model(path: str | os.PathLike) -> dict[str, Record]:
    """Read a ``.dpa2`` file.

    Returns
    -------
    dict
        Name to value, in the file's order; scalars as ``int`` or ``float``, text as ``str``,
        everything else as an array of the stored type and shape.

    Raises
    ------
    ModelError
        When the file is not a ``.dpa2`` file, is damaged, or was written by a newer version.
    OSError
        When the file can't be read.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        return _parse(data)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def is_model_file(path: str | os.PathLike) -> bool:
    """Tell whether `path` starts like a ``.dpa2`` file, damaged by a text-mode copy or not."""
    with open(path, "rb") as file:
        return file.read(6) == MAGIC[:6]


def _pad(size: int) -> int:
    return -size % 8


def _pack(name: str, value: Record) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) < 2**16:
        raise ModelError(f"The record name {name!r} is empty or too long for a .dpa2 file.")
    if isinstance(value, str):
        data = _encoded(name, value)
        kind, shape = _TEXT, (len(data),)
    else:
        array = _storable(name, value)
        data = array.tobytes()
        kind, shape = _KIND_OF_DTYPE[array.dtype.str], array.shape
    head = _RECORD.pack(len(encoded), kind, len(shape))
    head += struct.pack(f"<{len(shape)}Q", *shape) + encoded
    return b"".join((head, bytes(_pad(len(head))), data, bytes(_pad(len(data)))))


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can hold
        raise ModelError(f"The record {name!r} is not text that can be stored.") from None


def _storable(name: str, value: float | np.ndarray) -> np.ndarray:
    if isinstance(value, (bool, int)):
        array = np.array(value, dtype="<i8")
    elif isinstance(value, float):
        array = np.array(value, dtype="<f8")
    else:
        array = np.asarray(value)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
    if array.dtype.str not in _KIND_OF_DTYPE or array.ndim > MAX_DIMS:
        raise ModelError(
            f"The record {name!r} ({array.dtype}, {array.ndim} dimensions) can't be stored; "
            "use int64, float64 or float32 with at most four dimensions."
        )
    return array


def _parse(data: bytes) -> dict[str, Record]:
    if len(data) < _HEADER.size:
        raise ModelError("This is not a .dpa2 file, or it is cut short; convert the model again.")
    magic, version, count, size, crc, reserved = _HEADER.unpack_from(data)
    if magic != MAGIC:
        reason = "was damaged by a copy in text mode" if data[:6] == MAGIC[:6] else "isn't one"
        raise ModelError(f"This should be a .dpa2 file but {reason}; convert the model again.")
    if version != VERSION:
        raise ModelError(
            f"The file has format version {version} and this program reads {VERSION}; "
            "update dpa2md or convert the model again."
        )
    body = memoryview(data)[_HEADER.size :]
    if len(body) != size or reserved != 0 or zlib.crc32(body) != crc:
        raise ModelError("The file is damaged (size or checksum differ); copy or convert it again.")
    records: dict[str, Record] = {}
    offset = 0
    for _ in range(count):
        name, value, offset = _unpack(body, offset)
        if name in records:
            raise ModelError(f"The record {name!r} appears twice; convert the model again.")
        records[name] = value
    if offset != size:
        raise ModelError("There are bytes after the last record; convert the model again.")
    return records


def _unpack(body: memoryview, start: int) -> tuple[str, Record, int]:
    """Read the record at `start`; returns its name, its value and where the next one starts."""

    def need(end: int) -> int:
        if end > len(body):
            raise ModelError("A record runs past the end of the file; convert the model again.")
        return end

    offset = need(start + _RECORD.size)
    name_size, kind, ndim = _RECORD.unpack_from(body, start)
    if ndim > MAX_DIMS or (kind != _TEXT and kind not in _DTYPE_OF_KIND):
        raise ModelError("A record has an unknown kind or shape; convert the model again.")
    end = need(offset + 8 * ndim)
    shape = struct.unpack_from(f"<{ndim}Q", body, offset)
    offset, end = end, need(end + name_size)
    try:
        name = str(body[offset:end], "utf-8")
    except UnicodeDecodeError:
        raise ModelError("A record's name is not text; convert the model again.") from None
    end = need(end + _pad(end - start))
    itemsize = 1 if kind == _TEXT else _DTYPE_OF_KIND[kind].itemsize
    offset, end = end, need(end + itemsize * math.prod(shape))
    after = need(end + _pad(end - offset))
    return name, _value(name, kind, shape, body[offset:end]), after


def _value(name: str, kind: int, shape: tuple[int, ...], raw: memoryview) -> Record:
    if kind == _TEXT:
        if len(shape) != 1:
            raise ModelError(f"The text record {name!r} has a wrong shape; convert again.")
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            raise ModelError(f"The record {name!r} is not text; convert again.") from None
    array = np.frombuffer(raw, dtype=_DTYPE_OF_KIND[kind])
    if not shape:
        return array[0].item()
    try:
        # astype copies, and gives the machine's own byte order
        return array.reshape(shape).astype(array.dtype.newbyteorder("="))
    except ValueError:  # e.g. (0, 2**63): no bytes, but no array either
        raise ModelError(f"The record {name!r} has an impossible shape; convert again.") from None
