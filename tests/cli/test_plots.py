"""Pictures: the format is that of the name, all points are inside, and they tell the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from dpa2md.cli import main
from dpa2md.comparison import Pairs
from dpa2md.errors import RunError
from dpa2md.report.distributions import coordination_number, radial_distribution
from dpa2md.report.plots import plot_parity, plot_rdf, plot_scaling

from tests.support.small_models import crystal

pytest.importorskip("matplotlib")
BEGINNINGS = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml", ".PNG": b"\x89PNG"}


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, in place of files."""
    found = []
    monkeypatch.setattr(
        "dpa2md.report.plots.save_figure", lambda figure, path: found.append(figure)
    )
    return found


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_the_format_follows_the_name(suffix, tmp_path):
    path = tmp_path / f"rdf{suffix}"
    assert plot_rdf([crystal()], path, "Si", "O") == path
    assert path.read_bytes().startswith(BEGINNINGS[suffix])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "command",
    [
        ["bench", "--atoms", "192"],
        ["check", "water", "water"],
        ["eval", "water", "water"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("name", ["picture.jpeg", "picture"])
def test_other_names_are_refused_before_the_work(command, name, monkeypatch, capsys):
    monkeypatch.setattr("dpa2md.engine.Engine.__init__", lambda *_: pytest.fail("it began"))
    assert main([*command, "--plot", name]) == 2
    error = capsys.readouterr().err
    assert f"{name}: a picture's name must end in .png, .pdf, .svg." in error
    assert error.count("\n") == 1


def test_bench_draws(tmp_path, capsys):
    picture = tmp_path / "times.pdf"
    command = ["bench", "--atoms", "192", "384", "--steps", "1", "--threads", "1"]
    assert main([*command, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("times", [(30.0, 30.01), (30.0, 60.0), (5.0, 5.0)])
def test_points_are_not_cut(times, figures):
    rows = [
        {"atoms": n, "us/atom": t, "MB": t, "DeePMD-kit us/atom": 2 * t, "DeePMD-kit MB": 3 * t}
        for n, t in zip((192, 768), times, strict=True)
    ]
    plot_scaling(rows, "times.png", "title")
    for axis in figures[0].axes:
        figures[0].draw_without_rendering()
        bottom, top = axis.get_ylim()
        highest = max(line.get_ydata().max() for line in axis.lines)
        # a marker is 6 points high, the panel some 250: half a marker is 1.2 %
        assert bottom == 0 and highest < top * (1 - 0.03)


def test_parity_tells_the_errors(figures):
    label = np.array([1.0, 2.0, 3.0])
    pairs = [
        Pairs("energy", "eV/atom", label, label + [0.1, -0.1, 0.4]),
        Pairs("force", "eV/angstrom", label, label + 0.5),
        Pairs("force O", "eV/angstrom", label[:1], label[:1]),
        Pairs("force H", "eV/angstrom", label[1:], label[1:] + 0.75),
    ]
    plot_parity(pairs, "parity.png", "title")
    energy, force = figures[0].axes
    assert energy.get_title() == "MAE 0.2, RMSE 0.245 eV/atom"  # 0.6 / 3, sqrt(0.18 / 3)
    assert force.get_title() == "MAE 0.5, RMSE 0.5 eV/angstrom"  # of all forces
    assert [text.get_text() for text in force.get_legend().get_texts()] == ["O", "H"]


def test_coordination_numbers_of_a_crystal(figures):
    """Simple cubic: 6 neighbours at a, 12 more at a sqrt 2, 8 more at a sqrt 3."""
    frames = [Atoms("O", cell=[2.0] * 3, pbc=True)] * 2
    r, n = coordination_number(frames, rmax=3.9, bins=390)
    for within, count in ((1.9, 0), (2.1, 6), (2.9, 18), (3.6, 26)):
        assert n[np.searchsorted(r, within)] == count
    plot_rdf(frames, "rdf.png", rmax=3.9)
    numbers = figures[0].axes[1]
    assert numbers.lines[0].get_ydata()[-1] == 26 and "O atoms around O" in numbers.get_ylabel()


def test_coordination_is_the_integral_of_the_distribution():
    """n(r) is the density of the second element times the integral of 4 pi r^2 g."""
    atoms = crystal()
    _, g = radial_distribution([atoms], "Si", "H", rmax=6.0, bins=60)
    edges, n = coordination_number([atoms], "Si", "H", rmax=6.0, bins=60)
    shells = 4 / 3 * np.pi * np.diff(np.concatenate([[0], edges]) ** 3)
    density = atoms.get_chemical_symbols().count("H") / atoms.get_volume()
    np.testing.assert_allclose(np.cumsum(density * shells * g), n, rtol=1e-12)


def test_no_frames():
    with pytest.raises(RunError, match="no frames"):
        coordination_number([])
