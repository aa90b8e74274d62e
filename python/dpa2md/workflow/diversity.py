"""Which of many frames are the most different ones: farthest point sampling on descriptors.

A frame's features are the mean descriptors of each element's atoms, side by side. They need no
student, so that frames that were labelled long ago can be compared; they depend neither on the
order nor on the number of atoms. What single atoms do is seen elsewhere: the deviation of a frame
is that of its worst atom.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from ..batch import descriptors
from ..engine import Engine


def frame_features(engine: Engine, structures: Sequence[Atoms]) -> np.ndarray:
    """The mean descriptor of each of the model's elements, zeros for those that a frame has not.

    Parameters
    ----------
    engine
        The model whose descriptors are taken.
    structures
        The frames.

    Returns
    -------
    ndarray
        (frames, elements * descriptor_dim), in the order of the model's elements.

    Raises
    ------
    ValueError
        For a structure that can't be evaluated.
    """
    features = np.zeros((len(structures), len(engine.elements), engine.descriptor_dim))
    found = descriptors(engine, structures)
    for row, atoms, vectors in zip(features, structures, found, strict=True):
        types = engine.types_of(atoms)
        for kind in np.unique(types):
            row[kind] = vectors[types == kind].mean(axis=0)
    return features.reshape(len(structures), -1)


def farthest_points(features: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Points one after the other, each the farthest from the known ones and those before.

    Without known points the first is the one nearest to the mean of all. Of equally far ones the
    first is taken. Points that coincide with a chosen or known one are never chosen.

    Parameters
    ----------
    features
        (n, dim) the points.
    known
        (m, dim) what is there already; m may be 0.
    count
        The most points to choose.

    Returns
    -------
    ndarray
        (at most count,) indices in the order in which they were chosen.
    """
    nearest = np.full(len(features), np.inf)
    for point in known:
        _shrink(nearest, features, point)
    chosen: list[int] = []
    if not len(known) and len(features) and count > 0:
        middle = np.linalg.norm(features - features.mean(axis=0), axis=1)
        chosen.append(int(np.argmin(middle)))
        _shrink(nearest, features, features[chosen[0]])
    while len(chosen) < min(count, len(features)):
        farthest = int(np.argmax(nearest))
        if nearest[farthest] <= 0:
            break
        chosen.append(farthest)
        _shrink(nearest, features, features[farthest])
    return np.array(chosen, dtype=int)


def _shrink(nearest: np.ndarray, features: np.ndarray, point: np.ndarray) -> None:
    np.minimum(nearest, np.linalg.norm(features - point, axis=1), out=nearest)
