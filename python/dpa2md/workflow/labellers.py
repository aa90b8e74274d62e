"""Where labels come from: a model, any calculator of ASE, a command; one frame after the other."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.geometry import find_mic
from ase.io import write

from ..base.files import whole_file
from ..base.interrupt import terminable
from ..calculator import DPA2Calculator
from ..errors import RunError
from ..labels import labels_of
from ..reading import read_structures
from .evaluation import evaluate_each, is_finite
from .explore import describe_model

Results = dict[str, Any]  # energy (eV), forces (n, 3) (eV/angstrom), perhaps stress (6,) or (3, 3)
_MOVED = 1e-3  # angstrom; what a program's own file of the structure may round away


class Labeller(Protocol):
    """A source of labels."""

    together: int  #: how many frames it is best given at once

    def describe(self) -> dict[str, Any]:
        """What its labels depend on, as JSON can hold it."""

    def label(self, frames: Sequence[Atoms], numbers: Sequence[int]) -> list[Results | str]:
        """The labels of each frame, or why there are none; `numbers` are those in their file."""


class ModelLabeller:
    """A model of this package, with its dispersion.

    Parameters
    ----------
    calculator
        The model.
    """

    together = 64

    def __init__(self, calculator: DPA2Calculator):
        self._calculator = calculator

    def describe(self) -> dict[str, Any]:
        """Name, checksum and precision."""
        return {"model": describe_model(self._calculator)}

    def label(self, frames: Sequence[Atoms], numbers: Sequence[int]) -> list[Results | str]:
        """Evaluate all frames together."""
        return evaluate_each(self._calculator, frames)


class CalculatorLabeller:
    """A calculator of ASE, made anew after a frame that failed.

    Parameters
    ----------
    name
        The function or class that makes it: ``ase.calculators.emt:EMT``, ``file.py:function``, or
        ``module:function`` of a module that can be imported or lies in the folder of the command.
    arguments
        By their names.

    Raises
    ------
    RunError
        When there is no such function, or it makes no calculator.
    """

    together = 1

    def __init__(self, name: str, arguments: Mapping[str, Any] | None = None):
        self._name, self._arguments = name, dict(arguments or {})
        self._factory = _factory(name)
        self._calculator = self._made()

    def describe(self) -> dict[str, Any]:
        """The function and its arguments."""
        return {"calculator": self._name, "arguments": self._arguments}

    def label(self, frames: Sequence[Atoms], numbers: Sequence[int]) -> list[Results | str]:
        """Ask for energy, forces, and for the stress where it is implemented."""
        return [self._one(atoms) for atoms in frames]

    def _one(self, atoms: Atoms) -> Results | str:
        try:
            return self._computed(atoms)
        except Exception as error:  # noqa: BLE001 - calculators raise anything
            self._calculator = self._made()
            return f"{type(error).__name__}: {_line(error)}"

    def _computed(self, atoms: Atoms) -> Results:
        asked = atoms.copy()
        asked.calc = self._calculator
        results: Results = {"energy": float(asked.get_potential_energy())}
        results["forces"] = np.array(asked.get_forces(apply_constraint=False))
        if asked.cell.rank == 3:
            try:
                results["stress"] = np.array(asked.get_stress(apply_constraint=False))
            except (PropertyNotImplementedError, NotImplementedError):
                pass
        return results

    def _made(self) -> Any:
        try:
            made = self._factory(**self._arguments)
        except Exception as error:  # noqa: BLE001
            raise RunError(
                f"{self._name} can't be called with its arguments ({_line(error)})."
            ) from None
        if not hasattr(made, "get_potential_energy"):
            raise RunError(f"{self._name} makes a {type(made).__name__}, no calculator of ASE.")
        return made


class CommandLabeller:
    """A command of the shell, run in a folder of each frame.

    It finds the structure in ``frame.extxyz`` and writes ``labelled.extxyz``, the same atoms in the
    same order with energy, forces and perhaps the stress; its output is in ``stdout``.

    Parameters
    ----------
    command
        For the shell.
    folder
        Where the folders ``frame-00000``, ... are made; they stay.
    timeout
        Seconds; a command that takes longer is killed with all it started.
    """

    together = 1

    def __init__(self, command: str, folder: Path, timeout: float | None = None):
        if timeout is not None and not timeout > 0:
            raise RunError(f"The timeout is {timeout}; give a positive number of seconds.")
        self._command, self._folder, self._timeout = command, folder, timeout

    def describe(self) -> dict[str, Any]:
        """The command."""
        return {"command": self._command}

    def label(self, frames: Sequence[Atoms], numbers: Sequence[int]) -> list[Results | str]:
        """Run the command for each frame."""
        return [self._one(a, n) for a, n in zip(frames, numbers, strict=True)]

    def _one(self, atoms: Atoms, number: int) -> Results | str:
        folder = self._folder / f"frame-{number:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / "labelled.extxyz"
        output.unlink(missing_ok=True)  # of an earlier attempt
        with whole_file(folder / "frame.extxyz") as temporary:
            write(temporary, atoms, format="extxyz")
        if reason := self._run(folder):
            return reason
        if not output.exists():
            return f"the command wrote no {output}"
        try:
            return _labels_of_file(output, atoms)
        except RunError as error:
            return str(error).rstrip(". ")

    def _run(self, folder: Path) -> str | None:
        """Run it; what went wrong, or None."""
        with terminable(), open(folder / "stdout", "wb") as log:
            process = subprocess.Popen(
                self._command, shell=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                status = process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                return f"it took longer than {self._timeout:g} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status:
            last = (folder / "stdout").read_text(errors="replace").strip().splitlines()[-1:]
            return f"exit status {status}" + "".join(f": {line[:200]}" for line in last)
        return None


def labeller_of(
    name: str | None,
    arguments: Mapping[str, Any] | None,
    command: str | None,
    model: Callable[[str], DPA2Calculator],
    folder: Path,
    timeout: float | None = None,
) -> Labeller:
    """The source of labels that a person names.

    Parameters
    ----------
    name
        A model's file, or ``module:function``.
    arguments
        Of the function.
    command
        A command in place of both.
    model
        Loads the model of a name.
    folder, timeout
        As of `CommandLabeller`.

    Raises
    ------
    RunError
        When several or none are named, or there is no such thing.
    """
    if (name is None) == (command is None):
        raise RunError("Labels need one source: a model, module:function, or --command.")
    if arguments is not None and not is_factory(name):
        raise RunError("--arguments are those of module:function: leave them out.")
    if timeout is not None and command is None:
        raise RunError("--timeout is for a --command: leave it out.")
    if command is not None:
        return CommandLabeller(command, folder, timeout)
    assert name is not None
    if is_factory(name):
        return CalculatorLabeller(name, arguments)
    return ModelLabeller(model(name))


def is_factory(name: str | None) -> bool:
    """Whether a name is that of a function that makes a calculator, not that of a model's file."""
    return name is not None and ":" in name and not Path(name).exists()


def _factory(name: str) -> Callable[..., Any]:
    where, _, function = name.rpartition(":")
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(where).stem, where)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())
            module = importlib.import_module(where)
    except Exception as error:  # noqa: BLE001 - a module may raise anything
        raise RunError(f"{where}: this module can't be imported ({_line(error)}).") from None
    found = getattr(module, function, None)
    if not callable(found):
        raise RunError(f"{where}: there is no function {function!r} in this module.")
    return found


def _labels_of_file(path: Path, atoms: Atoms) -> Results:
    """What a program wrote about a frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what looks like a label and is none
        found = read_structures(path, -1)[0]
    if found.get_chemical_symbols() != atoms.get_chemical_symbols():
        raise RunError(f"{path}: the atoms are not those of frame.extxyz in their order.")
    shift = find_mic(found.positions - atoms.positions, atoms.cell, atoms.pbc)[1]
    if not shift.max() <= _MOVED or np.abs(found.cell.array - atoms.cell.array).max() > _MOVED:
        raise RunError(f"{path}: the atoms or the cell are not where frame.extxyz has them.")
    labels = labels_of(found)
    if labels.energy is None or labels.forces is None:
        raise RunError(f"{path}: there is no energy, or there are no forces.")
    stress = {} if labels.stress is None else {"stress": labels.stress}
    return {"energy": labels.energy, "forces": labels.forces, **stress}


def checked(results: Results | str) -> Results | str:
    """Labels that are finite numbers, or why they are none."""
    if isinstance(results, dict) and not is_finite(results):
        return "energy, forces or stress are not finite"
    return results


def _line(error: Exception) -> str:
    """An exception's first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
