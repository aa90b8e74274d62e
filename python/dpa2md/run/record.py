"""A file beside a trajectory that tells how it was made, so that the run can be done again."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase import Atoms

from .._core import __version__
from ..base.files import whole_file
from ..dynamics import Settings
from ..errors import RunError


def describe_run(
    atoms: Atoms, settings: Settings, first_step: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that a run depends on, as JSON can hold it.

    Parameters
    ----------
    atoms
        With a calculator; of its model the file, its SHA-256 sum and what else was given are told.
    settings
        How it runs; those that are of no account are left out.
    first_step
        The step it goes on from.
    about
        What only the caller knows: the structure's file, options of a command line.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "from_step": first_step,
        **about,
        "atoms": atoms.get_chemical_formula(),
        "model": _model(atoms.calc),
        "settings": {
            k: v for k, v in dataclasses.asdict(settings).items() if k not in settings.idle()
        },
        "versions": {
            "dpa2md": __version__,
            "ase": ase.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _model(calculator: Any) -> dict[str, Any]:
    engine = getattr(calculator, "engine", None)
    if engine is None:
        return {"calculator": type(calculator).__name__, **calculator.parameters}
    told = ("model", "model_sha256", "dpa2md_version")
    return {
        "path": engine.path,
        "sha256": engine.checksum,
        "engine": calculator.description,
        **{k: v for k, v in calculator.todict().items() if k not in told},
    }


def load_record(path: Path) -> list[dict[str, Any]]:
    """The runs of a file that `save_record` wrote, none without a file.

    Raises
    ------
    RunError
        When it is another file.
    """
    if not path.exists():
        return []
    try:
        runs = json.loads(path.read_text())["runs"]
        if isinstance(runs, list):
            return runs
    except (KeyError, TypeError, ValueError):
        pass
    raise RunError(f"{path}: these are not the settings of a run, or damaged; move the file away.")


def save_record(path: Path, runs: list[dict[str, Any]]) -> None:
    """Write the runs that made a trajectory, the first one first; an `OSError` names the file."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps({"runs": runs}, indent=2, default=str) + "\n")
