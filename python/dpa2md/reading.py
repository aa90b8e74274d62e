"""Structures by the names that the command line gives them: files, DeePMD-kit's systems, standard input."""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols
from ase.io import read
from ase.io.formats import string2index

from .deepmd_data import first_line, is_hdf5, read_folder, read_hdf5
from .errors import RunError
from .labels import adopt_labels, drop_labels
from .lammps_files import lammps_format, read_lammps

STANDARD_INPUT = "-"
_DATABASES = (".db", ".json", ".aselmdb")  # of ASE, which take queries in place of an index
Index = int | slice | str  # a str: a query of ASE's databases


def read_structures(
    name: str | os.PathLike,
    index: int | str = ":",
    *,
    elements: Sequence[str] | None = None,
    labels: str | None = None,
) -> list[Atoms]:
    """Structures of a file that ASE reads, of LAMMPS, or of DeePMD-kit's systems (npy, raw, HDF5).

    Energies, forces and stresses in the file come along as each structure's calculator, whatever their names
    are (see `dpa2md.labels`). What looks like a label and isn't used is told in a warning.

    Parameters
    ----------
    name
        The file or folder, of HDF5 also ``file#/group``; ``-`` for extended XYZ on standard input.
        ``NAME@0:10`` takes some structures, unless there is a file of that very name.
    index
        Which structures, where `name` doesn't say.
    elements
        Those of the types of LAMMPS and DeePMD-kit, in order, in place of what the file says.
    labels
        The prefix of the labels' names, as in ``"REF"`` for REF_energy; None: the first that is known.

    Raises
    ------
    RunError
        When there is no such file, it can't be read, or it holds no atoms or not the ones that are asked for.
    """
    source, frames = _frames(name, index, elements)
    try:
        notes = adopt_labels(frames, labels)
    except RunError as error:
        raise RunError(f"{source}: {error}") from None
    if notes:
        warnings.warn(f"{source}: {'; '.join(notes)}.", UserWarning, stacklevel=2)
    return frames


def read_last_structure(name: str | os.PathLike, *, elements: Sequence[str] | None = None) -> Atoms:
    """The last structure of what `read_structures` reads, or the one that `name` says, to be moved.

    It has no labels, which would soon be wrong.

    Raises
    ------
    RunError
        As `read_structures`.
    """
    _, frames = _frames(name, -1, elements)
    drop_labels(frames[-1])
    return frames[-1]


def _frames(
    name: str | os.PathLike, index: int | str, elements: Sequence[str] | None
) -> tuple[str, list[Atoms]]:
    """What the file is called in messages, and its structures with all that ASE read."""
    for element in elements or ():
        if element not in chemical_symbols[1:]:
            raise RunError(
                f"--elements: {element!r} is no element; write them as in --elements O,H."
            )
    path, chosen = _split(os.fspath(name))
    frames = _read(path, _parsed(index) if chosen is None else chosen, elements)
    if not frames or not all(isinstance(atoms, Atoms) and len(atoms) for atoms in frames):
        raise RunError(f"{_called(path)}: the file holds no atoms.")
    return _called(path), frames


def _called(path: str) -> str:
    return "standard input" if path == STANDARD_INPUT else path


def _split(name: str) -> tuple[str, Index | None]:
    """A name without @INDEX, and the index; a file of the very name is that file."""
    path, at, tail = name.rpartition("@")
    if not at or not path or "/" in tail or os.path.exists(name):
        return name, None
    if re.fullmatch(r"-?\d+|(-?\d*)(:-?\d*){1,2}", tail):
        return path, _parsed(tail)
    if not os.path.exists(path):
        return name, None
    if not path.endswith(_DATABASES):
        raise RunError(f"{name}: {tail!r} is no index; write {path}@0:10, for example.")
    return path, tail


def _parsed(index: int | str) -> Index:
    return string2index(index) if isinstance(index, str) else index


def _read(path: str, index: Index, elements: Sequence[str] | None) -> list[Atoms]:
    file, hash_mark, group = path.partition("#")
    if path == STANDARD_INPUT or _is_stream(path):
        text = io.StringIO(_text_of_stream(path))
        return _read_ase(path, index, lambda i: read(text, i, format="extxyz"))
    if os.path.isdir(path) and not path.endswith(".bundle"):
        return _take(path, read_folder(Path(path), elements), index)
    if is_hdf5(Path(path)):
        return _take(path, read_hdf5(Path(path), elements=elements), index)
    if hash_mark and is_hdf5(Path(file)):
        return _take(path, read_hdf5(Path(file), group, elements), index)
    if not os.path.exists(path):
        raise RunError(f"{path}: there is no such structure file.")
    known = lammps_format(Path(path))

    def from_file(**options: Any) -> list[Atoms]:
        options |= {"format": known, "do_not_split_by_at_sign": True}
        return _read_ase(path, index, lambda i: read(path, i, **options))

    if known:
        return read_lammps(Path(path), known, from_file, elements)
    if elements is not None:
        raise RunError(f"{path}: there are no types in it to be named; leave out --elements.")
    return from_file()


def _is_stream(path: str) -> bool:
    """Whether it can be read only once, as a pipe."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _text_of_stream(path: str) -> str:
    try:
        if path == STANDARD_INPUT:
            return sys.stdin.read()
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise RunError(f"{_called(path)}: this is no text ({first_line(error)}).") from None


def _read_ase(path: str, index: Index, reader: Callable[[Any], Any]) -> list[Atoms]:
    """What ASE reads of a file, or a sentence about why not."""
    try:
        if isinstance(index, int) and index < -1:  # ASE takes the first where there are fewer
            return _take(path, _listed(reader(slice(None))), index)
        found = _listed(reader(index))
        if found or isinstance(index, str) or index == slice(None):
            return found
    except (RunError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - ASE's readers raise anything
        if isinstance(index, str) or index == slice(None):
            raise _unreadable(path, error) from None
    # perhaps there are no such structures: readers tell it in many ways
    try:
        frames = _listed(reader(slice(None)))
    except Exception as error:  # noqa: BLE001
        raise _unreadable(path, error) from None
    return _take(path, frames, index)


def _listed(found: Any) -> list[Atoms]:
    return found if isinstance(found, list) else [found]


def _unreadable(path: str, error: Exception) -> RunError:
    return RunError(f"{_called(path)}: ASE can't read this structure ({first_line(error)}).")


def _take(path: str, frames: list[Atoms], index: Index) -> list[Atoms]:
    """The frames that an index stands for."""
    assert not isinstance(index, str)  # a query is for files that ASE reads
    try:
        found = _listed(frames[index])
    except IndexError:
        found = []
    if not found and frames:
        last = len(frames) - 1
        held = f"structures 0 to {last}" if last else "a single structure, 0"
        raise RunError(f"{_called(path)}: the file has {held}; there is none at {_text(index)}.")
    return found


def _text(index: int | slice) -> str:
    if isinstance(index, int):
        return str(index)
    return ":".join("" if part is None else str(part) for part in (index.start, index.stop))
