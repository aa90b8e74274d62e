"""The CUDA code compiles where nvcc is; no GPU is needed."""

from __future__ import annotations

import re

import pytest
from cuda_programs import BACKEND, PTXAS_REPORT, build_cuda

# Bytes that a thread of a kernel may keep in memory for want of registers: a few are ptxas's choice and cost
# nothing, hundreds would mean that a kernel has outgrown its registers.
MOST_SPILLED = 64


@pytest.mark.timeout(1800)
def test_kernels_compile():
    """Without a warning, and into registers."""
    output = build_cuda(BACKEND)
    assert not re.search(r"\bwarning\b", output), output[-4000:]
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill stores", PTXAS_REPORT.read_text())]
    assert len(spilled) > 20
    assert max(spilled) <= MOST_SPILLED, f"see {PTXAS_REPORT}"
