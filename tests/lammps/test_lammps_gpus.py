"""`device cuda` of the pair style on emulated GPUs: ranks take them in turn, and give the CPU's numbers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from dpa2md import lammps_plugin

from tests.support.cpp_programs import BUILD, SANITIZE, alone_in, run_all, search_path
from tests.support.lammps_runs import (
    AFTER,
    ELEMENTS,
    REPORT,
    assert_stops,
    calculator,
    compare,
    preamble,
    read_report,
    start,
    write_data,
)
from tests.support.small_models import crystal

pytestmark = [pytest.mark.usefixtures("lammps"), pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def emulating_plugin(cpp_programs) -> Path:
    """The directory of a plugin that knows the device "cuda-emulation"."""
    if SANITIZE:
        pytest.skip("LAMMPS is not built with sanitizers and can't load a plugin that is")
    options = ["-DDPA2MD_LAMMPS=ON", f"-DPython_EXECUTABLE={sys.executable}"]
    cmake = ["cmake", str(BUILD), *options]
    build = ["cmake", "--build", str(BUILD), "--target", "pair_dpa2", "dpa2plugin"]
    with alone_in(BUILD):
        run_all(cmake, build, env=os.environ | {"PATH": search_path()})
    return BUILD


def on_gpus(folder, model, device, ranks, gpus, plugin, monkeypatch):
    monkeypatch.setattr(lammps_plugin, "directory", lambda: str(plugin))
    monkeypatch.setenv("DPA2MD_EMULATED_GPUS", str(gpus))
    write_data(folder / "data.test", crystal(), ELEMENTS)
    script = preamble(crystal(), ELEMENTS, model, keywords=f"precision float64 device {device}")
    return start(folder, script + REPORT + "run 0\n" + AFTER, ranks)


@pytest.mark.parametrize(
    ("device", "ranks", "gpus", "said"),
    [
        ("cuda-emulation", 3, 2, "3 ranks on 2 GPUs, 1 to 2 on each"),
        ("cuda-emulation", 2, 2, "2 ranks on 2 GPUs, 1 on each"),
        ("cuda-emulation:1", 2, 2, "2 ranks on 1 GPU"),
        ("cuda-emulation", 1, 3, "1 rank on 1 GPU"),
    ],
)
def test_ranks_share_gpus(
    device, ranks, gpus, said, tmp_path, model, emulating_plugin, monkeypatch
):
    done = on_gpus(tmp_path, model, device, ranks, gpus, emulating_plugin, monkeypatch)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines.count(said) == 1, done.stdout  # by rank 0 only
    assert f"cuda (GPU {device.partition(':')[2] or 0}, emulated, float64)" in done.stdout
    compare(read_report(tmp_path, crystal().get_volume()), crystal(), calculator(model))


def test_a_gpu_that_does_not_exist(tmp_path, model, emulating_plugin, monkeypatch):
    done = on_gpus(tmp_path, model, "cuda-emulation:2", 2, 2, emulating_plugin, monkeypatch)
    assert_stops(done, "there is no GPU 2: this process sees 2, numbers 0 to 1;")
