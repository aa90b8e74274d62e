"""A DPA-2 model for torch-sim, which runs many structures side by side.

Only this file uses torch, and only because torch-sim's states are tensors; nothing else of dpa2md imports it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from ase import Atoms

from .engine import DEFAULT_SKIN, Engine

try:
    import torch
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise ImportError(
        f"dpa2md.torch_sim needs torch-sim ({error}): pip install torch-sim-atomistic."
    ) from error


class DPA2Model(ModelInterface):
    """The energies, forces and stresses of a DPA-2 model for torch-sim.

    Parameters
    ----------
    path
        A ``.dpa2`` file, or a model file of DeePMD-kit, converted on the fly.
    precision
        "float64" or "float32" of the model's arithmetic; None: the precision that it was trained in.
    threads
        Number of threads; None: what OpenMP offers.
    head
        The head of a multi-task model file of DeePMD-kit.
    dtype
        Of the tensors that come and go; torch.float64 keeps what the engine gives.
    skin
        Angstrom; how far beyond the cutoff neighbours are listed. It changes the speed only.

    Raises
    ------
    ImportError
        Without torch-sim.
    ModelError
        When the file is damaged or describes something that dpa2md can't compute.
    OSError
        When the file can't be read.

    Examples
    --------
    >>> model = DPA2Model("water.dpa2")
    >>> torch_sim.optimize(structures, model, optimizer=torch_sim.optimizers.fire)
    """

    def __init__(
        self,
        path: str | os.PathLike,
        precision: str | None = None,
        threads: int | None = None,
        *,
        head: str | None = None,
        dtype: torch.dtype = torch.float64,
        skin: float = DEFAULT_SKIN,
    ):
        super().__init__()
        self.engine = Engine(path, precision, threads, head=head)
        self.skin = skin
        self._device = torch.device("cpu")
        self._dtype = dtype
        self._compute_forces = True
        self._compute_stress = True
        # lists have `sel` slots, whatever the density, unless they take all neighbours
        self._memory_scales_with = "n_atoms_x_density" if self.engine.all_neighbors else "n_atoms"

    def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
        """Evaluate all systems of a state at once.

        Parameters
        ----------
        state
            A ``torch_sim.SimState``, or its fields as a dict, of S systems with n atoms together.

        Returns
        -------
        dict
            `energy` (S,) eV, `forces` (n, 3) eV/angstrom, and with periodic systems `stress`
            (S, 3, 3) eV/angstrom^3, dE/dstrain / volume.

        Raises
        ------
        ValueError
            For an element that the model doesn't know, or a degenerate cell.
        """
        structures = _structures(state if isinstance(state, dict) else vars(state))
        results = self.engine.compute_atoms(structures, skin=self.skin)
        out = {
            "energy": np.array([r.energy for r in results]),
            "forces": np.concatenate([r.forces for r in results]),
        }
        if all(a.cell.rank == 3 for a in structures):
            pairs = zip(results, structures, strict=True)
            out["stress"] = np.stack([-np.asarray(r.virial) / a.cell.volume for r, a in pairs])
        return {name: torch.as_tensor(value, dtype=self._dtype) for name, value in out.items()}


def _structures(fields: dict[str, Any]) -> list[Atoms]:
    """The systems of a state; torch-sim keeps cell vectors in columns, ASE in rows."""
    plain = {
        name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        for name, value in fields.items()
        if name in {"positions", "atomic_numbers", "cell", "pbc", "system_idx"}
    }
    owner = plain.get("system_idx")
    if owner is None:
        owner = np.zeros(len(plain["positions"]), dtype=int)
    return [
        Atoms(
            plain["atomic_numbers"][owner == system],
            plain["positions"][owner == system],
            cell=cell.T,
            pbc=plain["pbc"],
        )
        for system, cell in enumerate(plain["cell"].reshape(-1, 3, 3))
    ]
