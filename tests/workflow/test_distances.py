"""The smallest distances of each pair of elements, against explicit images."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from dpa2md.errors import RunError
from dpa2md.structures import equilibrated_water
from dpa2md.workflow.distances import lowest, read_limits, smallest_distances, violation

from tests.support.small_models import crystal, silicon


def by_explicit_images(atoms: Atoms, reach: float) -> dict[str, float]:
    """Every pair with every image out to four cells, in plain loops."""
    turns = [range(-4, 5) if periodic else (0,) for periodic in atoms.pbc]
    found: dict[str, float] = {}
    symbols = atoms.get_chemical_symbols()
    for turn in itertools.product(*turns):
        for i, j in itertools.product(range(len(atoms)), repeat=2):
            if i == j and not any(turn):
                continue
            vector = atoms.positions[j] + np.array(turn) @ atoms.cell.array - atoms.positions[i]
            distance = float(np.sqrt(vector @ vector))
            if distance <= reach:
                pair = "-".join(sorted((symbols[i], symbols[j])))
                found[pair] = min(distance, found.get(pair, np.inf))
    return found


@pytest.mark.parametrize("pbc", [True, False, (True, False, True)])
@pytest.mark.parametrize("reach", [1.5, 4.0])
def test_small_cells_against_explicit_images(pbc, reach):
    """Cells narrower than the reach, so that atoms meet their own images."""
    for seed in range(3):
        atoms = crystal((1, 1, 1), rattle=0.3, seed=seed)
        atoms.pbc = pbc
        expected = by_explicit_images(atoms, reach)
        # rounding of coordinates of some angstrom
        assert smallest_distances([atoms], reach) == pytest.approx(expected, abs=1e-12)
        assert len(expected) > 0 or reach == 1.5


def test_one_atom_meets_its_images():
    assert smallest_distances([silicon()]) == pytest.approx({"Si-Si": 1.9 * np.sqrt(2)})


def test_the_smallest_of_several_frames_counts():
    frames = [Atoms("OH", [[0, 0, 0], [0, 0, z]]) for z in (1.1, 0.9, 1.3)]
    frames.append(Atoms("OOH", [[0, 0, 0], [3, 0, 0], [9, 0, 0]]))
    assert smallest_distances(iter(frames)) == {"H-O": 0.9, "O-O": 3.0}
    assert lowest([{"H-O": 1.0}, {"H-O": 0.8, "O-O": 2.0}]) == {"H-O": 0.8, "O-O": 2.0}
    assert smallest_distances([]) == {}


def test_what_is_too_near():
    atoms = Atoms("OH2", [[0, 0, 0], [0, 0, 0.9], [0, 1.0, 0]])
    assert violation(atoms, {"H-O": 0.89, "H-H": 1.3, "O-O": 2.0}) is None
    assert violation(atoms, {}) is None
    assert violation(atoms, {"H-O": 0.91}) == "H-O at 0.900 angstrom, below 0.910"
    assert violation(atoms, {"H-H": 1.4}) == "H-H at 1.345 angstrom, below 1.400"
    atoms.positions[0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        violation(atoms, {"H-O": 0.5})


def test_every_bond_of_water_is_allowed():
    """Sums of covalent radii, O-H 0.97 and H-H 0.62 angstrom, would refuse its bonds."""
    water = equilibrated_water()
    found = smallest_distances([water])
    assert 0.8 < found["H-O"] < 0.97
    assert violation(water, {pair: 0.85 * d for pair, d in found.items()}) is None


def test_limits_of_files(tmp_path):
    write(tmp_path / "start.extxyz", Atoms("OH", [[0, 0, 0], [0, 0, 1.1]]))
    (tmp_path / "run.json").write_text(json.dumps({"frames": 3, "distances": {"O-O": 2.4}}))
    (tmp_path / "own.json").write_text(json.dumps({"O-H": 1.0}))  # in the other order, too
    names = [str(tmp_path / name) for name in ("start.extxyz", "run.json", "own.json")]
    assert read_limits(names, 0.5) == {"H-O": 0.5, "O-O": 1.2}
    assert read_limits(names[:1]) == pytest.approx({"H-O": 0.85 * 1.1})


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"O-H": "1"}', '{"O-X": 1}', '{"OH": 1}',
                                     '{"O-H": -1}', '{"distances": 3}'])  # fmt: skip
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(RunError, match=r"bad\.json: (this is no JSON|there are no distances)"):
        read_limits([str(path)])


def test_missing_files_and_factors():
    with pytest.raises(RunError, match=r"nowhere\.json: there is no such file"):
        read_limits(["nowhere.json"])
    for factor in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(RunError, match="The factor of the limits"):
            read_limits([], factor)
