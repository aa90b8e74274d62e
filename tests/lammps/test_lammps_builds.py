"""The plugin and the many builds of LAMMPS: it refuses those that it does not fit. What stops a run is read."""

from __future__ import annotations

import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path

import pytest
from dpa2md import lammps_plugin

from tests.support.lammps_runs import assert_stops, require_lammps, start
from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail

PLUGIN = ROOT / "lammps_plugin"
CORE = PLUGIN.parent / "csrc"


def compiler() -> str:
    return shutil.which("c++") or skip_or_fail("lammps", "there is no C++ compiler")


PRINTS_AND_DIES = """
#include "{plugin}/failure.h"
int main() {{
  std::puts("a sentence");
  dpa2md::deliver_output();
  std::fclose(std::fopen("delivered", "w"));
}}
"""


@pytest.fixture(scope="module")
def printer(tmp_path_factory) -> Path:
    """A program that prints, sees to it that it is read, and then leaves the file `delivered`."""
    folder = tmp_path_factory.mktemp("printer")
    (folder / "printer.cpp").write_text(PRINTS_AND_DIES.format(plugin=PLUGIN))
    command = [compiler(), "-std=c++17", f"-I{CORE}", "-o", "printer", "printer.cpp"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "printer"


def test_output_is_delivered_before_an_abort(tmp_path, printer):
    """As under mpiexec, which reads late and after an abort not at all."""
    with subprocess.Popen(
        [printer], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        time.sleep(1.0)  # more than starting takes, less than it waits at most
        assert process.poll() is None and not (tmp_path / "delivered").exists()
        assert process.stdout.readline() == b"a sentence\n"
        process.wait(timeout=3)
    assert (tmp_path / "delivered").exists()


def test_nobody_waits_for_a_file_nor_for_ever(tmp_path, printer):
    with open(tmp_path / "out", "w") as out:
        start = time.monotonic()
        subprocess.run([printer], cwd=tmp_path, stdout=out, stderr=out, check=True)
        assert time.monotonic() - start < 3  # less than it waits at most
    assert (tmp_path / "out").read_text() == "a sentence\n"
    with subprocess.Popen([printer], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.wait(timeout=20) == 0  # though nobody reads


# ---- a LAMMPS that does not fit

FAKES = {
    "version": (
        "int lammps_version(void*) { return 20200303; }",
        "this LAMMPS is version 20200303, but the plugin was built for version 20",
    ),
    "sizes": (
        # 8 bytes for everything, and rank 0
        'int lammps_extract_setting(void*, const char* s) { return strcmp(s, "world_rank") ? 8 : 0; }',
        "this LAMMPS has other integer sizes, but",
    ),
    "serial": (
        "int lammps_config_has_mpi_support() { return 0; }",
        "this LAMMPS is serial, but",
    ),
    "openmpi": (
        "int ompi_mpi_comm_world = 0;",
        "this LAMMPS uses Open MPI, but",
    ),
}


@pytest.mark.parametrize("name", FAKES)
def test_a_lammps_that_does_not_fit_is_refused(tmp_path, name):
    """A library in front of LAMMPS pretends to be another build; the rest of LAMMPS goes on."""
    require_lammps()
    code, sentence = FAKES[name]
    source = f'#include <string.h>\nextern "C" {{ {code} }}\n'
    (tmp_path / "fake.cpp").write_text(source)
    command = [compiler(), "-shared", "-fPIC", "-o", "libfake.so", "fake.cpp"]
    subprocess.run(command, cwd=tmp_path, check=True)
    script = 'pair_style zero 4.0\nprint "still running"\npair_style dpa2 x\n'
    done = start(tmp_path, script, preload=tmp_path / "libfake.so")
    assert_stops(done, "dpa2")
    assert "still running" in done.stdout
    # once for each time that the plugin is on the path
    said = {line for line in done.stderr.splitlines() if line.startswith("dpa2md:")}
    assert len(said) == 1 and sentence in (one := said.pop()) and one.endswith("(docs/lammps.md).")


def test_half_a_plugin_says_so(tmp_path):
    require_lammps()
    shutil.copy(lammps_plugin.path(), tmp_path)
    done = start(tmp_path, f"plugin load {tmp_path}/dpa2plugin.so\n")
    assert "pair_dpa2.so is missing; it must be beside dpa2plugin.so." in done.stderr


# What LAMMPS's own stand-in for MPI is like, as far as the plugin uses it: no const anywhere.
SERIAL_MPI = """
#pragma once
typedef int MPI_Comm, MPI_Datatype, MPI_Op, MPI_Request;
enum { MPI_INT, MPI_DOUBLE, MPI_CHAR, MPI_LONG_LONG, MPI_SUM, MPI_MAX, MPI_MIN };
int MPI_Allreduce(void*, void*, int, MPI_Datatype, MPI_Op, MPI_Comm);
int MPI_Bcast(void*, int, MPI_Datatype, int, MPI_Comm);
int MPI_Gather(void*, int, MPI_Datatype, void*, int, MPI_Datatype, int, MPI_Comm);
int MPI_Gatherv(void*, int, MPI_Datatype, void*, int*, int*, MPI_Datatype, int, MPI_Comm);
"""


def test_the_plugin_compiles_for_a_serial_lammps_with_big_integers(tmp_path):
    """Only as far as the syntax: the headers are those of the wheel, which has neither."""
    require_lammps()
    headers = Path(metadata.distribution("lammps").locate_file("lammps/include/lammps"))
    (tmp_path / "mpi.h").write_text(SERIAL_MPI)
    options = ["-std=c++17", "-fsyntax-only", f"-I{headers}", f"-I{CORE}", f"-I{tmp_path}"]
    macros = [
        'DPA2MD_VERSION="0"',
        "DPA2MD_LAMMPS_VERSION=1",
        "DPA2MD_LAMMPS_SERIAL",
        "LAMMPS_BIGBIG",
    ]
    sources = sorted(PLUGIN.glob("*.cpp"))
    assert len(sources) > 5
    for source in sources:
        command = [compiler(), *options, *(f"-D{m}" for m in macros), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
