"""Writing torch's file format without torch: a zip file of a pickle and of raw numbers.

The inverse of `importer.torch_zip` and `importer.unpickle`. The pickle has the instructions and the
names that `torch.load(weights_only=True)` accepts.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import whole_file

_STORAGES = {"float64": "DoubleStorage", "float32": "FloatStorage", "int64": "LongStorage"}


def write_torch(path: str | os.PathLike, value: Any) -> None:
    """Write what `torch.load` gives back.

    Parameters
    ----------
    path
        The file; it appears under this name only when it is complete.
    value
        Dictionaries (ordered ones stay so), lists, tuples, text, numbers, None, and arrays of
        float64, float32 or int64, which become tensors. The same array twice is one storage.

    Raises
    ------
    TypeError
        When there is anything else in it.
    """
    path = Path(path)
    pickler = _Pickler()
    program = b"\x80\x02" + pickler.dump(value) + b"."
    entries = [("data.pkl", program), ("byteorder", b"little")]
    for index, array in enumerate(pickler.arrays):
        little = array.astype(array.dtype.newbyteorder("<"), order="C")
        entries.append((f"data/{index}", little.tobytes()))
    entries.append(("version", b"3\n"))
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in entries:  # without dates: the same model gives the same bytes
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}"), data)


class _Pickler:
    """Pickles of protocol 2. Arrays are kept aside, each once."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._index: dict[int, int] = {}

    def dump(self, value: Any) -> bytes:
        if value is None:
            return b"N"
        if isinstance(value, (bool, np.bool_)):
            return b"\x88" if value else b"\x89"
        if isinstance(value, (int, np.integer)):
            return _integer(int(value))
        if isinstance(value, (float, np.floating)):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            raw = value.encode()
            return b"X" + struct.pack("<I", len(raw)) + raw
        if isinstance(value, (list, tuple)):
            inner = b"".join(map(self.dump, value))
            return b"](" + inner + b"e" if isinstance(value, list) else b"(" + inner + b"t"
        if isinstance(value, dict):
            is_ordered = isinstance(value, OrderedDict)
            inner = b"".join(self.dump(k) + self.dump(v) for k, v in value.items())
            return (_ORDERED if is_ordered else b"}") + b"(" + inner + b"u"
        if isinstance(value, np.ndarray) and value.dtype.name in _STORAGES:
            return self.tensor(value)
        raise TypeError(f"a {type(value).__name__} can't be written to a file of torch's format")

    def tensor(self, array: np.ndarray) -> bytes:
        index = self._index.setdefault(id(array), len(self.arrays))
        if index == len(self.arrays):
            self.arrays.append(array)  # kept alive, so that its id stays its own
        kind = f"ctorch\n{_STORAGES[array.dtype.name]}\n".encode()
        storage = b"(" + self.dump("storage") + kind + self.dump(str(index))
        storage += self.dump("cpu") + self.dump(array.size) + b"tQ"
        steps = np.cumprod([1, *array.shape[:0:-1]])[::-1] if array.ndim else ()
        place = [0, array.shape, tuple(int(step) for step in steps), False]
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + storage
            + b"".join(map(self.dump, place))
            + _ORDERED
            + b"tR"
        )


_ORDERED = b"ccollections\nOrderedDict\n)R"


def _integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + struct.pack("<B", len(raw)) + raw
