"""What `dpa2md md` says before a run: options that would be ignored, and the file of its settings."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
from pathlib import Path

import dpa2md
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from dpa2md.cli import main
from dpa2md.dynamics import Settings
from dpa2md.md import run_md

from tests.support.paths import ROOT
from tests.support.small_models import crystal, small_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"), scale=100.0)


@pytest.fixture
def md(model, tmp_path, monkeypatch):
    """Runs ``dpa2md md`` in a folder with structures; returns the exit status."""
    atoms = crystal(rattle=0.05)
    atoms.set_masses(np.full(len(atoms), 50.0))
    write(tmp_path / "start.traj", atoms)
    atoms.set_momenta(np.ones((len(atoms), 3)))
    write(tmp_path / "moving.traj", atoms)
    atoms.pbc = False
    write(tmp_path / "open.traj", atoms)
    monkeypatch.chdir(tmp_path)

    def run(*options: str, structure: str = "start.traj") -> int:
        return main(["md", str(model), structure, "--threads", "1", "--quiet", *options])

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--pressure 1", "nvt with langevin takes no --pressure"),
        ("--ensemble nve --pressure 1", "nve takes no --pressure"),
        ("--ensemble nve --thermostat bussi", "nve takes no --thermostat"),
        ("--ensemble nve --friction 1", "nve takes no --friction"),
        ("--ensemble nve --taut 1", "nve takes no --taut"),
        ("--ensemble nve --temperature-end 9", "needs a thermostat"),
        ("--taut 1", "nvt with langevin takes no --taut"),
        ("--thermostat bussi --friction 1", "nvt with bussi takes no --friction"),
        ("--barostat mtk", "takes no --barostat"),
        ("--taup 9", "takes no --taup"),
        ("--cell-change isotropic", "takes no --cell-change"),
        ("--cell-change full", "needs npt"),
        ("--ensemble npt --friction 1", "takes no --friction"),
        ("--ensemble npt --thermostat langevin", "takes no --thermostat"),
        ("--ensemble npt --barostat mtk --compressibility 1", "takes no --compressibility"),
        ("--compressibility 1", "takes no --compressibility"),
        ("--pressure-end 1", "needs a barostat"),
        ("--seed -1", "can't be negative"),
        ("--rdf O-H", "add --plots"),
        ("--model water", "MODEL is"),
        ("--d3-damping zero", "add --d3"),
    ],
)
def test_options_that_would_be_ignored(md, options, message, tmp_path, capsys):
    before = set(tmp_path.iterdir())
    assert md(*options.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "options",
    [
        "--ensemble npt --barostat berendsen --compressibility 1e-5 --taup 500 --taut 50 --pressure 2",
        "--thermostat bussi --taut 50",
        "--friction 2 --temperature 100 --temperature-end 200",
        "--ensemble nve --temperature 100 --seed 4",
    ],
)
def test_options_that_are_heeded(md, options):
    if "bussi" in options:
        pytest.importorskip("ase.md.bussi")
    assert md("--steps", "1", *options.split()) == 0


@pytest.mark.parametrize(
    ("rdf", "structure", "message"),
    [
        ("O-Ar", "start.traj", "two elements of the structure with a hyphen, out of H O Si"),
        ("OH", "start.traj", "two elements"),
        ("O-H-Si", "start.traj", "two elements"),
        ("O-H", "open.traj", "periodic in three directions"),
    ],
)
def test_the_radial_distribution_is_checked_before_the_run(
    md, rdf, structure, message, tmp_path, capsys
):
    pytest.importorskip("matplotlib")
    before = set(tmp_path.iterdir())
    assert md("--plots", "--rdf", rdf, structure=structure) == 2
    assert message in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_plots_are_checked_before_the_run(md, tmp_path, monkeypatch, capsys):
    (tmp_path / "md.rdf.png").write_text("precious")
    assert md("--plots") == 2
    assert "md.rdf.png exists" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert md("--plots", "--overwrite") == 2
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "md.traj").exists()


def test_velocities_are_kept_or_drawn(md, capsys):
    nve = ["--ensemble", "nve", "--temperature", "300", "--steps", "0", "--overwrite"]
    assert md(*nve, structure="moving.traj") == 2
    assert "moving.traj has velocities" in capsys.readouterr().err
    assert md(*nve[:2], *nve[4:], structure="moving.traj") == 0
    np.testing.assert_array_equal(read("md.traj").get_momenta(), 1)
    assert md(*nve, "--new-velocities", structure="moving.traj") == 0
    assert np.std(read("md.traj").get_momenta()) > 0.1


def test_the_settings_are_written(md, model):
    """As the run starts, and once more for each time it is continued."""
    options = ["--temperature", "200", "--seed", "7", "--precision", "float32"]
    assert md(*options, "--steps", "2") == 0
    (first,) = runs = json.loads(Path("md.settings.json").read_text())["runs"]
    assert first["from_step"] == 0 and first["structure"] == "start.traj"
    assert first["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert first["model"]["path"] == str(model) and first["model"]["precision"] == "float32"
    assert first["settings"]["temperature"] == 200 and first["settings"]["seed"] == 7
    assert first["settings"]["timestep"] == 0.5  # also what was not given
    assert "friction" in first["settings"] and "pressure" not in first["settings"]
    assert first["options"]["threads"] == 1 and first["model"]["device"] == "cpu"
    assert "1 thread)" in first["model"]["engine"]
    assert first["versions"]["dpa2md"] == dpa2md.__version__
    assert first["date"].endswith("+00:00")
    assert md(*options, "--steps", "2", "--restart") == 0  # nothing is left to be done
    assert json.loads(Path("md.settings.json").read_text())["runs"] == runs
    assert md(*options, "--steps", "4", "--restart") == 0
    old, new = json.loads(Path("md.settings.json").read_text())["runs"]
    assert old == first
    assert (new["from_step"], new["settings"]["steps"]) == (2, 4)
    assert md(*options, "--steps", "1", "--overwrite") == 0
    assert len(json.loads(Path("md.settings.json").read_text())["runs"]) == 1


def test_the_settings_of_a_library_run(tmp_path):
    """With any calculator, whatever its parameters are."""
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT(asap_cutoff=np.bool_(False))
    path = tmp_path / "run.json"
    run_md(atoms, Settings(steps=1, ensemble="nve"), record=path, about={"why": "a test"})
    (run,) = json.loads(path.read_text())["runs"]
    assert run["model"]["calculator"] == "EMT" and run["why"] == "a test"
    assert run["atoms"] == "Cu4" and "friction" not in run["settings"]


def test_settings_of_something_else_are_not_touched(md, capsys):
    path = Path("md.settings.json")
    path.write_text("{}")
    assert md("--steps", "1") == 2
    assert "md.settings.json exists" in capsys.readouterr().err
    path.unlink()
    assert md("--steps", "1") == 0
    path.write_text('{"runs": 3')
    assert md("--steps", "2", "--restart") == 2
    error = capsys.readouterr().err
    assert "md.settings.json: these are not the settings of a run" in error
    assert path.read_text() == '{"runs": 3' and error.count("\n") == 1


def test_mdanalysis_reads_trajectories_as_documented(md):
    """Positions, cell and time come along, in a cell that is not along the axes."""
    mda = pytest.importorskip("MDAnalysis")
    from MDAnalysis.lib.mdamath import triclinic_vectors

    assert md("--steps", "6", "--interval", "2") == 0
    page = ROOT / "docs" / "commands.md"
    (snippet,) = re.findall(r"```python\n(import MDAnalysis.*?)```", page.read_text(), re.DOTALL)
    Path("snippet.py").write_text(snippet)
    names = runpy.run_path("snippet.py")
    universe, frames = names["universe"], names["frames"]
    assert isinstance(universe, mda.Universe) and len(universe.trajectory) == len(frames) == 4
    for step, frame in zip(universe.trajectory, frames, strict=True):
        assert step.time == pytest.approx(frame.info["time"])  # ps in either
        inside = step.positions @ np.linalg.inv(triclinic_vectors(step.dimensions))
        # MDAnalysis has single precision: 1e-7 of some cells
        np.testing.assert_allclose(inside, frame.cell.scaled_positions(frame.positions), atol=1e-5)
