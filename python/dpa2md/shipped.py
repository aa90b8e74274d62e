"""The models that come with the package, and what the name of a model means."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import RunError

SHIPPED = "water"  # the name of a model, and of a structure, that come with the package
UNIVERSAL = "universal"  # the name of a pretrained model with several heads
MODEL_SUFFIXES = {".dpa2", ".pt", ".pth", ".pt2", ".dp", ".pb"}
_FOLDER = Path(__file__).parent / "models"
DEFAULT_MODEL = _FOLDER / "water.dpa2"
_FILES = {SHIPPED: DEFAULT_MODEL, UNIVERSAL: _FOLDER / "universal.pt"}


def model_file(name: str | os.PathLike) -> Path:
    """The file that a model's name means: itself, or a shipped model where there is no such file."""
    path = Path(name)
    return path if path.exists() else _FILES.get(os.fspath(name), path)


def model_path(name: str) -> Path:
    """As `model_file`, for names that a person gives.

    Raises
    ------
    RunError
        When there is no such file, or it is a structure.
    """
    path = model_file(name)
    if path.exists():
        if path.suffix.lower() not in MODEL_SUFFIXES and _is_named_as_structure(path):
            raise RunError(
                f"{path}: this is a structure; give the model first, then the structure."
            )
        return path
    raise RunError(f'{path}: there is no such model; give a file, "{SHIPPED}" or "{UNIVERSAL}".')


@dataclass(frozen=True)
class UniversalHead:
    """A head of the model "universal", and how far it is to be trusted.

    Attributes
    ----------
    elements
        Those of its training data.
    force_errors
        Root mean square errors of held-out frames, eV/angstrom, by the name of the data set.
    """

    name: str
    elements: tuple[str, ...]
    force_errors: dict[str, float]

    def trust(self) -> str:
        """One sentence."""
        errors = ", ".join(f"{name} {error:.2f}" for name, error in self.force_errors.items())
        return (
            f'"{UNIVERSAL}", head {self.name}, is a start for dpa2md finetune: forces of held-out '
            f"frames are off by {errors} eV/angstrom, and pressures mean nothing."
        )


def is_universal(name: str | os.PathLike) -> bool:
    """Whether a model's name means the shipped model with several heads."""
    return model_file(name) == _FILES[UNIVERSAL]


def universal_heads() -> list[UniversalHead]:
    """All heads, as `benchmarks/matter/universal.py` measured them."""
    heads = json.loads((_FOLDER / "universal.json").read_text(encoding="utf-8"))
    return [
        UniversalHead(
            name,
            tuple(head["elements"]),
            {data: errors["force"] for data, errors in head["held out"].items()},
        )
        for name, head in heads.items()
    ]


def universal_head(elements: Iterable[str]) -> UniversalHead:
    """The head for a structure with these elements: of those that saw them all, the one with the fewest.

    Raises
    ------
    RunError
        When no head saw them together.
    """
    present, heads = sorted(set(elements)), universal_heads()
    able = [head for head in heads if set(present) <= set(head.elements)]
    if not able:
        known = "; ".join(f"{head.name}: {', '.join(head.elements)}" for head in heads)
        raise RunError(
            f'"{UNIVERSAL}" never saw {", ".join(present)} together ({known}); fine-tune it, or '
            "give another model."
        )
    return min(able, key=lambda head: len(head.elements))


def _is_named_as_structure(path: Path) -> bool:
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        return filetype(str(path), read=False) in ioformats
    except UnknownFileTypeError:
        return False
