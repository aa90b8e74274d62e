"""Several models at once: their mean, and how far they are from each other (model deviation).

The numbers are those of DeePMD-kit's ``dp model-devi`` (Y. Zhang et al., Comput. Phys. Commun. 253, 107206
(2020)): standard deviations over the models, of each atom's force and of the virial per atom.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)

from .batch import evaluate, listed
from .calculator import DPA2Calculator, as_ase
from .engine import Engine

Model = str | os.PathLike | Engine | DPA2Calculator


class ModelDeviation(Calculator):
    """The mean of several models, with their deviations in ``results``.

    Energy, forces and stress are means over the models. ``results`` (and `deviations`) also have

    - ``max_devi_f``, ``min_devi_f``, ``avg_devi_f``: over the atoms, of the deviation of an atom's force
      (eV/angstrom), sqrt(sum over x, y, z of the variance over the models); ``devi_f`` (n,) has all of them
    - ``max_devi_v``, ``min_devi_v``, ``avg_devi_v``: of the nine components of the virial per atom (eV);
      the average is their root mean square
    - ``devi_e``: of the energy per atom (eV)

    Parameters
    ----------
    models
        Two or more files, engines or calculators. Their elements may stand in any order. For heads of one
        file, give ``Engine(path, head=...)`` for each.
    precision, threads, device, tables
        As of `DPA2Calculator`, for models given as files.

    Raises
    ------
    ValueError
        For fewer than two models.
    TypeError
        For a name that is not in a list.
    ModelError, OSError
        As `DPA2Calculator`.

    Examples
    --------
    >>> atoms.calc = ModelDeviation(["a.dpa2", "b.dpa2", "c.dpa2", "d.dpa2"])
    >>> atoms.get_forces()
    >>> atoms.calc.results["max_devi_f"]
    """

    name = "dpa2-model-deviation"
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]  # noqa: RUF012
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        models: Sequence[Model],
        precision: str | None = None,
        threads: int | None = None,
        device: str = "cpu",
        *,
        tables: bool = True,
    ):
        super().__init__()
        models = _several(models)
        self.models = [
            m
            if isinstance(m, DPA2Calculator)
            else DPA2Calculator(m, precision, threads, device, tables=tables)
            for m in models
        ]

    @property
    def deviations(self) -> dict[str, Any]:
        """The deviations alone, from the last calculation."""
        return {name: value for name, value in self.results.items() if "devi_" in name}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute everything with every model, whatever is asked for: deviations need forces."""
        super().calculate(atoms, properties, system_changes)
        if self.atoms.cell.rank < 3 and {"stress", "stresses"} & set(properties):
            raise PropertyNotImplementedError(
                "A stress needs a cell with three independent vectors; give the structure a full cell."
            )
        found = [model.compute(self.atoms) for model in self.models]
        self.results = combine([as_ase(r, self.atoms) | {"virial": r.virial} for r in found])

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation, parameters of the models included."""
        changes = set(super().check_state(atoms, tol))
        for model in self.models:
            changes |= set(model.check_parameters(atoms))
        return sorted(changes)

    def forget_neighbors(self) -> None:
        """See `Engine.forget_neighbors`."""
        for model in self.models:
            model.forget_neighbors()


def model_deviation(
    models: Sequence[Model],
    structures: Iterable[Atoms] | Atoms,
    *,
    precision: str | None = None,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Means and deviations of several models for many structures, as `ModelDeviation` has in its results.

    Parameters
    ----------
    models, precision, threads
        As of `ModelDeviation`; each model is loaded once, after the one before is done.
    structures
        Any number of `ase.Atoms`; a single one is a list of one.
    report
        Called after each model with the number of models that are done.

    Returns
    -------
    list of dict
        In the order of `structures`.

    Raises
    ------
    ValueError
        For fewer than two models, and as `evaluate`.
    TypeError
        For a name that is not in a list, and as `evaluate`.
    """
    models, structures = _several(models), listed(structures)
    found = []
    for k, model in enumerate(models):
        found.append(evaluate(model, structures, precision=precision, threads=threads))
        if report:
            report(k + 1)
    return [combine(entries) for entries in zip(*found, strict=True)]


def _several(models: Sequence[Model]) -> list[Model]:
    """The models as a list; a name alone would be taken apart into characters."""
    if isinstance(models, str | os.PathLike | Engine | DPA2Calculator):
        raise TypeError("A deviation needs two models or more, in a list; a single one was given.")
    found = list(models)
    if len(found) < 2:
        raise ValueError(f"A deviation needs two models or more; {len(found)} were given.")
    return found


def combine(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations of what `evaluate` gave for one structure with each model."""
    n = len(results[0]["forces"])
    names = [name for name in results[0] if name != "virial"]
    out: dict[str, Any] = {name: np.mean([r[name] for r in results], axis=0) for name in names}
    out["energy"], out["free_energy"] = float(out["energy"]), float(out["free_energy"])
    force = np.linalg.norm(np.std([r["forces"] for r in results], axis=0), axis=-1)
    virial = np.std([r["virial"] / n for r in results], axis=0)
    out |= {
        "devi_e": float(np.std([r["energy"] / n for r in results])),
        "max_devi_f": float(force.max()),
        "min_devi_f": float(force.min()),
        "avg_devi_f": float(force.mean()),
        "devi_f": force,
        "max_devi_v": float(virial.max()),
        "min_devi_v": float(virial.min()),
        "avg_devi_v": float(np.sqrt(np.mean(virial**2))),
    }
    return out
