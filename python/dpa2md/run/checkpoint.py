"""The complete state of a run in one file, so that a continued run repeats an unbroken one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics

from ..base.files import whole_file
from ..errors import RunError
from ..integrators import parts_of

_FORMAT = 1


def save_checkpoint(
    path: Path,
    atoms: Atoms,
    dynamics: MolecularDynamics,
    rng: np.random.Generator,
    facts: dict[str, Any],
) -> None:
    """Write the state of a run, so that it can be continued to the very same trajectory.

    Parameters
    ----------
    path
        The .npz file to write; it appears under its name only when it is complete.
    atoms, dynamics, rng
        Whose state is kept: positions, momenta and cell, thermostat and barostat, random numbers.
    facts
        Anything that JSON can hold; `load_checkpoint` gives it back.

    Raises
    ------
    OSError
        When the file can't be written.
    """
    arrays = {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "momenta": atoms.get_momenta(),
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "facts": json.dumps(facts | {"format": _FORMAT, "rng": rng.bit_generator.state}),
    }
    for part, name, value in _numbers(dynamics):
        arrays[f"dynamics/{part}/{name}"] = value
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the facts of a checkpoint; nothing in the file is run.

    Raises
    ------
    RunError
        When the file is damaged or of another version.
    OSError
        When the file can't be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(str(arrays.pop("facts")))
        known = facts["format"] == _FORMAT
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile):
        raise RunError(
            f"{path}: this is not a checkpoint, or it is damaged; start again."
        ) from None
    if not known:
        raise RunError(f"{path}: the checkpoint is of another version of dpa2md; start again.")
    return arrays, facts


def restore_atoms(path: Path, atoms: Atoms, arrays: dict[str, np.ndarray]) -> None:
    """Put positions, momenta and cell into `atoms`, which must be the same ones.

    Parameters
    ----------
    path
        Where `arrays` come from, for the message.
    atoms
        Changed in place.
    arrays
        From `load_checkpoint`.

    Raises
    ------
    RunError
        When the checkpoint has other atoms.
    """
    if not np.array_equal(atoms.numbers, arrays["numbers"]):
        raise RunError(f"{path}: the checkpoint has other atoms than the structure; start again.")
    atoms.set_cell(arrays["cell"])
    atoms.pbc = arrays["pbc"]
    atoms.set_positions(arrays["positions"], apply_constraint=False)
    atoms.set_momenta(arrays["momenta"], apply_constraint=False)


def restore_dynamics(
    path: Path,
    dynamics: MolecularDynamics,
    rng: np.random.Generator,
    arrays: dict[str, np.ndarray],
    facts: dict[str, Any],
) -> None:
    """Put thermostat, barostat and random numbers where they were.

    Parameters
    ----------
    path
        Where `arrays` and `facts` come from, for the message.
    dynamics, rng
        Changed in place.
    arrays, facts
        From `load_checkpoint`.

    Raises
    ------
    RunError
        When the checkpoint is of another version of ASE.
    """
    rng.bit_generator.state = facts["rng"]
    parts = parts_of(dynamics)
    for key, value in arrays.items():
        if not key.startswith("dynamics/"):
            continue
        _, part, name = key.split("/")
        if part not in parts:
            raise RunError(f"{path}: the checkpoint is of another version of ASE; start again.")
        vars(parts[part])[name] = value if value.ndim else float(value)


def _numbers(dynamics: MolecularDynamics) -> list[tuple[str, str, Any]]:
    """Every number and array of an integrator: a superset of its state, in any version of ASE."""
    return [
        (part, name, value)
        for part, holder in parts_of(dynamics).items()
        for name, value in vars(holder).items()
        if isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype == float)
    ]
