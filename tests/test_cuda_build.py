"""The CUDA code compiles where nvcc is; no GPU is needed."""

from __future__ import annotations

import os
import re
import shutil

import pytest
from conftest import skip_or_fail
from cpp_programs import ROOT, run, search_path

BUILD = ROOT / "build" / "cuda"
# Bytes that a thread of a kernel may keep in memory for want of registers: a few are ptxas's choice and cost
# nothing, hundreds would mean that a kernel has outgrown its registers.
MOST_SPILLED = 64


@pytest.mark.timeout(1800)
def test_kernels_compile():
    """For an A100 and newer, from CMake, without a warning, and into registers."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    cmake = shutil.which("cmake", path=search_path())
    if not nvcc or not cmake:
        skip_or_fail("nvcc", "compiling the CUDA code needs nvcc >= 12 and cmake")
    configure = [cmake, "-S", str(ROOT), "-B", str(BUILD), "-DDPA2MD_CUDA=ON"]
    configure += [f"-DCMAKE_CUDA_COMPILER={nvcc}", "-DCMAKE_CUDA_ARCHITECTURES=80"]
    configure += ["-DCMAKE_CUDA_FLAGS=-Xptxas -v"]
    build = [cmake, "--build", str(BUILD), "--target", "dpa2md_cuda"]
    build += ["--parallel", str(os.cpu_count())]
    report = BUILD / "ptxas.txt"  # of the last time that something was compiled
    if not report.exists():
        build.append("--clean-first")
    for command in (configure, build):
        done = run(command)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-4000:]
        assert not re.search(r"\bwarning\b", output), output[-4000:]
        if "Compiling entry function" in output:
            report.write_text(output)
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill stores", report.read_text())]
    assert len(spilled) > 20
    assert max(spilled) <= MOST_SPILLED, f"see {report}"
