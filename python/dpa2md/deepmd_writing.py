"""Labelled structures into DeePMD-kit's systems, folders of npy files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ase import Atoms

from .errors import RunError
from .labels import labels_of


def write_systems(frames: Sequence[Atoms], folder: Path) -> list[Path]:
    """Write a system for each order of elements and each set of labels among the frames.

    Energies, forces and virials (-stress x volume) are written where frames have them.

    Parameters
    ----------
    frames
        As `dpa2md.reading.read_structures` leaves them. Periodic in all directions or in none.
    folder
        Which must not exist; it is seen only when it is complete.

    Returns
    -------
    list of Path
        The systems, by the order in which their first frames come.

    Raises
    ------
    RunError
        When a frame is periodic in some directions only, or there is none.
    OSError
        When the folder exists or can't be written.
    """
    groups: dict[tuple, list[int]] = {}
    for k, atoms in enumerate(frames):
        groups.setdefault((tuple(atoms.numbers), *_kinds(atoms, k)), []).append(k)
    if not groups:
        raise RunError(f"{folder}: there are no frames to write.")
    elements = sorted({symbol for atoms in frames for symbol in atoms.symbols})
    width, names = len(str(len(groups) - 1)), []
    with _whole_folder(folder) as temporary:
        for k, indices in enumerate(groups.values()):
            group = [frames[i] for i in indices]
            name = f"{group[0].get_chemical_formula()}-{k:0{width}d}"
            _write(temporary / name, group, elements)
            names.append(folder / name)
    return names


def _kinds(atoms: Atoms, index: int) -> tuple[bool, ...]:
    """Whether it is periodic, and which labels it has."""
    if atoms.pbc.any() and not atoms.pbc.all():
        raise RunError(
            f"structure {index}: DeePMD-kit's systems are periodic in all directions or in none; "
            "give the cell a vacuum and make it periodic."
        )
    labels = labels_of(atoms)
    has = (label is not None for label in (labels.energy, labels.forces, labels.stress))
    return (bool(atoms.pbc.all()), *has)


def _write(folder: Path, frames: Sequence[Atoms], elements: Sequence[str]) -> None:
    part = folder / "set.000"
    part.mkdir(parents=True)
    (folder / "type_map.raw").write_text("".join(f"{name}\n" for name in elements))
    types = [elements.index(symbol) for symbol in frames[0].symbols]
    (folder / "type.raw").write_text("".join(f"{kind}\n" for kind in types))
    np.save(part / "coord.npy", [atoms.positions.ravel() for atoms in frames])
    if frames[0].pbc.all():
        np.save(part / "box.npy", [atoms.cell.array.ravel() for atoms in frames])
    else:
        (folder / "nopbc").write_text("")
    rows: dict[str, list[np.ndarray]] = {}
    for atoms in frames:
        labels = labels_of(atoms)
        if labels.energy is not None:
            rows.setdefault("energy", []).append(np.asarray(labels.energy))
        if labels.forces is not None:
            rows.setdefault("force", []).append(labels.forces.ravel())
        if labels.stress is not None:
            virial = -labels.stress * atoms.get_volume()
            rows.setdefault("virial", []).append(virial.ravel())
    for name, values in rows.items():
        np.save(part / f"{name}.npy", values)


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder, which gets its name at the end."""
    if folder.exists():
        raise RunError(f"{folder} exists; remove it, or name another folder.")
    temporary = folder.with_name(f".tmp.{os.getpid()}.{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
