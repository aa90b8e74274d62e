"""Model sections of students, and of how they are trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from ..train.data_checks import count_neighbors
from ..train.model_settings import auto_sels, read_model, with_counted_sels
from ..train.systems import System

_HEAD_ROOM = 1.25  # of neighbours: later rounds have denser frames than the first


def _dpa1(neuron: list[int], axis: int, fitting: list[int]) -> dict[str, Any]:
    """A DPA-1 model without attention, whose embedding nets can be looked up in tables."""
    return {
        "descriptor": {
            "type": "se_atten_v2",
            "rcut": 6.0,
            "rcut_smth": 0.5,
            "sel": f"auto:{_HEAD_ROOM}",
            "neuron": neuron,
            "axis_neuron": axis,
            "attn_layer": 0,
            "precision": "float32",
        },
        "fitting_net": {"neuron": fitting, "resnet_dt": True, "precision": "float32"},
    }


#: What `student` may be called in the settings.
STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "small": _dpa1([25, 50, 100], 12, [120, 120, 120]),
    "fast": _dpa1([10, 20, 40], 8, [60, 60, 60]),
}


def student_model(
    section: Mapping[str, Any], elements: Sequence[str], systems: Iterable[System], where: str
) -> dict[str, Any]:
    """A whole model section, with numbers of neighbours that are counted in the data.

    Parameters
    ----------
    section
        Without type_map; a `sel` or `nsel` may be ``"auto"`` or ``"auto:1.25"``, of which the number
        is the room for more neighbours.
    elements
        The type_map.
    systems
        Where neighbours are counted.
    where
        What the section is called in messages.

    Raises
    ------
    InputError
        When it can't be trained or computed.
    """
    model = deepcopy({"type_map": list(elements), **section})
    (complete,) = read_model(model, where).tasks.values()
    systems = list(systems)
    counted = with_counted_sels(complete, lambda rcut: count_neighbors(systems, rcut), where)
    for slot in auto_sels(complete, where):
        target, source = model["descriptor"], counted["descriptor"]
        for key in slot.path[:-1]:
            target, source = target[key], source[key]
        target[slot.path[-1]] = source[slot.path[-1]]
    return model


def check_student(section: Mapping[str, Any], elements: Sequence[str], where: str) -> None:
    """Refuse a section that can't be trained or computed, before there are data; raises as
    `student_model`."""
    read_model(deepcopy({"type_map": list(elements), **section}), where)
