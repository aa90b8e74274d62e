"""The CUDA code compiles where nvcc is, and is left out elsewhere; no GPU is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.support.cpp_programs import run, search_path
from tests.support.cuda_programs import BACKEND, PTXAS_REPORT, build_cuda
from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail

# Bytes that a thread of a kernel may keep in memory for want of registers: a few are ptxas's choice and cost
# nothing, hundreds would mean that a kernel has outgrown its registers. The exception has 12 warps a block; its times
# in docs/cuda.md are with these spills.
MOST_SPILLED = 64
MOST_SPILLED_OF = {"WarpPairStepBackward": 448}


@pytest.mark.timeout(1800)
def test_kernels_compile():
    """Without a warning, and into registers."""
    output = build_cuda(BACKEND)
    assert not re.search(r"\bwarning\b", output), output[-4000:]
    report = PTXAS_REPORT.read_text()
    kernels = re.findall(r"entry function '(\w+)'.*?(\d+) bytes spill stores", report, re.DOTALL)
    assert len(kernels) > 20
    for kernel, spilled in kernels:
        most = max(
            (n for name, n in MOST_SPILLED_OF.items() if name in kernel), default=MOST_SPILLED
        )
        assert int(spilled) <= most, f"{kernel}: see {PTXAS_REPORT}"


def configured(folder, *options: str, **environment: str) -> subprocess.CompletedProcess:
    """What CMake says to a build of the core without options, as pip has it."""
    cmake = shutil.which("cmake", path=search_path())
    if not cmake:
        skip_or_fail("cpp", "the C++ tests need cmake: pip install cmake ninja")
    command = [cmake, "-S", str(ROOT), "-B", str(folder), "-DDPA2MD_LAMMPS=OFF", *options]
    return run(command, env=os.environ | environment)


def test_on_by_default_where_nvcc_is(tmp_path):
    """For the GPUs that are there, as far as the backend and nvcc know them."""
    if not shutil.which("nvcc"):
        skip_or_fail("nvcc", "compiling the CUDA code needs nvcc >= 12 and cmake")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '9.0\\n7.5\\n9.0\\n99.9\\n'\n")
    smi.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = configured(tmp_path / "build", PATH=path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"CUDA [\d.]+, architectures 90\n", done.stdout), done.stdout
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    done = configured(tmp_path / "build", PATH=path)  # the compilers are known by now
    assert re.search(r"CUDA [\d.]+, architectures 80-real;90\n", done.stdout), done.stdout


def test_left_out_without_nvcc(tmp_path):
    """In a line that alarms nobody, unless it was asked for."""
    nowhere = {"CUDACXX": str(tmp_path / "nvcc")}
    done = configured(tmp_path / "build", **nowhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert "-- No CUDA here, the build is for the CPU: nvcc was not found" in done.stdout
    assert "arning" not in done.stdout
    done = configured(tmp_path / "asked", "-DDPA2MD_CUDA=ON", **nowhere)
    assert done.returncode != 0
    assert "The CUDA backend can't be built: nvcc was not found" in " ".join(done.stderr.split())
    done = configured(tmp_path / "off", "-DDPA2MD_CUDA=OFF")
    assert done.returncode == 0 and "CUDA" not in done.stdout
