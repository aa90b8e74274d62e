"""Structures into files of ASE's formats; the name decides the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.formats import filetype, ioformats

from .base.files import whole_file
from .errors import RunError
from .labels import labels_of

# Names of files that hold many structures with energies, forces, stresses and anything else.
_WITH_RESULTS = {".xyz": "extxyz", ".extxyz": "extxyz", ".traj": "traj"}


def format_of(path: Path) -> str:
    """ASE's name for the format that a file name stands for.

    Raises
    ------
    RunError
        When it stands for none that ASE can write.
    """
    try:
        name = filetype(str(path), read=False)
    except Exception:  # noqa: BLE001 - ASE's own exception for unknown names
        name = ""
    if name not in ioformats or not ioformats[name].can_write:
        raise RunError(f"{path}: ASE can't write a file of this name; try .extxyz, .cif or .vasp.")
    return name


def format_with_results(path: Path) -> str:
    """The same for energies, forces and stresses of many structures; a device gets extended XYZ.

    Raises
    ------
    RunError
        When the format doesn't hold them.
    """
    if path.exists() and not path.is_file():
        return "extxyz"
    name = _WITH_RESULTS.get(path.suffix.lower())
    if name is None:
        raise RunError(
            f"{path}: a file of this name can't hold energies and forces; name it .extxyz or .traj."
        )
    return name


def write_results(
    path: Path, structures: Sequence[Atoms], results: Sequence[dict[str, Any]]
) -> None:
    """Structures with a model's energy, forces and stress, and with their labels as label_energy (eV),
    label_forces (n, 3) and label_stress (9,)."""
    file_format = format_with_results(path)
    frames = []
    for atoms, result in zip(structures, results, strict=True):
        frame = atoms.copy()
        labels = labels_of(atoms)
        if labels.energy is not None:
            frame.info["label_energy"] = labels.energy
        if labels.stress is not None:
            frame.info["label_stress"] = labels.stress.ravel()
        if labels.forces is not None:  # ASE's trajectories keep no columns of one's own
            where = frame.arrays if file_format == "extxyz" else frame.info
            where["label_forces"] = np.array(labels.forces)
        kept = {k: result[k] for k in ("energy", "forces", "stress") if k in result}
        frame.calc = SinglePointCalculator(frame, **kept)
        frames.append(frame)
    with whole_file(path) as temporary:
        write(str(temporary), frames, format=file_format)
