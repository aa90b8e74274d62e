"""Builds the C++ test programs; with DPA2MD_SANITIZE=1 under address and undefined sanitizers."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT

SANITIZE = os.environ.get("DPA2MD_SANITIZE", "0") not in ("", "0")
BUILD = ROOT / "build" / ("cpp-sanitize" if SANITIZE else "cpp-plain")


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, text=True, capture_output=True, check=False, **options)


def environment(**more: str) -> dict[str, str]:
    """What the programs run with."""
    # Threads of OpenMP would fight for two cores with those of the tests.
    out = os.environ | {"OMP_NUM_THREADS": "2"}
    # No fake stack: GCC before 14 aligns it to 32 bytes only, and AVX-512 code on it faults (GCC PR 110027).
    out["ASAN_OPTIONS"] = "detect_stack_use_after_return=0:allocator_may_return_null=0"
    return out | more


def search_path() -> str:
    """PATH with the scripts of this Python in front, where pip puts cmake and ninja."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def run_all(*commands: list[str], **options) -> str:
    """What the last of them printed; each must succeed."""
    output = ""
    for command in commands:
        done = run(command, **options)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-4000:]
    return output


@contextmanager
def alone_in(build: Path) -> Iterator[None]:
    """Tests that run side by side (pytest -n) build one after another."""
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_programs(build: Path = BUILD, *options: str) -> Path | None:
    """The directory of the freshly built programs; None without cmake. `options` are for cmake."""
    cmake, ninja = (
        shutil.which("cmake", path=search_path()),
        shutil.which("ninja", path=search_path()),
    )
    if not cmake:
        return None
    configure = [cmake, "-S", str(ROOT), "-B", str(build), "-DDPA2MD_TESTS=ON", "-DDPA2MD_CUDA=OFF"]
    configure += options or [
        f"-DDPA2MD_SANITIZE={'ON' if SANITIZE else 'OFF'}",
        "-DDPA2MD_ISAS=NATIVE",  # what runs here; others are in what is installed
    ]
    if not (build / "CMakeCache.txt").exists() and ninja:
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    with alone_in(build):
        run_all(configure, [cmake, "--build", str(build), "--parallel", str(os.cpu_count())])
    return build / "tests" / "cpp"
