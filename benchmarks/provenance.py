"""What a results file says about the program that it measured."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def commit() -> str:
    """Of the checkout, with + where files were changed; the package should have been built from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def compiler() -> str:
    """What compiled the core, as it says in the module itself."""
    from dpa2md import _core

    module = Path(_core.__file__).read_bytes()
    found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", module)
    return found.group().decode() if found else "unknown"
