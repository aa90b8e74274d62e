"""Electronic configurations of the elements as the fixed inputs of an electronic type embedding.

Models trained with ``use_econf_tebd`` describe an element by its ground-state configuration, a
table that is not part of their files: 59 orbitals, each with two numbers for its 0 (-1, -1),
1 (-1, 1) or 2 (1, 1) electrons, all divided by sqrt(118).
"""

from __future__ import annotations

import numpy as np

from ..errors import ModelError

ELEMENTS = [
    "H",
    "He",
    "Li",
    "Be",
    "B",
    "C",
    "N",
    "O",
    "F",
    "Ne",
    "Na",
    "Mg",
    "Al",
    "Si",
    "P",
    "S",
    "Cl",
    "Ar",
    "K",
    "Ca",
    "Sc",
    "Ti",
    "V",
    "Cr",
    "Mn",
    "Fe",
    "Co",
    "Ni",
    "Cu",
    "Zn",
    "Ga",
    "Ge",
    "As",
    "Se",
    "Br",
    "Kr",
    "Rb",
    "Sr",
    "Y",
    "Zr",
    "Nb",
    "Mo",
    "Tc",
    "Ru",
    "Rh",
    "Pd",
    "Ag",
    "Cd",
    "In",
    "Sn",
    "Sb",
    "Te",
    "I",
    "Xe",
    "Cs",
    "Ba",
    "La",
    "Ce",
    "Pr",
    "Nd",
    "Pm",
    "Sm",
    "Eu",
    "Gd",
    "Tb",
    "Dy",
    "Ho",
    "Er",
    "Tm",
    "Yb",
    "Lu",
    "Hf",
    "Ta",
    "W",
    "Re",
    "Os",
    "Ir",
    "Pt",
    "Au",
    "Hg",
    "Tl",
    "Pb",
    "Bi",
    "Po",
    "At",
    "Rn",
    "Fr",
    "Ra",
    "Ac",
    "Th",
    "Pa",
    "U",
    "Np",
    "Pu",
    "Am",
    "Cm",
    "Bk",
    "Cf",
    "Es",
    "Fm",
    "Md",
    "No",
    "Lr",
    "Rf",
    "Db",
    "Sg",
    "Bh",
    "Hs",
    "Mt",
    "Ds",
    "Rg",
    "Cn",
    "Nh",
    "Fl",
    "Mc",
    "Lv",
    "Ts",
    "Og",
]

SUBSHELLS = [
    "1s",
    "2s",
    "2p",
    "3s",
    "3p",
    "3d",
    "4s",
    "4p",
    "4d",
    "4f",
    "5s",
    "5p",
    "5d",
    "5f",
    "6s",
    "6p",
    "6d",
    "7s",
    "7p",
]
_FILLING = [
    "1s",
    "2s",
    "2p",
    "3s",
    "3p",
    "4s",
    "3d",
    "4p",
    "5s",
    "4d",
    "5p",
    "6s",
    "4f",
    "5d",
    "6p",
    "7s",
    "5f",
    "6d",
    "7p",
]
_ORBITALS = {"s": 1, "p": 3, "d": 5, "f": 7}

# Elements whose ground state departs from the filling order: subshells with their electrons.
EXCEPTIONS = {
    "Cr": "3d5 4s1",
    "Cu": "3d10 4s1",
    "Nb": "4d4 5s1",
    "Mo": "4d5 5s1",
    "Ru": "4d7 5s1",
    "Rh": "4d8 5s1",
    "Pd": "4d10 5s0",
    "Ag": "4d10 5s1",
    "La": "4f0 5d1",
    "Ce": "4f1 5d1",
    "Gd": "4f7 5d1",
    "Pt": "5d9 6s1",
    "Au": "5d10 6s1",
    "Ac": "5f0 6d1",
    "Th": "5f0 6d2",
    "Pa": "5f2 6d1",
    "U": "5f3 6d1",
    "Np": "5f4 6d1",
    "Cm": "5f7 6d1",
    "Ds": "6d9 7s1",
    "Rg": "6d10 7s1",
}


def occupations(element: str) -> np.ndarray:
    """Electrons (0, 1 or 2) in each of the 59 orbitals, in the order of `SUBSHELLS`; int (59,)."""
    try:
        left = ELEMENTS.index(element) + 1
    except ValueError:
        raise ModelError(
            f"The model uses electronic configurations, and {element!r} in its type map "
            "is not a chemical element."
        ) from None
    electrons = dict.fromkeys(SUBSHELLS, 0)
    for subshell in _FILLING:
        electrons[subshell] = min(left, 2 * _ORBITALS[subshell[1]])
        left -= electrons[subshell]
    for word in EXCEPTIONS.get(element, "").split():
        electrons[word[:2]] = int(word[2:])
    row = []
    for subshell in SUBSHELLS:
        orbitals, count = _ORBITALS[subshell[1]], electrons[subshell]
        pairs = max(0, count - orbitals)  # Hund: every orbital gets one electron first
        row += [2] * pairs + [1] * (count - 2 * pairs) + [0] * (orbitals - count + pairs)
    return np.array(row)


def configuration_table(elements: list[str]) -> np.ndarray:
    """The network's inputs, one row an element: float64 (len(elements), 118).

    Raises
    ------
    ModelError
        When a name is not a chemical element.
    """
    count = np.array([occupations(element) for element in elements])
    spins = np.stack([np.where(count == 2, 1, -1), np.where(count > 0, 1, -1)], axis=2)
    return spins.reshape(len(elements), -1) / np.sqrt(118.0)
