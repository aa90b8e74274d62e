"""How much time and memory a step of N atoms would take on this machine: measured on fewer."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from .base.resources import cgroup_folders, free_memory
from .bench import replicated
from .engine import DeviceMemory, Engine

# Atoms of the two systems that are measured. The smaller one has at least one full neighbourhood, the
# larger one fills the caches, beyond which time and memory grow in proportion to the atoms.
SMALL, LARGE = 216, 1728
DENSITY = 0.1  # atoms/angstrom^3: liquid water has 0.100, metals 0.06 to 0.09
REPEATS = 3


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one step (energy, forces, virial) of `atoms` atoms."""

    atoms: int  #: N
    seconds: float  #: of wall time
    megabytes: float | None  #: of the whole process; None where the system doesn't tell
    free_megabytes: float | None  #: on this machine, now
    measured_atoms: list[int]  #: what it was scaled from
    structure: str  #: what was measured, in words
    device: DeviceMemory | None = None  #: of the graphics processor; None on the CPU


def estimate(engine: Engine, natoms: int, structure: Atoms | None = None) -> Estimate:
    """Measure two small systems and scale to `natoms`; some seconds.

    Parameters
    ----------
    structure
        What the atoms would be like, repeated to the sizes that are measured; None: a rattled lattice of
        the model's elements with 0.1 atoms/angstrom^3.

    Raises
    ------
    ValueError
        For fewer than one atom.
    """
    if natoms < 1:
        raise ValueError(f"--atoms {natoms}: give 1 or more.")
    what = "of the structure given" if structure else f"at {DENSITY:g} atoms/angstrom^3"
    systems = [
        lattice(engine.elements, n) if structure is None else replicated(structure, n)
        for n in (SMALL, LARGE)
    ]
    engine = copy.deepcopy(engine)  # a fresh one: an engine keeps the memory of its largest step
    seconds, peaks = zip(*(_measure(engine, atoms) for atoms in systems), strict=True)
    sizes = [len(atoms) for atoms in systems]
    # A step's cost has hardly a constant part: what the larger system takes for an atom counts.
    each = seconds[1] / sizes[1] if natoms >= sizes[0] else seconds[0] / sizes[0]
    memory = None
    if peaks[0] and peaks[1]:
        slope = max(peaks[1] - peaks[0], 0.0) / (sizes[1] - sizes[0])
        memory = peaks[0] + slope * (natoms - sizes[0])
    free = free_memory(cgroup_folders())
    return Estimate(
        natoms,
        each * natoms,
        memory,
        None if free is None else free / 1e6,
        sizes,
        what,
        engine.device_memory(natoms),
    )


def lattice(elements: Sequence[str], natoms: int) -> Atoms:
    """A rattled simple cubic lattice of `natoms` (a cube) atoms, up to four elements in turn."""
    side = round(natoms ** (1 / 3))
    spacing = DENSITY ** (-1 / 3)
    grid = np.stack(np.meshgrid(*3 * [np.arange(side)], indexing="ij"), -1).reshape(-1, 3)
    names = [elements[k % min(len(elements), 4)] for k in range(len(grid))]
    atoms = Atoms(names, spacing * grid, cell=3 * [side * spacing], pbc=True)
    atoms.rattle(0.1 * spacing, seed=0)
    return atoms


def _measure(engine: Engine, atoms: Atoms) -> tuple[float, float | None]:
    """Seconds a step, the median, and the peak of memory meanwhile, MB."""
    engine.compute_atoms([atoms])  # allocates and is slower
    _return_freed_memory()  # that of making tables, in which a larger system would find room
    _forget_peak()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        engine.compute_atoms([atoms])
        times.append(time.perf_counter() - start)
    return statistics.median(times), _peak()


def _return_freed_memory() -> None:
    """To the system, where the C library is GNU's."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        pass  # then the estimate may be too low for a small model


def _forget_peak() -> None:
    """Linux then counts the peak of memory from here on."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # the peak since the start is a bound all the same


def _peak() -> float | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None
