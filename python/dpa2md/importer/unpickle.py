"""Reading torch's ``.pt`` and ``.pth`` files without torch and without running anything in them.

Both are zip files that hold one pickle and the raw bytes of the tensors. A pickle is a program for
a small stack machine; `load` runs that machine itself and knows only the instructions that torch
writes. Whatever a pickle names is looked up in `_GLOBALS`, a fixed table of harmless builders, so
there is no way from a file to an import, a call or an attribute of this program. Memory is bounded
by the size of the file: a tensor refers to bytes that are really there, and nothing is expanded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ModelError
from .torch_zip import Storage, Tensor, TorchZip

MAX_PICKLE_BYTES = 64 * 2**20  # real ones are below 10 MB, weights not included
_MAX_TENSOR_DIMS = 8
_MAX_INTEGER_BYTES = 16

_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}


@dataclass(eq=False)
class ScriptObject:
    """Inert stand-in for an object of a TorchScript class: its class's name and its attributes."""

    class_name: str
    attributes: dict[str, Any] = field(default_factory=dict)


def read_pickle(archive: TorchZip) -> Any:
    """The object in the archive's ``data.pkl``, tensors as `Tensor`, objects as `ScriptObject`.

    Raises
    ------
    ModelError
        When the archive or the pickle is damaged, or asks for anything unusual.
    """
    if archive.size("data.pkl") > MAX_PICKLE_BYTES:
        raise ModelError("The file's data.pkl is far larger than that of any model; refused.")
    if "byteorder" in archive.names() and archive.read("byteorder") != b"little":
        raise ModelError("The file was saved on a big-endian machine; save it again elsewhere.")
    return load(archive.read("data.pkl"), archive)


def load(data: bytes, archive: TorchZip) -> Any:
    """Run the pickle `data`; tensors refer to `archive`.

    Raises
    ------
    ModelError
        When the pickle is damaged or asks for anything that isn't in the table of builders.
    """
    try:
        return _Machine(data, archive).run()
    except (IndexError, TypeError, KeyError, ValueError, struct.error, AttributeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"The pickle in the file is damaged ({error}); copy it again.") from None


# What a pickle may name ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Builder:
    """A name in a pickle that may be called: `build` gets the tuple of arguments."""

    name: str
    build: Callable[[tuple], Any]


@dataclass(frozen=True)
class _Inert:
    """A name in a pickle that stands for itself, like a dtype."""

    name: str


@dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True)
class _ScriptClass:
    name: str


def _bad(what: str) -> ModelError:
    return ModelError(
        f"The file asks for {what}, which no DeePMD-kit model needs; "
        "it is damaged or malicious and was refused unread."
    )


def _rebuild_tensor(args: tuple) -> Tensor:
    storage, offset, shape, stride = args[:4]
    integers = (offset, *shape, *stride)
    if (
        not isinstance(storage, Storage)
        or any(type(number) is not int or number < 0 for number in integers)
        or not type(shape) is type(stride) is tuple
        or not len(shape) == len(stride) <= _MAX_TENSOR_DIMS
    ):
        raise _bad("a tensor of an impossible form")
    numel = 1
    last = offset
    for size, step in zip(shape, stride, strict=True):
        numel *= size
        last += (size - 1) * step
    # the first test keeps an expanded view (stride 0) from being larger than what is stored
    if numel > storage.numel or (numel > 0 and last >= storage.numel):
        raise _bad("a tensor beyond the end of its storage")
    if numel == 0:
        offset = 0
    return Tensor(storage, offset, shape, stride)


def _rebuild_parameter(args: tuple) -> Tensor:
    if not isinstance(args[0], Tensor):
        raise _bad("a parameter that is no tensor")
    return args[0]


def _ordered_dict(args: tuple) -> dict:
    if args not in ((), ([],)):
        raise _bad("an ordered dictionary of an unusual form")
    return {}


def _first(args: tuple) -> Any:
    return args[0]


def _encode(args: tuple) -> bytes:
    text, encoding = args
    if type(text) is not str or encoding != "latin1":
        raise _bad("an encoding other than latin1")
    return text.encode("latin1")


def _numpy_dtype(args: tuple) -> _Inert:
    if type(args[0]) is not str or args[0] not in ("f8", "f4", "i8", "i4", "b1"):
        raise _bad("a numpy type other than plain numbers")
    return _Inert(args[0])


def _numpy_scalar(args: tuple) -> int | float | bool:
    dtype, raw = args
    if type(dtype) is not _Inert or type(raw) is not bytes:
        raise _bad("a numpy scalar of an unusual form")
    return np.frombuffer(raw, dtype="<" + dtype.name, count=1)[0].item()


_GLOBALS: dict[str, _Builder | _Inert | _StorageType] = {
    "collections.OrderedDict": _Builder("OrderedDict", _ordered_dict),
    "torch._utils._rebuild_tensor_v2": _Builder("_rebuild_tensor_v2", _rebuild_tensor),
    "torch._utils._rebuild_parameter": _Builder("_rebuild_parameter", _rebuild_parameter),
    "torch.Size": _Builder("Size", lambda args: tuple(args[0])),
    "torch.device": _Builder("device", lambda args: _Inert("device")),
    "torch.jit._pickle.restore_type_tag": _Builder("restore_type_tag", _first),
    "_codecs.encode": _Builder("encode", _encode),
    "numpy.dtype": _Builder("dtype", _numpy_dtype),
    "numpy.core.multiarray.scalar": _Builder("scalar", _numpy_scalar),
    "numpy._core.multiarray.scalar": _Builder("scalar", _numpy_scalar),
}
for _name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"):
    _GLOBALS["torch.jit._pickle." + _name] = _Builder(_name, _first)
for _name, _dtype in _STORAGE_DTYPES.items():
    _GLOBALS["torch." + _name] = _StorageType(_dtype)
for _name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "bool"):
    _GLOBALS["torch." + _name] = _Inert("torch." + _name)


# The stack machine --------------------------------------------------------------------------------


class _Machine:
    """Runs one pickle. Its loop takes at most one step per byte, so it always ends."""

    def __init__(self, data: bytes, archive: TorchZip):
        self.data = data
        self.archive = archive
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise _bad(f"the pickle instruction {code!r}")
            step(self)

    def take(self, size: int) -> bytes:
        """The next `size` bytes of the pickle."""
        end = self.position + size
        if end > len(self.data):
            raise ModelError("The pickle in the file ends too early; copy the file again.")
        chunk = self.data[self.position : end]
        self.position = end
        return chunk

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.index(b"\n", self.position)
        text = self.data[self.position : end].decode("ascii")
        self.position = end + 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def text(self, size: int) -> None:
        self.push(self.take(size).decode("utf-8"))

    def integer(self) -> None:
        size = self.number("<B")
        if size > _MAX_INTEGER_BYTES:
            raise _bad("an integer of unusual size")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def from_mark(self) -> list[Any]:
        """Pop everything above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def make_tuple(self, size: int) -> None:
        items = self.stack[-size:]
        if len(items) != size:
            raise ModelError("The pickle in the file is damaged; copy the file again.")
        del self.stack[-size:]
        self.push(tuple(items))

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def look_up(self, module: str, name: str) -> None:
        """Push what the table holds for a name; a TorchScript class becomes an inert stand-in."""
        full = f"{module}.{name}"
        if module.startswith("__torch__."):
            self.push(_ScriptClass(full.removeprefix("__torch__.")))
        elif full in _GLOBALS:
            self.push(_GLOBALS[full])
        else:
            raise _bad(f"{full!r:.120}")

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise _bad("a name that is no text")
        self.look_up(module, name)

    def reduce(self) -> None:
        args, builder = self.stack.pop(), self.stack.pop()
        if type(builder) is not _Builder or type(args) is not tuple:
            raise _bad("a call of something that is no builder of tensors")
        self.push(builder.build(args))

    def new_object(self) -> None:
        args, script_class = self.stack.pop(), self.stack.pop()
        if type(script_class) is not _ScriptClass or args != ():
            raise _bad("an object of an unknown class")
        self.push(ScriptObject(script_class.name))

    def build(self) -> None:
        """Attributes for the object below: kept for stand-ins, dropped for ordered dictionaries."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(state) is not dict or type(target) not in (ScriptObject, dict, _Inert):
            raise _bad("a state for something that has none")
        if type(target) is ScriptObject:
            if not all(type(key) is str for key in state):
                raise _bad("an attribute whose name is no text")
            target.attributes.update(state)

    def numpy_build(self) -> None:
        """BUILD also ends numpy's dtypes, whose state is a tuple of layout facts."""
        if type(self.stack[-2]) is _Inert and type(self.stack[-1]) is tuple:
            self.stack.pop()
        else:
            self.build()

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise _bad("an entry for something that is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise _bad("an item for something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # plain keys only: hashing a deep tuple would recurse
            if type(key) not in (str, int, bool, float):
                raise _bad("a dictionary key that is neither text nor number")
            target[key] = value

    def persistent(self) -> None:
        """The only persistent things in torch's files: ("storage", type, key, device, numel)."""
        pid = self.stack.pop()
        if type(pid) is not tuple or len(pid) != 5 or type(pid[0]) is not str:
            raise _bad("a persistent object other than a storage")
        kind, storage_type, key, _, numel = pid
        if (
            kind != "storage"
            or type(storage_type) is not _StorageType
            or type(key) is not str
            or type(numel) is not int
        ):
            raise _bad("a persistent object other than a storage")
        itemsize = 2 if storage_type.dtype == "bfloat16" else np.dtype(storage_type.dtype).itemsize
        if numel * itemsize != self.archive.size(f"data/{key}"):
            raise _bad(f"a storage data/{key} of another size than is in the file")
        self.push(Storage(self.archive, key, storage_type.dtype, numel))


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda m: m.push(value)


_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": lambda m: m.stack.pop(),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b")": _constant(()),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": _Machine.integer,
    b"G": lambda m: m.push(m.number(">d")),
    b"X": lambda m: m.text(m.number("<I")),
    b"\x8c": lambda m: m.text(m.number("<B")),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"C": lambda m: m.push(m.take(m.number("<B"))),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.from_mark()),
    b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.set_items(m.from_mark()),
    b"t": lambda m: m.push(tuple(m.from_mark())),
    b"\x85": lambda m: m.make_tuple(1),
    b"\x86": lambda m: m.make_tuple(2),
    b"\x87": lambda m: m.make_tuple(3),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"c": lambda m: m.look_up(m.line(), m.line()),
    b"\x93": _Machine.stack_global,
    b"R": _Machine.reduce,
    b"\x81": _Machine.new_object,
    b"b": _Machine.numpy_build,
    b"Q": _Machine.persistent,
}
