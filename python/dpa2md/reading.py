"""Structures from files: whatever ASE reads, and DeePMD-kit's npy systems."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from .errors import RunError


def read_structures(name: str | os.PathLike, index: int | str | None = ":") -> list[Atoms]:
    """Structures of a file that ASE reads, or of a folder in DeePMD-kit's npy format.

    Energies, forces and stresses in the file come along as each structure's calculator.

    Parameters
    ----------
    name
        The file or folder; ``file@0:10`` takes some structures, as ASE does.
    index
        Which structures, where `name` doesn't say.

    Raises
    ------
    RunError
        When there is no such file, it can't be read, or it holds no atoms.
    """
    name = os.fspath(name)
    if Path(name).is_dir() and not name.endswith(".bundle"):
        frames = read_npy_system(Path(name))
        return frames if index == ":" else frames[-1:]
    if "@" in Path(name).name:  # the name says which
        index = None
    try:
        found = read(name, index)
    except FileNotFoundError:
        raise RunError(f"{name}: there is no such structure file.") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - ASE's readers raise anything
        raise RunError(f"{name}: ASE can't read this structure ({_first_line(error)}).") from None
    frames = found if isinstance(found, list) else [found]
    if not frames or not all(isinstance(atoms, Atoms) and len(atoms) for atoms in frames):
        raise RunError(f"{name}: the file holds no atoms.")
    return frames


def read_npy_system(folder: Path) -> list[Atoms]:
    """The frames of a system in DeePMD-kit's npy format, mixed types included.

    It is a folder with ``type_map.raw``, ``type.raw`` and ``set.*/coord.npy``; ``box.npy``, ``energy.npy``,
    ``force.npy``, ``virial.npy``, ``fparam.npy``, ``aparam.npy`` and ``nopbc`` are read where they exist.
    The parameters go to ``info["fparam"]`` and ``arrays["aparam"]``, where the calculator looks for them.

    Raises
    ------
    RunError
        When something is missing, or the files don't fit together.
    """
    sets = sorted(folder.glob("set.*"))
    if not sets or not (folder / "type.raw").exists():
        raise RunError(
            f"{folder}: a folder of structures must be in DeePMD-kit's npy format (type.raw, "
            "type_map.raw, set.*/coord.npy); it isn't."
        )
    if not (folder / "type_map.raw").exists():
        raise RunError(f"{folder}: type_map.raw is missing; write the elements into it, in order.")
    try:
        elements = (folder / "type_map.raw").read_text().split()
        types = np.loadtxt(folder / "type.raw", dtype=int, ndmin=1)
        periodic = not (folder / "nopbc").exists()
        return [frame for s in sets for frame in _read_set(s, elements, types, periodic)]
    except (OSError, ValueError, KeyError, IndexError, EOFError) as error:
        raise RunError(f"{folder}: this npy system is damaged ({_first_line(error)}).") from None


def _read_set(folder: Path, elements: list[str], types: np.ndarray, periodic: bool) -> list[Atoms]:
    # numpy reads no pickled objects unless it is told to: nothing in these files is run
    data = {path.stem: np.load(path, allow_pickle=False) for path in folder.glob("*.npy")}
    count = len(data["coord"])
    for name, values in data.items():
        if len(values) != count:
            raise ValueError(f"{name}.npy has {len(values)} frames and coord.npy {count}")
    mixed = data.get("real_atom_types")
    frames = []
    for k in range(count):
        kinds = types if mixed is None else mixed[k]
        real = np.flatnonzero(kinds >= 0)  # negative: an atom that fills up a mixed frame
        if real.size and kinds.max() >= len(elements):
            raise ValueError(f"type {kinds.max()} has no element in type_map.raw")
        frames.append(_frame({n: v[k] for n, v in data.items()}, elements, kinds, real, periodic))
    return frames


def _frame(
    data: dict[str, np.ndarray],
    elements: list[str],
    types: np.ndarray,
    real: np.ndarray,
    periodic: bool,
) -> Atoms:
    atoms = Atoms(
        [elements[k] for k in types[real]],
        positions=data["coord"].reshape(len(types), 3)[real],
        cell=data["box"].reshape(3, 3) if periodic else None,
        pbc=periodic,
    )
    labels = {}
    if "energy" in data:
        labels["energy"] = float(data["energy"].item())
    if "force" in data:
        labels["forces"] = data["force"].reshape(len(types), 3)[real]
    if "virial" in data and periodic:
        stress = -data["virial"].reshape(3, 3) / atoms.get_volume()
        labels["stress"] = ((stress + stress.T) / 2).ravel()[[0, 4, 8, 5, 2, 1]]
    if labels:
        atoms.calc = SinglePointCalculator(atoms, **labels)
    if "fparam" in data:
        atoms.info["fparam"] = data["fparam"].ravel()
    if "aparam" in data:
        atoms.arrays["aparam"] = data["aparam"].reshape(len(types), -1)[real]
    return atoms


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
