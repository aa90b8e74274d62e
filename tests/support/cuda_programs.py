"""Builds the CUDA backend with nvcc, and programs that run its PTX without a GPU (tests/ptx)."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

from tests.support.cpp_programs import alone_in, run_all, search_path
from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail

BUILD = ROOT / "build" / "cuda"
BACKEND = "dpa2md_cuda"
PTXAS_REPORT = BUILD / "ptxas.txt"  # of the last time that the backend was compiled
# DPA2MD_PTX=1 runs the backend's kernels in float32 by tests/ptx (a quarter of an hour); =all also those in float64, which
# the host runs too (test_cuda_emulation), and every golden model (two hours).
PTX = os.environ.get("DPA2MD_PTX", "")
PTX_ALL = PTX == "all"


def build_cuda(target: str) -> str:
    """What the compilers said; skips the test without nvcc. For an A100 and newer; ptxas reports registers."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    cmake, ninja = (shutil.which(name, path=search_path()) for name in ("cmake", "ninja"))
    if not nvcc or not cmake:
        skip_or_fail("nvcc", "compiling the CUDA code needs nvcc >= 12 and cmake")
    options = ["-DDPA2MD_CUDA=ON", "-DDPA2MD_TESTS=ON", "-DDPA2MD_CUDART=ptx_cudart"]
    options.append("-DDPA2MD_ISAS=portable")  # the host's stages are not what is tested
    configure = [cmake, "-S", str(ROOT), "-B", str(BUILD), *options]
    configure += [f"-DCMAKE_CUDA_COMPILER={nvcc}", "-DCMAKE_CUDA_ARCHITECTURES=80"]
    configure += ["-DCMAKE_CUDA_FLAGS=-Xptxas -v"]
    configure += [f"-DDPA2MD_PTX_PRECISIONS={'float32;float64' if PTX_ALL else 'float32'}"]
    if ninja and not (BUILD / "CMakeCache.txt").exists():
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    build = [cmake, "--build", str(BUILD), "--target", target, "--parallel", str(os.cpu_count())]
    with alone_in(BUILD):
        output = run_all(configure, build)
        if target == BACKEND and "Compiling entry function" in output:
            PTXAS_REPORT.write_text(output)
    return output


def program(name: str) -> Path:
    """Of tests/cpp or tests/ptx, freshly built."""
    if platform.machine() != "x86_64":
        skip_or_fail("nvcc", "tests/ptx/machine.cpp is written for x86-64")
    build_cuda(BACKEND)  # whose report is wanted
    build_cuda(name)
    return next(
        path for folder in ("cpp", "ptx") if (path := BUILD / "tests" / folder / name).is_file()
    )


def evaluate_program() -> Path:
    """tests/cpp/evaluate.cpp with the whole backend, which takes ten minutes to compile."""
    if not PTX:
        pytest.skip("make test-ptx runs it")
    return program("evaluate")
