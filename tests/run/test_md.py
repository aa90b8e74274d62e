"""Molecular dynamics: ensembles, outputs, checkpoints, plots, the water box."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import read, write
from dpa2md import DPA2Calculator
from dpa2md.dynamics import BAR, Settings, draw_velocities
from dpa2md.errors import Explosion, RunError
from dpa2md.integrators import default_barostat
from dpa2md.md import run_md, thermo
from dpa2md.report.distributions import radial_distribution
from dpa2md.report.plots import plot_rdf, plot_thermo
from dpa2md.run.outputs import COLUMNS
from dpa2md.structures import equilibrated_water, water_box

from tests.support.small_models import crystal, small_model

WAYS = {
    "nve": {"ensemble": "nve"},
    "langevin": {"ensemble": "nvt", "thermostat": "langevin", "friction": 10.0},
    "bussi": {"ensemble": "nvt", "thermostat": "bussi", "taut": 20.0},
    "nose-hoover": {"ensemble": "nvt", "thermostat": "nose-hoover", "taut": 20.0},
    "mtk": {"ensemble": "npt", "barostat": "mtk", "taut": 20.0, "taup": 1000.0},
    "berendsen": {"ensemble": "npt", "barostat": "berendsen", "taut": 20.0, "taup": 1000.0},
}


def settings_of(way: str, **options) -> Settings:
    """Settings for one of the ways to run, which the installed ASE may lack."""
    if way == "bussi":
        pytest.importorskip("ase.md.bussi")
    elif way == "nose-hoover":
        pytest.importorskip("ase.md.nose_hoover_chain")
    elif way == "mtk" and default_barostat() != "mtk":
        pytest.skip("the installed ASE has no MTK barostat")
    return Settings(**{**WAYS[way], **options})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"), scale=100.0)


@pytest.fixture
def start(path):
    """Makes the same structure with a new calculator each time.

    Its atoms are heavy, so that they don't come close to each other soon: random models have no
    repulsion.
    """

    def make(seed: int = 3) -> Atoms:
        atoms = crystal(rattle=0.05, seed=seed)
        atoms.set_masses(np.full(len(atoms), 50.0))
        atoms.calc = DPA2Calculator(path, threads=1)
        return atoms

    return make


@pytest.fixture
def files(tmp_path):
    """Names for the outputs of a run, in folders of their own."""

    def make(name: str, extension: str = "traj") -> dict:
        folder = tmp_path / name
        folder.mkdir()
        return {
            "trajectory": folder / f"md.{extension}",
            "log": folder / "md.csv",
            "checkpoint": folder / "md.npz",
        }

    return make


def columns(log) -> np.ndarray:
    return np.genfromtxt(log, delimiter=",", names=True)


def test_energy_is_conserved(start):
    """Velocity Verlet's energy error shrinks with the square of the timestep."""
    spread = []
    for timestep in (4.0, 2.0):
        energies = []
        steps = int(160 / timestep)
        settings = Settings(ensemble="nve", timestep=timestep, steps=steps, interval=1)
        run_md(
            start(), settings, report=lambda _, row, e=energies: e.append(row["total_energy_eV"])
        )
        spread.append(np.ptp(energies))
    assert spread[0] > 1e-6
    # 4, but for terms of higher order and for the extremes falling between steps.
    assert 3 < spread[0] / spread[1] < 5


@pytest.mark.parametrize("way", WAYS)
def test_outputs(way, start, files):
    settings = settings_of(way, steps=20, interval=5, timestep=1.0)
    names = files(way)
    atoms = start()
    outcome = run_md(atoms, settings, **names)
    assert (outcome.first_step, outcome.last_step, outcome.interrupted) == (0, 20, False)
    table, frames = columns(names["log"]), read(names["trajectory"], ":")
    assert table.dtype.names == COLUMNS
    np.testing.assert_array_equal(table["step"], [0, 5, 10, 15, 20])
    np.testing.assert_allclose(table["time_ps"], table["step"] / 1000)
    assert len(frames) == 5
    for row, frame in zip(table, frames, strict=True):
        assert frame.get_potential_energy() == row["potential_energy_eV"]
        assert frame.get_kinetic_energy() == pytest.approx(row["kinetic_energy_eV"])
        assert frame.get_volume() == pytest.approx(row["volume_A3"])
    np.testing.assert_array_equal(frames[-1].positions, atoms.positions)
    assert (np.ptp(table["volume_A3"]) > 1e-3) == (settings.ensemble == "npt")
    assert (np.ptp(table["total_energy_eV"]) < 1e-2) == (settings.ensemble == "nve")
    leftovers = [file for file in names["log"].parent.iterdir() if file not in names.values()]
    assert not leftovers


@pytest.mark.parametrize("way", ["langevin", "bussi", "nose-hoover", "berendsen"])
def test_thermostats_move_the_temperature(way, start):
    """A system at 100 K is brought towards 900 K."""
    atoms = start()
    draw_velocities(atoms, 100, np.random.default_rng(0))
    run_md(atoms, settings_of(way, temperature=900.0, steps=150, timestep=1.0))
    assert 450 < atoms.get_temperature() < 2000


@pytest.mark.parametrize("way", ["mtk", "berendsen"])
def test_pressure_squeezes(way, start):
    volumes = []
    for pressure in (0.0, 10000.0):
        atoms = start()
        run_md(atoms, settings_of(way, steps=40, timestep=1.0, pressure=pressure))
        volumes.append(atoms.get_volume())
    assert volumes[1] < 0.999 * volumes[0]


class Stop(Exception):
    """Stands for a crash in the middle of a run."""


@pytest.mark.parametrize("extension", ["traj", "xyz"])
@pytest.mark.parametrize("way", WAYS)
def test_continued_run_repeats_the_unbroken_one(way, extension, start, files):
    settings = settings_of(way, steps=30, interval=3, checkpoint_interval=10, timestep=1.0)
    whole, broken = files("whole", extension), files("broken", extension)
    expected = start()
    run_md(expected, settings, **whole)

    def crash(step, _):
        if step == 27:
            raise Stop

    with pytest.raises(Stop):
        run_md(start(), settings, **broken, report=crash)
    atoms = start()
    outcome = run_md(atoms, settings, **broken, restart=True)
    assert (outcome.first_step, outcome.last_step) == (20, 30)
    np.testing.assert_array_equal(atoms.positions, expected.positions)
    np.testing.assert_array_equal(atoms.get_momenta(), expected.get_momenta())
    np.testing.assert_array_equal(atoms.cell.array, expected.cell.array)
    assert broken["log"].read_text() == whole["log"].read_text()
    frames, wanted = (read(names["trajectory"], ":") for names in (broken, whole))
    assert len(frames) == len(wanted) == 11
    for frame, other in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(frame.positions, other.positions)
        assert frame.info == other.info
    if extension == "xyz":
        assert broken["trajectory"].read_text() == whole["trajectory"].read_text()


def test_seeds(start):
    """The same seed repeats a run, another one does not."""
    runs = []
    for seed in (1, 1, 2):
        atoms = start()
        run_md(atoms, Settings(steps=5, seed=seed))
        runs.append(atoms.positions)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-4


def test_velocities_of_the_structure_are_kept(start):
    atoms = start()
    draw_velocities(atoms, 50, np.random.default_rng(7))
    kinetic = atoms.get_kinetic_energy()
    rows = []
    run_md(atoms, Settings(steps=0), report=lambda _, row: rows.append(row))
    assert rows[0]["kinetic_energy_eV"] == kinetic
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-12)


def test_finished_run_can_be_made_longer(start, files):
    names = files("run")
    settings = {"steps": 10, "interval": 5}
    run_md(start(), Settings(**settings), **names)
    outcome = run_md(start(), Settings(**settings), **names, restart=True)
    assert (outcome.first_step, outcome.last_step) == (10, 10)
    outcome = run_md(start(), Settings(**settings | {"steps": 20}), **names, restart=True)
    assert (outcome.first_step, outcome.last_step) == (10, 20)
    assert list(columns(names["log"])["step"]) == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_saves_its_step(number, start, files):
    names = files("run")
    settings = Settings(steps=20, interval=5)

    def interrupt(step, _):
        if step == 7:
            os.kill(os.getpid(), number)

    outcome = run_md(start(), settings, **names, report=interrupt)
    assert outcome.interrupted
    assert outcome.last_step in (7, 8)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    again = run_md(start(), settings, **names, restart=True)
    assert (again.first_step, again.last_step) == (outcome.last_step, 20)
    assert list(columns(names["log"])["step"]) == [0, 5, 10, 15, 20]


def test_explosions_stop_the_run(start, files):
    names = files("run")
    with pytest.raises(Explosion, match=r"failed at step \d+ \(the temperature is \d+ K\)") as end:
        run_md(start(), Settings(steps=50, max_temperature=20.0), **names)
    assert f"step {end.value.step} ({end.value.reason})" in str(end.value)
    frame = read(names["trajectory"].with_suffix(".failed.extxyz"))
    assert len(frame) == len(start())
    atoms = start()
    atoms.set_momenta(np.full((len(atoms), 3), np.nan))
    with pytest.raises(RunError, match="failed at step 1"):
        run_md(atoms, Settings(steps=50, ensemble="nve"), trajectory=names["trajectory"])


def test_a_watch_ends_the_run(start, files):
    """Before anything is written of the step; a continued run asks it again."""
    names, settings = files("run", "xyz"), Settings(steps=20, interval=5)
    asked = []

    def watch(step: int, atoms: Atoms) -> str | None:
        asked.append(step)
        return "enough" if step == 15 else None

    outcome = run_md(start(), settings, **names, watch=watch)
    assert (outcome.last_step, outcome.reason, outcome.interrupted) == (15, "enough", False)
    assert asked == [5, 10, 15]
    assert list(columns(names["log"])["step"]) == [0, 5, 10]
    assert [frame.info["step"] for frame in read(names["trajectory"], ":")] == [0, 5, 10]
    assert names["trajectory"].with_suffix(".failed.extxyz").exists()
    outcome = run_md(start(), settings, **names, watch=watch, restart=True)
    assert (outcome.first_step, outcome.last_step, outcome.reason) == (10, 15, "enough")
    outcome = run_md(start(), settings, **names, restart=True)
    assert (outcome.first_step, outcome.last_step, outcome.reason) == (10, 20, None)
    assert list(columns(names["log"])["step"]) == [0, 5, 10, 15, 20]


def test_checkpoints_that_do_not_fit(start, files, path):
    names = files("run")
    run_md(start(), Settings(steps=4), **names)
    restart = names | {"restart": True}
    with pytest.raises(RunError, match=r"made with temperature 300.0, not 310.0"):
        run_md(start(), Settings(steps=8, temperature=310.0), **restart)
    atoms = crystal((1, 1, 1))
    atoms.calc = DPA2Calculator(path, threads=1)
    with pytest.raises(RunError, match="other atoms"):
        run_md(atoms, Settings(steps=8), **restart)
    atoms = start()
    atoms.calc = DPA2Calculator(path, "float32", threads=1)
    with pytest.raises(RunError, match=r"in float64, not .* in float32"):
        run_md(atoms, Settings(steps=8), **restart)
    names["log"].write_text("")
    with pytest.raises(RunError, match="shorter than when the checkpoint was written"):
        run_md(start(), Settings(steps=8), **restart)
    content = names["checkpoint"].read_bytes()
    for damaged in (b"", content[:1000], b"PK\x03\x04" + bytes(100)):
        names["checkpoint"].write_bytes(damaged)
        with pytest.raises(RunError, match="not a checkpoint, or it is damaged"):
            run_md(start(), Settings(steps=8), **restart)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble": "nph"}, "Unknown ensemble"),
        ({"thermostat": "x"}, "Unknown thermostat"),
        ({"timestep": 0.0}, "timestep is 0.0"),
        ({"timestep": float("nan")}, "timestep is nan"),
        ({"interval": 0}, "interval is 0"),
        ({"steps": -1}, "negative"),
        ({"temperature": 0.0}, "above 0"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(RunError, match=message):
        Settings(**options)


def test_constant_pressure_needs_a_cell(start):
    atoms = start()
    atoms.pbc = (True, True, False)
    with pytest.raises(RunError, match="periodic in three directions"):
        run_md(atoms, Settings(ensemble="npt"))


def test_pressure_is_that_of_the_virial(start):
    """P V = N k T + trace(virial) / 3."""
    atoms = start()
    draw_velocities(atoms, 500, np.random.default_rng(0))
    row = thermo(atoms, 0, 1.0)
    virial = -atoms.get_stress(voigt=False) * atoms.get_volume()
    ideal = len(atoms) * units.kB * atoms.get_temperature()
    expected = (ideal + np.trace(virial) / 3) / atoms.get_volume() / BAR
    assert row["pressure_bar"] == pytest.approx(expected, rel=1e-10)


def test_molecule_has_no_pressure(path):
    atoms = Atoms("OH2", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]])
    atoms.calc = DPA2Calculator(path, threads=1)
    row = thermo(atoms, 0, 1.0)
    assert np.isnan(row["pressure_bar"])
    assert np.isfinite(row["total_energy_eV"])


def test_rdf_of_an_ideal_gas():
    """g = 1 within the noise of counting, in a skewed cell too."""
    rng = np.random.default_rng(0)
    cell = np.array([[10, 0, 0], [5, 9, 0], [-3, 4, 8.0]])
    frames = [Atoms("O300", rng.random((300, 3)) @ cell, cell=cell, pbc=True) for _ in range(5)]
    r, g = radial_distribution(frames, rmax=9.0, bins=9)
    counts = 5 * 300**2 / np.linalg.det(cell) * 4 / 3 * np.pi * np.diff(np.linspace(0, 9, 10) ** 3)
    # Pairs are counted twice, so the noise of the count is sqrt(2 count).
    assert np.all(np.abs(g - 1) < 4 * np.sqrt(2 / counts) + 1 / 300)
    assert r[0] == pytest.approx(0.5)


def test_rdf_counts_every_image():
    """Neighbour shells of a simple cubic crystal, from one atom in a cell smaller than rmax."""
    atoms = Atoms("O", cell=[2.0] * 3, pbc=True)
    edges = np.linspace(0, 5, 51)
    r, g = radial_distribution([atoms], rmax=5.0, bins=50)
    shells = g / 8 * 4 / 3 * np.pi * np.diff(edges**3)
    found = {round(float(x), 2): round(float(n)) for x, n in zip(r, shells, strict=True) if n > 0.5}
    assert list(found.values()) == [6, 12, 8, 6, 24, 24]
    for distance, true in zip(found, 2 * np.sqrt([1, 2, 3, 4, 5, 6]), strict=True):
        assert abs(distance - true) <= 0.05 + 1e-9


def test_rdf_of_a_supercell_is_the_same():
    atoms = crystal((1, 1, 1))
    _, one = radial_distribution([atoms], "Si", "H", rmax=7.0)
    _, many = radial_distribution([atoms.repeat((2, 3, 1))], "Si", "H", rmax=7.0)
    np.testing.assert_allclose(many, one, rtol=1e-12)


def test_rdf_errors():
    with pytest.raises(RunError, match="no pair O-Ar"):
        radial_distribution([crystal()], "O", "Ar")
    with pytest.raises(RunError, match="fully periodic"):
        radial_distribution([Atoms("O2", np.eye(2, 3))], rmax=2.0)
    with pytest.raises(RunError, match="no frames"):
        radial_distribution([])


def test_plots(start, files):
    pytest.importorskip("matplotlib")
    names = files("run")
    run_md(start(), Settings(steps=4, interval=1), **names)
    pictures = [
        plot_thermo(names["log"], names["log"].with_suffix(".png")),
        plot_rdf(read(names["trajectory"], ":"), names["log"].with_name("rdf.png"), "Si", "O"),
    ]
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 27, 64, 100])
def test_water_box(count, tmp_path):
    atoms = water_box(count, seed=1)
    assert atoms.get_chemical_formula() == Atoms("OH2" * count).get_chemical_formula()
    density = atoms.get_masses().sum() / atoms.get_volume() / (units.mol * 1e-24)
    assert density == pytest.approx(0.997, abs=1e-6)
    distances = atoms.get_all_distances(mic=True)
    for k in range(0, 3 * count, 3):
        np.testing.assert_allclose(distances[k, k + 1 : k + 3], 0.9572, atol=1e-9)
        assert atoms.get_angle(k + 1, k, k + 2, mic=True) == pytest.approx(104.52)
    molecule = np.repeat(np.arange(count), 3)
    assert distances[molecule[:, None] != molecule].min(initial=9.0) > 1.5
    np.testing.assert_array_equal(atoms.positions, water_box(count, seed=1).positions)
    write(tmp_path / "box.xyz", atoms)
    assert len(read(tmp_path / "box.xyz")) == 3 * count


def test_equilibrated_water():
    """Whole molecules at the right density, warm and at rest."""
    atoms = equilibrated_water()
    assert atoms.get_chemical_symbols() == ["O", "H", "H"] * 64
    assert atoms.get_volume() == pytest.approx(water_box(64).get_volume(), rel=1e-5)
    for k in range(0, 192, 3):
        bonds = atoms.get_distances(k, [k + 1, k + 2])  # without images: molecules are whole
        assert np.all((0.8 < bonds) & (bonds < 1.2))
    assert 200 < atoms.get_temperature() < 400
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-3)
