"""Structures side by side, as the core takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ._core import CoreError


@dataclass(frozen=True)
class Frame:
    """One structure of n atoms."""

    positions: np.ndarray  #: (n, 3) angstrom
    types: np.ndarray  #: (n,)
    cell: np.ndarray  #: (3, 3) angstrom
    pbc: np.ndarray  #: (3,)

    @classmethod
    def of(cls, positions: Any, types: Any, cell: Any, pbc: Any) -> Frame:
        """A frame of what a caller gives; no cell is one of zeros, one flag is three."""
        cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float)
        # without broadcast_to, which takes longer than a small step's other arrays
        flags = np.array((pbc,) * 3) if isinstance(pbc, bool) else np.broadcast_to(pbc, 3)
        return cls(np.asarray(positions, dtype=float), types, cell, flags)


class Frames:
    """Any number of frames, at least one.

    Parameters
    ----------
    frames
        The structures.
    number
        What the first one is called where these are part of a longer list; None: 0 if there are several.
    """

    def __init__(self, frames: Sequence[Frame], number: int | None = None):
        self._frames, self._number = frames, number
        self.counts = [len(frame.positions) for frame in frames]
        #: (frames + 1,) the first atom of each frame among all atoms, and their number
        self.start = np.array([0, *accumulate(self.counts)], dtype=np.intc)

    def __len__(self) -> int:
        return len(self._frames)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions (all atoms, 3), types, start, cells (frames, 3, 3), pbc (frames, 3)."""
        return (
            _joined([frame.positions for frame in self._frames]).reshape(-1, 3),
            _joined([frame.types for frame in self._frames]),
            self.start,
            np.array([frame.cell for frame in self._frames]),
            np.array([frame.pbc for frame in self._frames], dtype=np.intc),
        )

    def slices(self) -> list[slice]:
        """Each frame's atoms among all atoms."""
        start = self.start.tolist()
        return [slice(a, b) for a, b in pairwise(start)]

    def frame_parameters(self, fparam: Sequence | None, count: int) -> np.ndarray | None:
        """(frames, count) of one entry a frame, or None for None.

        Raises
        ------
        ValueError
            For entries of another size.
        """
        if fparam is None:
            return None
        return np.stack(self._shaped("fparam", fparam, [(count,)] * len(self)))

    def atom_parameters(self, aparam: Sequence | None, count: int) -> np.ndarray | None:
        """(all atoms, count) of one entry a frame, or None for None; raises as `frame_parameters`."""
        if aparam is None:
            return None
        return np.concatenate(self._shaped("aparam", aparam, [(n, count) for n in self.counts]))

    def _shaped(
        self, name: str, values: Sequence, shapes: Sequence[tuple[int, ...]]
    ) -> list[np.ndarray]:
        out = []
        for k, (value, shape) in enumerate(zip(values, shapes, strict=True)):
            try:
                out.append(_parameters(name, value, shape))
            except ValueError as error:
                raise ValueError(f"{structure_name(k, len(self), self._number)}{error}") from None
        return out

    def place(self, atom: int) -> str:
        """What one of all atoms is called: its number in its frame, and the frame if there are several."""
        frame = self._frame_of(atom)
        text = f"Atom {atom - self.start[frame]}"
        if self._number is None and len(self) == 1:
            return text
        return f"{text} of structure {(self._number or 0) + frame}"

    def sentence(self, error: CoreError) -> str:
        """What the core complains of, in these frames' numbers."""
        frame = error.frame
        if frame < 0 and error.atom >= 0:
            frame = self._frame_of(error.atom)
        if frame < 0:
            return str(error)
        text = error.sentence.replace("{atom}", f"atom {error.atom - self.start[frame]}")
        return structure_name(frame, len(self), self._number) + text.replace("{of}", "")

    def _frame_of(self, atom: int) -> int:
        return int(np.searchsorted(self.start, atom, side="right")) - 1


def _joined(arrays: Sequence[Any]) -> np.ndarray:
    """One after the other; a single one is not copied."""
    return np.asarray(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)


def structure_name(frame: int, count: int, number: int | None) -> str:
    """What stands before a complaint about a frame: nothing, or "structure 3: " where there are several."""
    return "" if number is None and count == 1 else f"structure {(number or 0) + frame}: "


def _parameters(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    if shape[-1] == 0:
        raise ValueError(f"The model takes no {name}; leave it out.")
    array = np.asarray(value, dtype=float)
    if array.size == np.prod(shape):
        return array.reshape(shape)
    if array.ndim <= 1 and array.size in (1, shape[-1]):
        return np.broadcast_to(array, shape)
    wanted = " x ".join(str(k) for k in shape)
    raise ValueError(f"{name} has the shape {array.shape}; the model needs {wanted} numbers.")
