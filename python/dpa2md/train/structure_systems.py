"""Labelled structures of a file that ASE reads, as a system; they may have different atoms."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import InputError, RunError
from ..labels import labels_of
from ..reading import read_structures
from .systems import LabeledFrame, Needs, unknown_element


class StructureSystem:
    """The structures of one file, held in memory.

    Energies, forces and stresses are found under the names that `dpa2md.labels` knows; parameters
    are ``info["fparam"]`` and the arrays ``aparam`` and ``atom_ener``.

    Parameters
    ----------
    name
        The file, as `dpa2md.reading.read_structures` takes it, so ``run.extxyz@::10`` too.
    needs
        What the model needs.

    Raises
    ------
    InputError
        When the file can't be read, or a structure lacks what is needed; one sentence that names
        it.
    """

    def __init__(self, name: str, needs: Needs):
        self.name = name
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                structures = read_structures(name)
        except RunError as error:
            raise InputError(str(error)) from None
        #: what was said about labels that are not taken
        self.notes = tuple(str(w.message) for w in caught if w.category is UserWarning)
        self._frames = [
            self._labelled(atoms, index, needs) for index, atoms in enumerate(structures)
        ]
        self.natoms = max(len(frame.types) for frame in self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def frame(self, index: int) -> LabeledFrame:
        """One frame."""
        return self._frames[index]

    def place(self, index: int, quantity: str = "") -> str:
        """As in "run.extxyz, structure 3, forces"."""
        return f"{self.name}, structure {index}{f', {quantity}' if quantity else ''}"

    def _labelled(self, atoms: Atoms, index: int, needs: Needs) -> LabeledFrame:
        place = self.place(index)
        labels = labels_of(atoms)
        if labels.energy is None and labels.forces is None:
            raise InputError(
                f"{place}: it has neither an energy nor forces; add labels, or leave the structure "
                "out."
            )
        periodic = bool(atoms.pbc.all())
        virial = None
        if labels.stress is not None and periodic:
            virial = -labels.stress * atoms.get_volume()
        n = len(atoms)
        fparam = _parameter(place, "fparam", atoms.info, (needs.nfparam,), needs.default_fparam)
        aparam = _parameter(place, "aparam", atoms.arrays, (n, needs.naparam))
        energies = atoms.arrays.get("atom_ener")
        return LabeledFrame(
            positions=atoms.positions,
            types=_types(atoms, place, needs),
            cell=atoms.cell.complete().array if atoms.pbc.any() else np.zeros((3, 3)),
            pbc=atoms.pbc.astype(int),
            energy=labels.energy,
            forces=labels.forces,
            virial=virial,
            atom_energies=None if energies is None else np.asarray(energies, float).reshape(n),
            fparam=fparam if needs.nfparam else None,
            aparam=aparam if needs.naparam else None,
        )


def _types(atoms: Atoms, place: str, needs: Needs) -> np.ndarray:
    indices = {element: index for index, element in enumerate(needs.type_map)}
    for element in atoms.symbols.species():
        if element not in indices:
            raise unknown_element(place, element, needs)
    return np.array([indices[element] for element in atoms.symbols])


def _parameter(
    place: str,
    name: str,
    values: Any,
    shape: Sequence[int],
    default: Sequence[float] | None = None,
) -> np.ndarray:
    """A parameter of a structure; zeros without a meaning where the model takes none."""
    if not shape[-1]:
        return np.zeros(shape)
    value = values.get(name, default)
    if value is None:
        raise InputError(
            f"{place}: {name} is missing, and the model has numb_{name} = {shape[-1]}; add it."
        )
    try:
        return np.asarray(value, float).reshape(shape)
    except (TypeError, ValueError):
        raise InputError(
            f"{place}: {name} should be {' x '.join(map(str, shape))} numbers; it isn't."
        ) from None
