"""What a run starts from: structures, the model and the programs, read and checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from ..bench import replicated
from ..comparison import labelled
from ..conversion import list_heads, load_records, trained_elements
from ..errors import InputError, ModelError
from ..reading import read_structures
from ..shipped import SHIPPED, model_file
from ..structures import equilibrated_water
from ..train.finetuning import pretrained_section
from ..train.preparation import Start
from .labellers import CalculatorLabeller, is_factory
from .settings import Settings
from .students import check_student
from .trainers import TRAINERS

_LIGHT, _TIMESTEP, _TIMESTEP_OF_HYDROGEN = "H", 1.0, 0.5  # fs


@dataclass(frozen=True)
class Inputs:
    """What was read.

    Attributes
    ----------
    structures
        To start from, repeated to the size that is asked for.
    elements
        Of all structures, in the model's order.
    timestep
        fs.
    pretrained
        The model section that is fine-tuned; None: a student is made.
    warnings
        What a user should know, as sentences.
    """

    structures: tuple[Atoms, ...]
    elements: tuple[str, ...]
    timestep: float
    pretrained: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)


def read_inputs(settings: Settings) -> Inputs:
    """Read and check everything that settings name.

    Raises
    ------
    InputError, ModelError, RunError
        When something can't be used; one sentence that names the key or the file.
    OSError
        When a file can't be read.
    """
    structures = _structures(settings)
    records = _records(settings)
    known = str(records["model.elements"]).split("\n")
    present = {symbol for atoms in structures for symbol in atoms.symbols}
    if missing := sorted(present - set(known)):
        raise InputError(
            f"{settings.model}: the model doesn't know {', '.join(missing)}, which the structures "
            f"have; it knows {_few(known)}."
        )
    elements = tuple(name for name in known if name in present)
    warnings = _untrained(settings, elements, trained_elements(records))
    pretrained = None
    if settings.student is not None:
        check_student(settings.student, elements, f"{settings.source}: student")
    else:
        pretrained = pretrained_section(Start(finetune=settings.model, head=settings.head))
    _check_labelled(settings)
    if settings.label is not None and is_factory(settings.label.calculator):
        CalculatorLabeller(str(settings.label.calculator), settings.label.arguments)
    TRAINERS[settings.training.trainer].check(settings.training.ranks)
    timestep = settings.exploration.timestep
    if timestep is None:
        timestep = _TIMESTEP_OF_HYDROGEN if _LIGHT in present else _TIMESTEP
    return Inputs(structures, elements, timestep, pretrained, warnings)


def _structures(settings: Settings) -> tuple[Atoms, ...]:
    found: list[Atoms] = []
    for name in settings.exploration.structures:
        if name == SHIPPED:
            found.append(equilibrated_water())
        else:
            found += read_structures(name, -1)
    if settings.exploration.pressures:
        for k, atoms in enumerate(found):
            if atoms.cell.rank < 3:
                raise InputError(
                    f"{settings.source}: pressures need cells, and structure {k} has none; leave "
                    "out pressures, or give it a cell."
                )
    least = settings.exploration.min_atoms
    return tuple(replicated(atoms, least) if atoms.pbc.any() else atoms for atoms in found)


def _records(settings: Settings) -> dict[str, Any]:
    """Those of the model; a sentence where a head is missing."""
    path = model_file(settings.model)
    try:
        return dict(load_records(path, settings.head))
    except ModelError:
        heads = [] if settings.head else list_heads(path)
        if heads:
            raise InputError(
                f"{settings.source}: {path.name} has the heads {_few(heads)}; add head with one of "
                "them."
            ) from None
        raise


def _untrained(settings: Settings, elements: Sequence[str], trained: list[str] | None) -> list[str]:
    if trained is None or not (unseen := [name for name in elements if name not in trained]):
        return []
    name = Path(settings.model).name
    return [f"{name} never saw {', '.join(unseen)} in its training; its forces there mean nothing."]


def _check_labelled(settings: Settings) -> None:
    for name in (*settings.held_out, *settings.data):
        if not labelled(read_structures(name)):
            raise InputError(f"{name}: the frames have no labels; give energies and forces.")


def _few(names: Sequence[str]) -> str:
    text = " ".join(names)
    return text if len(text) <= 120 else text[:117] + "..."
