"""Reads the golden files: which models there are and what DeePMD-kit computed with them."""

from __future__ import annotations

import functools
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .systems import Structure, all_structures, atom_parameters, frame_parameters

HERE = Path(__file__).parent
STRUCTURES = all_structures()
INDEX = json.loads((HERE / "index.json").read_text())
EXPORTABLE_INDEX = json.loads((HERE / "exportable_index.json").read_text())


@dataclass(frozen=True)
class Golden:
    """One model (one head of it) and DeePMD-kit's results.

    Expected values are those of the model's weights in float64 arithmetic, whatever `precision`
    (descriptor, fitting net) the model itself asks for.
    """

    name: str
    file: str
    head: str | None
    precision: tuple[str, str]
    types_used: tuple[int, ...]
    elements_used: tuple[str, ...]
    numb_fparam: int
    numb_aparam: int
    structures: tuple[str, ...]
    overfull: tuple[bool, ...]
    set: str = ""  # in front of the names of its files

    @property
    def all_neighbors(self) -> bool:
        """Whether DeePMD-kit evaluates it over all neighbours within the cutoffs."""
        return self.name.startswith("graph")

    def types(self, structure: Structure) -> np.ndarray:
        """Type of every atom of `structure` in this model, int64 (n,)."""
        return structure.types(self.types_used)

    def symbols(self, structure: Structure) -> list[str]:
        """Chemical symbol of every atom of `structure` in this model."""
        return [self.elements_used[k % len(self.elements_used)] for k in structure.kinds]

    def fparam(self) -> np.ndarray | None:
        """(numb_fparam,), or None where the model takes none or its default is wanted."""
        return frame_parameters(self.numb_fparam) if self.numb_fparam else None

    def aparam(self, structure: Structure) -> np.ndarray | None:
        """(n, numb_aparam), or None."""
        return atom_parameters(len(structure), self.numb_aparam) if self.numb_aparam else None

    def expected(self, structure: str) -> dict[str, np.ndarray]:
        """`energy` (), `atom_energy` (n,), `forces` (n, 3), `virial` (3, 3); eV and angstrom."""
        k = self.structures.index(structure)
        ends = np.cumsum([len(STRUCTURES[name]) for name in self.structures])
        atoms = slice(ends[k] - len(STRUCTURES[structure]), ends[k])
        return {
            "energy": self._array("energy")[k],
            "atom_energy": self._array("atom_energy")[atoms],
            "forces": self._array("forces")[atoms],
            "virial": self._array("virial")[k],
        }

    def original_errors(self, structure: str, precision: str) -> np.ndarray:
        """How far DeePMD-kit's own result in `precision` ("float32", or "own": the model's) is from
        the expected one: |energy|, rms atom_energy, rms forces, largest |virial|."""
        return self._array(f"{precision}_errors")[self.structures.index(structure)]

    def gradients(self, structure: str) -> dict[str, np.ndarray]:
        """By parameter, named as in the state dict after `atomic_model.`: what `projections.py` keeps
        (5,) of the gradient of its loss. Empty where `gradients.npz` has none."""
        archive = _gradients()
        if f"{self.name}/{structure}" not in archive:
            return {}
        names = archive[f"{self.name}/parameters"].item().decode().splitlines()
        return dict(zip(names, archive[f"{self.name}/{structure}"], strict=True))

    def write(self, folder: Path) -> Path:
        """Unpacks the checkpoint into `folder` and returns its path."""
        with zipfile.ZipFile(HERE / f"{self.set}models.zip") as archive:
            return Path(archive.extract(self.file, folder))

    def _array(self, key: str) -> np.ndarray:
        return _results(self.set, f"{self.name}/{key}")


@functools.cache
def _archive(set: str):
    return np.load(HERE / f"{set}results.npz")


@functools.cache
def _gradients():
    return np.load(HERE / "gradients.npz")


@functools.cache
def _results(set: str, key: str) -> np.ndarray:
    return _archive(set)[key]


MODELS = {
    entry["name"]: Golden(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})
    for entry in INDEX["models"] + EXPORTABLE_INDEX["models"]
}
