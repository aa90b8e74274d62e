"""DeePMD-kit's systems: folders of npy files, raw text files, and HDF5 files."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols

from .errors import RunError

_LONGEST = 150  # characters of another program's message
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# The arrays that are read, and their numbers for each frame or, where True, for each atom; None: any.
_KNOWN: dict[str, tuple[int | None, bool]] = {
    "box": (9, False),
    "energy": (1, False),
    "force": (3, True),
    "virial": (9, False),
    "fparam": (None, False),
    "aparam": (None, True),
    "real_atom_types": (1, True),
}


def is_hdf5(path: Path) -> bool:
    """Whether a file is in HDF5 format."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
    except OSError:
        return False


def read_folder(folder: Path, elements: Sequence[str] | None = None) -> list[Atoms]:
    """The frames of all systems in a folder and the folders below it, as ``dp test -s`` finds them.

    A system is a folder with ``type.raw``, ``type_map.raw`` and either ``set.*/coord.npy`` or ``coord.raw``.
    Of the other files, box, energy, force, virial, fparam, aparam, real_atom_types and ``nopbc`` are read
    where they exist. The parameters go to ``info["fparam"]`` and ``arrays["aparam"]``.

    Parameters
    ----------
    elements
        Those of the types 0, 1, ... in place of ``type_map.raw``.

    Raises
    ------
    RunError
        When there is no system, something is missing, or the files don't fit together.
    """
    return [f for s in systems_of_folder(folder) for f in _read_system(s, elements)]


def systems_of_folder(folder: Path, patterns: Sequence[str] | None = None) -> list[SystemFolder]:
    """The systems in a folder and the folders below it, by name.

    Parameters
    ----------
    patterns
        Take only folders below it that match one of them, as ``data_*``.

    Raises
    ------
    RunError
        When there is none.
    """
    below = {p for pattern in patterns or ["*"] for p in folder.rglob(pattern)}
    found = below if patterns else {folder, *below}
    systems = [SystemFolder(p) for p in sorted(found) if (p / "type.raw").is_file()]
    if not systems:
        matching = f" and match {', '.join(patterns)}" if patterns else ""
        raise RunError(
            f"{folder}: a folder of structures must be in DeePMD-kit's npy format (type.raw, "
            f"type_map.raw, set.*/coord.npy), or hold folders that are{matching}; it isn't."
        )
    return systems


def read_hdf5(path: Path, group: str = "/", elements: Sequence[str] | None = None) -> list[Atoms]:
    """The same as `read_folder`, for a file in DeePMD-kit's HDF5 format, or for one group in it.

    Raises
    ------
    RunError
        As `read_folder`; also without h5py.
    """
    file = _open_hdf5(path)
    try:
        with file:
            systems = _systems_of(path, file, group or "/")
            return [frame for system in systems for frame in _read_system(system, elements)]
    except (RunError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - HDF5's library raises anything
        raise _damaged(path, error) from None


def systems_of_hdf5(path: Path, group: str = "/") -> list[SystemGroup]:
    """The systems in an HDF5 file, or in one group of it; the file stays open as long as they are there.

    Raises
    ------
    RunError
        When there is none, the file is damaged, or without h5py.
    """
    file = _open_hdf5(path)
    try:
        return _systems_of(path, file, group or "/")
    except (RunError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - HDF5's library raises anything
        raise _damaged(path, error) from None


def _open_hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise RunError(f"{path}: reading HDF5 files needs h5py; install h5py.") from None
    try:
        return h5py.File(path, "r")
    except Exception as error:  # noqa: BLE001 - HDF5's library raises anything
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: this HDF5 file is damaged ({first_line(error)}).")


def first_line(error: Exception) -> str:
    """What an error says, or is called, as part of a sentence."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


class StoredArray(Protocol):
    """An array in a file, of which frames can be read one by one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""

    def __getitem__(self, frame: Any) -> np.ndarray:
        """What one frame has, or with ``()`` all."""


class MappedFile:
    """An npy file, mapped into memory while it is used; few of many files are open at a time."""

    def __init__(self, path: Path):
        self._path, self._written = path, path.stat().st_mtime_ns
        self.shape: tuple[int, ...] = _mapped(path, self._written).shape

    def __getitem__(self, frame: Any) -> np.ndarray:
        return np.asarray(_mapped(self._path, self._written)[frame])


@functools.lru_cache(maxsize=256)  # each takes a file descriptor, of which a process has 1024 or so
def _mapped(path: Path, written: int) -> np.ndarray:
    """The file as it was at that time; another time is another file."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


class SystemFolder:
    """A system, or a set of it, as a folder."""

    def __init__(self, path: Path):
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def __contains__(self, name: str) -> bool:
        return (self._path / name).is_file()

    def array(self, name: str) -> np.ndarray:
        """An npy file; numpy reads no pickled objects unless told to, so that nothing in it is run."""
        return np.load(self._path / name, allow_pickle=False)

    def stored(self, name: str) -> StoredArray:
        """The same without reading it."""
        return MappedFile(self._path / name)

    def text(self, name: str, **options: Any) -> np.ndarray:
        """The numbers of a text file, as numpy's loadtxt reads them."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of an empty file
            return np.loadtxt(self._path / name, **options)

    def words(self, name: str) -> list[str]:
        """The words of a text file."""
        return (self._path / name).read_text().split()

    def sets(self) -> list[SystemFolder]:
        """The sets of a system, by name."""
        return [SystemFolder(p) for p in sorted(self._path.glob("set.*")) if p.is_dir()]


class SystemGroup:
    """A system, or a set of it, as a group of an HDF5 file."""

    def __init__(self, group: Any, name: str):
        self._group, self._name = group, name

    def __str__(self) -> str:
        return self._name

    def __contains__(self, name: str) -> bool:
        return hasattr(self._group.get(name), "dtype")

    def array(self, name: str) -> np.ndarray:
        """A dataset."""
        return self._group[name][()]

    def stored(self, name: str) -> StoredArray:
        """The same without reading it."""
        return self._group[name]

    def text(self, name: str, **options: Any) -> np.ndarray:
        """The numbers of a dataset in the place of a text file."""
        return np.array(self._group[name][()], ndmin=options.get("ndmin", 0))

    def words(self, name: str) -> list[str]:
        """The words of a dataset in the place of a text file."""
        values = np.ravel(self._group[name][()])
        return [v.decode() if isinstance(v, bytes) else str(v) for v in values]

    def sets(self) -> list[SystemGroup]:
        """The sets of a system, by name."""
        names = sorted(n for n in _groups(self._group) if n.startswith("set.") and "/" not in n)
        return [SystemGroup(self._group[n], f"{self._name}/{n}") for n in names]


def _systems_of(path: Path, file: Any, group: str) -> list[SystemGroup]:
    """The systems in a group, and in the groups below it."""
    top = file.get(group)
    if top is None or hasattr(top, "dtype"):
        raise RunError(f"{path}: there is no group {group} in it.")
    names = [top.name] + [f"{top.name.rstrip('/')}/{name}" for name in _groups(top)]
    systems = [SystemGroup(file[name], f"{path}#{name}") for name in sorted(names)]
    found = [system for system in systems if "type.raw" in system]
    if not found:
        raise RunError(f"{path}#{top.name}: there is no system of DeePMD-kit (type.raw) in it.")
    return found


def _groups(top: Any) -> list[str]:
    """All groups below one; links that lead elsewhere are not followed."""
    names: list[str] = []
    top.visititems(lambda name, item: None if hasattr(item, "dtype") else names.append(name))
    return names


def _read_system(system: SystemFolder | SystemGroup, elements: Sequence[str] | None) -> list[Atoms]:
    if elements is None and "type_map.raw" not in system:
        raise RunError(
            f"{system}: type_map.raw is missing; write the elements into it, in order, or name them with "
            "--elements."
        )
    try:
        names = list(elements) if elements is not None else system.words("type_map.raw")
        types = _integers("type.raw", system.text("type.raw", ndmin=1).ravel())
        periodic = "nopbc" not in system
        sets = [_npy_arrays(s, len(types)) for s in system.sets()]
        if not sets and "coord.raw" in system:
            sets = [_raw_arrays(system, len(types))]
        if not sets:
            raise ValueError("neither set.*/coord.npy nor coord.raw is in it")
        return [frame for data in sets for frame in _frames(data, names, types, periodic)]
    except (RunError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        text = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise RunError(f"{system}: this npy system is damaged ({text}).") from None


def _npy_arrays(folder: SystemFolder | SystemGroup, natoms: int) -> dict[str, np.ndarray]:
    """The known arrays of a set; what else is in the folder is nobody's business."""
    coord = _floats("coord.npy", folder.array("coord.npy"))
    coord = coord[None] if coord.ndim == 1 else coord
    data = {"coord": coord.reshape(len(coord), natoms, 3)}
    for name in _KNOWN:
        if f"{name}.npy" in folder:
            values = folder.array(f"{name}.npy")
            data[name] = _shaped(f"{name}.npy", name, values, len(coord), natoms)
    return data


def _raw_arrays(folder: SystemFolder | SystemGroup, natoms: int) -> dict[str, np.ndarray]:
    """The same from raw files, text with a line for each frame."""
    coord = folder.text("coord.raw", ndmin=2)
    data = {"coord": coord.reshape(len(coord), natoms, 3)}
    for name in _KNOWN:
        if f"{name}.raw" in folder:
            values = folder.text(f"{name}.raw", ndmin=1)
            data[name] = _shaped(f"{name}.raw", name, values, len(coord), natoms)
    return data


def _shaped(file: str, name: str, values: Any, count: int, natoms: int) -> np.ndarray:
    """An array as (frames, numbers) or (frames, atoms, numbers)."""
    values = _floats(file, values)
    width, atomic = _KNOWN[name]
    each = (width or 1) * (natoms if atomic else 1)
    if values.size != count * each and (width is not None or values.size % (count * each or 1)):
        frames = len(values) if values.ndim else 0
        if frames != count:
            raise ValueError(f"{file} has {frames} frames and the coordinates {count}")
        raise ValueError(f"{file} has {values.size} numbers, not {each} for each of {count} frames")
    return values.reshape(count, natoms, -1) if atomic else values.reshape(count, -1)


def _floats(file: str, values: Any) -> np.ndarray:
    if np.iscomplexobj(values):
        raise ValueError(f"{file} has complex numbers")
    return np.asarray(values, float)


def _integers(file: str, values: Any) -> np.ndarray:
    """Types, which numpy may have stored as floats."""
    numbers = _floats(file, values)
    whole = numbers.astype(int)
    if not np.array_equal(whole, numbers):
        raise ValueError(f"{file} has a type that is no whole number")
    return whole


def _frames(
    data: dict[str, np.ndarray], elements: Sequence[str], types: np.ndarray, periodic: bool
) -> list[Atoms]:
    if periodic and "box" not in data:
        raise ValueError("there are no boxes, and no file nopbc to say that there need be none")
    mixed = data.pop("real_atom_types", None)
    frames = []
    for k in range(len(data["coord"])):
        kinds = types if mixed is None else _integers("real_atom_types", mixed[k].ravel())
        real = np.flatnonzero(kinds >= 0)  # negative: an atom that fills up a mixed frame
        symbols = [_element(elements, kind) for kind in kinds[real]]
        frames.append(_frame({n: v[k] for n, v in data.items()}, symbols, real, periodic))
    return frames


def _element(elements: Sequence[str], kind: int) -> str:
    if kind >= len(elements):
        raise ValueError(f"type {kind} has no element in type_map.raw")
    if elements[kind] not in chemical_symbols[1:]:
        raise ValueError(f"{elements[kind]} is no element; name the types' with --elements")
    return elements[kind]


def _frame(
    data: dict[str, np.ndarray], symbols: list[str], real: np.ndarray, periodic: bool
) -> Atoms:
    atoms = Atoms(
        symbols,
        positions=data["coord"][real],
        cell=data["box"].reshape(3, 3) if periodic else None,
        pbc=periodic,
    )
    labels: dict[str, Any] = {}
    if "energy" in data:
        labels["energy"] = float(data["energy"].item())
    if "force" in data:
        labels["forces"] = data["force"][real]
    if "virial" in data and atoms.cell.rank == 3:
        labels["stress"] = -data["virial"].reshape(3, 3) / atoms.get_volume()
    if labels:
        atoms.calc = SinglePointCalculator(atoms, **labels)
    if "fparam" in data:
        atoms.info["fparam"] = data["fparam"]
    if "aparam" in data:
        atoms.arrays["aparam"] = data["aparam"][real]
    return atoms
