"""How long each kernel of a step takes on a GPU (``dpa2md bench --kernels``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from .bench import evaluation, moving
from .engine import DEFAULT_SKIN, Engine
from .errors import RunError


@dataclass(frozen=True)
class Kernel:
    """A kernel; its launches of one step together."""

    name: str
    seconds: float  #: a step
    launches: float  #: a step
    blocks: int  #: of the last launch
    threads: int  #: of a block
    registers: int  #: of a thread
    shared_bytes: int  #: shared memory of a block
    local_bytes: int  #: memory of a thread, mostly for what its registers do not hold (spills)
    occupancy: float  #: warps that fit a multiprocessor at once, over the most that it holds


@dataclass(frozen=True)
class KernelTiming:
    """The kernels of a system's step."""

    natoms: int
    kernels: list[Kernel]  #: the longest first

    @property
    def seconds(self) -> float:
        """Of all kernels together, a step. Those of a usual step may overlap, and wait less for each other."""
        return sum(kernel.seconds for kernel in self.kernels)


def measure_kernels(
    engine: Engine, atoms: Atoms, steps: int, skin: float = DEFAULT_SKIN
) -> KernelTiming:
    """Times every kernel by CUDA events, started one after the other instead of as a graph.

    The parameters are those of `dpa2md.bench.measure`.

    Raises
    ------
    RunError
        When the device has no kernels that could be timed.
    """
    engine.forget_neighbors()
    step_of = evaluation(engine, atoms, skin)
    core = engine._core
    core.measure_kernels(True)
    try:
        for step, moved in enumerate(moving(atoms, 1 + steps)):
            step_of(moved)
            if step == 0:
                core.kernel_times()  # forgets the first step, which lists the neighbours
        times = core.kernel_times()
    finally:
        core.measure_kernels(False)
    if not times:
        raise RunError(f"{engine.description} has no clock for its kernels.")
    return KernelTiming(len(atoms), _of_a_step(times, steps))


def _of_a_step(times: Sequence[dict[str, Any]], steps: int) -> list[Kernel]:
    kernels = [
        Kernel(**{**time, "seconds": time["seconds"] / steps, "launches": time["launches"] / steps})
        for time in times
    ]
    return sorted(kernels, key=lambda kernel: -kernel.seconds)


def kernel_rows(timing: KernelTiming) -> list[dict[str, Any]]:
    """A table of the kernels."""
    return [
        {
            "kernel": kernel.name,
            "us/atom": round(1e6 * kernel.seconds / timing.natoms, 5),
            "ms/step": round(1e3 * kernel.seconds, 4),
            "share %": round(100 * kernel.seconds / timing.seconds, 1),
            "launches": round(kernel.launches, 1),
            "us each": round(1e6 * kernel.seconds / kernel.launches, 2),
            "blocks": kernel.blocks,
            "threads": kernel.threads,
            "registers": kernel.registers,
            "shared kB": round(kernel.shared_bytes / 1024, 1),
            "local B": kernel.local_bytes,
            "occupancy": round(kernel.occupancy, 2),
        }
        for kernel in timing.kernels
    ]
