"""One driver at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from ..base.files import named_errors
from ..base.processes import ProcessMark
from ..errors import RunError


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's file ``lock`` with this process's number, host and start.

    A lock whose process has ended on this host is taken over.

    Raises
    ------
    RunError
        A live process of this host has it, or one of another host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    with _opened(path) as file:
        _refuse(path, file.read())
        file.seek(0)
        file.truncate()
        own = asdict(ProcessMark.of(os.getpid())) | {"since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with named_errors(path):
            file.write(json.dumps(own) + "\n")
            file.flush()
    try:
        yield
    finally:
        with _opened(path) as file:
            if _owner(file.read()) == ProcessMark.of(os.getpid()):
                path.unlink()


def is_locked(folder: Path) -> bool:
    """Whether a process that lives, or one of another host, works in the folder."""
    try:
        owner = _owner((folder / "lock").read_text())
    except FileNotFoundError:
        return False
    return owner is not None and (owner.alive() or not owner.here)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file, while no other process reads or changes it; where locks exist on the file system."""
    while True:
        with open(path, "a+") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            # Its holder may have removed it meanwhile, and another process made the next one.
            if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                continue
            file.seek(0)
            yield file
            return


def _owner(text: str) -> ProcessMark | None:
    """None for a file that is empty, or was cut off by a full disk."""
    try:
        record = json.loads(text)
        return ProcessMark(int(record["pid"]), str(record["host"]), str(record["born"]))
    except (ValueError, KeyError, TypeError):
        return None


def _refuse(path: Path, text: str) -> None:
    owner = _owner(text)
    if owner is None or (owner.here and not owner.alive()):
        return
    since = json.loads(text).get("since", "an unknown time")
    who = f"{path.parent} is in use by process {owner.pid} on {owner.host} since {since}"
    if owner.here:
        raise RunError(f"{who}; wait for it, or end it with `kill {owner.pid}`.")
    raise RunError(
        f"{who}, which can't be seen from here; if it does not run any more, remove {path}."
    )
