"""Files that are seen complete or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary name to write to; at the end the file is renamed to `path`.

    The name ends like that of `path`, since formats and compressions are told by the end of a name. When something fails, what stood at `path` stays and no temporary file is left. A device or a pipe
    can't be renamed onto and is written directly.

    Raises
    ------
    OSError
        With `path` as its filename, whatever the name that was written to.
    """
    path = Path(path)
    special = path.exists() and not path.is_file() and not path.is_dir()
    temporary = path if special else path.with_name(f".tmp.{os.getpid()}.{path.name}")
    try:
        with named_errors(path, temporary):
            yield temporary
            if not special:
                _sync(temporary)
                os.replace(temporary, path)
    finally:
        if not special:
            temporary.unlink(missing_ok=True)


@contextmanager
def named_errors(path: str | os.PathLike, *also: Path) -> Iterator[None]:
    """Give an `OSError` without a filename, as of a full disk, the name of the file that was meant.

    So, too, one that has a name out of `also`.
    """
    try:
        yield
    except OSError as error:
        if error.errno and error.filename in (None, *also, *map(os.fspath, also)):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise


def sha256(path: str | os.PathLike) -> str:
    """The checksum of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """To the disk before the renaming, or a power cut could leave the new name with no bytes."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
