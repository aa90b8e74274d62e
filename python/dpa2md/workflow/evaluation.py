"""Many frames, read one after the other; some of them a model can't compute."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from ase.io import iread

from ..batch import WithEngine, evaluate
from ..conversion import load_records, trained_elements
from ..engine import Engine
from ..errors import RunError
from ..labels import drop_labels
from ..reading import STANDARD_INPUT, read_structures

T = TypeVar("T")
CHUNK = 200  # frames that are in memory at once


def frames_of(names: Sequence[str]) -> Iterator[Atoms]:
    """The frames of several files, without labels and velocities, read as they are asked for.

    Files of extended XYZ are never in memory as a whole; any other one is.

    Raises
    ------
    RunError
        When a file can't be read, or there are no frames in it.
    """
    for name in names:
        if name == STANDARD_INPUT:
            raise RunError("Frames are read several times here: name a file, not standard input.")
        for atoms in _frames(name):
            drop_labels(atoms)
            atoms.arrays.pop("momenta", None)
            yield atoms


def _frames(name: str) -> Iterator[Atoms]:
    if not name.endswith(".extxyz") or not Path(name).is_file():
        yield from read_structures(name)
        return
    count = 0
    try:
        for atoms in iread(name, do_not_split_by_at_sign=True):
            yield atoms
            count += 1
    except Exception as error:  # noqa: BLE001 - ASE's readers raise anything
        raise RunError(f"{name}: frame {count} can't be read ({error}).") from None
    if not count:
        raise RunError(f"{name}: the file holds no atoms.")


def chunks(things: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The things, such as frames, in lists of at most `size`."""
    rest = iter(things)
    while part := list(islice(rest, size)):
        yield part


def evaluate_each(
    model: Engine | WithEngine, frames: Sequence[Atoms]
) -> list[dict[str, Any] | str]:
    """Results as of `dpa2md.batch.evaluate`, or why a frame can't be computed.

    Results that are not finite count as not computed.
    """
    try:
        found: list[dict[str, Any] | str] = list(evaluate(model, frames))
    except ValueError:
        found = [_evaluated(model, atoms) for atoms in frames]
    return [
        "energy and forces are not finite" if isinstance(r, dict) and not is_finite(r) else r
        for r in found
    ]


def _evaluated(model: Engine | WithEngine, atoms: Atoms) -> dict[str, Any] | str:
    try:
        return evaluate(model, atoms)[0]
    except ValueError as error:
        return str(error).rstrip(". ")


def is_finite(results: dict[str, Any]) -> bool:
    """Whether energy and forces, and the stress where there is one, are finite numbers."""
    return all(
        np.isfinite(results[name]).all()
        for name in ("energy", "forces", "stress")
        if name in results
    )


def check_elements(engine: Engine, elements: Iterable[str]) -> None:
    """Refuse elements that a model doesn't have; warn of those that its training data hadn't.

    Raises
    ------
    ValueError
        For an element that the model doesn't know.
    """
    present = sorted(set(elements))
    engine.types(present)
    trained = trained_elements(load_records(engine.path, engine.settings["head"]))
    unseen = [name for name in present if trained is not None and name not in trained]
    if unseen:
        warnings.warn(
            f"{Path(engine.path).name} was never trained on {' '.join(unseen)}: its forces there "
            "mean nothing; take another model, or other structures.",
            UserWarning,
            stacklevel=2,
        )
