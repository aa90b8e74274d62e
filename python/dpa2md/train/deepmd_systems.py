"""DeePMD-kit's systems for training: npy, mixed npy, raw and HDF5, read frame by frame."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ..deepmd_data import StoredArray, SystemFolder, SystemGroup, first_line
from ..errors import InputError
from .systems import LabeledFrame, Needs, unknown_element

Store = SystemFolder | SystemGroup
_FILES = {"positions": "coord", "cell": "box", "forces": "force", "atom_energies": "atom_ener"}


@dataclass(frozen=True)
class _Rows:
    """An array of a set; a row is what a frame has."""

    file: str
    values: StoredArray
    width: int  #: numbers of a row

    def __getitem__(self, frame: int) -> np.ndarray:
        return np.asarray(self.values[frame], float).reshape(self.width)


@dataclass(frozen=True)
class _Set:
    """Frames in one folder or group."""

    name: str
    frames: int
    arrays: dict[str, _Rows]


class DeepmdSystem:
    """A system of DeePMD-kit.

    Parameters
    ----------
    store
        The folder or the HDF5 group.
    needs
        What the model needs; parameters that it has are read, others are not.
    named
        Whether type_map.raw must be there; without it types are those of the model.

    Raises
    ------
    InputError
        When something is missing or the files don't fit together; one sentence that names the file.
        The numbers in the arrays are not looked at.
    """

    def __init__(self, store: Store, needs: Needs, named: bool = False):
        self.name = str(store)
        self._needs = needs
        try:
            self._open(store, named)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - damaged files raise anything
            raise InputError(f"{store}: this system can't be read ({first_line(error)}).") from None

    def _open(self, store: Store, named: bool) -> None:
        self._types = _types(store)
        self.natoms = len(self._types)
        if named and "type_map.raw" not in store:
            raise InputError(
                f"{store}: type_map.raw is missing; write the elements into it, in order."
            )
        known = self._needs.type_map
        self._names = store.words("type_map.raw") if "type_map.raw" in store else list(known)
        indices = [known.index(name) if name in known else -1 for name in self._names]
        self._map = np.array([*indices, -1])  # the last for types without a name
        self._periodic = "nopbc" not in store
        sets = store.sets()
        raw = not sets and "coord.raw" in store
        self._sets = [self._set(s, raw) for s in ([store] if raw else sets)]
        self._ends = list(accumulate(s.frames for s in self._sets))
        if not len(self):
            raise InputError(f"{store}: there are no frames in it (set.*/coord.npy, coord.raw).")
        mixed = {"mixed" in part.arrays for part in self._sets}
        if len(mixed) > 1:
            raise InputError(
                f"{store}: some sets have real_atom_types.npy and others not; make them all alike."
            )
        if mixed == {False}:
            self._mapped(self._types, f"{store}/type.raw")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _set(self, store: Store, raw: bool) -> _Set:
        """The arrays of a set by what they are, each of as many frames as there are coordinates."""
        end = ".raw" if raw else ".npy"
        n, needs = self.natoms, self._needs
        widths = {"coord": 3 * n, "box": 9, "energy": 1, "force": 3 * n, "virial": 9,
                  "atom_ener": n, "real_atom_types": n}  # fmt: skip
        if needs.nfparam:
            widths["fparam"] = needs.nfparam
        if needs.naparam:
            widths["aparam"] = n * needs.naparam
        if f"coord{end}" not in store:
            raise InputError(f"{store}: coord{end} is missing; a set needs it.")
        arrays: dict[str, _Rows] = {}
        frames = 0
        for name, width in widths.items():
            file = next((f for f in _file_names(name, end) if f in store), None)
            if file is None:
                continue
            values = store.text(file, ndmin=1) if raw else store.stored(file)
            if name == "coord":
                frames = _frame_count(f"{store}/{file}", values.shape, width)
            shaped = _by_frame(f"{store}/{file}", values, frames, width)
            arrays["mixed" if name == "real_atom_types" else name] = _Rows(file, shaped, width)
        self._check_set(store, arrays, end)
        return _Set(str(store), frames, arrays)

    def _check_set(self, store: Store, arrays: dict[str, Any], end: str) -> None:
        needs = self._needs
        if self._periodic and "box" not in arrays:
            raise InputError(
                f"{store}: box{end} is missing; add it, or an empty file nopbc if there is no "
                "periodicity."
            )
        if "energy" not in arrays and "force" not in arrays:
            raise InputError(
                f"{store}: there is neither energy{end} nor force{end}; add labels, or leave the "
                "system out."
            )
        for name, count, default in (
            ("fparam", needs.nfparam, needs.default_fparam),
            ("aparam", needs.naparam, None),
        ):
            if count and name not in arrays and default is None:
                raise InputError(
                    f"{store}: {name}{end} is missing, and the model has numb_{name} = {count}; "
                    "add it."
                )

    def _at(self, index: int) -> tuple[_Set, int]:
        """The set of a frame, and its number in there."""
        k = bisect_right(self._ends, index)
        return self._sets[k], index - (self._ends[k - 1] if k else 0)

    def place(self, index: int, quantity: str = "") -> str:
        """As in "data_0/set.000/force.npy, frame 3"."""
        part, k = self._at(index)
        rows = part.arrays.get(_FILES.get(quantity, quantity))
        return f"{part.name}{f'/{rows.file}' if rows else ''}, frame {k}"

    def frame(self, index: int) -> LabeledFrame:
        """One frame, without the atoms that fill up mixed frames."""
        part, k = self._at(index)
        arrays, needs = part.arrays, self._needs
        types, real = self._frame_types(index, part, k)

        def row(name: str) -> np.ndarray | None:
            return arrays[name][k] if name in arrays else None

        def atomic(name: str) -> np.ndarray | None:
            values = row(name)
            return None if values is None else values.reshape(self.natoms, -1)[real]

        positions, energy, virial = atomic("coord"), row("energy"), row("virial")
        assert positions is not None
        atom_energies, fparam = atomic("atom_ener"), row("fparam")
        if fparam is None and needs.nfparam:
            fparam = np.array(needs.default_fparam)
        return LabeledFrame(
            positions=positions,
            types=types,
            cell=arrays["box"][k].reshape(3, 3) if self._periodic else np.zeros((3, 3)),
            pbc=np.full(3, int(self._periodic)),
            energy=None if energy is None else float(energy[0]),
            forces=atomic("force"),
            virial=None if virial is None or not self._periodic else virial.reshape(3, 3),
            atom_energies=None if atom_energies is None else atom_energies[:, 0],
            fparam=fparam,
            aparam=atomic("aparam"),
        )

    def _frame_types(self, index: int, part: _Set, k: int) -> tuple[np.ndarray, Any]:
        """Types of a frame's atoms in the model, and where they stand in its arrays."""
        if "mixed" not in part.arrays:
            return self._map[self._types], slice(None)
        place = self.place(index, "mixed")
        types = _whole(part.arrays["mixed"][k], place)
        real = np.flatnonzero(types >= 0)
        if not len(real):
            raise InputError(
                f"{place}: all types are negative, so there are no atoms; leave it out."
            )
        return self._mapped(types[real], place), real

    def _mapped(self, types: np.ndarray, where: str) -> np.ndarray:
        """Types of the model for those of the system."""
        last = len(self._names)
        out = self._map[np.where((types < 0) | (types > last), last, types)]
        wrong = np.flatnonzero(out < 0)
        if not len(wrong):
            return out
        kind = types[wrong[0]]
        if 0 <= kind < last:
            raise unknown_element(where, self._names[kind], self._needs)
        raise InputError(f"{where}: the type {kind} has no element; name it in type_map.raw.")


def _types(store: Store) -> np.ndarray:
    types = _whole(np.ravel(store.text("type.raw", ndmin=1)), f"{store}/type.raw")
    if not len(types):
        raise InputError(f"{store}/type.raw lists no atoms; write a type for each atom.")
    return types


def _whole(values: np.ndarray, where: str) -> np.ndarray:
    """Types, which numpy may have stored as floats."""
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        raise InputError(f"{where}: there is a type that is no whole number; write 0, 1, ...")
    return values.astype(int)


def _file_names(name: str, end: str) -> Sequence[str]:
    """The names of a file, of which the first that is there counts."""
    return [f"{name}{end}", *([f"atomic_ener{end}"] if name == "atom_ener" else [])]


def _frame_count(file: str, shape: tuple[int, ...], width: int) -> int:
    """Frames of coordinates: rows, or one where there is no second axis."""
    frames = shape[0] if len(shape) > 1 else 1
    if not shape or not frames or math.prod(shape) != frames * width:
        raise InputError(
            f"{file} has the shape {shape}, not (frames, {width}) for the {width // 3} atoms of "
            "type.raw."
        )
    return frames


def _by_frame(file: str, values: Any, frames: int, width: int) -> Any:
    """An array whose first axis is the frame."""
    shape = values.shape
    if math.prod(shape) != frames * width:
        raise InputError(
            f"{file} has {math.prod(shape)} numbers, not {width} for each of {frames} frames; "
            "make it anew from your calculations."
        )
    if shape and shape[0] == frames:
        return values
    return np.asarray(values[()]).reshape(frames, width)
