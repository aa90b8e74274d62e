"""Golden models, evaluated by the compiled engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dpa2md.conversion import convert
from dpa2md.engine import Engine

from tests.golden.suite import Golden
from tests.golden.systems import Structure


class Results(dict):
    """`energy` (), `atom_energy` (n,), `forces` (n, 3), `virial` (3, 3); eV and angstrom."""

    def __getattr__(self, name: str) -> np.ndarray:
        return self[name]


class Evaluator:
    """Converts golden models and evaluates them with the compiled engine; keeps what it loaded."""

    def __init__(self, folder: Path, device: str = "cpu"):
        self._folder, self._device = folder, device
        self._engines: dict = {}

    def path(self, model: Golden) -> Path:
        """The `.dpa2` file of a golden model."""
        output = self._folder / f"{model.name}.dpa2"
        if not output.exists():
            convert(model.write(self._folder), output, head=model.head)
        return output

    def engine(self, model: Golden, precision: str | None = "float64"):
        """The engine of a golden model; `precision` None: the file's own."""
        key = (model.name, precision)
        if key not in self._engines:
            path = self.path(model)
            self._engines[key] = Engine(path, precision, threads=1, device=self._device)
        return self._engines[key]

    def __call__(
        self, model: Golden, structure: Structure, precision: str | None = "float64"
    ) -> Results:
        """Results of a golden model for any structure."""
        result = self.engine(model, precision).compute(
            structure.positions,
            model.types(structure),
            cell=structure.cell,
            pbc=structure.pbc,
            fparam=model.fparam(),
            aparam=model.aparam(structure),
        )
        return Results(
            energy=result.energy,
            atom_energy=result.energies,
            forces=result.forces,
            virial=result.virial,
        )
