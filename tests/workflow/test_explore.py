"""Explorations: what ends them, what they leave, and that a kill loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dpa2md
import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from dpa2md import DPA2Calculator
from dpa2md.cli import main
from dpa2md.dynamics import Settings
from dpa2md.errors import RunError
from dpa2md.md import run_md
from dpa2md.workflow.distances import smallest_distances
from dpa2md.workflow.explore import Exploration, Guard, explore, perturbed

from tests.support.small_models import crystal, small_model


@pytest.fixture
def start(teacher):
    """Makes the same structure, with heavy atoms that stay apart, and a new calculator."""

    def make(model: Path = teacher) -> Atoms:
        atoms = crystal(rattle=0.05)
        atoms.set_masses(np.full(len(atoms), 50.0))
        atoms.calc = DPA2Calculator(model, threads=1)
        return atoms

    return make


CALM = Settings(steps=20, interval=5, timestep=1.0, friction=10.0)


def forces(atoms: Atoms, model: Path) -> np.ndarray:
    atoms = atoms.copy()
    atoms.calc = DPA2Calculator(model, threads=1)
    return atoms.get_forces()


def test_frames_are_those_of_the_run(start, tmp_path):
    output = tmp_path / "frames.extxyz"
    found = explore(start(), CALM, output, start="a.cif@3")
    run_md(start(), CALM, trajectory=tmp_path / "md.traj")
    frames, expected = read(output, ":"), read(tmp_path / "md.traj", ":")
    assert len(frames) == len(expected) == 5
    for frame, other in zip(frames, expected, strict=True):
        # extended XYZ holds eight decimals
        np.testing.assert_allclose(frame.positions, other.positions, atol=1e-8)
        assert frame.info["step"] == other.info["step"]
        assert (frame.info["start"], frame.info["temperature"]) == ("a.cif@3", 300.0)
        assert frame.info["ensemble"] == "nvt" and "pressure" not in frame.info
    assert (found.frames, found.steps, found.reason, found.interrupted) == (5, 20, None, False)
    assert found.distances == smallest_distances(frames)
    note = json.loads((tmp_path / "frames.json").read_text())
    assert note["distances"] == found.distances
    assert (note["frames"], note["steps"], note["reason"]) == (5, 20, None)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"frames.extxyz", "frames.json", "frames.csv", "md.traj"}


def test_pressure_is_told(start, tmp_path):
    settings = Settings(ensemble="npt", barostat="berendsen", pressure=500.0, steps=2, interval=1)
    explore(start(), settings, tmp_path / "frames.extxyz")
    frames = read(tmp_path / "frames.extxyz", ":")
    assert [frame.info["pressure"] for frame in frames] == [500.0] * 3
    assert np.ptp([frame.get_volume() for frame in frames]) > 0


def ended(start, tmp_path, name: str, **guard) -> tuple[Exploration, list[Atoms]]:
    output = tmp_path / f"{name}.extxyz"
    found = explore(start(), CALM, output, guard=Guard(**guard))
    frames = read(output, ":")
    assert found.frames == len(frames) and found.steps == frames[-1].info["step"]
    return found, frames


def test_forces_and_distances_end_a_run(start, tmp_path):
    """At the first saved frame that is beyond; the one before is the last."""
    whole = ended(start, tmp_path, "whole")[1]
    largest = [np.linalg.norm(f.get_forces(), axis=1).max() for f in whole]
    k = next(k for k in range(2, 5) if largest[k] > max(largest[1:k]))
    level = float(max(largest[1:k])) + 1e-6
    found, frames = ended(start, tmp_path, "force", max_force=level)
    assert len(frames) == k
    assert found.reason.startswith(f"step {5 * k}: a force of {largest[k]:.1f} eV/angstrom")
    bad = read(tmp_path / "force.part.failed.extxyz")
    np.testing.assert_allclose(bad.positions, whole[k].positions, atol=1e-8)
    nearest = [smallest_distances([f])["H-O"] for f in whole]
    limit = nearest[1] + 1e-6
    assert nearest[0] > 0
    found, frames = ended(start, tmp_path, "distance", limits={"H-O": limit})
    assert len(frames) == 1  # the structure that was given is always there
    assert found.reason.startswith("step 5: H-O at ")


def test_a_watching_model_ends_a_run(start, tmp_path, student, teacher):
    whole = ended(start, tmp_path, "whole")[1]
    off = [np.linalg.norm(f.get_forces() - forces(f, student), axis=1).max() for f in whole]
    watch = DPA2Calculator(student, threads=1)
    found, frames = ended(start, tmp_path, "all", teacher=watch, max_deviation=max(off) + 1e-6)
    assert found.reason is None and len(frames) == 5
    level = float(max(off[1:])) - 1e-6
    k = next(k for k in range(1, 5) if off[k] > level)
    found, frames = ended(start, tmp_path, "some", teacher=watch, max_deviation=level)
    assert len(frames) == k
    assert f"a force {off[k]:.2f} eV/angstrom off the watching model's" in found.reason


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_a_model_that_explodes(tmp_path, ensemble):
    """Random weights have no repulsion: hot atoms soon are on top of each other."""
    model = small_model(tmp_path, scale=3000.0)

    def run() -> Exploration:
        atoms = crystal(rattle=0.05)
        atoms.calc = DPA2Calculator(model, threads=1)
        return explore(atoms, settings, tmp_path / "frames.extxyz", guard=Guard(max_force=1e9))

    settings = Settings(
        ensemble=ensemble, barostat="berendsen", temperature=2000.0, steps=500, interval=2,
        timestep=2.0,
    )  # fmt: skip
    found = run()
    frames = read(tmp_path / "frames.extxyz", ":")
    assert 1 <= found.frames == len(frames) < 200
    step = int(found.reason.split()[1].rstrip(":"))
    # one saved frame back, however the steps between ended
    assert found.steps == frames[-1].info["step"] == (step - 1) // 2 * 2
    assert "K" in found.reason
    for frame in frames:
        assert np.isfinite(frame.get_forces()).all() and frame.get_temperature() < 2e4
    assert run() == found


def test_what_can_not_start_leaves_nothing(start, tmp_path):
    atoms = start()
    atoms.pbc = (True, True, False)
    with pytest.raises(RunError, match="periodic in three directions"):
        explore(atoms, Settings(ensemble="npt"), tmp_path / "frames.extxyz")
    atoms = start()
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(ValueError, match="atom"):
        explore(atoms, CALM, tmp_path / "frames.extxyz")
    assert not list(tmp_path.iterdir())


def test_the_same_command_again(start, tmp_path):
    output = tmp_path / "frames.extxyz"
    found = explore(start(), CALM, output)
    before = output.stat().st_mtime_ns
    assert explore(start(), CALM, output) == found
    assert output.stat().st_mtime_ns == before
    hotter = Settings(steps=20, interval=5, timestep=1.0, friction=10.0, temperature=310.0)
    with pytest.raises(
        RunError, match=r"another value of settings, temperature; give the same options"
    ):
        explore(start(), hotter, output)
    with pytest.raises(RunError, match="another value of guard, max_force"):
        explore(start(), CALM, output, guard=Guard(max_force=3.0))
    assert explore(start(), hotter, output, overwrite=True).frames == 5
    assert read(output).info["temperature"] == 310.0
    (tmp_path / "frames.json").unlink()
    with pytest.raises(RunError, match=r"frames\.extxyz exists; add --overwrite"):
        explore(start(), hotter, output)


@pytest.fixture
def begin(teacher, start, tmp_path):
    """Begins `dpa2md explore` as a process of its own, in a folder."""
    atoms = start()
    atoms.calc = None
    write(tmp_path / "start.traj", atoms)

    def process(folder: Path, *options: str) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "dpa2md", "explore", str(teacher), "../start.traj", "--threads",
                   "1", "--interval", "3", "--quiet", "-o", "frames.extxyz", *options]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(Path(dpa2md.__file__).parents[1])}
        return subprocess.Popen(command, cwd=folder, env=environment)

    return process


def frames_there(folder: Path) -> int:
    part = folder / "frames.part.extxyz"
    return part.read_text().count("Lattice") if part.exists() else 0


def late_end(start, tmp_path) -> tuple[int, float, int]:
    """A seed whose run reaches its largest force late, a level just below, the frames before."""
    for seed in range(1, 30):
        output = tmp_path / f"probe-{seed}.extxyz"
        explore(start(), Settings(steps=60, interval=3, seed=seed), output)
        largest = [np.linalg.norm(f.get_forces(), axis=1).max() for f in read(output, ":")]
        frames = int(np.argmax(largest[1:])) + 1
        if frames >= 10:
            return seed, float(largest[frames]) - 1e-6, frames
    raise AssertionError("no such seed")


def test_killed_explorations_reach_the_same_end(begin, start, tmp_path):
    """And find the same reason to end early again."""
    seed, level, count = late_end(start, tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    settings, guard = Settings(steps=60, interval=3, seed=seed), Guard(max_force=level)
    explore(start(), settings, whole / "frames.extxyz", start="../start.traj", guard=guard)
    options = ["--steps", "60", "--seed", str(seed), "--max-force", repr(level)]
    kills = 0
    for wanted in (1, count - 4):
        process = begin(killed, *options)
        deadline = time.monotonic() + 60
        while frames_there(killed) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 1  # a run that had ended would prove nothing
    assert begin(killed, *options).wait(120) == 0
    texts = [(folder / "frames.extxyz").read_text() for folder in (whole, killed)]
    assert texts[0] == texts[1]
    notes = [json.loads((folder / "frames.json").read_text()) for folder in (whole, killed)]
    for note in notes:
        del note["seconds"]
    assert notes[0] == notes[1]
    assert notes[0]["frames"] == count and notes[0]["reason"].startswith(
        f"step {3 * count}: a force"
    )


def test_interrupted(begin, tmp_path):
    folder = tmp_path / "run"
    process = begin(folder, "--steps", "100000")
    while frames_there(folder) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 130
    assert (folder / "frames.npz").exists() and not (folder / "frames.extxyz").exists()


def test_perturbed_copies():
    atoms = crystal((2, 2, 1), rattle=0.0)
    atoms.set_momenta(np.ones((len(atoms), 3)))
    shaken = perturbed([atoms], 200, rattle=0.1, strain=0.0)
    moves = np.array([copy.positions - atoms.positions for copy in shaken])
    # 200 x 36 normal numbers: the error of the deviation is 0.8 %, of the mean 0.0012
    assert moves.std() == pytest.approx(0.1, rel=0.05)
    assert abs(moves.mean()) < 0.006
    assert not any(copy.has("momenta") for copy in shaken)
    strained = perturbed([atoms], 200, rattle=0.0, strain=0.02)
    inverse = np.linalg.inv(atoms.cell.array)
    changes = np.array([inverse @ copy.cell.array - np.eye(3) for copy in strained])
    np.testing.assert_allclose(changes, changes.transpose(0, 2, 1), atol=1e-12)
    assert 0.019 < abs(changes).max() <= 0.02
    # an even distribution from -s to s has the standard deviation s / sqrt(3)
    first, second = np.triu_indices(3)
    assert changes[:, first, second].std() == pytest.approx(0.02 / np.sqrt(3), rel=0.1)
    for copy in strained:
        np.testing.assert_allclose(
            copy.get_scaled_positions(wrap=False),
            atoms.get_scaled_positions(wrap=False),
            atol=1e-12,
        )


def test_perturbed_copies_depend_on_the_seed_alone():
    atoms, other = crystal((1, 1, 1)), crystal((2, 1, 1))
    found = perturbed([atoms, other], 2)
    again = perturbed([atoms, other], 3)
    assert [len(copy) for copy in found] == [3, 3, 6, 6]
    np.testing.assert_array_equal(found[1].positions, again[1].positions)
    np.testing.assert_array_equal(found[2].positions, again[3].positions)
    assert not np.array_equal(perturbed([atoms], 1, seed=2)[0].positions, found[0].positions)


def test_perturbed_copies_keep_their_distance():
    atoms = crystal((2, 2, 1), rattle=0.0)
    limits = {"H-O": 0.95 * smallest_distances([atoms])["H-O"]}
    some = perturbed([atoms], 50, rattle=0.05, limits=limits)
    assert 0 < len(some) < 50
    assert all(smallest_distances([copy])["H-O"] >= limits["H-O"] for copy in some)
    with pytest.raises(RunError, match="not periodic in three directions; give --strain 0"):
        perturbed([Atoms("O")], 1)
    assert len(perturbed([Atoms("O")], 1, strain=0.0)) == 1


def test_command(teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("start.extxyz", [crystal((1, 1, 1)), crystal((2, 1, 1))])
    shake = ["explore", "start.extxyz", "--perturb", "4", "--strain", "0.01", "-o", "a.extxyz"]
    assert main([*shake, "--limits", "start.extxyz", "--limit-factor", "0.5"]) == 0
    frames = read("a.extxyz", ":")
    assert [len(frame) for frame in frames] == [3] * 4 + [6] * 4
    assert {frame.info["start"] for frame in frames} == {"start.extxyz"}
    assert json.loads(Path("a.json").read_text())["frames"] == 8
    md = ["explore", str(teacher), "start.extxyz", "--steps", "4", "--interval", "2", "--threads", "1",
          "-o", "b.extxyz", "--watch", str(teacher), "--quiet"]  # fmt: skip
    capsys.readouterr()
    assert main(md) == 0
    assert capsys.readouterr().out == "3 frames up to step 4\nwrote b.extxyz, b.json\n"
    assert main(["explore", str(teacher), *shake[1:-1], "c.extxyz"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--perturb", "3", "--steps", "5"], "--steps is for a run"),
        (["--perturb", "3", "--watch", "water"], "--watch is for a run"),
        (["--perturb", "0"], "give 1 copy or more"),
        (["--perturb", "2", "--limits", "start.extxyz", "--limit-factor", "1"], "All copies"),
        (["--rattle", "0.1"], "--rattle is for shaken copies"),
        (["--max-deviation", "1"], "--max-deviation is for a watching model"),
        (["--limit-factor", "1"], "--limit-factor is for --limits"),
        (["--max-force", "0"], "max_force is 0"),
        (["-o", "a.xyz"], "name the frames' file .extxyz"),
        (["-o", "nowhere/a.extxyz"], "there is no such folder"),
        (["--head", "A"], "single head"),
    ],
)
def test_refusals(teacher, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write("start.extxyz", crystal((2, 1, 1)))
    model = [] if "--perturb" in options else [str(teacher)]
    assert main(["explore", *model, "start.extxyz", "-o", "a.extxyz", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in Path().iterdir()] == ["start.extxyz"]


def test_elements_of_the_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("gold.extxyz", Atoms("Au", cell=[4] * 3, pbc=True))
    for model in (["--model", "water"], ["--perturb", "2", "--model", "water"]):
        assert main(["explore", "gold.extxyz", "-o", "a.extxyz", *model]) == 2
        assert "doesn't know the element Au" in capsys.readouterr().err
