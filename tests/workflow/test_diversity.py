"""Farthest point sampling, against a naive one; features, against loops over atoms."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from dpa2md import Engine
from dpa2md.workflow.diversity import farthest_points, frame_features

from tests.support.small_models import crystal


def naive(points: np.ndarray, known: np.ndarray, count: int) -> list[int]:
    """Asks anew, for every choice, how far each point is from all that is there."""
    chosen: list[int] = []
    if not len(known):
        middle = sum(points) / len(points)
        chosen = [min(range(len(points)), key=lambda k: np.linalg.norm(points[k] - middle))]
    while len(chosen) < count:
        there = [*known, *(points[k] for k in chosen)]
        gaps = [min(np.linalg.norm(p - q) for q in there) for p in points]
        if max(gaps) == 0:
            break
        chosen.append(gaps.index(max(gaps)))
    return chosen


@pytest.mark.parametrize("known", [0, 1, 7])
@pytest.mark.parametrize("count", [1, 5, 30, 40])
def test_against_a_naive_one(known, count):
    rng = np.random.default_rng(known + count)
    # whole numbers have many equal distances, which the first index decides
    points = rng.integers(0, 4, (30, 2)).astype(float)
    there = rng.integers(0, 4, (known, 2)).astype(float)
    found = farthest_points(points, there, count)
    assert found.tolist() == naive(points, there, count)
    assert len(found) < 30  # copies are never chosen


def test_a_longer_choice_goes_on():
    points = np.random.default_rng(0).random((50, 6))
    none = np.zeros((0, 6))
    assert (
        farthest_points(points, none, 5).tolist() == farthest_points(points, none, 9)[:5].tolist()
    )


def test_nothing_to_choose():
    some = np.ones((3, 2))
    for points, known, count in ((some[:0], some, 2), (some, some, 2), (some, some[:0], 0)):
        assert farthest_points(points, known, count).tolist() == []
    assert farthest_points(some, some[:0], 2).tolist() == [0]


def test_features_are_means_by_element(teacher):
    engine = Engine(teacher, threads=1)
    frames = [crystal((1, 1, 2)), Atoms("OH2", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]])]
    found = frame_features(engine, frames).reshape(2, len(engine.elements), engine.descriptor_dim)
    for row, atoms in zip(found, frames, strict=True):
        vectors = engine.descriptor(
            atoms.positions, engine.types_of(atoms), cell=atoms.cell.array, pbc=atoms.pbc
        )
        for part, element in zip(row, engine.elements, strict=True):
            own = [v for v, symbol in zip(vectors, atoms.symbols, strict=True) if symbol == element]
            expected = sum(own) / len(own) if own else np.zeros(engine.descriptor_dim)
            # float64 sums in another order
            np.testing.assert_allclose(part, expected, rtol=1e-9, atol=1e-12)
    turned = frames[0][::-1]
    np.testing.assert_allclose(
        frame_features(engine, [turned])[0], found[0].ravel(), rtol=1e-9, atol=1e-12
    )
