"""D3 dispersion on top of a model, for models whose training data had none.

S. Grimme et al., J. Chem. Phys. 132, 154104 (2010); with Becke-Johnson damping J. Comput. Chem. 32, 1456 (2011).
The optional package dftd3 computes it; nothing else needs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units

from .results import stress_of

#: Names of the damping functions, and of the classes of dftd3.
DAMPINGS = {
    "bj": "RationalDampingParam",
    "zero": "ZeroDampingParam",
    "bjm": "ModifiedRationalDampingParam",
    "zerom": "ModifiedZeroDampingParam",
    "op": "OptimizedPowerDampingParam",
}


class Dispersion:
    """D3 with the parameters of a functional.

    Parameters
    ----------
    functional
        That of the model's training data, such as "pbe"; upper or lower case.
    damping
        "bj" (Becke-Johnson), "zero", their revisions "bjm" and "zerom", or "op".

    Raises
    ------
    ImportError
        Without the package dftd3.
    ValueError
        For a damping function that there isn't, or a functional without parameters for it.
    """

    def __init__(self, functional: str, damping: str = "bj"):
        try:
            from dftd3 import interface
        except ImportError:
            raise ImportError("D3 dispersion needs the package dftd3: pip install dftd3.") from None
        if damping not in DAMPINGS:
            raise ValueError(f"D3 has no damping {damping!r}; it has {', '.join(DAMPINGS)}.")
        try:
            self._parameters = getattr(interface, DAMPINGS[damping])(method=functional)
        except RuntimeError:
            raise ValueError(
                f"D3 has no parameters for the functional {functional!r} with the damping {damping!r}; "
                "name another, such as pbe."
            ) from None
        self.functional, self.damping = functional, damping

    def __repr__(self) -> str:
        return f"D3({self.functional}, {self.damping})"

    def __getstate__(self) -> dict[str, str]:
        return {"functional": self.functional, "damping": self.damping}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def compute(self, atoms: Atoms, forces: bool = True) -> dict[str, Any]:
        """The energy (eV), and with forces `forces` (n, 3) (eV/angstrom) and `virial` (3, 3) (eV).

        Raises
        ------
        ValueError
            For a structure that dftd3 refuses, such as one with an element beyond lawrencium.
        """
        from dftd3.interface import DispersionModel

        periodic = bool(atoms.pbc.any())
        lattice = atoms.cell.complete().array / units.Bohr if periodic else None
        try:
            model = DispersionModel(
                atoms.numbers,
                atoms.positions / units.Bohr,
                lattice,
                atoms.pbc if periodic else None,
            )
            found = model.get_dispersion(self._parameters, grad=forces)
        except RuntimeError as error:
            raise ValueError(f"D3 can't be computed for this structure ({error}).") from None
        out: dict[str, Any] = {"energy": float(found["energy"]) * units.Hartree}
        if forces:
            out["forces"] = np.array(found["gradient"]) * (-units.Hartree / units.Bohr)
            out["virial"] = np.array(found["virial"]) * -units.Hartree
        return out

    def add(self, results: dict[str, Any], atoms: Atoms) -> dict[str, Any]:
        """Results of a model in ASE's names with D3 added.

        The shares of the atoms, `energies` and `stresses`, are left out: D3 gives none.
        """
        own = self.compute(atoms, "forces" in results)
        out = {name: v for name, v in results.items() if name not in ("energies", "stresses")}
        for name in ("energy", "free_energy"):
            out[name] = results[name] + own["energy"]
        for name in {"forces", "virial"} & set(results):
            out[name] = results[name] + own[name]
        if "stress" in results:
            out["stress"] = results["stress"] + stress_of(own["virial"], atoms)
        return out
