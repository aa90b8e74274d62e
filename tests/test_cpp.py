"""Builds the C++ tests and runs each; with DPA2MD_SANITIZE=1 under address and undefined sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import skip_or_fail
from golden.suite import MODELS

ROOT = Path(__file__).parent.parent
SANITIZE = os.environ.get("DPA2MD_SANITIZE", "0") not in ("", "0")
BUILD = ROOT / "build" / ("cpp-sanitize" if SANITIZE else "cpp-plain")

# The names below follow the rule of tests/cpp/CMakeLists.txt: these are built once per instruction set.
PER_ISA = ("test_gemm", "test_scalar_math")
ISAS = ("portable", "avx2", "avx512")

# Every way in which g1 enters a layer, both kinds of pair state, DPA-1 without any layer.
EXCHANGED = (
    "medium",
    "full",
    "no_g2_g1g1",
    "no_g1_attn",
    "no_g2_attn",
    "res_residual_h2",
    "conv_inside_mlp_outside",
    "not_smooth",
    "fparam_aparam_case",
    "dpa1",
    "se_atten_v2",
)
DAMAGED = ("full", "strip", "se_atten_v2", "fparam_aparam_case")


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, text=True, capture_output=True, check=False, **options)


@pytest.fixture(scope="module")
def programs() -> Path:
    """The directory of the freshly built test programs."""
    cmake, ninja = (
        shutil.which("cmake", path=search_path()),
        shutil.which("ninja", path=search_path()),
    )
    if not cmake:
        skip_or_fail("cpp", "the C++ tests need cmake: pip install cmake ninja")
    configure = [cmake, "-S", str(ROOT), "-B", str(BUILD), "-DDPA2MD_TESTS=ON"]
    configure += [f"-DDPA2MD_SANITIZE={'ON' if SANITIZE else 'OFF'}"]
    if not (BUILD / "CMakeCache.txt").exists() and ninja:
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    for command in (configure, [cmake, "--build", str(BUILD), "--parallel", str(os.cpu_count())]):
        done = run(command)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return BUILD / "tests" / "cpp"


def search_path() -> str:
    """PATH with the scripts of this Python in front, where pip puts cmake and ninja."""
    import sysconfig

    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def names() -> list[str]:
    out = []
    for source in sorted((ROOT / "tests" / "cpp").glob("test_*.cpp")):
        isas = [f"_{isa}" for isa in ISAS] if source.stem in PER_ISA else [""]
        out += [source.stem + isa for isa in isas]
    return out


def arguments(name: str, evaluate) -> list[str]:
    if name == "test_exchange":
        return [str(evaluate.path(MODELS[model])) for model in EXCHANGED]
    if name == "test_model_file":
        return [str(evaluate.path(MODELS[model])) for model in DAMAGED]
    return []


@pytest.mark.timeout(1800)  # the first test builds
@pytest.mark.parametrize("name", names())
def test_program(name, programs, evaluate):
    program = programs / name
    if not program.exists() and name.endswith(("avx2", "avx512")):
        skip_or_fail("isa", f"{name} is only built for x86-64")
    # Threads of OpenMP would fight for two cores with those of the tests.
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    # No fake stack: GCC before 14 aligns it to 32 bytes only, and AVX-512 code on it faults (GCC PR 110027).
    environment["ASAN_OPTIONS"] = "detect_stack_use_after_return=0:allocator_may_return_null=0"
    done = run([str(program), *arguments(name, evaluate)], env=environment)
    if done.returncode == 77:
        skip_or_fail("isa", f"this processor cannot run {name}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
