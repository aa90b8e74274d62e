"""Several models at once: their mean, and how far they are from each other (model deviation).

The numbers are those of DeePMD-kit's ``dp model-devi`` (Y. Zhang et al., Comput. Phys. Commun. 253, 107206
(2020)): standard deviations over the models, of each atom's force and of the virial per atom.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)

from .base.files import whole_file
from .batch import evaluate, listed
from .calculator import DPA2Calculator
from .engine import Engine
from .labels import labels_of

Model = str | os.PathLike | Engine | DPA2Calculator

#: The columns of a table of deviations, in the order of DeePMD-kit's.
DEVIATIONS = tuple(f"{kind}_devi_{of}" for of in "vf" for kind in ("max", "min", "avg")) + (
    "devi_e",
)


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
        self.parameters = {"models": [model.todict() for model in self.models]}

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
        self.results = combine([model.results_for(self.atoms) for model in self.models])

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
    relative: float | None = None,
    relative_v: float | None = None,
    real_error: bool = False,
    report: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Means and deviations of several models for many structures, as `ModelDeviation` has in its results.

    Parameters
    ----------
    models, precision, threads
        As of `ModelDeviation`; each model is loaded once, after the one before is done.
    structures
        Any number of `ase.Atoms`; a single one is a list of one.
    relative, relative_v
        Levels (eV/angstrom, eV) for relative deviations: an atom's is divided by the size of its mean force
        plus the level, a virial's by the norm of the mean virial per atom plus the level.
    real_error
        Root mean square errors against the labels of the structures (energy, forces and stress of their
        calculators) in place of deviations; one model is enough. nan where a label is missing.
    report
        Called after each batch with the number of evaluations that are done, models times structures in all.

    Returns
    -------
    list of dict
        In the order of `structures`.

    Raises
    ------
    ValueError
        For fewer than two models, a level that is not positive, and as `evaluate`.
    TypeError
        For a name that is not in a list, and as `evaluate`.
    """
    models, structures = _several(models, 1 if real_error else 2), listed(structures)
    for name, level in (("relative", relative), ("relative_v", relative_v)):
        if level is not None and not 0 < level < float("inf"):
            raise ValueError(f"The level {name} is {level}; give a positive number.")
    found = []
    for k, model in enumerate(models):
        before = k * len(structures)
        shown = (lambda done, before=before: report(before + done)) if report else None
        found.append(
            evaluate(model, structures, precision=precision, threads=threads, report=shown)
        )
    truths = [_truth(atoms) if real_error else None for atoms in structures]
    return [
        combine(entries, relative, relative_v, truth)
        for *entries, truth in zip(*found, truths, strict=True)
    ]


def _several(models: Sequence[Model], least: int = 2) -> list[Model]:
    """The models as a list; a name alone would be taken apart into characters."""
    if isinstance(models, str | os.PathLike | Engine | DPA2Calculator):
        raise TypeError("A deviation needs two models or more, in a list; a single one was given.")
    found = list(models)
    if len(found) < least:
        raise ValueError(f"A deviation needs two models or more; {len(found)} were given.")
    return found


def combine(
    results: Sequence[dict[str, Any]],
    relative: float | None = None,
    relative_v: float | None = None,
    truth: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Means and deviations of what `evaluate` gave for one structure with each model.

    `relative` and `relative_v` are as in `model_deviation`. `truth` has `energy`, `forces` and `virial` from
    which deviations are counted; None: from the means.
    """
    n = len(results[0]["forces"])
    names = [name for name in results[0] if all(name in r for r in results)]
    out: dict[str, Any] = {name: np.mean([r[name] for r in results], axis=0) for name in names}
    out["energy"], out["free_energy"] = float(out["energy"]), float(out["free_energy"])
    centre = out if truth is None else truth
    energy, forces, virials = (
        np.sqrt(np.mean([(r[name] - centre[name]) ** 2 for r in results], axis=0))
        for name in ("energy", "forces", "virial")
    )
    force, virial = np.linalg.norm(forces, axis=-1), virials / n
    if relative is not None:
        force /= np.linalg.norm(centre["forces"], axis=-1) + relative
    if relative_v is not None:
        virial /= np.linalg.norm(centre["virial"]) / n + relative_v
    del out["virial"]
    out |= {
        "devi_e": float(energy) / n,
        "max_devi_f": float(force.max()),
        "min_devi_f": float(force.min()),
        "avg_devi_f": float(force.mean()),
        "devi_f": force,
        "max_devi_v": float(virial.max()),
        "min_devi_v": float(virial.min()),
        "avg_devi_v": float(np.sqrt(np.mean(virial**2))),
    }
    return out


def _truth(atoms: Atoms) -> dict[str, Any]:
    """Energy (eV), forces (eV/angstrom) and virial (eV) that a structure brought along; nan where it has none."""
    found = labels_of(atoms)
    missing = np.full((len(atoms), 3), np.nan)
    return {
        "energy": np.nan if found.energy is None else found.energy,
        "forces": missing if found.forces is None else found.forces,
        "virial": np.full((3, 3), np.nan)
        if found.stress is None
        else -found.stress * atoms.get_volume(),
    }


def write_deviations(
    path: str | os.PathLike,
    systems: Mapping[str, Sequence[dict[str, Any]]],
    *,
    frequency: int = 1,
    atomic: bool = False,
) -> None:
    """Write the table that DeePMD-kit's ``dp model-devi`` writes, and that DP-GEN reads.

    Parameters
    ----------
    path
        The file to make. It appears under this name only when it is complete.
    systems
        What `model_deviation` gave, by the name that stands above each table.
    frequency
        The steps of the trajectory between two structures: the first column is a multiple of it.
    atomic
        Add a column for each atom's deviation of the force.

    Raises
    ------
    ValueError
        For `atomic` with structures of different sizes in one table.
    OSError
        When the file can't be written.
    """
    for name, found in systems.items():
        if atomic:
            check_one_size(name, (len(entry["devi_f"]) for entry in found))
    heads = [*DEVIATIONS, *(["atm_devi_f(N)"] if atomic else [])]
    with whole_file(path) as temporary, open(temporary, "w", newline="\n") as file:
        for name, found in systems.items():
            titles = "".join(f"{head:19s}" for head in heads)
            file.write(f"# {name}\n# {'step':10s}{titles}\n")
            for k, entry in enumerate(found):
                row = [entry[head] for head in DEVIATIONS]
                row += entry["devi_f"].tolist() if atomic else []
                file.write(f"{k * frequency:12d}" + "".join(f"{v:19.6e}" for v in row) + "\n")


def check_one_size(name: str, counts: Iterable[int]) -> None:
    """Raise `ValueError` unless all structures of a table have the same number of atoms."""
    if len(set(counts)) > 1:
        raise ValueError(
            f"{name}: a column for each atom needs structures of one size; leave out --atomic."
        )
