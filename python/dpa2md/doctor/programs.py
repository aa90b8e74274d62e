"""Programs that may crash or hang, and what they leave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Output:
    """What a process left; `status` is None when it was stopped for taking too long."""

    status: int | None
    out: str
    err: str


def ask(
    command: list[str],
    seconds: float,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Output:
    """Run a program that may hang; after `seconds` it is killed with all that it started."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a group of its own
        text=True,
        errors="replace",
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
            return Output(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Output(None, out, err)


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def cause(text: str) -> str:
    """What a Python program died of, from its traceback."""
    lines = re.findall(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*", text, flags=re.MULTILINE)
    return lines[-1] if lines else last_line(text) or "it says nothing"
