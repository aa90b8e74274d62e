"""The benchmark on classes of matter: what it reads from other programs' files, and what it says of its results."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from ase import units
from ase.io import write
from dpa2md.train.structure_systems import StructureSystem
from dpa2md.train.systems import Needs

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "matter"))
import data
import results

RESULTS = ROOT / "benchmarks" / "results" / "intel-xeon-avx512-matter"
SLOPE, CURVATURE, EDGE = -0.4, 0.05, 3.0  # eV/angstrom^3, eV/angstrom^6, angstrom


def energy(volume: float) -> float:
    return SLOPE * volume + CURVATURE * volume**2 / 2


def kbar(volume: float) -> float:
    """-dE/dV."""
    return -(SLOPE + CURVATURE * volume) / (0.1 * units.GPa)


def virial_of(frame, tmp_path) -> np.ndarray:
    """As a training reads it from the file that `data.save` writes."""
    write(tmp_path / "f.extxyz", frame)
    return StructureSystem(str(tmp_path / "f.extxyz"), Needs(("Be", "W", "Si"))).frame(0).virial


@pytest.fixture
def fitsnap_file(tmp_path):
    def make(stress) -> dict:
        inside = {
            "AtomTypes": ["W", "Be"],
            "Positions": [[0, 0, 0], [1.5, 1.5, 1.4]],
            "Lattice": (EDGE * np.eye(3)).tolist(),
            "Energy": energy(EDGE**3),
            "Forces": [[0, 0, 0.5], [0, 0, -0.5]],
            "Stress": np.asarray(stress).tolist(),
        }
        path = tmp_path / "EOS_1.json"
        path.write_text("# a comment\n" + json.dumps({"Dataset": {"Data": [inside]}}))
        return data.fitsnap_frame(path, True)

    return make


def test_stress_of_fitsnap(fitsnap_file, tmp_path):
    """The virial is -dE/dstrain, by a difference of the energies of a scaled cell."""
    volume = EDGE**3
    virial = virial_of(fitsnap_file(kbar(volume) * np.eye(3)), tmp_path)
    step = 1e-5
    change = (energy(volume * (1 + step)) - energy(volume * (1 - step))) / (2 * step)
    # the file has eight digits
    np.testing.assert_allclose(virial, -change * np.eye(3), rtol=1e-6, atol=1e-6)
    assert virial_of(fitsnap_file(np.zeros((3, 3))), tmp_path) is None


def test_stress_of_mlearn(tmp_path):
    """Its order is VASP's; shear has the off-diagonal component of its plane alone."""
    sheared = EDGE * np.array([[1, 0.1, 0], [0, 1, 0], [0, 0, 1]])  # in xy
    inside = {
        "structure": {
            "lattice": {"matrix": sheared.tolist()},
            "sites": [{"label": "Si", "xyz": [0.1, 0.2, 0.3]}],
        },
        "outputs": {
            "energy": -5.0,
            "forces": [[0, 0, 0]],
            "virial_stress": [10.0, 20.0, 30.0, -40.0, 0.0, 0.0],
        },
    }
    frame = data.mlearn_frame(inside)
    wanted = 0.1 * units.GPa * np.array([[10, -40, 0], [-40, 20, 0], [0, 0, 30]])
    np.testing.assert_allclose(virial_of(frame, tmp_path), wanted * EDGE**3, atol=1e-6)


def test_order_and_division(tmp_path):
    names = ["Be_10", "Be_9", "W_1", "12_md_bulk", "9_md_bulk"]
    paths = sorted((tmp_path / f"{name}.json" for name in names), key=data.number)
    assert [path.stem for path in paths] == ["Be_9", "Be_10", "W_1", "9_md_bulk", "12_md_bulk"]
    frames = list(range(25))
    assert data.split(frames, run=True) == (frames[:23], [23, 24])
    training, held_out = data.split(frames, run=False)
    assert held_out == [5, 15] and sorted(training + held_out) == frames


def test_tables_of_the_page():
    """docs/matter.md has what the results' files say."""
    page = (ROOT / "docs" / "matter.md").read_text()
    assert results.with_tables(page, results.tables(str(RESULTS))) == page
    assert "<!-- end -->" in page


def test_cells():
    """The median of the seeds and the range, in the table's places."""
    one = {
        "target": "x",
        "start": "scratch",
        "frames": "10",
        "steps": "9",
        "learning rate": "0.001",
    }
    forces = (0.3, 0.1, 0.25)
    rows = [one | {"seed": str(i), "force RMSE": str(f)} for i, f in enumerate(forces)]
    rows.append(rows[0] | {"learning rate": "0.0005", "force RMSE": "7"})
    table = results.target_table(rows, "x", "force RMSE")
    assert table.splitlines()[-1] == "| scratch | 0.250 (0.100 to 0.300) |"
    page = results.with_tables(
        "a\n<!-- t -->\n\n<!-- end -->\nb\n<!-- t -->\nold\n<!-- end -->\n", {"t": table}
    )
    place = f"<!-- t -->\n\n{table}\n\n<!-- end -->\n"
    assert page == f"a\n{place}b\n{place}"
