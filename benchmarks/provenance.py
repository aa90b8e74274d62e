"""What a results file says about the program that it measured, and how it is written."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpa2md.base.files import whole_file


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


def write_tables(path: Path, tables: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Tables of the same columns one below the other, as CSV; the file is whole or not there."""
    with whole_file(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(tables[0][0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(line for rows in tables for line in rows)
