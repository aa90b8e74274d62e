"""A driver for i-PI that evaluates the beads of a batch together.

``python -m dpa2md.ipi_driver`` prints the path of this file, which i-PI's client wants::

    i-pi-driver-py -m custom -P $(python -m dpa2md.ipi_driver) -u -a ADDRESS -o template=water.xyz,model=water.dpa2
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

# i-PI loads this file by its path, outside of the package
from dpa2md.engine import Engine
from dpa2md.shipped import model_path

__DRIVER_NAME__ = "dpa2"
__DRIVER_CLASS__ = "DPA2Driver"


class DPA2Driver:
    """Energies, forces and virials of a DPA-2 model, in i-PI's atomic units.

    Parameters
    ----------
    template
        A file that ASE reads: the elements and what is periodic, and frame and atomic parameters for models
        that take them.
    model
        A model file, or "water": the shipped model.
    precision, threads, device, head
        As of `Engine`.
    verbose, verbosity
        i-PI's own; nothing is printed.
    """

    def __init__(
        self,
        template: str,
        model: str = "water",
        precision: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
        head: str | None = None,
        verbose: Any = None,
        verbosity: Any = None,
    ):
        found = read(template)
        assert isinstance(found, Atoms)
        self.template = found
        self.engine = Engine(model_path(model), precision, threads, device, head=head)
        self._fparam = found.info.get("fparam") if self.engine.nfparam else None
        self._aparam = found.arrays.get("aparam") if self.engine.naparam else None

    def __call__(self, cell: Any, pos: Any) -> Any:
        """As `compute`; i-PI calls either."""
        return self.compute(cell, pos)

    def compute(self, cell: Any, pos: Any) -> Any:
        """The results for a cell (3, 3), vectors as columns, and positions (n, 3); or for lists of them.

        Returns
        -------
        tuple, or a list of them
            Energy, forces (n, 3), virial (3, 3), and a text, which is empty.
        """
        if not isinstance(cell, list):
            return self._compute([cell], [pos])[0]
        return self._compute(cell, pos)

    def _compute(self, cells: list[np.ndarray], positions: list[np.ndarray]) -> list[tuple]:
        from ipi.utils.units import unit_to_internal, unit_to_user

        bohr = unit_to_user("length", "angstrom", 1.0)
        electronvolt = unit_to_internal("energy", "electronvolt", 1.0)
        structures = []
        for cell, places in zip(cells, positions, strict=True):
            atoms = self.template.copy()
            atoms.cell[:] = cell.reshape(3, 3).T * bohr
            atoms.positions[:] = places.reshape(-1, 3) * bohr
            structures.append(atoms)
        each = len(structures)
        results = self.engine.compute_atoms(
            structures,
            fparam=None if self._fparam is None else [self._fparam] * each,
            aparam=None if self._aparam is None else [self._aparam] * each,
        )
        return [
            (
                r.energy * electronvolt,
                np.asarray(r.forces) * electronvolt * bohr,
                np.asarray(r.virial).T * electronvolt,
                "",
            )
            for r in results
        ]


if __name__ == "__main__":
    print(__file__)
