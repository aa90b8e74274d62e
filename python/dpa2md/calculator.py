"""The ASE calculator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)

from .engine import DEFAULT_SKIN, Engine
from .results import Result


class DPA2Calculator(Calculator):
    """Energies, forces and stresses of a DPA-2 model.

    Parameters
    ----------
    path
        A ``.dpa2`` file, a model file of DeePMD-kit (.pt, .pth, .dp), converted on the fly, or an
        `Engine`, to which `precision`, `threads`, `device`, `head`, `tables` and `low_memory` don't apply.
    precision
        "float64" or "float32"; None: the precision that the model was trained in.
    threads
        Number of threads; None: what OpenMP offers (``OMP_NUM_THREADS``, or all cores).
    device
        "cpu".
    skin
        Angstrom; how far beyond the cutoff neighbours are listed. It changes the speed only.
    head
        The head of a multi-task model file of DeePMD-kit.
    tables, low_memory
        See `Engine`.
    fparam
        (nfparam,), for models with frame parameters; None: ``atoms.info["fparam"]``, or else the
        model's default.
    aparam
        (n, naparam), or (naparam,) for all atoms, for models with atomic parameters; None:
        ``atoms.arrays["aparam"]``.

    Raises
    ------
    ModelError
        When the file is damaged or describes something that dpa2md can't compute.
    OSError
        When the file can't be read.

    Examples
    --------
    >>> atoms.calc = DPA2Calculator("water.dpa2")
    >>> atoms.get_potential_energy()
    """

    name = "dpa2"
    # ASE declares both as plain attributes.
    implemented_properties = [  # noqa: RUF012
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
    ]
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        path: str | os.PathLike | Engine,
        precision: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
        *,
        skin: float = DEFAULT_SKIN,
        head: str | None = None,
        fparam: float | Sequence[float] | np.ndarray | None = None,
        aparam: float | Sequence[float] | np.ndarray | None = None,
        tables: bool = True,
        low_memory: bool = False,
    ):
        super().__init__()
        if isinstance(path, Engine):
            self.engine = path
        else:
            self.engine = Engine(
                path, precision, threads, device, head=head, tables=tables, low_memory=low_memory
            )
        self.skin = skin
        self.fparam = fparam
        self.aparam = aparam
        self._used: tuple[Any, Any] = (None, None)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation, the model's extra parameters included.

        Compares exactly, whatever `tol`: ASE's own comparison takes longer than a molecule's forces.
        """
        old = self.atoms
        if old is None or len(old) != len(atoms):
            return [*super().check_state(atoms, tol), *self.check_parameters(atoms)]
        pairs = {
            "positions": (old.positions, atoms.positions),
            "numbers": (old.numbers, atoms.numbers),
            "cell": (old.cell.array, atoms.cell.array),
            "pbc": (old.pbc, atoms.pbc),
        }
        changed = [name for name, pair in pairs.items() if not np.array_equal(*pair)]
        return [*changed, *self.check_parameters(atoms)]

    def check_parameters(self, atoms: Atoms) -> list[str]:
        """Which of the model's extra parameters changed since the last calculation."""
        names = ("fparam", "aparam")
        pairs = zip(names, self._used, self._parameters(atoms), strict=True)
        return [name for name, old, new in pairs if not np.array_equal(old, new)]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute all properties of `atoms`; energies alone when no more is asked for.

        ASE calls it. Afterwards `results` has `energy` (eV), `free_energy`, `energies` (n,), and with
        forces `forces` (n, 3) (eV/angstrom), `stress` (6,) and `stresses` (n, 6) (eV/angstrom^3).

        Raises
        ------
        PropertyNotImplementedError
            For a stress without a cell of three vectors.
        ValueError
            For an element that the model doesn't know, a degenerate cell, or results that are not finite.
        """
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        if atoms.cell.rank < 3 and {"stress", "stresses"} & set(properties):
            raise PropertyNotImplementedError(
                "A stress needs a cell with three independent vectors; give the structure a full cell."
            )
        forces = bool({"forces", "stress", "stresses"} & set(properties))
        self.results = as_ase(self.compute(atoms, forces), atoms)

    def compute(self, atoms: Atoms, forces: bool = True) -> Result:
        """Results of `Engine.compute` for `atoms`, with their frame and atomic parameters."""
        fparam, aparam = self._parameters(atoms)
        self._used = (_copy(fparam), _copy(aparam))
        return self.engine.compute(
            atoms.positions,
            self.engine.types(atoms.get_chemical_symbols()),
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            fparam=fparam,
            aparam=aparam,
            forces=forces,
            skin=self.skin,
        )

    def forget_neighbors(self) -> None:
        """See `Engine.forget_neighbors`."""
        self.engine.forget_neighbors()

    def get_descriptors(self, atoms: Atoms | None = None) -> np.ndarray:
        """The descriptor of each atom, (n, dim): what enters the model's fitting net.

        The same as DeePMD-kit's ``DeepPot.eval_descriptor``, see `Engine.descriptor`. It costs about
        as much as the energy.

        Raises
        ------
        ValueError
            Without atoms, for an element that the model doesn't know, or a degenerate cell.
        """
        atoms = atoms if atoms is not None else self.atoms
        if atoms is None:
            raise ValueError("There are no atoms yet: give a structure to get_descriptors.")
        return self.engine.descriptor(
            atoms.positions,
            self.engine.types(atoms.get_chemical_symbols()),
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            skin=self.skin,
        )

    def _parameters(self, atoms: Atoms) -> tuple[Any, Any]:
        fparam, aparam = self.fparam, self.aparam
        if fparam is None and self.engine.nfparam:
            fparam = atoms.info.get("fparam")
        if aparam is None and self.engine.naparam:
            aparam = atoms.arrays.get("aparam")
        return fparam, aparam


def as_ase(result: Result, atoms: Atoms) -> dict[str, Any]:
    """Results in ASE's names, units, signs and Voigt order (xx, yy, zz, yz, xz, xy).

    The stress is dE/dstrain / volume; `stresses` add up to it.
    """
    results: dict[str, Any] = {
        "energy": result.energy,
        "free_energy": result.energy,
        "energies": result.energies,
    }
    if result.forces is not None and result.virial is not None and result.virials is not None:
        results["forces"] = result.forces
        if atoms.cell.rank == 3:
            volume = atoms.cell.volume
            results["stress"] = _voigt(-result.virial / volume)
            results["stresses"] = _voigt(-result.virials / volume)
    return results


def _voigt(stress: np.ndarray) -> np.ndarray:
    """The symmetric part of (..., 3, 3) as (..., 6); an atom's own stress need not be symmetric."""
    symmetric = (stress + np.swapaxes(stress, -1, -2)) / 2
    return symmetric[..., [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def _copy(value: Any) -> Any:
    return None if value is None else np.array(value)
