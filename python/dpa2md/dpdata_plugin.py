"""A driver for dpdata: ``dpdata.System(...).predict("model.dpa2", driver="dpa2")``.

dpdata finds it by the entry point in pyproject.toml.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from dpdata.driver import Driver


@Driver.register("dpa2")
class DPA2Driver(Driver):
    """Labels structures with energies (eV), forces (eV/angstrom) and virials (eV).

    Parameters
    ----------
    path
        A ``.dpa2`` file, or a model file of DeePMD-kit, converted on the fly.
    **options
        Those of `Engine`: precision, threads, device, head.

    Raises
    ------
    ModelError, OSError
        As `Engine`.
    """

    def __init__(self, path: str | os.PathLike, **options: Any):
        from .engine import Engine

        self.engine = Engine(path, **options)

    def label(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data of a system with its labels."""
        from dpdata import System  # not above: dpdata loads this file while it is imported itself

        from .batch import evaluate

        structures: Any = System(data=data.copy()).to("ase/structure")
        results = evaluate(self.engine, structures)
        names = {"energies": "energy", "forces": "forces", "virials": "virial"}
        return data | {k: np.array([r[name] for r in results]) for k, name in names.items()}

    @property
    def ase_calculator(self) -> Any:
        """The same model as a calculator of ASE."""
        from .calculator import DPA2Calculator

        return DPA2Calculator(self.engine)
