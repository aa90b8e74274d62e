"""Ramps of temperature and pressure, and cells that change their shape."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from dpa2md import DPA2Calculator
from dpa2md.dynamics import Settings, draw_velocities
from dpa2md.errors import RunError
from dpa2md.integrators import make_dynamics, parts_of, set_targets
from dpa2md.md import run_md

from tests.support.small_models import crystal, small_model

pytest.importorskip("ase.md.nose_hoover_chain")
WAYS = {
    "langevin": {"ensemble": "nvt", "thermostat": "langevin", "friction": 50.0},
    "bussi": {"ensemble": "nvt", "thermostat": "bussi", "taut": 20.0},
    "nose-hoover": {"ensemble": "nvt", "thermostat": "nose-hoover", "taut": 20.0},
    "berendsen": {"ensemble": "npt", "barostat": "berendsen", "taut": 20.0},
    "isotropic": {"ensemble": "npt", "taut": 20.0},
    "anisotropic": {"ensemble": "npt", "taut": 20.0, "cell_change": "anisotropic"},
    "full": {"ensemble": "npt", "taut": 20.0, "cell_change": "full"},
}
MTK = {"isotropic": "IsotropicMTKNPT", "anisotropic": "MaskedMTKNPT", "full": "MTKNPT"}
RAMP = {"temperature": 100.0, "temperature_end": 400.0}


def settings_of(way: str, **options) -> Settings:
    """Settings for a way to run, which the installed ASE may lack."""
    if way in MTK:
        from ase.md import nose_hoover_chain

        if not hasattr(nose_hoover_chain, MTK[way]):
            pytest.skip("the installed ASE can't change a cell like this")
    elif way == "bussi":
        pytest.importorskip("ase.md.bussi")
    return Settings(**{"timestep": 1.0, **WAYS[way], **options})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"), scale=100.0)


@pytest.fixture
def start(path):
    """Makes heavy atoms in a cell with right angles, each time with a new calculator."""

    def make() -> Atoms:
        atoms = crystal(rattle=0.05, seed=3)
        atoms.set_cell(atoms.cell.lengths(), scale_atoms=True)
        atoms.set_masses(np.full(len(atoms), 50.0))
        atoms.calc = DPA2Calculator(path, threads=1)
        return atoms

    return make


@pytest.mark.parametrize("way", MTK)
def test_conserved_quantity(way, start):
    """What the equations of motion conserve; its error shrinks with the square of the timestep."""
    spread = []
    for timestep in (4.0, 2.0):
        atoms, rng = start(), np.random.default_rng(1)
        draw_velocities(atoms, 300, rng)
        settings = settings_of(way, timestep=timestep, taut=50.0, taup=500.0, pressure=1000.0)
        dynamics = make_dynamics(atoms, settings, rng)
        conserved = []
        for _ in range(int(160 / timestep)):
            dynamics.step()
            conserved.append(dynamics.get_conserved_energy())
        spread.append(np.ptp(conserved))
    assert spread[0] > 1e-4
    # 4, but for terms of higher order and for the extremes falling between steps
    assert 3 < spread[0] / spread[1] < 5


@pytest.mark.parametrize("way", MTK)
def test_which_part_of_the_cell_changes(way, start):
    """All lengths in proportion, each for itself, or the angles as well."""
    atoms = start()
    before = atoms.cell.cellpar()
    run_md(atoms, settings_of(way, steps=40))
    stretch, turn = atoms.cell.lengths() / before[:3], atoms.cell.angles() - before[3:]
    assert np.abs(stretch - 1).max() > 1e-3
    assert (np.ptp(stretch) > 1e-4) == (way != "isotropic")
    assert (np.abs(turn).max() > 1e-2) == (way == "full")


def test_lengths_alone_need_right_angles(path):
    atoms = crystal()
    atoms.calc = DPA2Calculator(path, threads=1)
    with pytest.raises(RunError, match="must have right angles"):
        run_md(atoms, settings_of("anisotropic"))


@pytest.mark.parametrize("way", WAYS)
def test_changed_targets_are_those_of_a_new_integrator(way, start):
    """An integrator at 100 K and 1 bar that is told 250 K and 500 bar, and one made for these."""
    atoms = start()
    draw_velocities(atoms, 100, np.random.default_rng(0))
    numbers = []
    for first in ((100.0, 1.0), (250.0, 500.0)):
        settings = settings_of(way, temperature=first[0], pressure=first[1])
        dynamics = make_dynamics(atoms, settings, np.random.default_rng(0))
        if first[0] == 100.0:
            old = numbers_of(dynamics)
        set_targets(dynamics, 250.0, 500.0)
        numbers.append(numbers_of(dynamics))
    changed, made = numbers
    assert changed.keys() == made.keys()
    for name in made:
        np.testing.assert_allclose(changed[name], made[name], rtol=1e-12, err_msg=str(name))
    different = {name[1] for name in made if not np.allclose(old[name], made[name], rtol=1e-3)}
    assert len(different) >= (1 if way != "isotropic" else 5)


def numbers_of(dynamics) -> dict:
    """Every number and array of an integrator and of its parts."""
    return {
        (part, name): np.copy(value)
        for part, holder in parts_of(dynamics).items()
        for name, value in vars(holder).items()
        if isinstance(value, float | np.ndarray)
    }


@pytest.mark.parametrize("way", WAYS)
def test_temperature_follows_the_ramp(way):
    """Copper of ASE's EMT: a thermostat with a time constant of 20 fs lags little in a run of 1 ps."""
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.calc = EMT()
    draw_velocities(atoms, 200, np.random.default_rng(2))  # half of it becomes potential energy
    settings = settings_of(way, **RAMP, steps=250, timestep=4.0, interval=2)
    rows = []
    run_md(atoms, settings, report=lambda _, row: row and rows.append(row))
    temperature = np.array([row["temperature_K"] for row in rows])
    aim = np.array([settings.targets(row["step"])[0] for row in rows])
    assert aim[0] == 100 and aim[-1] == 400
    for part in np.array_split(np.arange(30, 126), 2):
        # Half of the heat goes into potential energy, so the lag is 40 fs or 12 K, 4 to 8 %.
        # 96 degrees of freedom scatter by sqrt(2 / 96) = 14 %, of 0.4 ps some 10 samples are
        # independent: 5 %, twice. Without the ramp it would be 40 to 70 %.
        assert abs((temperature[part] / aim[part]).mean() - 1) < 0.18


def test_targets():
    settings = Settings(ensemble="npt", steps=10, pressure=1.0, pressure_end=-9.0, **RAMP)
    assert settings.targets(0) == (100, 1) and settings.targets(10) == (400, -9)
    assert settings.targets(5) == (250, -4)
    assert Settings(steps=10).targets(5) == (300, 1) and not Settings().ramped


class Stop(Exception):
    """Stands for a crash in the middle of a run."""


@pytest.mark.parametrize("way", WAYS)
def test_a_continued_ramp_repeats_the_unbroken_one(way, start, tmp_path):
    ends = {"pressure_end": 500.0} if WAYS[way]["ensemble"] == "npt" else {}
    settings = settings_of(way, **RAMP, **ends, steps=30, interval=3, checkpoint_interval=10)
    whole, broken = (
        {
            "trajectory": tmp_path / f"{name}.xyz",
            "log": tmp_path / f"{name}.csv",
            "checkpoint": tmp_path / f"{name}.npz",
        }
        for name in ("whole", "broken")
    )
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
    for name in ("trajectory", "log"):
        assert broken[name].read_bytes() == whole[name].read_bytes()
    np.testing.assert_array_equal(atoms.cell.array, expected.cell.array)
    # of another length it would be another ramp
    longer = settings_of(way, **RAMP, **ends, steps=60, interval=3, checkpoint_interval=10)
    with pytest.raises(RunError, match="made with steps 30, not 60"):
        run_md(start(), longer, **broken, restart=True)


def test_checkpoints_from_before_there_were_ramps(start, tmp_path):
    """A setting that a checkpoint doesn't know had its usual value."""
    path = tmp_path / "md.npz"
    run_md(start(), Settings(steps=2, interval=1), checkpoint=path)
    with np.load(path) as checkpoint:
        arrays = dict(checkpoint)
    facts = json.loads(str(arrays["facts"]))
    del facts["physics"]["temperature_end"]
    facts["physics"]["pressure"] = 1.0  # of no account
    np.savez(path, **arrays | {"facts": json.dumps(facts)})
    run_md(start(), Settings(steps=4, interval=1), checkpoint=path, restart=True)
    with pytest.raises(RunError, match="made with temperature_end None, not 400"):
        run_md(start(), Settings(steps=6, temperature_end=400.0), checkpoint=path, restart=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble": "nve", "temperature_end": 1.0}, "needs a thermostat"),
        ({"temperature_end": 0.0}, "above 0"),
        ({"pressure_end": 1.0}, "needs a barostat"),
        ({"ensemble": "npt", "pressure_end": float("nan")}, "pressure_end is nan"),
        ({"cell_change": "full"}, "needs npt with the barostat mtk"),
        ({"ensemble": "npt", "barostat": "berendsen", "cell_change": "full"}, "barostat mtk"),
        ({"cell_change": "some"}, "Unknown cell_change"),
    ],
)
def test_targets_are_checked(options, message):
    with pytest.raises(RunError, match=message):
        Settings(**options)


@pytest.mark.parametrize("extension", ["traj", "xyz", "extxyz"])
def test_frames_know_their_step_and_time(extension, start, tmp_path):
    path = tmp_path / f"md.{extension}"
    atoms = start()
    atoms.info["step"] = "of another run"
    run_md(atoms, Settings(steps=6, interval=2, timestep=0.5), trajectory=path)
    frames = read(path, ":")
    assert [frame.info["step"] for frame in frames] == [0, 2, 4, 6]
    assert [frame.info["time"] for frame in frames] == pytest.approx([0, 0.001, 0.002, 0.003])
