"""Systems: frames of labelled structures, read one by one from files of any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class LabeledFrame:
    """One structure of n atoms with its labels; None for those that it doesn't have."""

    positions: np.ndarray  #: (n, 3) angstrom
    types: np.ndarray  #: (n,) indices into the model's type_map
    cell: np.ndarray  #: (3, 3) angstrom; zeros without periodicity
    pbc: np.ndarray  #: (3,) 0 or 1
    energy: float | None = None  #: eV
    forces: np.ndarray | None = None  #: (n, 3) eV/angstrom
    virial: np.ndarray | None = None  #: (3, 3) eV, minus the stress times the volume
    atom_energies: np.ndarray | None = None  #: (n,) eV
    fparam: np.ndarray | None = None  #: (nfparam,)
    aparam: np.ndarray | None = None  #: (n, naparam)


@dataclass(frozen=True)
class Needs:
    """What a model needs of its data."""

    type_map: tuple[str, ...]
    nfparam: int = 0
    default_fparam: tuple[float, ...] | None = None
    naparam: int = 0

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Needs:
        """Of a complete model section."""
        fitting = model["fitting_net"]
        default = fitting["default_fparam"]
        return cls(
            type_map=tuple(model["type_map"]),
            nfparam=fitting["numb_fparam"],
            default_fparam=None if default is None else tuple(map(float, default)),
            naparam=fitting["numb_aparam"],
        )


def unknown_element(where: str, element: str, needs: Needs) -> InputError:
    """The error about an element that the model doesn't have."""
    return InputError(
        f"{where}: {element} is no element of the model's type_map ({', '.join(needs.type_map)}); "
        "add it there (dpa2md finetune: --type-map), or leave such frames out."
    )


class System(Protocol):
    """Frames that were listed as one system."""

    @property
    def name(self) -> str:
        """Its file or folder."""

    @property
    def natoms(self) -> int:
        """The atoms of a frame, the most where frames differ: what batch rules count."""

    def __len__(self) -> int:
        """The number of frames."""

    def frame(self, index: int) -> LabeledFrame:
        """One frame, read now; float64."""

    def place(self, index: int, quantity: str = "") -> str:
        """What one frame, or a quantity of it, is called in messages."""


@dataclass(frozen=True)
class Label:
    """One quantity of a batch."""

    values: np.ndarray  #: zeros where a frame doesn't have it
    known: np.ndarray  #: (frames,) bool: which frames have it


@dataclass(frozen=True)
class Batch:
    """Frames side by side, as the core takes them; n atoms in all."""

    positions: np.ndarray  #: (n, 3) angstrom
    types: np.ndarray  #: (n,) int32
    frame_start: np.ndarray  #: (frames + 1,) int32, the first atom of each frame, and n
    cells: np.ndarray  #: (frames, 3, 3) angstrom
    pbc: np.ndarray  #: (frames, 3) int32
    energy: Label  #: (frames,) eV
    forces: Label  #: (n, 3) eV/angstrom
    virial: Label  #: (frames, 3, 3) eV
    atom_energies: Label  #: (n,) eV
    fparam: np.ndarray | None  #: (frames, nfparam)
    aparam: np.ndarray | None  #: (n, naparam)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def natoms(self) -> np.ndarray:
        """(frames,) atoms of each frame."""
        return np.diff(self.frame_start)

    @classmethod
    def of(cls, frames: Sequence[LabeledFrame]) -> Batch:
        """Frames of one model, at least one; a parameter that one frame has all have."""
        counts = np.array([len(frame.types) for frame in frames])
        start = np.concatenate([[0], np.cumsum(counts)])
        atomic = [(n, 3) for n in counts], [(n,) for n in counts]
        return cls(
            positions=np.concatenate([frame.positions for frame in frames]),
            types=np.concatenate([frame.types for frame in frames]).astype(np.intc),
            frame_start=start.astype(np.intc),
            cells=np.array([frame.cell for frame in frames]),
            pbc=np.array([frame.pbc for frame in frames], dtype=np.intc),
            energy=_label([frame.energy for frame in frames], [()] * len(frames), np.stack),
            forces=_label([frame.forces for frame in frames], atomic[0], np.concatenate),
            virial=_label([frame.virial for frame in frames], [(3, 3)] * len(frames), np.stack),
            atom_energies=_label(
                [frame.atom_energies for frame in frames], atomic[1], np.concatenate
            ),
            fparam=_parameters([frame.fparam for frame in frames], np.stack),
            aparam=_parameters([frame.aparam for frame in frames], np.concatenate),
        )


def _label(values: Sequence[Any], shapes: Sequence[tuple[int, ...]], join: Any) -> Label:
    filled = [
        np.zeros(shape) if value is None else np.asarray(value, float)
        for value, shape in zip(values, shapes, strict=True)
    ]
    return Label(join(filled), np.array([value is not None for value in values]))


def _parameters(values: Sequence[np.ndarray | None], join: Any) -> np.ndarray | None:
    """One array of all frames; None where the model takes none."""
    return None if values[0] is None else join(values)
