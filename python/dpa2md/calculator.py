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
from ase.data import atomic_numbers

from .dispersion import Dispersion
from .engine import DEFAULT_SKIN, Engine
from .hessian import hessian
from .results import Result, as_ase


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
        "cpu", or "cuda" (GPU 0), "cuda:1", ... in a build with CUDA, which `dpa2md doctor` tells.
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

    d3, d3_damping
        Add D3 dispersion with the parameters of this functional, such as "pbe", see `Dispersion`; then there
        are no `energies` and `stresses` of single atoms. Only for models whose training data had no dispersion.

    ASE's files and databases keep `parameters` with the results: the model's file name and SHA-256 checksum,
    the version of dpa2md, precision, device, and what else is not at its default.

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
    nolabel = True  # `ase run` would give it a label for its files, of which there are none
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
        d3: str | None = None,
        d3_damping: str = "bj",
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
        self.parameters = provenance(self.engine)
        self.dispersion = None if d3 is None else Dispersion(d3, d3_damping)
        if self.dispersion is not None:
            self.parameters |= {"d3": d3, "d3_damping": d3_damping}
            shared = set(self.implemented_properties) - {"energies", "stresses"}
            self.implemented_properties = sorted(shared)
        self._used: tuple[Any, Any] = (None, None)

    @property
    def description(self) -> str:
        """Device, instruction set, precision and threads, and D3 if there is."""
        return self.engine.description + (f", with {self.dispersion}" if self.dispersion else "")

    @property
    def allowed_atomic_numbers(self) -> set[int]:
        """The atomic numbers of the model's elements, where they are elements."""
        return {atomic_numbers[name] for name in self.engine.elements if name in atomic_numbers}

    def set(self, **parameters: Any) -> dict[str, Any]:
        """ASE's way to change a calculator's parameters: a loaded model has none that could change.

        Raises
        ------
        ValueError
            For any parameter.
        """
        if parameters:
            names = ", ".join(parameters)
            raise ValueError(f"A loaded model can't change its {names}; make a new DPA2Calculator.")
        return {}

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """`parameters` and the extra parameters of the calculator, as ASE writes them into its files."""
        extra = {"fparam": self.fparam, "aparam": self.aparam}
        given = {k: np.asarray(v).tolist() for k, v in extra.items() if v is not None}
        return {**self.parameters, **given}

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
        self.results = self.results_for(atoms, forces)
        self.results.pop("virial", None)

    def results_for(self, atoms: Atoms, forces: bool = True) -> dict[str, Any]:
        """What `calculate` has in `results`, and with forces the `virial` (3, 3) (eV, -dE/dstrain)."""
        found = self.compute(atoms, forces)
        results = as_ase(found, atoms) | ({"virial": found.virial} if forces else {})
        return results if self.dispersion is None else self.dispersion.add(results, atoms)

    def compute(self, atoms: Atoms, forces: bool = True) -> Result:
        """Results of `Engine.compute` for `atoms`, with their frame and atomic parameters; without D3."""
        fparam, aparam = self._parameters(atoms)
        self._used = (_copy(fparam), _copy(aparam))
        return self.engine.compute(
            atoms.positions,
            self.engine.types_of(atoms),
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
            self.engine.types_of(atoms),
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            skin=self.skin,
        )

    def get_hessian(self, atoms: Atoms | None = None, delta: float = 0.01) -> np.ndarray:
        """Second derivatives of the energy, (n, 3, n, 3) in eV/angstrom^2, see `hessian.hessian`.

        Raises
        ------
        ValueError
            Without atoms, and as `hessian.hessian`.
        """
        atoms = atoms if atoms is not None else self.atoms
        if atoms is None:
            raise ValueError("There are no atoms yet: give a structure to get_hessian.")
        return hessian(self, atoms, delta=delta)

    def _parameters(self, atoms: Atoms) -> tuple[Any, Any]:
        fparam, aparam = self.fparam, self.aparam
        if fparam is None and self.engine.nfparam:
            fparam = atoms.info.get("fparam")
        if aparam is None and self.engine.naparam:
            aparam = atoms.arrays.get("aparam")
        return fparam, aparam


def provenance(engine: Engine) -> dict[str, Any]:
    """What results come from: file and checksum of the model, version of dpa2md, settings.

    Settings that are at their defaults are left out but for precision and device.
    """
    from ._core import __version__

    settings = engine.settings
    usual = {"head": None, "tables": True, "low_memory": False}
    return {
        "model": os.path.basename(engine.path),
        "model_sha256": engine.checksum,
        "dpa2md_version": __version__,
        **{k: v for k, v in settings.items() if k not in usual or v != usual[k]},
    }


def _copy(value: Any) -> Any:
    return None if value is None else np.array(value)
