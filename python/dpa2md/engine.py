"""One loaded model: arrays or Atoms in, energies, forces and virials out."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .conversion import convert
from .errors import ModelError
from .model_file import is_model_file

try:
    from . import _core
except ImportError as error:
    raise ImportError(
        f"The compiled core of dpa2md can't be imported ({error}): install dpa2md again with pip."
    ) from error

if TYPE_CHECKING:
    from ase import Atoms

# Angstrom. The best for 192 atoms of water at 300 K and 0.5 fs; from 0.3 to 0.8 it hardly matters.
DEFAULT_SKIN = 0.5


@dataclass(frozen=True)
class DeviceMemory:
    """What a step takes of a graphics processor's memory."""

    needed: float  #: bytes
    free: float  #: bytes that this engine could have, those that it holds included
    atoms: int  #: how many would fit


@dataclass(frozen=True)
class Result:
    """Results for one structure of n atoms; the last three are None when no forces were asked for."""

    energy: float  #: eV
    energies: np.ndarray  #: (n,) eV
    forces: np.ndarray | None  #: (n, 3) eV/angstrom
    virial: np.ndarray | None  #: (3, 3) eV, -dE/dstrain
    virials: np.ndarray | None  #: (n, 3, 3) eV; they add up to the virial


class Engine:
    """A model, ready to run: the arithmetic of DPA-2 (D. Zhang et al., npj Comput. Mater. 10, 293, 2024).

    Results are those of DeePMD-kit's PyTorch backend up to rounding (docs/accuracy.md).

    Parameters
    ----------
    path
        A ``.dpa2`` file, or a model file of DeePMD-kit, which is converted on the fly.
    precision
        "float64" or "float32"; None: the precision that the model was trained in.
    threads
        Number of threads; None: what OpenMP offers (``OMP_NUM_THREADS``, or all cores).
    device
        "cpu", or "cuda" (GPU 0), "cuda:1", ... in a build with CUDA.
    head
        The head of a multi-task model file of DeePMD-kit.
    tables
        Look embedding nets of one distance up in tables, which are exact to well below the precision's
        rounding noise; False computes the nets themselves.
    low_memory
        Make again in the reverse sweep what is otherwise kept: the same results in little more than half of
        the memory, up to 1.6 times slower. On the CPU only.

    Raises
    ------
    ModelError
        When the file is damaged or describes something that dpa2md can't compute.
    OSError
        When the file can't be read.
    ValueError
        For an unknown precision or device.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        precision: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
        *,
        head: str | None = None,
        tables: bool = True,
        low_memory: bool = False,
    ):
        # Absolute, because a pickled engine is loaded again, perhaps by a process elsewhere.
        self._arguments = (
            os.path.abspath(path),
            precision,
            threads,
            device,
            head,
            tables,
            low_memory,
        )
        self._load()

    def _load(self) -> None:
        path, precision, threads, device, head, tables, low_memory = self._arguments
        if threads is not None and threads < 1:
            raise ValueError(f"The number of threads is {threads}; give 1 or more.")

        def core(file: str | os.PathLike) -> _core.Engine:
            return _core.Engine(
                str(file), precision or "", threads or 0, device, tables, low_memory
            )

        if is_model_file(path):
            if head is not None:
                raise ModelError(f"{path}: A .dpa2 file has a single head; leave out {head!r}.")
            self._core = core(path)
        else:
            with tempfile.TemporaryDirectory(prefix="dpa2md-") as folder:
                converted = convert(path, Path(folder) / "model.dpa2", head=head)
                self._core = core(converted)
        self._info: dict[str, Any] = self._core.info
        self._type_of = {name: k for k, name in enumerate(self.elements)}
        self._told_overfull = False

    def __getstate__(self) -> dict[str, Any]:
        return {"_arguments": self._arguments}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()

    def __repr__(self) -> str:
        return f"Engine({self.path!r}): {self.description}"

    @property
    def path(self) -> str:
        """The file the model was loaded from."""
        return self._arguments[0]

    @property
    def elements(self) -> list[str]:
        """The model's elements; an atom's type is the index into this list."""
        return self._info["elements"]

    @property
    def rcut(self) -> float:
        """The largest cutoff, angstrom."""
        return self._info["rcut"]

    @property
    def all_neighbors(self) -> bool:
        """Whether the model takes all neighbours within its cutoffs, not the nearest `sel`."""
        return self._info["all_neighbors"]

    @property
    def nfparam(self) -> int:
        """How many numbers per frame the model takes, usually 0."""
        return self._info["nfparam"]

    @property
    def naparam(self) -> int:
        """How many numbers per atom the model takes, usually 0."""
        return self._info["naparam"]

    @property
    def descriptor_dim(self) -> int:
        """How many numbers the descriptor of an atom has."""
        return self._info["descriptor_dim"]

    @property
    def precision(self) -> str:
        """The precision the model runs in."""
        return self._core.precision

    @property
    def description(self) -> str:
        """Device, instruction set, precision and threads."""
        return self._core.description

    def types(self, symbols: Sequence[str]) -> np.ndarray:
        """The types (n,) of atoms with these chemical symbols.

        Raises
        ------
        ValueError
            For an element that the model doesn't know.
        """
        try:
            return np.array([self._type_of[symbol] for symbol in symbols], dtype=np.intc)
        except KeyError as error:
            raise ValueError(
                f"The model doesn't know the element {error.args[0]}; "
                f"its elements are {' '.join(self.elements)}."
            ) from None

    def forget_neighbors(self) -> None:
        """Build a new neighbour list at the next step.

        Results don't depend on it but for rounding; with it a run that goes on from a checkpoint
        repeats, bit for bit, the run that wrote it.
        """
        self._core.forget_neighbors()

    def device_memory(self, natoms: int) -> DeviceMemory | None:
        """The device's memory for a step of `natoms` atoms like those of the last step.

        It comes from the same list of arrays that a step allocates. None on the CPU, and before the
        first step: the number of neighbours decides.
        """
        found = self._core.device_memory(natoms)
        return None if found is None else DeviceMemory(found[0], found[1], int(found[2]))

    def compute(
        self,
        positions: np.ndarray,
        types: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: bool | Sequence[bool] | np.ndarray = False,
        fparam: float | np.ndarray | None = None,
        aparam: float | np.ndarray | None = None,
        forces: bool = True,
        skin: float = DEFAULT_SKIN,
    ) -> Result:
        """Evaluate one structure of n atoms.

        Parameters
        ----------
        positions
            (n, 3), angstrom, anywhere: atoms need not lie inside the cell.
        types
            (n,), indices into `elements`; a negative type is a virtual atom without interactions.
        cell
            (3, 3), rows are the cell vectors, angstrom; needed along periodic directions.
        pbc
            Periodic or not, one flag or three.
        fparam
            (nfparam,), only for models with frame parameters; None: the model's default.
        aparam
            (n, naparam), or (naparam,) for all atoms, only for models with atomic parameters.
        forces
            False: only energies.
        skin
            Angstrom; the neighbour list is kept until atoms may have moved by half of it.

        Returns
        -------
        Result
            Energies, and with `forces` also forces and virials.

        Raises
        ------
        ValueError
            For arrays of wrong shape, a degenerate cell, or results that are not finite.
        """
        positions = np.asarray(positions, dtype=float)
        cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float)
        frame = (positions, types, cell, np.broadcast_to(pbc, 3))
        fparams = None if fparam is None else [fparam]
        aparams = None if aparam is None else [aparam]
        return self._run([frame], fparams, aparams, forces, skin)[0]

    def descriptor(
        self,
        positions: np.ndarray,
        types: np.ndarray,
        *,
        cell: np.ndarray | None = None,
        pbc: bool | Sequence[bool] | np.ndarray = False,
        skin: float = DEFAULT_SKIN,
    ) -> np.ndarray:
        """The descriptor of each atom of one structure, (n, descriptor_dim); arguments as in `compute`.

        It is the vector that enters the fitting net, without frame and atomic parameters: the output
        of the last repformer layer (of the embedding for DPA-1), followed by the type embedding in
        models with ``concat_output_tebd``. DeePMD-kit's ``DeepPot.eval_descriptor`` gives the same.

        Raises
        ------
        ValueError
            As `compute`.
        """
        frame = (
            np.asarray(positions, dtype=float),
            types,
            np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float),
            np.broadcast_to(pbc, 3),
        )
        # The core wants parameters for the fitting net, which comes after the descriptor.
        fparam = [np.zeros(self.nfparam)] if self.nfparam else None
        aparam = [np.zeros(self.naparam)] if self.naparam else None
        return self._evaluate([frame], fparam, aparam, False, skin, descriptors=True)["descriptors"]

    def compute_atoms(
        self,
        structures: Sequence[Atoms],
        *,
        fparam: Sequence | None = None,
        aparam: Sequence | None = None,
        forces: bool = True,
        skin: float = DEFAULT_SKIN,
        number: int | None = None,
    ) -> list[Result]:
        """Evaluate any number of `ase.Atoms` at once.

        Parameters
        ----------
        structures
            Their sizes, cells, periodicities and elements may differ.
        fparam, aparam
            One entry per structure, as in `compute`; None: the model's defaults.
        forces
            False: only energies.
        skin
            Angstrom; as in `compute`, while the structures stay the same ones.
        number
            What a warning calls the first structure, where these are part of a longer list; None: 0 if
            there are several.

        Returns
        -------
        list of Result
            One per structure, in their order.

        Raises
        ------
        ValueError
            As `compute`, and for an element that the model doesn't know.
        """
        frames = [
            (a.positions, self.types(a.get_chemical_symbols()), a.cell.array, a.pbc)
            for a in structures
        ]
        return self._run(frames, fparam, aparam, forces, skin, number)

    def _run(
        self,
        frames: list[tuple],
        fparam: Sequence | None,
        aparam: Sequence | None,
        forces: bool,
        skin: float,
        number: int | None = None,
    ) -> list[Result]:
        if not frames:
            return []
        out = self._evaluate(frames, fparam, aparam, forces, skin, number)
        parts = itertools.pairwise(_frame_start(frames))
        return [_result(out, f, slice(a, b), forces) for f, (a, b) in enumerate(parts)]

    def _evaluate(
        self,
        frames: list[tuple],
        fparam: Sequence | None,
        aparam: Sequence | None,
        forces: bool,
        skin: float,
        number: int | None = None,
        descriptors: bool = False,
    ) -> dict[str, Any]:
        positions, types, cells, pbc = zip(*frames, strict=True)
        counts = [len(p) for p in positions]
        start = _frame_start(frames)
        frame_parameters = atom_parameters = None
        if fparam is not None:
            frame_parameters = np.stack([_parameters("fparam", f, (self.nfparam,)) for f in fparam])
        if aparam is not None:
            shaped = zip(aparam, ((count, self.naparam) for count in counts), strict=True)
            atom_parameters = np.concatenate([_parameters("aparam", *pair) for pair in shaped])
        out = self._core.compute(
            np.concatenate(positions).reshape(-1, 3),
            np.concatenate(types),
            start,
            np.stack(cells),
            np.stack(pbc).astype(np.intc),
            skin,
            forces,
            frame_parameters,
            atom_parameters,
            descriptors,
        )
        if out["overfull"] is not None:
            self._tell_overfull(start, number, *out["overfull"])
        return out

    def _tell_overfull(
        self, start: np.ndarray, number: int | None, atom: int, count: int, nsel: int
    ) -> None:
        if self._told_overfull:
            return
        self._told_overfull = True
        frame = int(np.searchsorted(start, atom, side="right")) - 1
        where = f"Atom {atom - start[frame]}"
        if number is not None or len(start) > 2:
            where += f" of structure {(number or 0) + frame}"
        warnings.warn(
            f"{where} has {count} neighbours and the model has room for {nsel}: the nearest {nsel} "
            "are kept, as DeePMD-kit does, so the energy is not continuous there (dpa2md convert "
            "--all-neighbors makes a model that takes all).",
            stacklevel=5,
        )


def _frame_start(frames: list[tuple]) -> np.ndarray:
    """(frames + 1,) the first atom of each frame among all atoms, and their number."""
    return np.concatenate([[0], np.cumsum([len(frame[0]) for frame in frames])]).astype(np.intc)


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


def _result(out: dict[str, Any], frame: int, atoms: slice, forces: bool) -> Result:
    return Result(
        energy=float(out["energy"][frame]),
        energies=out["energies"][atoms],
        forces=out["forces"][atoms] if forces else None,
        virial=out["virial"][frame] if forces else None,
        virials=out["virials"][atoms] if forces else None,
    )
