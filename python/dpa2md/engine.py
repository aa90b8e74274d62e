"""One loaded model: arrays or Atoms in, energies, forces and virials out."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from .base.files import sha256
from .conversion import convert
from .errors import ModelError
from .frames import Frame, Frames, structure_name
from .model_file import is_model_file
from .results import DeviceMemory, Result
from .shipped import model_file

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


class Engine:
    """A model, ready to run: the arithmetic of DPA-2 (D. Zhang et al., npj Comput. Mater. 10, 293, 2024).

    Results are those of DeePMD-kit's PyTorch backend up to rounding (docs/accuracy.md).

    Parameters
    ----------
    path
        A ``.dpa2`` file, or a model file of DeePMD-kit, which is converted on the fly; "water": the
        shipped model.
    precision
        "float64" or "float32"; None: the precision that the model was trained in.
    threads
        Number of threads; None: what OpenMP offers (``OMP_NUM_THREADS``, or all cores; one in a
        process that was forked, as of `multiprocessing.Pool`).
    device
        "cpu", or "cuda" (GPU 0), "cuda:1", ... in a build with CUDA, which `dpa2md doctor` tells.
    head
        The head of a multi-task model file of DeePMD-kit.
    tables
        Look embedding nets of one distance up in tables, which are exact to well below the precision's
        rounding noise; False computes the nets themselves. A compressed float32 model gets a smooth table,
        too, nearer to the model that was compressed; False computes DeePMD-kit's pieces (docs/accuracy.md).
    low_memory
        Make again in the reverse sweep what is otherwise kept: the same results in little more than half of
        the memory, 1.15 to 1.5 times slower. On the CPU only.

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
            os.path.abspath(model_file(path)),
            precision,
            threads,
            device,
            head,
            tables,
            low_memory,
        )
        self._checksum = sha256(self.path)
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
        self._describe()

    def _describe(self) -> None:
        self._info: dict[str, Any] = self._core.info
        self._type_of = {name: k for k, name in enumerate(self.elements)}
        self._type_of_number = np.array(
            [self._type_of.get(symbol, -1) for symbol in chemical_symbols], dtype=np.intc
        )
        self._told_overfull = False

    def __copy__(self) -> Engine:
        """The same model from memory, whatever became of its file."""
        new = object.__new__(type(self))
        new._arguments, new._checksum = self._arguments, self._checksum
        new._core = self._core.copy()
        new._describe()
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        return {"_arguments": self._arguments, "_checksum": self._checksum}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the model of a pickled engine again, which must be the same one."""
        self.__dict__.update(state)
        if not os.path.exists(self.path):
            raise ModelError(
                f"{self.path}: the file of the pickled model is not there; put it back."
            )
        if sha256(self.path) != self._checksum:
            raise ModelError(
                f"{self.path}: the file has changed since the model was loaded that is unpickled now; "
                "put the old one back, or load the new one by its name."
            )
        self._load()

    def __repr__(self) -> str:
        return f"Engine({self.path!r}): {self.description}"

    @property
    def path(self) -> str:
        """The file the model was loaded from."""
        return self._arguments[0]

    @property
    def checksum(self) -> str:
        """SHA-256 of that file, as it was then."""
        return self._checksum

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that results depend on, as they were given but for the precision."""
        _, _, _, device, head, tables, low_memory = self._arguments
        names = {"device": device, "head": head, "tables": tables, "low_memory": low_memory}
        return {"precision": self.precision, **names}

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

    def types_of(self, atoms: Atoms) -> np.ndarray:
        """The types (n,) of `ase.Atoms`, by their atomic numbers; raises as `types`."""
        types = self._type_of_number[atoms.numbers]
        if (types < 0).any():
            return self.types(atoms.get_chemical_symbols())  # complains
        return types

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
        virials: bool = True,
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
        virials
            False: no virials of single atoms, which a GPU need not hand over then; their sum is always there.

        Returns
        -------
        Result
            Energies, and with `forces` also forces and virials.

        Raises
        ------
        ValueError
            For arrays of wrong shape, a degenerate cell, or results that are not finite.
        """
        fparams = None if fparam is None else [fparam]
        aparams = None if aparam is None else [aparam]
        frames = Frames([Frame.of(positions, types, cell, pbc)])
        return self._run(frames, fparams, aparams, forces, skin, virials)[0]

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
        return self._descriptors(Frames([Frame.of(positions, types, cell, pbc)]), skin)[0]

    def descriptors(
        self,
        structures: Sequence[Atoms],
        *,
        skin: float = DEFAULT_SKIN,
        number: int | None = None,
    ) -> list[np.ndarray]:
        """What `descriptor` gives for each of any number of `ase.Atoms`; arguments as in `compute_atoms`."""
        return self._descriptors(self._frames(structures, number), skin) if structures else []

    def _descriptors(self, frames: Frames, skin: float) -> list[np.ndarray]:
        # The core wants parameters for the fitting net, which comes after the descriptor.
        fparam = [np.zeros(self.nfparam)] * len(frames) if self.nfparam else None
        aparam = [np.zeros(self.naparam)] * len(frames) if self.naparam else None
        out = self._evaluate(frames, fparam, aparam, False, skin, descriptors=True)
        return [out["descriptors"][atoms] for atoms in frames.slices()]

    def _frames(self, structures: Sequence[Atoms], number: int | None) -> Frames:
        frames = []
        for k, a in enumerate(structures):
            try:
                types = self.types_of(a)
            except ValueError as error:
                name = structure_name(k, len(structures), number)
                raise ValueError(f"{name}{error}") from None
            frames.append(Frame(a.positions, types, a.cell.array, a.pbc))
        return Frames(frames, number)

    def compute_atoms(
        self,
        structures: Sequence[Atoms],
        *,
        fparam: Sequence | None = None,
        aparam: Sequence | None = None,
        forces: bool = True,
        skin: float = DEFAULT_SKIN,
        number: int | None = None,
        virials: bool = True,
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
        virials
            False: no virials of single atoms, as in `compute`.

        Returns
        -------
        list of Result
            One per structure, in their order.

        Raises
        ------
        ValueError
            As `compute`, and for an element that the model doesn't know.
        """
        if not structures:
            return []
        frames = self._frames(structures, number)
        return self._run(frames, fparam, aparam, forces, skin, virials)

    def _run(
        self,
        frames: Frames,
        fparam: Sequence | None,
        aparam: Sequence | None,
        forces: bool,
        skin: float,
        virials: bool,
    ) -> list[Result]:
        out = self._evaluate(frames, fparam, aparam, forces, skin, virials=virials)
        return [_result(out, f, atoms, forces) for f, atoms in enumerate(frames.slices())]

    def _evaluate(
        self,
        frames: Frames,
        fparam: Sequence | None,
        aparam: Sequence | None,
        forces: bool,
        skin: float,
        descriptors: bool = False,
        virials: bool = True,
    ) -> dict[str, Any]:
        parameters = (
            frames.frame_parameters(fparam, self.nfparam),
            frames.atom_parameters(aparam, self.naparam),
        )
        wanted = (descriptors, virials)
        try:
            out = self._core.compute(*frames.arrays(), skin, forces, *parameters, *wanted)
        except _core.CoreError as error:
            raise type(error)(frames.sentence(error)) from None
        if out["overfull"] is not None and not self._told_overfull:
            self._told_overfull = True
            atom, count, nsel = out["overfull"]
            warnings.warn(
                f"{frames.place(atom)} has {count} neighbours and the model has room for {nsel}: the "
                f"nearest {nsel} are kept, as DeePMD-kit does, so the energy is not continuous there (dpa2md "
                "convert --all-neighbors makes a model that takes all).",
                stacklevel=4,
            )
        return out


def _result(out: dict[str, Any], frame: int, atoms: slice, forces: bool) -> Result:
    return Result(
        energy=float(out["energy"][frame]),
        energies=out["energies"][atoms],
        forces=out["forces"][atoms] if forces else None,
        virial=out["virial"][frame] if forces else None,
        virials=out["virials"][atoms] if "virials" in out else None,
    )
