"""Which copy of a function that several instruction sets compile the linker has kept."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

from tests.support.selection import skip_or_fail

# Their own copies: the namespaces of an instruction set, and clones that are chosen at run time.
OWN = re.compile(r"cpu_avx2|cpu_avx512|\.arch_|_GLOBAL__sub_I_")


@pytest.mark.timeout(1800)  # the first test builds
@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="other processors have one instruction set"
)
def test_shared_functions_run_on_every_processor(cpp_programs):
    """Templates that all sets use (std::vector, ...) are compiled for each: none of AVX may be left, or a
    processor without it would fail."""
    objdump = shutil.which("objdump")
    if not objdump:
        skip_or_fail("cpp", "reading programs needs objdump: apt install binutils")
    command = [objdump, "--disassemble", "--no-show-raw-insn", str(cpp_programs / "evaluate")]
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
