"""Where mpirun and mpi4py are."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from tests.support.selection import skip_or_fail


def require_mpirun() -> str:
    """The program, that of this environment before others; skips, visibly, without it or mpi4py."""
    own = Path(sys.executable).parent
    program = shutil.which("mpirun", path=f"{own}{os.pathsep}{os.environ['PATH']}")
    if program is None or importlib.util.find_spec("mpi4py") is None:
        skip_or_fail("mpi", "mpirun and mpi4py are needed: pip install '.[mpi]' mpich")
    return program
