"""The numbers that a gradient is compared by; numpy only, for the maker and for the tests.

The loss is linear in what a model computes, with fixed random factors:

    L = sum_i a_i e_i + sum_i u_i . F_i + sum_kl s_kl W_kl

e_i is the energy of atom i, F_i its force, W the virial (-dE/dstrain, laid out as in
`results.npz`). The gradient of any loss is the gradient of such a sum. Of the gradient by one
parameter only its norm and its products with four random arrays are kept.

Random numbers come from numpy's RandomState, whose streams never change between versions of numpy.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

PROJECTIONS = 4


@dataclass(frozen=True)
class LossFactors:
    """`energies` (n,) is a, `forces` (n, 3) is u, `virial` (3, 3) is s."""

    energies: np.ndarray
    forces: np.ndarray
    virial: np.ndarray

    def value(self, results: dict[str, np.ndarray]) -> float:
        """L of `atom_energy` (n,), `forces` (n, 3) and `virial` (3, 3)."""
        return float(
            np.sum(self.energies * results["atom_energy"])
            + np.sum(self.forces * results["forces"])
            + np.sum(self.virial * results["virial"])
        )


def _random(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def loss_factors(structure: str, natoms: int) -> LossFactors:
    """The factors for a structure of that name with so many atoms; the same for every model."""
    rng = _random(f"loss/{structure}")
    return LossFactors(
        rng.normal(size=natoms), rng.normal(size=(natoms, 3)), rng.normal(size=(3, 3))
    )


def random_directions(parameter: str, shape: tuple[int, ...]) -> np.ndarray:
    """The random arrays (4, *shape) for the parameter of that name."""
    return _random(f"gradient/{parameter}").normal(size=(PROJECTIONS, *shape))


def project(parameter: str, gradient: np.ndarray) -> np.ndarray:
    """(5,): the norm of a parameter's gradient, and its products with the random arrays.

    `gradient` has the shape that DeePMD-kit's state dict gives the parameter.
    """
    directions = random_directions(parameter, gradient.shape).reshape(PROJECTIONS, -1)
    return np.array([np.linalg.norm(gradient), *(directions @ gradient.reshape(-1))])
