"""Evaluates golden models with a program without Python, tests/cpp/evaluate.cpp: with the CUDA backend's
kernels, run by the host (csrc/cuda/block/block.h), or on another architecture (test_aarch64.py)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.golden.suite import STRUCTURES, Golden
from tests.golden.systems import Structure
from tests.support.cpp_programs import environment, run
from tests.support.evaluator import Evaluator, Results


class EvaluateProgram:
    """Called like `Evaluator`. One run of the program does all structures of a model.

    `threads` of an emulated block; negative: the last one runs first (csrc/cuda/emulation/fibers.h). `tables`: as
    Engine's. `chunk`: atoms that an emulated device takes at once. `structures`: those that
    it can be asked for.
    """

    def __init__(
        self,
        program: Path,
        evaluator: Evaluator,
        device: str,
        threads: int = 1,
        tables: bool = True,
        chunk: int | None = None,
        structures: Iterable[str] = STRUCTURES,
    ):
        self._program, self._evaluator, self._device = program, evaluator, device
        self._threads = threads
        self._embedding = "tables" if tables else "nets"
        self._chunk = chunk
        self._structures = {name: STRUCTURES[name] for name in structures}
        self._results: dict = {}

    def __call__(
        self, model: Golden, structure: Structure, precision: str | None = "float64"
    ) -> Results:
        key = (model.name, precision)
        if key not in self._results:
            self._results = {key: self._evaluate(model, precision)}  # of the last model only
        return self._results[key][structure.name]

    def _evaluate(self, model: Golden, precision: str | None) -> dict[str, Results]:
        texts = [described(model, s) for s in self._structures.values()]
        path = self._evaluator.path(model)
        numbers = iter(
            evaluated(
                self._program,
                path,
                precision or "",
                self._device,
                self._embedding,
                texts,
                self._threads,
                self._chunk,
            )
        )

        def take(*shape: int) -> np.ndarray:
            return np.array([next(numbers) for _ in range(int(np.prod(shape)))]).reshape(shape)

        out = {}
        for name, structure in self._structures.items():
            n = len(structure)
            energies, forces, virials = take(n), take(n, 3), take(n, 3, 3)
            out[name] = Results(
                energy=energies.sum(),
                atom_energy=energies,
                forces=forces,
                virial=virials.sum(axis=0),
            )
        return out


def evaluated(
    program: Path,
    model: Path,
    precision: str,
    device: str,
    embedding: str,
    structures: list[str],
    threads: int,
    chunk: int | None = None,
) -> np.ndarray:
    """All numbers that tests/cpp/evaluate.cpp prints."""
    emulated = {"DPA2MD_EMULATED_THREADS": str(threads)}
    if chunk:
        emulated["DPA2MD_EMULATED_CHUNK"] = str(chunk)
    done = run(
        [str(program), str(model), precision, device, embedding],
        input="".join(structures),
        env=environment(**emulated),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return np.array([float.fromhex(line) for line in done.stdout.split()])


def described(model: Golden, structure: Structure) -> str:
    """A structure as tests/cpp/evaluate.cpp reads it."""
    fparam, aparam = model.fparam(), model.aparam(structure)
    return structure_text(
        model.types(structure), structure.positions, structure.cell, structure.pbc, fparam, aparam
    )


def structure_text(types, positions, cell, pbc, fparam=None, aparam=None) -> str:
    """The same of arrays."""
    frame = [] if fparam is None else fparam
    atom = np.zeros((len(types), 0)) if aparam is None else aparam
    head = f"atoms {len(types)} {len(frame)} {atom.shape[1]}"
    numbers = [*cell.ravel(), *pbc, *frame, *np.column_stack([types, positions, atom]).ravel()]
    return "\n".join([head, *(repr(float(x)) for x in numbers), ""])
