"""Many structures at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms

from .dispersion import Dispersion
from .engine import Engine
from .results import as_ase


@runtime_checkable
class WithEngine(Protocol):
    """An engine and what belongs to it, as a `DPA2Calculator` has them."""

    engine: Engine
    dispersion: Dispersion | None
    fparam: Any
    aparam: Any


def evaluate(
    model: str | os.PathLike | Engine | WithEngine,
    structures: Iterable[Atoms] | Atoms,
    *,
    forces: bool = True,
    fparam: Sequence | None = None,
    aparam: Sequence | None = None,
    precision: str | None = None,
    threads: int | None = None,
    head: str | None = None,
    batch_atoms: int = 2000,
    report: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Evaluate many structures, several at a time.

    Parameters
    ----------
    model
        A model file, or an `Engine` or `DPA2Calculator` that is already loaded; `precision`,
        `threads` and `head` are for a file. The D3 dispersion of a calculator is added.
    structures
        Any number of `ase.Atoms`; their sizes, cells and elements may differ. A single one is a list of one.
    forces
        False: only energies, at about a third of the cost.
    fparam, aparam
        One entry per structure, for models with frame or atomic parameters; None:
        ``atoms.info["fparam"]`` and ``atoms.arrays["aparam"]``, where every structure has them.
    batch_atoms
        So many atoms, or a little more, are evaluated at once; it bounds the memory.
    report
        Called after each batch with the number of structures that are done.

    Returns
    -------
    list of dict
        In the order of `structures`: `energy` (eV), `free_energy`, `energies` (n,), and with forces
        `forces` (n, 3) (eV/angstrom), `virial` (3, 3) (eV, -dE/dstrain), and where there is a full
        cell `stress` (6,) and `stresses` (n, 6) (eV/angstrom^3, ASE's order and sign).

    Raises
    ------
    ModelError
        When the model file is damaged or not supported.
    ValueError
        For a structure that can't be evaluated, which is named by its number: an unknown element, atoms on
        top of each other or nowhere, a cell without volume, parameters of the wrong shape.
    TypeError
        For something that is no structure, as a file's name.
    """
    structures = listed(structures)
    engine = _engine(model, precision, threads, head)
    dispersion = model.dispersion if isinstance(model, WithEngine) else None
    fparam, aparam = _extra_parameters(model, engine, structures, fparam, aparam)
    results: list[dict[str, Any]] = []
    for part in _batches(structures, batch_atoms):
        chosen = structures[part]
        frame, atom = (None if p is None else p[part] for p in (fparam, aparam))
        number = part.start if len(structures) > 1 else None
        # skin 0: no step follows that could use the neighbour list again
        found = engine.compute_atoms(
            chosen, fparam=frame, aparam=atom, forces=forces, skin=0.0, number=number
        )
        for atoms, result in zip(chosen, found, strict=True):
            entry = as_ase(result, atoms)
            if forces:
                entry["virial"] = result.virial
            results.append(entry)
        if dispersion is not None:
            results[part] = [
                _add(dispersion, result, atoms, k)
                for k, (result, atoms) in enumerate(
                    zip(results[part], chosen, strict=True), part.start
                )
            ]
        if report:
            report(len(results))
    return results


def listed(structures: Iterable[Atoms] | Atoms) -> list[Atoms]:
    """Structures as a list; iterating over a single one would give its atoms.

    Raises
    ------
    TypeError
        For anything that is no `ase.Atoms`.
    """
    if isinstance(structures, Atoms):
        return [structures]
    if isinstance(structures, str | os.PathLike):
        raise TypeError(
            f"{structures} is a name, not a structure: read it first, with ase.io.read."
        )
    found = list(structures)
    for k, atoms in enumerate(found):
        if not isinstance(atoms, Atoms):
            raise TypeError(f"structure {k} is a {type(atoms).__name__}; give ase.Atoms.")
    return found


def _add(
    dispersion: Dispersion, result: dict[str, Any], atoms: Atoms, number: int
) -> dict[str, Any]:
    try:
        return dispersion.add(result, atoms)
    except ValueError as error:
        raise ValueError(f"structure {number}: {error}") from None


def descriptors(
    model: str | os.PathLike | Engine | WithEngine,
    structures: Iterable[Atoms],
    *,
    precision: str | None = None,
    threads: int | None = None,
    head: str | None = None,
    batch_atoms: int = 2000,
    report: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """The descriptors of many structures, several at a time.

    Parameters
    ----------
    model, structures, precision, threads, head, batch_atoms, report
        As of `evaluate`.

    Returns
    -------
    list of ndarray
        In the order of `structures`, each (n, dim), see `Engine.descriptor`.

    Raises
    ------
    ModelError, ValueError
        As `evaluate`.
    """
    structures = list(structures)
    engine = _engine(model, precision, threads, head)
    found: list[np.ndarray] = []
    for part in _batches(structures, batch_atoms):
        number = part.start if len(structures) > 1 else None
        found += engine.descriptors(structures[part], skin=0.0, number=number)
        if report:
            report(len(found))
    return found


def _engine(
    model: str | os.PathLike | Engine | WithEngine,
    precision: str | None,
    threads: int | None,
    head: str | None,
) -> Engine:
    if isinstance(model, WithEngine):
        return model.engine
    return model if isinstance(model, Engine) else Engine(model, precision, threads, head=head)


def _extra_parameters(
    model: Any,
    engine: Engine,
    structures: Sequence[Atoms],
    fparam: Sequence | None,
    aparam: Sequence | None,
) -> tuple[Sequence | None, Sequence | None]:
    """One entry per structure: given, or of the calculator, or else what the structures bring along."""
    if isinstance(model, WithEngine):
        if fparam is None and model.fparam is not None:
            fparam = [model.fparam] * len(structures)
        if aparam is None and model.aparam is not None:
            aparam = [model.aparam] * len(structures)
    for name, values in (("fparam", fparam), ("aparam", aparam)):
        if values is not None and len(values) != len(structures):
            raise ValueError(
                f"{name} has {len(values)} entries for {len(structures)} structures; give one each."
            )
    if fparam is None and engine.nfparam:
        fparam = _attached([atoms.info.get("fparam") for atoms in structures])
    if aparam is None and engine.naparam:
        aparam = _attached([atoms.arrays.get("aparam") for atoms in structures])
    return fparam, aparam


def _attached(values: list[Any]) -> list[Any] | None:
    """What the structures bring along, or None, for which the engine takes defaults or complains."""
    return None if any(value is None for value in values) else values


def _batches(structures: Sequence[Atoms], batch_atoms: int) -> Iterator[slice]:
    first = atoms = 0
    for last, structure in enumerate(structures, start=1):
        atoms += len(structure)
        if atoms >= batch_atoms or last == len(structures):
            yield slice(first, last)
            first, atoms = last, 0
