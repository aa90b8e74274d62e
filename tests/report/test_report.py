"""`dpa2md report`, whole: its numbers are computed again from labels and trajectories, its page is read."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.io import read, write
from ase.io.trajectory import Trajectory
from dpa2md import DPA2Calculator, evaluate
from dpa2md.cli import main
from dpa2md.structures import water_box

from tests.support.reports import Page, labelled_frames
from tests.support.selection import skip_or_fail

pytest.importorskip("matplotlib")
STEPS = 160  # a row and a frame each
SCRIPT = """<script>
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const images = [...document.images].filter(i => i.complete && i.naturalWidth > 50).length;
document.title = `wide=${wide} images=${images}`;
</script></body>"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of the shipped model in both precisions, with its runs kept."""
    folder = tmp_path_factory.mktemp("report")
    frames = labelled_frames(folder / "held_out.extxyz")
    write(folder / "start.xyz", water_box(8), format="extxyz")
    command = ["report", "water", "water", "--precision", "float32", "--other-precision", "float64"]
    command += [
        "--labels",
        str(folder / "held_out.extxyz"),
        "--structure",
        str(folder / "start.xyz"),
    ]
    command += ["--steps", str(STEPS), "--equilibration", "60", "--threads", "1", "--keep"]
    assert main([*command, "-o", str(folder / "r.html")]) == 0
    text = (folder / "r.html").read_text(encoding="utf-8")
    numbers = json.loads((folder / "r.json").read_text())
    names = [model["name"] for model in numbers["models"]]
    return SimpleNamespace(
        folder=folder, frames=frames, text=text, page=Page(text), numbers=numbers, names=names
    )


def rows_of(made, model: str, reference: str, group: str = "") -> dict[str, dict]:
    (found,) = [
        c
        for c in made.numbers["errors"]["comparisons"]
        if (c["model"], c["reference"], c["group"]) == (model, reference, group)
    ]
    return {row["quantity"]: row for row in found["rows"]}


def table_of(made, model: int, stage: str) -> dict[str, np.ndarray]:
    with open(made.folder / "r.work" / f"run-{model + 1}" / f"{stage}.csv") as file:
        rows = list(csv.DictReader(file))[1:]
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def trajectory(made, model: int) -> list:
    with Trajectory(made.folder / "r.work" / f"run-{model + 1}" / "production.traj") as file:
        return list(file)[1:]


def test_the_page_is_whole(made):
    page = made.page
    assert not page.wrong
    assert len(set(page.ids)) == len(page.ids) > 8
    assert [link[1:] for link in page.links] == page.ids
    assert made.names == ["water float32", "water float64"]
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in page.images)
    assert len(page.images) == 6  # parity, series, g(r), angles, displacements, drift


def test_what_was_not_made_is_named(made):
    missing = made.numbers["missing"]
    assert set(missing) == {"density", "solid"}
    for why in missing.values():
        assert f"Not made: {why}." in made.page.text
    assert made.numbers["density"] is None and "--ensemble npt" in missing["density"]
    assert "LAMMPS not timed" in " ".join(made.page.text)


@pytest.mark.parametrize("group", ["", "cold", "hot & wet"])
def test_errors_against_labels(made, group):
    frames = [a for a in made.frames if not group or a.info["config_type"] == group]
    calculator = DPA2Calculator("water", precision="float64", threads=1)
    energies, forces, oxygens, stresses = [], [], [], []
    for atoms in frames:
        labels, bare = atoms.calc.results, atoms.copy()
        bare.calc = calculator
        energies.append((bare.get_potential_energy() - labels["energy"]) / len(atoms))
        d = bare.get_forces() - labels["forces"]
        forces += d.ravel().tolist()
        oxygens += d[atoms.symbols == "O"].ravel().tolist()
        stresses += (bare.get_stress() - labels["stress"])[[0, 1, 2, 3, 3, 4, 4, 5, 5]].tolist()
    found = rows_of(made, "water float64", "labels", group)
    expected = {"energy": energies, "force": forces, "force O": oxygens, "stress": stresses}
    for name, d in expected.items():
        # the file of the labels has eight decimals
        assert found[name]["RMSE"] == pytest.approx(np.sqrt(np.mean(np.square(d))), abs=1e-7)
        assert found[name]["MAE"] == pytest.approx(np.mean(np.abs(d)), abs=1e-7)
        assert found[name]["values"] == len(d)
    # 0.01 k eV/atom was added to the energies, and noise of 0.05 eV/angstrom to the forces
    if not group:
        assert found["energy"]["MAE"] == pytest.approx(0.025, abs=1e-7)
        assert found["force"]["RMSE"] == pytest.approx(0.05, rel=0.15)  # of some 500 numbers


def test_energies_are_shifted_by_element(made):
    """With O and H in one ratio a shift is one constant for each atom: what remains is the scatter."""
    found = rows_of(made, "water float64", "labels")["energy shifted"]
    numbers = np.array([len(atoms) for atoms in made.frames])
    added = 0.01 * np.arange(len(numbers))
    shift = (added * numbers) @ numbers / (numbers @ numbers)  # least squares of total energies
    assert found["RMSE"] == pytest.approx(np.sqrt(np.mean((added - shift) ** 2)), abs=1e-7)


def test_errors_between_the_models(made):
    # as the file has them, and all at once: single precision notices the order of its sums
    frames = read(made.folder / "held_out.extxyz", ":")
    one, two = (evaluate("water", frames, precision=p, threads=1) for p in ("float32", "float64"))
    d = np.concatenate([(a["forces"] - b["forces"]).ravel() for a, b in zip(one, two, strict=True)])
    found = rows_of(made, "water float32", "water float64")["force"]
    assert found["RMSE"] == pytest.approx(np.sqrt(np.mean(d**2)), rel=1e-9)
    assert 0 < found["RMSE"] < 1e-4
    ratio = made.numbers["errors"]["ratios"]["force"]
    both = [rows_of(made, name, "labels")["force"]["RMSE"] for name in made.names]
    assert ratio == pytest.approx(both[0] / both[1], rel=1e-12)


def test_numbers_of_the_page_are_those_of_the_file(made):
    found = rows_of(made, "water float64", "labels")
    shown = made.page.row("water float64 against labels, 6 frames", "force O")
    assert shown[:3] == [
        "meV/Å",
        f"{found['force O']['values']:,}",
        f"{1e3 * found['force O']['RMSE']:.4g}",
    ]
    summary = made.page.row("Main numbers", "force, RMSE / (meV/Å)")
    assert summary[1] == f"{1e3 * found['force']['RMSE']:.4g}"
    assert summary[2] == f"{made.numbers['errors']['ratios']['force']:.4g}"
    single, double = (rows_of(made, name, "labels")["force H"]["RMSE"] for name in made.names)
    assert made.page.row("Main numbers", "force H, RMSE / (meV/Å)")[2] == f"{single / double:.4g}"
    group = rows_of(made, "water float64", "labels", "hot & wet")
    cells = made.page.row("RMSE against labels by config_type", "hot & wet")
    assert cells[0] == "3" and cells[-1] == f"{1e3 * group['force']['RMSE']:.4g}"


def test_means_along_the_run(made):
    for k, part in enumerate(made.numbers["thermo"]):
        table = table_of(made, k, "production")
        assert len(table["step"]) == STEPS == table["step"][-1]
        mean = part["means"]["temperature / K"]
        assert mean["value"] == pytest.approx(table["temperature_K"].mean(), rel=1e-12)
        blocks = table["temperature_K"].reshape(5, -1).mean(axis=1)
        assert mean["error"] == pytest.approx(blocks.std(ddof=1) / 5**0.5, rel=1e-9)
        energy = part["means"]["potential energy / (eV/atom)"]["value"]
        assert energy == pytest.approx(table["potential_energy_eV"].mean() / 24, rel=1e-12)


def test_both_models_begin_alike(made):
    starts = [read(made.folder / "r.work" / f"run-{k}" / "equilibration.traj", 0) for k in (1, 2)]
    np.testing.assert_array_equal(starts[0].positions, starts[1].positions)
    np.testing.assert_array_equal(starts[0].get_momenta(), starts[1].get_momenta())


def test_radial_distribution_of_the_run(made):
    """O-H by brute force over 27 images; the box is wider than twice the largest distance."""
    frames = trajectory(made, 0)
    (found,) = [c for c in made.numbers["rdf"] if c["name"] == "O-H"]
    r, g = np.array(found["x"]), np.array(found["values"]["water float32"])
    edges = (np.concatenate([[0], r]) + np.concatenate([r, [2 * r[-1] - r[-2]]])) / 2
    edges[0] = 0
    shifts = np.stack(np.meshgrid(*3 * [[-1, 0, 1]]), -1).reshape(-1, 3) @ frames[0].cell.array
    expected = np.zeros(len(r))
    for atoms in frames:
        atoms.wrap()
        o, h = (atoms.positions[atoms.symbols == e] for e in "OH")
        d = np.linalg.norm(o[:, None, None] - h[:, None] + shifts, axis=-1)
        volume = 4 / 3 * np.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
        expected += np.histogram(d, edges)[0] / (len(o) * len(h) / atoms.get_volume() * volume)
    np.testing.assert_allclose(g, expected / len(frames), atol=1e-9)
    assert found["neighbors"]["water float32"] == pytest.approx(
        2, abs=0.05
    )  # hydrogens of a molecule
    other = np.array(found["values"]["water float64"])
    assert found["difference"] == pytest.approx(abs(g - other).sum() / (g + other).sum(), rel=1e-9)


def test_angles_of_the_molecules(made):
    """The mean H-O-H angle is that of the bonds, which are the two nearest hydrogens of an oxygen."""
    (found,) = [c for c in made.numbers["adf"] if c["name"] == "H-O-H"]
    angles = []
    for atoms in trajectory(made, 1):
        for k in np.flatnonzero(atoms.symbols == "O"):
            hydrogens = np.flatnonzero(atoms.symbols == "H")
            near = hydrogens[np.argsort(atoms.get_distances(k, hydrogens, mic=True))[:2]]
            angles.append(atoms.get_angle(near[0], k, near[1], mic=True))
    assert found["numbers"]["water float64"] == pytest.approx(8, abs=0.1)
    assert found["means"]["water float64"] == pytest.approx(np.mean(angles), abs=0.5)


def test_displacements_of_the_run(made):
    (found,) = [
        t for t in made.numbers["diffusion"] if (t["model"], t["element"]) == ("water float32", "O")
    ]
    frames = trajectory(made, 0)
    positions = np.array([a.positions - a.get_center_of_mass() for a in frames])  # never wrapped
    positions = positions[:, frames[0].symbols == "O"]
    lags, expected = np.array(found["result"]["lags"]), found["result"]["displacement"]
    k = len(lags) // 2
    lag = round(lags[k] / 0.0005)
    moved = positions[lag:] - positions[:-lag]
    assert expected[k] == pytest.approx(np.mean(np.sum(moved**2, axis=-1)), rel=1e-9)
    assert found["result"]["exponent"] > 1.25  # in 0.08 ps nothing diffuses
    assert made.page.row("Main numbers", "diffusion of O / (10⁻⁹ m²/s)")[0] == "too short"


def test_drift_of_the_run(made):
    for k, found in enumerate(made.numbers["drift"]):
        table = table_of(made, k, "nve")
        t, e = table["time_ps"], table["total_energy_eV"] * 1000 / 24
        slope = np.cov(t, e)[0, 1] / np.var(t, ddof=1)
        assert found["slope"] == pytest.approx(slope, rel=1e-6)
        assert abs(found["deviation"]) < 5  # meV/atom at 0.5 fs, by far


def test_speed(made):
    rows = {row["model"]: row for row in made.numbers["speed"]["rows"]}
    assert set(rows) == set(made.names)
    for row in rows.values():
        assert 0 < row["fastest"] <= row["microseconds"] < 1e5 and 10 < row["megabytes"] < 2000
    assert made.numbers["speed"]["threads"] == 1


def test_in_a_browser(made, tmp_path):
    """All pictures are drawn, and nothing is wider than the window, be that of a telephone."""
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None
    )
    if browser is None:
        skip_or_fail("browser", "there is no chromium")
    page = tmp_path / "page.html"
    page.write_text(made.text.replace("</body>", SCRIPT), encoding="utf-8")
    for width in (1100, 500):
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--window-size={width},900",
        ]
        command += [
            f"--user-data-dir={tmp_path}/profile",
            "--virtual-time-budget=5000",
            "--dump-dom",
        ]
        done = subprocess.run(
            [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=False
        )
        assert f"<title>wide=0 images={len(made.page.images)}</title>" in done.stdout, done.stdout[
            :500
        ]


def test_nothing_is_left_without_keep(tmp_path, capsys):
    """One model, one section; an existing report is replaced only when that is said."""
    frames = tmp_path / "f.extxyz"
    labelled_frames(frames, 2)
    command = [
        "report",
        "water",
        "--labels",
        str(frames),
        "--threads",
        "1",
        "-o",
        str(tmp_path / "a.html"),
    ]
    assert main(command) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.json", "f.extxyz"]
    out = capsys.readouterr().out
    assert "without rdf: there is no structure to run (--structure)" in out
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert not page.wrong and page.row("Main numbers", "parameters") == ["148,872"]
    assert main(command) == 2 and "a.html exists; add --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--only", "errors"]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["missing"] == {}


def test_names_are_escaped(tmp_path):
    model = Path(tmp_path / "<i>&amp;.dpa2")
    shutil.copy(DPA2Calculator("water").engine.path, model)
    labelled_frames(tmp_path / "f.extxyz", 2)
    out = tmp_path / "a.html"
    assert main(["report", str(model), "--labels", str(tmp_path / "f.extxyz"), "-o", str(out)]) == 0
    page = Page(out.read_text(encoding="utf-8"))
    assert not page.wrong
    assert "Validation of <i>&amp;" in page.text
