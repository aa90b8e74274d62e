"""The core on aarch64: cross-compiled, and run by an emulator on the machine that tests.

The portable stages are all that this architecture has; its compilers contract products and sums, and its
`char` is unsigned. Where the tests run on aarch64 itself, the others say the same.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from tests.golden.suite import STRUCTURES
from tests.support.cpp_programs import build_programs, environment, run
from tests.support.evaluate_program import EvaluateProgram
from tests.support.parity import check_float32, check_float64
from tests.support.paths import ROOT
from tests.support.selection import golden_models, skip_or_fail

from .test_cpp import PER_ISA, arguments

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
LIBRARIES = "/usr/aarch64-linux-gnu"  # where Debian's cross compiler has them

pytestmark = pytest.mark.timeout(1800)  # the first test builds


@pytest.fixture(scope="module")
def emulated(tmp_path_factory) -> Path:
    """A directory of scripts that run the aarch64 programs."""
    if platform.machine() == "aarch64":
        pytest.skip("this is aarch64 itself")
    if not (shutil.which(COMPILER) and shutil.which(EMULATOR)):
        skip_or_fail("aarch64", f"apt install g++-{COMPILER.removesuffix('-g++')} qemu-user-static")
    programs = build_programs(
        ROOT / "build" / "cpp-aarch64",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={COMPILER}",
    )
    if programs is None:
        skip_or_fail("aarch64", "the C++ tests need cmake: pip install cmake ninja")
    folder = tmp_path_factory.mktemp("aarch64")
    for program in [*programs.glob("test_*"), programs / "evaluate"]:
        script = folder / program.name
        script.write_text(f'#!/bin/sh\nexec {EMULATOR} -L {LIBRARIES} "{program}" "$@"\n')
        script.chmod(0o755)
    return folder


def names() -> list[str]:
    stems = sorted(source.stem for source in (ROOT / "tests" / "cpp").glob("test_*.cpp"))
    return [stem + "_portable" if stem in PER_ISA else stem for stem in stems]


@pytest.mark.parametrize("name", names())
def test_program(name, emulated, evaluate):
    models = arguments(name, evaluate)[:1]  # an emulator takes its time
    done = run([str(emulated / name), *models], env=environment())
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@golden_models("medium", "full", "not_smooth", "strip_one_side", "se_atten_v2", "dpa1")
def test_parity(model, emulated, evaluate):
    program = EvaluateProgram(emulated / "evaluate", evaluate, "cpu")
    for name in model.structures:
        check_float64(model, STRUCTURES[name], program)
    check_float32(model, program, "float32")
