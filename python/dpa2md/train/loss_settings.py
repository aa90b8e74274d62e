"""The loss section of a training's input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .loss import EnergyLoss, Prefactor
from .penalty import ABSOLUTE, SQUARED, Huber, Penalty
from .sections import Key, fill, shown, table


def _number(default: float) -> Key:
    return Key("number", default, least=0.0)


_KEYS = {
    "type": Key(
        "text", "ener", only=("ener",),
        remedy="dpa2md trains energies, forces and virials: set it to ener",
    ),
    "start_pref_e": _number(0.02),
    "limit_pref_e": _number(1.0),
    "start_pref_f": _number(1000.0),
    "limit_pref_f": _number(1.0),
    **{
        f"{end}_pref_{name}": _number(0.0)
        for name in ("v", "ae", "h", "pf", "gf")
        for end in ("start", "limit")
    },
    "loss_func": Key(
        "text", "mse", only=("mse", "mae"), remedy="dpa2md has mse and mae: set it to mse"
    ),
    "use_huber": Key("true or false", False),
    "huber_delta": Key("number | list", 0.01, least=0.0),
    "f_use_norm": Key("true or false", False),
    "intensive_ener_virial": Key("true or false", False),
    # not supported
    "relative_f": Key(
        "null", None, only=(None,),
        remedy="dpa2md has no relative deviations of forces; leave it out",
    ),
    "enable_atom_ener_coeff": Key(
        "true or false", False, only=(False,),
        remedy="the energy is the plain sum of the atoms' energies; leave it out",
    ),
    # of terms that are not supported
    "use_default_pf": Key("true or false", False),
    "numb_generalized_coord": Key("integer", 0),
}  # fmt: skip
_REFUSED = {
    "h": "Hessians",
    "pf": "forces with a prefactor for each atom",
    "gf": "generalized forces",
}


def read_loss(section: Mapping[str, Any], where: str) -> EnergyLoss:
    """The loss that a section of an input describes.

    Parameters
    ----------
    section
        The section as it was written, without comments.
    where
        What the section is called in messages, as in ``input.json: loss``.

    Raises
    ------
    InputError
        For a key that is unknown, or a value that is not supported; one sentence.
    """
    keys = fill(table(section, where), _KEYS, where)
    prefactors = {
        name: Prefactor(float(keys[f"start_pref_{name}"]), float(keys[f"limit_pref_{name}"]))
        for name in ("e", "f", "v", "ae", *_REFUSED)
    }
    for name, what in _REFUSED.items():
        # DeePMD-kit has a Hessian term with either prefactor, the others with both
        given = prefactors[name]
        if given.active or (name == "h" and given != Prefactor()):
            raise InputError(
                f"{where}.start_pref_{name} and limit_pref_{name} are not supported; dpa2md does not train "
                f"{what}: leave them out."
            )
    if not any(prefactors[name].active for name in ("e", "f", "v", "ae")):
        raise InputError(
            f"{where} has no term: each has a start or a limit of 0; raise start_pref_f and limit_pref_f."
        )
    energy, forces, virial = _penalties(keys, where)
    return EnergyLoss(
        energy=prefactors["e"],
        forces=prefactors["f"],
        virial=prefactors["v"],
        energies=prefactors["ae"],
        energy_penalty=energy,
        force_penalty=forces,
        virial_penalty=virial,
        force_length=keys["f_use_norm"],
        intensive=keys["intensive_ener_virial"],
    )


def _penalties(keys: Mapping[str, Any], where: str) -> tuple[Penalty, Penalty, Penalty]:
    """Of energies, forces and virials; with absolute costs, use_huber has no effect."""
    delta = keys["huber_delta"]
    deltas = delta if isinstance(delta, list) else [delta] * 3
    if len(deltas) != 3 or not all(type(d) in (int, float) and d >= 0 for d in deltas):
        raise InputError(
            f"{where}.huber_delta = {shown(delta)} should be a number, or three: of energies, forces and "
            "virials."
        )
    if keys["f_use_norm"] and not keys["use_huber"] and keys["loss_func"] == "mse":
        raise InputError(
            f"{where}.f_use_norm needs use_huber or loss_func = mae; leave it out, or set one of them."
        )
    if keys["loss_func"] == "mae":
        return ABSOLUTE, ABSOLUTE, ABSOLUTE
    if keys["use_huber"]:
        energy, forces, virial = map(float, deltas)
        return Huber(energy), Huber(forces), Huber(virial)
    return SQUARED, SQUARED, SQUARED
