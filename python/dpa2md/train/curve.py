"""The learning curve, `lcurve.out`, as DeePMD-kit 3.2 writes it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from ..base.files import named_errors, whole_file
from ..errors import InputError

_NOTE = "# If there is no available reference data, rmse_*_{val,trn} will print nan\n"


@dataclass(frozen=True)
class TaskErrors:
    """The deviations of a task by name, as rmse_e; all in the same names."""

    name: str
    training: Mapping[str, float]
    validation: Mapping[str, float] | None  #: None: there are no such data


@dataclass(frozen=True)
class Row:
    """A line of the curve."""

    step: int
    tasks: tuple[TaskErrors, ...]
    rate: float  #: the learning rate

    def columns(self, multi_task: bool) -> dict[str, float]:
        """The values by the names of their columns, but for step and lr."""
        out = {}
        for task in self.tasks:
            end = f"_{task.name}" if multi_task else ""
            for name in sorted(task.training):
                if task.validation is not None:
                    out[f"{name}_val{end}"] = task.validation.get(name, math.nan)
                out[f"{name}_trn{end}"] = task.training[name]
        return out


class Curve:
    """The file, written line by line.

    Parameters
    ----------
    path
        The file.
    multi_task
        Whether the columns have the tasks' names.
    after
        Of a training that goes on: the step behind which lines are cut off; None: a new file.

    Raises
    ------
    OSError
        When the file can't be read or written.
    """

    def __init__(self, path: str | os.PathLike, multi_task: bool, after: int | None = None):
        self.path = Path(path)
        self._multi_task = multi_task
        kept = [] if after is None or not self.path.exists() else _until(self.path, after)
        self._has_header = bool(kept)
        with whole_file(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        self._file: TextIO = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, row: Row) -> None:
        """Add a line."""
        values = row.columns(self._multi_task)
        groups = [task.validation is not None for task in row.tasks for _ in task.training]
        text = ""
        if not self._has_header:
            text = f"# {'step':5s}{_join(list(values), groups)}   {'lr':8s}\n{_NOTE}"
            self._has_header = True
        numbers = [f"{value:.2e}" for value in values.values()]
        text += f"{row.step:7d}{_join(numbers, groups)}   {row.rate:8.1e}\n"
        with named_errors(self.path):
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _join(cells: Sequence[str], pairs: Sequence[bool]) -> str:
    """Cells of 11 characters: those of validation and training stand nearer to each other."""
    out, rest = "", iter(cells)
    for has_validation in pairs:
        out += f"   {next(rest):>11}"
        if has_validation:
            out += f" {next(rest):>11}"
    return out


def _until(path: Path, last: int) -> list[str]:
    """The lines of a curve up to a step, without one that was cut short."""
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        words = line.split()
        if (
            line.startswith("#")
            and not any(not k.startswith("#") for k in kept)
            or line.endswith("\n")
            and words
            and words[0].isdecimal()
            and int(words[0]) <= last
        ):
            kept.append(line)
    return kept


def read_curve(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The columns of a curve by their names, (rows,); of equal steps the last one counts.

    Raises
    ------
    InputError
        When the file is no learning curve.
    OSError
        When it can't be read.
    """
    names: list[str] = []
    rows: dict[float, list[float]] = {}
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words[:2] == ["#", "step"]:
            names = words[1:]
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            continue
        if names and len(row) == len(names):
            rows[row[0]] = row
    if not rows:
        raise InputError(f"{path}: this is no learning curve of DeePMD-kit's form.")
    table = np.array(list(rows.values()))
    return {name: table[:, k] for k, name in enumerate(names)}
