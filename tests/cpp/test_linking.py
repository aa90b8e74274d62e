"""Which copy of a function that several instruction sets compile the linker has kept."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

from tests.support.cpp_programs import run_all
from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail

# Their own copies: the namespaces of an instruction set, and clones that are chosen at run time.
OWN = re.compile(r"cpu_avx2|cpu_avx512|\.arch_|_GLOBAL__sub_I_")
OBJECT = "CMakeFiles/_core.dir/csrc/python/bind_python.cpp.o"


def module_with_names(folder):
    """The Python module as the last build linked it, but with the names of its functions."""
    builds = [
        path for path in ROOT.glob("build/*/libdpa2md_core.a") if (path.parent / OBJECT).exists()
    ]
    compiler = shutil.which("g++")
    if not builds or not compiler:
        skip_or_fail("cpp", "linking the module needs g++ and a build of it: make dev")
    core = max(builds, key=lambda path: path.stat().st_mtime)
    out = folder / "module.so"
    run_all([compiler, "-shared", str(core.parent / OBJECT), str(core), "-fopenmp", "-o", str(out)])
    return out


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="other processors have one instruction set"
)
def test_shared_functions_run_on_every_processor(tmp_path):
    """Templates that all sets use (std::vector, ...) are compiled for each: none of AVX may be left, or a
    processor without it would fail."""
    objdump = shutil.which("objdump")
    if not objdump:
        skip_or_fail("cpp", "reading programs needs objdump: apt install binutils")
    module = module_with_names(tmp_path)
    command = [objdump, "--disassemble", "--no-show-raw-insn", str(module)]
    function, wide = "", set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listing:
        for line in listing.stdout:
            if match := re.match(r"[0-9a-f]+ <(.*)>:$", line):
                function = match[1]
            elif re.search(r"%[yz]mm", line):
                wide.add(function)
    assert listing.returncode == 0
    assert any("cpu_avx2" in name for name in wide) and any("cpu_avx512" in name for name in wide)
    assert not {name for name in wide if not OWN.search(name)}
