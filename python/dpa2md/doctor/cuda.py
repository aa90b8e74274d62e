"""What ``dpa2md doctor`` says about CUDA: whether it is built in, and which GPU and driver there are."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import Any

from .finding import Finding
from .programs import ask, last_line

DRIVER_SECONDS = 20
_VERSION = """
import ctypes
version = ctypes.c_int()
ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
print(f"for CUDA {version.value // 1000}.{version.value % 1000 // 10}")
"""
BUILD_AGAIN = "pip install --force-reinstall --no-deps . builds it in"


def cuda_findings(report: dict[str, Any]) -> Iterator[Finding]:
    """From the report of core.py: the build, and the device."""
    gpus, driver = nvidia_gpus(), nvidia_driver()
    found = "; ".join(gpus) or "no NVIDIA GPU is found"
    found += f"; NVIDIA driver {driver}" if driver else "; no NVIDIA driver is found"
    if not report["cuda_build"]:
        text = f"this dpa2md was built without CUDA and computes on the CPU; {found}"
        yield Finding("CUDA", "note" if driver else "ok", text, _build_it() if driver else "")
        return
    yield Finding("CUDA", "ok", f"built with {report['cuda_build']}")
    if not report["cuda"]:
        yield Finding(
            "GPU", "ok", f"{report.get('cuda_description', 'device cuda')} works; {found}"
        )
        return
    text = f"{report['cuda'].rstrip('.')}; {found}"
    # on a machine without a GPU nothing is amiss
    yield Finding("GPU", "note" if driver or gpus else "ok", text)


def _build_it() -> str:
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not nvcc:
        return f"install CUDA's nvcc, 12 or newer; then {BUILD_AGAIN}"
    on_path = "" if shutil.which("nvcc") else f" with {nvcc} on the PATH"
    return f"{BUILD_AGAIN}{on_path}, if nvcc is 12 or newer"


def nvidia_driver() -> str:
    """Its version and what it supports; empty without a driver."""
    library = ask([sys.executable, "-c", _VERSION], DRIVER_SECONDS)
    versions = {line for line in _ask_smi("driver_version") if line}
    supports = last_line(library.out) if library.status == 0 else ""
    return " ".join([*sorted(versions), *filter(None, [supports])])


def nvidia_gpus() -> list[str]:
    """The cards that nvidia-smi sees, each with its architecture."""
    names, capabilities = _ask_smi("name"), _ask_smi("compute_cap")
    if len(capabilities) != len(names):  # an old nvidia-smi does not know them
        return names
    return [
        f"{name} (sm_{capability.replace('.', '')})"
        for name, capability in zip(names, capabilities, strict=True)
    ]


def _ask_smi(what: str) -> list[str]:
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    listed = ask([tool, f"--query-gpu={what}", "--format=csv,noheader"], DRIVER_SECONDS)
    return [line.strip() for line in listed.out.splitlines()] if listed.status == 0 else []
