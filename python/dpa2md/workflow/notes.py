"""The JSON file beside an output: what was asked for, how far the work is, and what came of it.

An output is there under its name only when it is complete. A command that is repeated after a kill
finds the same request in the note and goes on; one that asks for something else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._core import __version__
from ..base.files import whole_file
from ..errors import RunError


def note_of(output: Path) -> Path:
    """The JSON file beside an output."""
    return output.with_suffix(".json")


def begin(
    output: Path, request: dict[str, Any], *, overwrite: bool, working: Iterable[Path] = ()
) -> dict[str, Any] | None:
    """Begin to make an output, or go on; the note of a finished one is returned.

    Parameters
    ----------
    output
        The file to be made.
    request
        All that the output depends on, as JSON can hold it.
    overwrite
        Remove what an earlier command left, `working` files included, and begin again.
    working
        Files that are there only until the output is complete.

    Raises
    ------
    RunError
        When the output or the work on it is that of another request.
    """
    note = note_of(output)
    if overwrite:
        for path in (output, note, *working):
            path.unlink(missing_ok=True)
    request = json.loads(json.dumps(request))
    found = _read(note)
    if found is None:
        if there := [path for path in (output, note, *working) if path.exists()]:
            raise RunError(f"{there[0]} exists; add --overwrite, or name another file.")
        write_note(note, request, state="running")
        return None
    if found["request"] != request:
        name = _difference(found["request"], request)
        raise RunError(
            f"{note}: the work was begun with another value of {name}; give the same options to go "
            "on, add --overwrite to begin again, or name another file."
        )
    return found if found["state"] == "finished" and output.exists() else None


def write_note(note: Path, request: dict[str, Any], state: str, **facts: Any) -> None:
    """Write what was asked for and what came of it."""
    content = {"dpa2md": __version__, "state": state, **facts, "request": request}
    with whole_file(note) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _read(note: Path) -> dict[str, Any] | None:
    """A note; None where there is none, or another file of that name."""
    try:
        found = json.loads(note.read_text())
        return found if {"request", "state"} <= found.keys() else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The name of the first thing that two requests don't share, as in "settings, temperature"."""
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            return f"{name}, {_difference(before, now)}"
        return name
    return "request"
