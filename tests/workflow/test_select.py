"""Which frames are worth a label: deviations, levels, sanity, what is held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from dpa2md import DPA2Calculator, Engine
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.workflow.distances import smallest_distances
from dpa2md.workflow.select import Request, select

from tests.support.small_models import crystal, small_model


@pytest.fixture(scope="module")
def frames():
    """Crystals that are shaken more and more, with marks of where they are from."""
    found = [crystal((2, 1, 1), rattle=0.02 * k, seed=k) for k in range(12)]
    for k, atoms in enumerate(found):
        atoms.info |= {"start": "a.cif", "temperature": 300.0 if k < 8 else 600.0}
        atoms.set_momenta(np.ones((len(atoms), 3)))
    return found


@pytest.fixture
def files(tmp_path, frames, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labelled = [atoms.copy() for atoms in frames]
    for atoms in labelled:  # what an exploration leaves: energies of its own model
        atoms.info["energy"] = -1.0
    write("one.extxyz", labelled[:8])
    write("two.traj", frames[8:])
    return ["one.extxyz", "two.traj"]


@pytest.fixture
def engines(teacher, student):
    return Engine(teacher, threads=1), Engine(student, threads=1)


@pytest.fixture(scope="module")
def deviations(frames, teacher, student, forces_of):
    """Of every frame, from separate evaluations by two calculators, atom by atom."""
    found = []
    for atoms in frames:
        pairs = zip(forces_of(teacher, atoms), forces_of(student, atoms), strict=True)
        found.append(max(float(np.sqrt(((a - b) ** 2).sum())) for a, b in pairs))
    return np.array(found)


# extended XYZ holds eight decimals of positions, and forces change by some 10 eV/angstrom^2
DECIMALS = 1e-6


def numbers(found, frames) -> list[int]:
    """Which of the frames were chosen."""
    positions = np.array([atoms.positions for atoms in frames])
    return [
        int(np.abs(positions - atoms.positions).max(axis=(1, 2)).argmin()) for atoms in found.chosen
    ]


def test_deviations_and_levels(files, engines, frames, deviations):
    ordered = np.sort(deviations)
    lower, upper = (ordered[2] + ordered[3]) / 2, (ordered[9] + ordered[10]) / 2
    found = select(files, *engines, Request(max_frames=50, lower=lower, upper=upper))
    assert found.summary["frames"] == 12
    kinds = ("accurate", "candidate", "failed", "insane")
    assert [found.summary[kind] for kind in kinds] == [3, 7, 2, 0]
    expected = np.flatnonzero((deviations >= lower) & (deviations <= upper))
    chosen = numbers(found, frames)
    assert sorted(chosen) == expected.tolist()
    own = [atoms.info["deviation"] for atoms in found.chosen]
    np.testing.assert_allclose(own, deviations[chosen], atol=DECIMALS)
    summary = found.summary["deviation"]
    assert summary["mean"] == pytest.approx(deviations.mean(), abs=DECIMALS)
    assert summary["max"] == pytest.approx(deviations.max(), abs=DECIMALS)
    assert summary["quantiles"]["50%"] == pytest.approx(np.median(deviations), abs=DECIMALS)
    assert sum(summary["histogram"]["counts"]) == 12
    assert "no more different candidates" in found.summary["warnings"][0]


def test_energies_are_compared_by_atom(files, engines, frames):
    energies = np.zeros((2, len(frames)))
    for row, engine in zip(energies, engines, strict=True):
        for k, atoms in enumerate(frames):
            atoms = atoms.copy()
            atoms.calc = DPA2Calculator(engine)
            row[k] = atoms.get_potential_energy() / len(atoms)
    summary = select(files, *engines, Request()).summary["energy_deviation"]
    rms = np.sqrt(np.mean((energies[0] - energies[1]) ** 2))
    assert summary["rms"] == pytest.approx(rms, rel=1e-6)


def test_automatic_levels(files, engines, deviations):
    """One frame is wanted: four candidates are left."""
    found = select(files, *engines, Request(max_frames=1)).summary
    lower = np.sort(deviations)[-4]
    assert found["levels"] == {"lower": pytest.approx(lower, abs=DECIMALS), "upper": 1.0}
    assert (found["accurate"], found["candidate"], found["chosen"]) == (8, 4, 1)
    levels = select(files, *engines, Request(max_frames=1, lower=7.0)).summary["levels"]
    assert levels == {"lower": 7.0, "upper": 14.0}
    assert select(files, *engines, Request(max_frames=4)).summary["accurate"] == 0


def test_automatic_upper_level(files, engines, frames, tmp_path, teacher, forces_of):
    """What is far beyond the median has failed, and does not raise the lower level."""
    far = small_model(tmp_path, scale=-100.0)  # all forces have the other sign
    doubled = np.array([2 * np.linalg.norm(forces_of(teacher, a), axis=1).max() for a in frames])
    wild = crystal((2, 1, 1))
    wild.positions[2] = wild.positions[1] + [0.3, 0, 0]
    write("wild.extxyz", wild)
    of_wild = 2 * np.linalg.norm(forces_of(teacher, wild), axis=1).max()
    upper = 10 * np.median([*doubled, of_wild])
    assert 1.0 < upper < of_wild
    found = select(
        [*files, "wild.extxyz"], engines[0], Engine(far, threads=1), Request(max_frames=1)
    ).summary
    assert found["levels"]["upper"] == pytest.approx(upper, rel=1e-6)
    assert found["levels"]["lower"] == pytest.approx(np.sort(doubled)[-4], rel=1e-6)
    assert (found["candidate"], found["failed"]) == (4, 1)


def test_a_model_is_accurate_for_itself(files, engines):
    found = select(files, engines[0], engines[0], Request())
    assert found.chosen == [] and found.summary["accurate"] == 12
    assert found.summary["levels"] == {"lower": 0.01, "upper": 1.0}
    assert found.summary["warnings"] == [
        "the student is accurate on all sane frames: none is chosen."
    ]


def test_sanity(files, engines, frames, forces_of, teacher):
    largest = np.array([np.linalg.norm(forces_of(teacher, a), axis=1).max() for a in frames])
    level = float(np.median(largest))
    summary = select(files, *engines, Request(max_force=level)).summary
    assert summary["insane_by"] == {"force": int((largest > level).sum())} != {"force": 0}
    nearest = [smallest_distances([atoms])["H-O"] for atoms in frames]
    limits = {"H-O": float(np.median(nearest))}
    summary = select(files, engines[0], None, Request(limits=limits)).summary
    assert summary["insane_by"] == {"distance": 6}
    assert summary["candidate"] == summary["chosen"] == 6
    summary = select(files, engines[0], None, Request(limits={"H-O": 3.9})).summary
    assert summary["chosen"] == 0 and "all 12 frames are insane" in summary["warnings"][0]


def test_what_can_not_be_computed_is_insane(tmp_path, engines):
    good, bad = crystal((1, 1, 1)), crystal((1, 1, 1))
    bad.positions[1] = bad.positions[0]
    write(tmp_path / "x.extxyz", [good, bad, good])
    summary = select([str(tmp_path / "x.extxyz")], *engines, Request()).summary
    assert summary["insane_by"] == {"not computed": 1}


def test_known_frames_are_not_chosen_again(files, engines, frames):
    write("known.extxyz", frames[:5])
    found = select(files, engines[0], None, Request(), known=["known.extxyz"])
    # copies through files of eight decimals; those of the .traj are new in any case
    again = set(numbers(found, frames)[:7])
    assert again == set(range(5, 12))


def test_frames_are_counted_by_condition(files, engines):
    rows = select(files, *engines, Request(max_frames=4)).summary["conditions"]
    assert [(row["temperature"], row["frames"]) for row in rows] == [(300.0, 8), (600.0, 4)]
    assert sum(row["chosen"] for row in rows) == 4
    for row in rows:
        kinds = ("accurate", "candidate", "failed", "insane")
        assert sum(row[kind] for kind in kinds) == row["frames"]


def test_held_out_frames(files, engines, frames):
    def split(**options):
        found = select(files, engines[0], None, Request(hold_out=0.25, **options))
        held = [atoms.info["temperature"] for atoms in found.held_out]
        return numbers(found, frames), held, found.summary["held_out"]

    chosen, held, count = split()
    assert (len(chosen), len(held), count) == (9, 3, 3)
    assert split() == (chosen, held, count)
    assert any(split(seed=seed)[0] != chosen for seed in (2, 3, 4))
    assert [len(x) for x in split(max_frames=2)[:2]] == [1, 1]
    assert [len(x) for x in split(max_frames=1)[:2]] == [1, 0]


def test_command(files, teacher, student, frames, capsys):
    words = ["select", *files, "--teacher", str(teacher), "--student", str(student), "--threads", "1",
             "--max-frames", "4", "-o", "out.extxyz"]  # fmt: skip
    assert main([*words, "--hold-out", "0.5", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    note = json.loads(Path("out.json").read_text())
    assert printed.items() <= note.items()
    assert note["chosen"] == 4 and note["held_out"] == 2
    for name in ("out.extxyz", "out.held_out.extxyz"):
        written = read(name, ":")
        assert len(written) == 2
        for atoms in written:
            assert atoms.calc is None and not atoms.has("momenta")  # no labels of another model
            assert {"start", "temperature", "deviation"} <= atoms.info.keys()
    assert main(words) == 2
    assert "out.extxyz exists" in capsys.readouterr().err
    # what is accurate is a result, and leaves no frames of an earlier one
    assert main([*words, "--overwrite", "--lower", "50", "--upper", "60"]) == 0
    assert "accurate on all sane frames" in capsys.readouterr().err
    assert json.loads(Path("out.json").read_text())["chosen"] == 0
    assert not list(Path.cwd().glob("out*.extxyz"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lower", "1", "--upper", "0.5", "--student", "{student}"], "must be below"),
        (["--lower", "0.1"], "Levels are for a student"),
        (["--max-frames", "0"], "give 1 frame or more"),
        (["--hold-out", "1"], "give 1 frame or more"),
        (["--limit-factor", "0.5"], "--limit-factor is for --limits"),
        (["--known", "nowhere.extxyz"], "nowhere.extxyz: there is no such structure file"),
        (["-o", "out.xyz"], "name the frames' file .extxyz"),
        (["-o", "nowhere/out.extxyz"], "there is no such folder"),
    ],
)
def test_refusals(files, teacher, student, capsys, options, message):
    options = [word.format(student=student) for word in options]
    words = ["select", *files, "--teacher", str(teacher), "-o", "out.extxyz", *options]
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_damaged_files_are_named(files, engines):
    text = Path("one.extxyz").read_text()
    Path("one.extxyz").write_text(text[: len(text) // 2 + 300])
    with pytest.raises(RunError, match=r"one\.extxyz: frame \d can't be read"):
        select(files, *engines, Request())
    Path("one.extxyz").write_text("\n")
    with pytest.raises(RunError, match=r"one\.extxyz: the file holds no atoms"):
        select(files, *engines, Request())
    with pytest.raises(RunError, match="not standard input"):
        select(["-"], *engines, Request())


def test_elements_of_the_models(tmp_path, engines):
    atoms = crystal((1, 1, 1))
    atoms.symbols[0] = "Au"
    write(tmp_path / "gold.extxyz", atoms)
    with pytest.raises(ValueError, match="doesn't know the element Au"):
        select([str(tmp_path / "gold.extxyz")], *engines, Request())
