"""Another Python interpreter that has DeePMD-kit, named by DPA2MD_DEEPMD."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail


def run_deepmd(*arguments: str, folder: Path) -> str:
    """Run DeePMD-kit's interpreter in `folder` and return what it printed; skip where there is none."""
    python = os.environ.get("DPA2MD_DEEPMD")
    if not python:
        skip_or_fail("deepmd", "DPA2MD_DEEPMD names no Python interpreter that has DeePMD-kit")
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUM_WORKERS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr
