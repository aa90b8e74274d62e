"""What the jobs of a round left: counts, errors, and how their runs ended."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..labels import labels_of
from ..reading import read_structures
from .stages import ERRORS, FRAMES

_AT_ONCE = 0.1  # of the steps: a run that ends before has hardly begun


@dataclass(frozen=True)
class Errors:
    """Root mean square errors of a model over labelled frames; None where there are no labels."""

    force: float | None  #: eV/angstrom
    energy: float | None  #: eV/atom


@dataclass(frozen=True)
class Runs:
    """Molecular dynamics runs of a stage."""

    count: int
    early: int  #: that ended before their last step
    at_once: int  #: of these, that had hardly begun
    reasons: tuple[str, ...]  #: why those ended early

    @property
    def hopeless(self) -> bool:
        """Whether all ended at once."""
        return self.count > 0 and self.at_once == self.count


def runs_of(folders: Iterable[Path], steps: int) -> Runs:
    """How the runs in these folders ended, of which each should have made so many steps."""
    notes = [read_json((folder / FRAMES).with_suffix(".json")) for folder in folders]
    notes = [note for note in notes if "steps" in note]
    early = [note for note in notes if note["reason"]]
    return Runs(
        len(notes),
        len(early),
        sum(note["steps"] < _AT_ONCE * steps for note in early),
        tuple(note["reason"] for note in early),
    )


def errors_of(folders: Sequence[Path]) -> Errors:
    """The errors over the frames of all these folders together."""
    found = [read_json(folder / ERRORS)["errors"] for folder in folders]
    return Errors(_rms(found, "force"), _rms(found, "energy"))


def spread_of(files: Iterable[Path]) -> float:
    """The root mean square of the forces in files of labelled frames, eV/angstrom."""
    total = count = 0.0
    for path in files:
        for atoms in read_structures(path):
            forces = labels_of(atoms).forces
            if forces is not None:
                total, count = total + float((forces**2).sum()), count + forces.size
    return math.sqrt(total / count) if count else math.inf


def _rms(tables: Sequence[Sequence[dict[str, Any]]], quantity: str) -> float | None:
    rows = [row for table in tables for row in table if row["quantity"] == quantity]
    if not rows:
        return None
    if any(row["RMSE"] is None for row in rows):
        return math.inf  # JSON has no infinity and no nan
    values = sum(row["values"] for row in rows)
    return math.sqrt(sum(row["values"] * row["RMSE"] ** 2 for row in rows) / values)


def read_json(path: Path) -> dict[str, Any]:
    """A table that a job wrote.

    Raises
    ------
    RunError
        When it isn't there or is damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        raise RunError(
            f"{path}: this file is missing or damaged; remove done.json beside it, and the job runs "
            "again."
        ) from None
