"""Small labelled systems, and files of every format that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write


@dataclass
class Example:
    """Frames of the same atoms with all labels; arrays by the names of DeePMD-kit's files."""

    elements: list[str]  # of each atom
    arrays: dict[str, np.ndarray]  # (frames, ...)
    periodic: bool = True

    def __len__(self) -> int:
        return len(self.arrays["coord"])

    def without(self, *names: str) -> Example:
        return replace(self, arrays={k: v for k, v in self.arrays.items() if k not in names})

    def having(self, **arrays: np.ndarray) -> Example:
        return replace(self, arrays=self.arrays | arrays)


def example(elements: Sequence[str] = "OHH", frames: int = 5, seed: int = 0) -> Example:
    """Atoms on a line, about 1.5 angstrom apart, in tilted boxes of about 8 angstrom."""
    rng = np.random.default_rng(seed)
    n = len(elements)
    coord = np.zeros((frames, n, 3))
    coord[:, :, 0] = 1.5 * np.arange(n)
    coord += rng.uniform(-0.2, 0.2, coord.shape)
    box = 8.0 * np.eye(3) + rng.uniform(-0.5, 0.5, (frames, 3, 3))
    arrays = {
        "coord": coord,
        "box": box,
        "energy": rng.normal(size=frames),
        "force": rng.normal(size=(frames, n, 3)),
        "virial": rng.normal(size=(frames, 3, 3)),
        "atom_ener": rng.normal(size=(frames, n)),
        "fparam": rng.normal(size=(frames, 2)),
        "aparam": rng.normal(size=(frames, n, 1)),
    }
    return Example(list(elements), arrays)


def _types(data: Example) -> tuple[list[str], list[int]]:
    names = sorted(set(data.elements))
    return names, [names.index(element) for element in data.elements]


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def write_npy(folder: Path, data: Example, sets: int = 1) -> Path:
    folder.mkdir(parents=True)
    names, types = _types(data)
    (folder / "type_map.raw").write_text("\n".join(names) + "\n")
    np.savetxt(folder / "type.raw", types, fmt="%d")
    if not data.periodic:
        (folder / "nopbc").touch()
    for k in range(sets):
        (where := folder / f"set.{k:03d}").mkdir()
        for name, values in data.arrays.items():
            if name != "box" or data.periodic:
                part = np.array_split(values, sets)[k]
                np.save(where / f"{name}.npy", part if name == "energy" else _rows(part))
    return folder


def write_raw(folder: Path, data: Example) -> Path:
    folder.mkdir(parents=True)
    names, types = _types(data)
    (folder / "type_map.raw").write_text(" ".join(names))
    (folder / "type.raw").write_text(" ".join(map(str, types)))
    for name, values in data.arrays.items():
        np.savetxt(folder / f"{name}.raw", _rows(values), fmt="%.17g")
    return folder


def write_hdf5(path: Path, systems: dict[str, Example]) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        for name, data in systems.items():
            names, types = _types(data)
            group = file.create_group(name)
            group["type.raw"] = types
            group["type_map.raw"] = [n.encode() for n in names]
            for key, values in data.arrays.items():
                group[f"set.000/{key}.npy"] = _rows(values)
    return path


def write_mixed(folder: Path, systems: Sequence[Example], names: Sequence[str]) -> Path:
    """Systems of any atoms as one mixed system; short frames are filled up in front."""
    most = max(len(data.elements) for data in systems)
    folder.mkdir(parents=True)
    (folder / "type_map.raw").write_text("\n".join(names))
    np.savetxt(folder / "type.raw", np.zeros(most, int), fmt="%d")
    for k, data in enumerate(systems):
        (where := folder / f"set.{k:03d}").mkdir()
        types = np.full((len(data), most), -1)
        types[:, most - len(data.elements) :] = [names.index(e) for e in data.elements]
        np.save(where / "real_atom_types.npy", types)
        for name, values in data.arrays.items():
            if name in ("coord", "force", "atom_ener", "aparam"):
                atomic = values.reshape(len(data), len(data.elements), -1)
                filled = np.zeros((len(data), most, atomic.shape[2]))
                filled[:, most - len(data.elements) :] = atomic
                values = filled
            np.save(where / f"{name}.npy", _rows(values))
    return folder


def write_extxyz(path: Path, data: Example) -> Path:
    write(path, structures(data), format="extxyz")
    return path


def structures(data: Example) -> list[Atoms]:
    out = []
    for k in range(len(data)):
        row = {name: values[k] for name, values in data.arrays.items()}
        pbc = {"cell": row["box"], "pbc": True} if data.periodic else {}
        atoms = Atoms(data.elements, row["coord"], **pbc)
        labels = {"energy": row.get("energy"), "forces": row.get("force")}
        if "virial" in row and data.periodic:
            labels["stress"] = -(row["virial"] + row["virial"].T) / 2 / atoms.get_volume()
        labels = {name: value for name, value in labels.items() if value is not None}
        if labels:
            atoms.calc = SinglePointCalculator(atoms, **labels)
        if "fparam" in row:
            atoms.info["fparam"] = row["fparam"]
        for name in ("aparam", "atom_ener"):
            if name in row:
                atoms.arrays[name] = row[name]
        out.append(atoms)
    return out
