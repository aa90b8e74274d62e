"""The zip container of torch's files and the tensors in it, read without torch."""

from __future__ import annotations

import os
import struct
import zipfile
from dataclasses import dataclass

import numpy as np

from ..errors import ModelError


class TorchZip:
    """The zip container of a ``.pt``, ``.pth`` or ``.pt2`` file; `close` it after use.

    All entries lie in one folder, named after the file; `beside` is another one that may be there, too.
    """

    def __init__(self, path: str | os.PathLike, beside: str | None = None):
        self._beside = beside
        self._size = os.path.getsize(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OverflowError):
            raise ModelError(
                "The file is not a zip archive as torch >= 1.6 writes it, or it is damaged; "
                "copy it again, or save it again with a newer torch."
            ) from None
        try:
            self._members = self._check_members()
        except BaseException:
            self._zip.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _check_members(self) -> dict[str, zipfile.ZipInfo]:
        """Map names inside the archive's top folder to its entries, refusing zip bombs."""
        members: dict[str, zipfile.ZipInfo] = {}
        folders = set()
        total = 0
        for info in self._zip.infolist():
            total += info.compress_size
            folder, _, name = info.filename.partition("/")
            folders.add(folder)
            if name in members:
                raise ModelError(f"The archive holds {info.filename!r} twice; the file is damaged.")
            members[name] = info
        if total > self._size or len(folders - {self._beside}) > 1 or not folders:
            raise ModelError("The archive is not laid out as torch does it; the file is damaged.")
        return members

    def names(self) -> list[str]:
        """Names of the entries, without the archive's top folder."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Number of bytes of an entry; ModelError when there is no such entry."""
        if name not in self._members:
            raise ModelError(f"The archive has no entry {name!r}; the file is damaged.")
        info = self._members[name]
        # torch compresses only source code, so what is read here is never larger than the file
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ModelError(
                f"The archive's entry {name!r} is compressed, which torch never does; "
                "save the model again with torch.save."
            )
        return info.file_size

    def read(self, name: str) -> bytes:
        """The bytes of an entry, its checksum verified."""
        size = self.size(name)
        try:
            data = self._zip.read(self._members[name])
        except (
            zipfile.BadZipFile,
            EOFError,
            ValueError,
            NotImplementedError,
            RuntimeError,
            struct.error,
            OSError,
        ):
            raise ModelError(
                f"The archive's entry {name!r} is damaged; copy the file again."
            ) from None
        if len(data) != size:
            raise ModelError(f"The archive's entry {name!r} is cut short; copy the file again.")
        return data


@dataclass(frozen=True)
class Storage:
    """Raw numbers of one or several tensors: an entry ``data/KEY`` of the archive."""

    archive: TorchZip
    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class Tensor:
    """A view into a storage; its place was checked against the storage's real size."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def numpy(self) -> np.ndarray:
        """Read the numbers: a new array of `shape`."""
        raw = self.storage.archive.read(f"data/{self.storage.key}")
        if self.storage.dtype == "bfloat16":
            high = np.frombuffer(raw, dtype="<u2").astype(np.uint32)
            flat = (high << 16).view(np.float32)
        else:
            flat = np.frombuffer(raw, dtype=self.storage.dtype)
        steps = [stride * flat.itemsize for stride in self.stride]
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps)
        return view.astype(flat.dtype.newbyteorder("="))
