"""How long a step takes: of this engine alone, and alternating with DeePMD-kit."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from .engine import DEFAULT_SKIN, Engine
from .errors import RunError

# What either program runs: a line of JSON in, a line of JSON out. On the CPU processor time counts, so that other
# work on the machine disturbs little; on a GPU wall time.
_LOOP = """
import json, resource, sys, time
import numpy as np
{setup}
now = time.process_time if sys.argv[-1] == "cpu" else time.perf_counter
def peak_of_process():
    # of this program: what getrusage says begins with what its parent had
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for line in sys.stdin:
    x = json.loads(line)
    start = now()
    {step}
    used = now() - start
    peak = peak_of_process()
    print("result", json.dumps([used, energy, peak / 1024]), flush=True)
"""
_OURS = _LOOP.format(
    setup="""from dpa2md.engine import Engine
model = Engine(sys.argv[1], **json.loads(sys.argv[2]))""",
    step="""r = model.compute(np.array(x["x"]), x["types"], cell=np.array(x["cell"]), pbc=True)
    energy = float(r.energy)""",
)
_PEER = _LOOP.format(
    setup="from deepmd.infer import DeepPot\nmodel = DeepPot(sys.argv[1])",
    step="""r = model.eval(np.array(x["x"]).reshape(1, -1), np.array(x["cell"]).reshape(1, -1), x["types"])
    energy = float(r[0].ravel()[0])""",
)
_NEEDS = " (deepmd-kit with torch)"  # the peer
_WARM_UP = 3  # first calls, slower and not counted


@dataclass
class Timing:
    """A system's times; seconds a step."""

    natoms: int  #: in the structure
    seconds: list[float]  #: every step's
    stages: dict[str, float] = field(default_factory=dict)  #: seconds a step, summed over threads
    peak: float = 0  #: MB, of the process so far
    peer_seconds: list[float] = field(default_factory=list)  #: of DeePMD-kit
    peer_peak: float = 0  #: MB
    energy_difference: float = 0  #: eV/atom

    @property
    def per_atom(self) -> float:
        """Microseconds an atom and step, the median."""
        return 1e6 * statistics.median(self.seconds) / self.natoms

    @property
    def peer_per_atom(self) -> float:
        """The same of DeePMD-kit."""
        return 1e6 * statistics.median(self.peer_seconds) / self.natoms

    @property
    def ratios(self) -> list[float]:
        """DeePMD-kit's time over ours, step by step."""
        return [b / a for a, b in zip(self.seconds, self.peer_seconds, strict=True)]


def replicated(atoms: Atoms, natoms: int) -> Atoms:
    """`atoms` repeated along its periodic directions to at least `natoms` atoms: as few more as a shape allows that
    is at most twice as long as wide.

    Raises
    ------
    RunError
        When the structure has no periodic direction to repeat it in.
    """
    copies = -(-natoms // len(atoms)) if len(atoms) else natoms
    if copies <= 1:
        return atoms.copy()
    if not atoms.pbc.any() or not len(atoms):
        raise RunError(
            f"A structure of {len(atoms)} atoms without periodic directions can't be repeated to {natoms}; "
            "leave out --atoms."
        )
    sides = atoms.cell.lengths()[atoms.pbc]
    edge = (copies * sides.prod()) ** (1 / len(sides))  # of a cube
    some = np.meshgrid(*(np.arange(1, int(np.ceil(2 * edge / side)) + 1) for side in sides[:-1]))
    others = np.array([axis.ravel() for axis in some]) if some else np.ones((0, 1), dtype=int)
    counts = np.vstack([others, -(-copies // others.prod(axis=0))])
    lengths = sides[:, None] * counts
    aspect = lengths.max(axis=0) / lengths.min(axis=0)
    best = np.lexsort((aspect, counts.prod(axis=0) * np.maximum(1, aspect / 2)))[0]
    repeats = np.ones(3, dtype=int)
    repeats[atoms.pbc] = counts[:, best]
    return atoms.repeat(repeats)


def measure(
    engine: Engine, atoms: Atoms, steps: int, skin: float = DEFAULT_SKIN, *, by_stage: bool = True
) -> Timing:
    """Times `Engine.compute`: energy, forces and virial, atoms moving 0.01 angstrom between steps.

    Parameters
    ----------
    engine
        The model.
    atoms
        Where the atoms move about; not changed.
    steps
        So many evaluations count, after a few that do not.
    skin
        Angstrom; as in `Engine.compute`.
    by_stage
        Measures the stages, too. On a GPU this costs time, because the host then waits for each of them.

    Returns
    -------
    Timing
        Wall time, and that of each stage.
    """
    engine.forget_neighbors()
    step_of = evaluation(engine, atoms, skin)
    core = engine._core
    if by_stage:
        core.measure_stages()
    times: list[float] = []
    stages: dict[str, float] = {}
    for step, moved in enumerate(moving(atoms, _WARM_UP + steps)):
        core.stage_seconds()
        start = time.perf_counter()
        step_of(moved)
        if step >= _WARM_UP:
            times.append(time.perf_counter() - start)
            for name, seconds in core.stage_seconds().items():
                stages[name] = stages.get(name, 0.0) + seconds / steps
    return Timing(len(atoms), times, stages, _peak())


def moving(atoms: Atoms, steps: int) -> Iterator[Atoms]:
    """`atoms`, each time 0.01 angstrom away from where they are."""
    rng = np.random.default_rng(0)
    moved = atoms.copy()
    for _ in range(steps):
        moved.positions = atoms.positions + rng.normal(0, 0.01, atoms.positions.shape)
        yield moved


def evaluation(engine: Engine, atoms: Atoms, skin: float) -> Callable[[Atoms], object]:
    """What evaluates `atoms` when they have moved. Elements become types once, before: of 10,000 atoms that takes
    as long as a tenth of a GPU's step."""
    types = engine.types(atoms.get_chemical_symbols())
    box = {"cell": atoms.cell.array, "pbc": atoms.pbc}
    return lambda moved: engine.compute(moved.positions, types, skin=skin, **box)


def compare(
    model: Path,
    peer_model: Path,
    peer_python: str,
    precision: str | None,
    systems: Sequence[Atoms],
    steps: int,
    device: str = "cpu",
) -> list[Timing]:
    """Times both programs, step by step in turn: on one core, processor time, or on a GPU, wall time.

    DeePMD-kit gets large malloc thresholds: without them half of its time is page faults.

    Parameters
    ----------
    model
        Anything that `Engine` takes.
    peer_model
        The same model as DeePMD-kit loads it, with the same types.
    peer_python
        The Python that has DeePMD-kit.
    precision
        Of this program; None: that of the training.
    systems
        Structures.
    steps
        So many evaluations count, after a few that do not.
    device
        Of this program. DeePMD-kit takes a GPU where its torch finds one.

    Returns
    -------
    list of Timing
        One per structure, in their order.

    Raises
    ------
    RunError
        When one of the programs stops.
    """
    types = Engine(model)
    ours = _own_program(model, {"precision": precision, "threads": 1, "device": device})
    peer = _Program([peer_python, "-c", _PEER, str(peer_model), device.partition(":")[0]], _NEEDS)
    timings = []
    try:
        for atoms in systems:
            timing = Timing(len(atoms), [])
            for step, moved in enumerate(moving(atoms, _WARM_UP + steps)):
                request = _request(moved, types)
                a, b = ours.step(request), peer.step(request)
                if step >= _WARM_UP:
                    timing.seconds.append(a[0])
                    timing.peer_seconds.append(b[0])
                timing.energy_difference = abs(a[1] - b[1]) / len(atoms)
                timing.peak, timing.peer_peak = a[2], b[2]
            timings.append(timing)
    finally:
        ours.stop()
        peer.stop()
    return timings


def side_by_side(
    models: Sequence[tuple[str | os.PathLike, Mapping[str, Any]]],
    atoms: Atoms,
    steps: int,
    report: Callable[[int], None] | None = None,
) -> list[Timing]:
    """Times several models on one structure, step by step in turn, each in a process of its own.

    Parameters
    ----------
    models
        What `Engine` takes: the file, and the other arguments by name, such as threads. With one thread
        on the CPU processor time counts, else wall time.
    atoms
        The structure, periodic in three directions; it moves 0.01 angstrom between steps.
    steps
        So many evaluations count, after a few that do not.
    report
        Called after each step with the number of steps done.

    Returns
    -------
    list of Timing
        One per model, in their order.

    Raises
    ------
    RunError
        When a model can't be evaluated.
    """
    types = [Engine(model, head=options.get("head")) for model, options in models]
    programs = [_own_program(model, options) for model, options in models]
    timings = [Timing(len(atoms), []) for _ in models]
    try:
        for step, moved in enumerate(moving(atoms, _WARM_UP + steps)):
            for program, engine, timing in zip(programs, types, timings, strict=True):
                seconds, _, timing.peak = program.step(_request(moved, engine))
                if step >= _WARM_UP:
                    timing.seconds.append(seconds)
            if report and step >= _WARM_UP:
                report(step - _WARM_UP + 1)
    finally:
        for program in programs:
            program.stop()
    return timings


def _own_program(model: str | os.PathLike, options: Mapping[str, Any]) -> _Program:
    """A process with this engine; its last argument is the clock that counts."""
    alone = options.get("threads") == 1 and options.get("device", "cpu") == "cpu"
    command = [sys.executable, "-c", _OURS, os.fspath(model), json.dumps(options)]
    return _Program([*command, "cpu" if alone else "wall"])


def _request(atoms: Atoms, engine: Engine) -> str:
    """What a `_Program` evaluates, as a line."""
    types = engine.types(atoms.get_chemical_symbols()).tolist()
    x, cell = atoms.positions.tolist(), atoms.cell.array.tolist()
    return json.dumps({"x": x, "cell": cell, "types": types})


def check_peer(python: str) -> None:
    """Raise `RunError` unless this Python has DeePMD-kit; it is looked for, not imported, which takes long."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('deepmd') is None)"
    try:
        done = subprocess.run([python, "-c", look], capture_output=True, check=False)
    except OSError as error:
        raise RunError(f"{python} can't be started: {error.strerror}.") from None
    if done.returncode:
        raise RunError(
            f"{python} has no deepmd-kit: pip install deepmd-kit there, or name another Python by "
            "--peer-python."
        )


class _Program:
    """A process that waits for structures on its standard input."""

    def __init__(self, command: list[str], needs: str = ""):
        self.command, self.needs = command, needs
        environment = dict(
            os.environ,
            OMP_NUM_THREADS="1",
            OPENBLAS_NUM_THREADS="1",
            MALLOC_TRIM_THRESHOLD_=str(1 << 34),
            MALLOC_MMAP_THRESHOLD_=str(1 << 34),
        )
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def step(self, request: str) -> list[float]:
        """Processor seconds, energy in eV, peak memory in MB."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # said below
        for line in self.process.stdout:
            if line.startswith("result "):
                return json.loads(line.removeprefix("result "))
        raise RunError(
            f"{self.command[0]} stopped while it computed with {self.command[3]}; "
            f"see that it can load this model{self.needs}."
        )

    def stop(self) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # of one that has stopped already
            self.process.stdin.close()
        self.process.wait(timeout=60)


def machine() -> str:
    """The processor's name."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
