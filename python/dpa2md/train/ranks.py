"""Several processes that train together, started by mpirun; the only module that knows MPI."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError, RunError

Value = TypeVar("Value")

# What starts processes of MPI tells each how many there are, and which one it is.
_STARTERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),  # MVAPICH
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("SLURM_STEP_NUM_TASKS", "PMIX_RANK"),  # srun --mpi=pmix; the first alone means no MPI
)
_PATIENCE = 10.0  # seconds that a rank waits at its end for the others


class Ranks:
    """One process alone, and what is common to several.

    Ranks that belong together call the same methods in the same order. Of several, what fails
    between these calls ends all of them, `_PATIENCE` after the first one has ended.

    Attributes
    ----------
    rank
        Of this process, from 0 on.
    size
        The number of processes.
    """

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks."""
        return self.rank == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails on any rank ends here on all of them.

        Raises
        ------
        Exception
            On the first rank: its own one, or a RunError with the sentence of the lowest rank that
            failed.
        SystemExit
            On the others, with the status 2: one sentence is enough.
        """
        yield

    def same(self, value: Value) -> Value:
        """The first rank's value, on all ranks."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The mean over ranks of a vector, float64 (n,): the same bits on all of them.

        The sum is in the order of the ranks, so that a repeated run has the same bits, too.
        """
        return values

    def threads(self, given: int) -> int:
        """How many threads a rank has: so many, or for 0 its part of the host's processors.

        0 stays 0 for a process alone and where OMP_NUM_THREADS says it.
        """
        return given


class _MpiRanks(Ranks):
    """Ranks of MPI's world."""

    def __init__(self, mpi: Any):
        self._mpi, self._world = mpi, mpi.COMM_WORLD
        self.rank, self.size = self._world.rank, self._world.size
        atexit.register(self._leave)

    @contextmanager
    def together(self) -> Iterator[None]:
        error = None
        try:
            yield
        except Exception as failure:  # noqa: BLE001 - told to all ranks
            error = failure
        if not self.any(error is not None):
            return
        texts = self._world.allgather(None if error is None else str(error) or repr(error))
        if not self.first:
            raise SystemExit(2) from error
        if error is not None:
            raise error
        rank, text = next((k, text) for k, text in enumerate(texts) if text is not None)
        raise RunError(f"rank {rank} of {self.size}: {text}")

    def same(self, value: Value) -> Value:
        return self._world.bcast(value)

    def any(self, flag: bool) -> bool:
        found = np.array([flag], dtype=np.int32)
        self._world.Allreduce(self._mpi.IN_PLACE, found, self._mpi.MAX)
        return bool(found[0])

    def mean(self, values: np.ndarray) -> np.ndarray:
        # Each rank adds up its part of the vector; an Allreduce may add in any order.
        part = -(-len(values) // self.size)
        sent = np.zeros((self.size, part))
        sent.ravel()[: len(values)] = values
        found = np.empty_like(sent)
        self._world.Alltoall(sent, found)
        total = found[0]
        for row in found[1:]:
            total += row
        total /= self.size
        self._world.Allgather(total, sent)
        return sent.ravel()[: len(values)]

    def threads(self, given: int) -> int:
        if given or os.environ.get("OMP_NUM_THREADS"):
            return given
        host = self._world.Split_type(self._mpi.COMM_TYPE_SHARED)
        own = _processors()
        # mpirun may have bound every rank to processors of its own
        cores = len(frozenset().union(*host.allgather(own)))
        return max(1, min(len(own), cores // host.size))

    def _leave(self) -> None:
        """End all ranks unless they all end: MPI's own end would wait for ever for one that can't."""
        everyone, end = self._world.Ibarrier(), time.monotonic() + _PATIENCE
        while not everyone.Test():
            if time.monotonic() > end:
                self._world.Abort(2)
            time.sleep(0.01)


def _processors() -> frozenset[int]:
    """The numbers of those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


ALONE = Ranks()


def started_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """The ranks that mpirun has started, or `ALONE`.

    Raises
    ------
    InputError
        On the first rank, where mpi4py can't be imported or belongs to another MPI than mpirun.
    SystemExit
        On the others then, with the status 0: mpirun would kill the first one before it speaks.
    """
    for size, rank in _STARTERS:
        count, number = environment.get(size, ""), environment.get(rank, "")
        if count.isdecimal() and number.isdecimal() and int(count) > 1:
            return _ranks_of_mpi(int(count), int(number))
    return ALONE


def _ranks_of_mpi(size: int, rank: int) -> Ranks:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no library of MPI
        reason = " ".join(str(error).split())
        raise _refusal(
            rank,
            f"mpirun has started {size} ranks, and mpi4py can't be imported ({reason}); "
            "pip install 'dpa2md[mpi]', or start one process.",
        ) from None
    if MPI.COMM_WORLD.size != size:
        library = MPI.Get_library_version().split("\n")[0].strip(" \0")
        raise _refusal(
            rank,
            f"mpirun has started {size} ranks, and mpi4py's library ({library}) knows of "
            f"{MPI.COMM_WORLD.size}; take the mpirun of that library, or install mpi4py for the other.",
        )
    return _MpiRanks(MPI)


def _refusal(rank: int, sentence: str) -> BaseException:
    return InputError(sentence) if rank == 0 else SystemExit(0)
