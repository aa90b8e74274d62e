"""Labels by models, calculators of ASE and commands; what fails, and what a kill leaves."""

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
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from dpa2md import DPA2Calculator
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.train.structure_systems import StructureSystem
from dpa2md.train.systems import Needs
from dpa2md.workflow.label import Labelling, label
from dpa2md.workflow.labellers import CalculatorLabeller, CommandLabeller, ModelLabeller

from tests.support.small_models import crystal

EMT_NAME = "ase.calculators.emt:EMT"
# A command as a user may have it: a program that reads frame.extxyz and writes labelled.extxyz.
PROGRAM = """
import sys
from ase.calculators.emt import EMT
from ase.io import read, write
atoms = read("frame.extxyz")
atoms.calc = EMT()
atoms.get_forces(), atoms.get_stress()
print("an energy of", atoms.get_potential_energy())
{change}
write("labelled.extxyz", atoms)
"""


def metal(k: int) -> Atoms:
    atoms = bulk("Cu", cubic=True) if k % 2 else bulk("Al", cubic=True).repeat((1, 1, 2))
    atoms.rattle(0.1, seed=k)
    atoms.info["start"] = "a.cif"
    return atoms


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to run in, with frames of two sizes."""
    monkeypatch.chdir(tmp_path)
    write("frames.extxyz", [metal(k) for k in range(6)])
    return tmp_path


def assert_labelled(frames: list[Atoms], calculator) -> None:
    """Every frame has what the calculator says of it, on its own."""
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        # extended XYZ holds eight decimals of forces
        assert frame.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(frame.get_forces(), atoms.get_forces(), atol=1e-8)
        np.testing.assert_allclose(frame.get_stress(), atoms.get_stress(), atol=1e-10)


def test_a_model(teacher, tmp_path):
    sizes = [(1, 1, 1), (2, 1, 1), (1, 1, 2)]
    frames = [crystal(size, seed=k) for k, size in enumerate(sizes * 30)]  # more than at once
    frames[3].info["energy"] = 5.0  # of another model
    write(tmp_path / "frames.extxyz", frames)
    calculator = DPA2Calculator(teacher, threads=1)
    output = tmp_path / "out.extxyz"
    found = label(str(tmp_path / "frames.extxyz"), ModelLabeller(calculator), output)
    assert found == Labelling(90, ())
    labelled = read(output, ":")
    assert [frame.info["frame"] for frame in labelled] == list(range(90))
    assert_labelled(labelled, DPA2Calculator(teacher, threads=1))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"frames.extxyz", "out.extxyz", "out.json"}


def test_a_frame_that_a_model_can_not_compute(teacher, tmp_path):
    frames = [crystal((1, 1, 1), seed=k) for k in range(3)]
    frames[1].positions[1] = frames[1].positions[0]
    write(tmp_path / "frames.extxyz", frames)
    labeller = ModelLabeller(DPA2Calculator(teacher, threads=1))
    found = label(str(tmp_path / "frames.extxyz"), labeller, tmp_path / "out.extxyz")
    assert found.labelled == 2
    assert [failure.frame for failure in found.failures] == [1]


def test_the_training_reads_the_labels(folder):
    """With energies, forces and virials."""
    label("frames.extxyz", CalculatorLabeller(EMT_NAME), folder / "out.extxyz")
    system = StructureSystem("out.extxyz", Needs(("Al", "Cu"), 0, 0))
    assert len(system) == 6 and system.notes == ()
    for k in range(6):
        atoms = metal(k)
        atoms.calc = EMT()
        frame = system.frame(k)
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-6)
        virial = -atoms.get_stress(voigt=False) * atoms.get_volume()
        np.testing.assert_allclose(frame.virial, virial, atol=1e-6)


def test_a_calculator(folder, capsys):
    assert main(["label", EMT_NAME, "frames.extxyz", "-o", "out.extxyz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 6
    frames = read("out.extxyz", ":")
    assert_labelled(frames, EMT())
    assert {frame.info["start"] for frame in frames} == {"a.cif"}


FAILING = """
from ase.calculators.emt import EMT

made = []

class Failing(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        with open("calls", "a") as log:
            log.write(f"{len(self.atoms)} {id(self)}\\\\n")
        if len(self.atoms) == 4:
            raise RuntimeError('no "convergence"\\\\nafter 100 steps')

def make(nothing=False, number=1.0):
    calculator = Failing()
    made.append(calculator)  # so that each has a number of its own
    return calculator if number == 1.0 else EMT() if not nothing else 3

def without_forces():
    import numpy as np
    class Nan(EMT):
        def calculate(self, *words):
            super().calculate(*words)
            self.results["forces"] = np.full((len(self.atoms), 3), np.nan)
    return Nan()
"""


@pytest.fixture
def failing(folder):
    (folder / "failing.py").write_text(FAILING.replace("\\\\n", "\\n"))
    return folder


def test_frames_that_fail_are_set_aside(failing, capsys):
    assert main(["label", "failing.py:make", "frames.extxyz", "-o", "out.extxyz",
                 "--attempts", "3"]) == 0  # fmt: skip
    text = capsys.readouterr().out
    reason = "RuntimeError: no 'convergence'"
    assert "3 frames labelled, 3 failed" in text and text.count("RuntimeError") == 3
    assert_labelled(read("out.extxyz", ":"), EMT())
    failed = read("out.failed.extxyz", ":")
    assert [frame.info["frame"] for frame in failed] == [1, 3, 5]
    assert [frame.info["reason"] for frame in failed] == [reason] * 3
    note = json.loads(Path("out.json").read_text())
    assert note["failures"][2] == {"frame": 5, "reason": reason}
    calls = [line.split() for line in Path("calls").read_text().splitlines()]
    assert [size for size, _ in calls].count("4") == 9  # three attempts of three frames
    # after a failure the calculator is another one
    assert len({number for size, number in calls if size == "4"}) == 9


def test_all_failed(failing, capsys):
    write("frames.extxyz", [metal(1), metal(3)])
    words = ["label", "failing.py:make", "frames.extxyz", "-o", "out.extxyz"]
    for attempt in (1, 2):  # the same command tries again
        assert main(words) == 2
        assert "all 2 frames failed, the first one because: RuntimeError" in capsys.readouterr().err
        assert len(read("out.failed.extxyz", ":")) == 2
        assert len(Path("calls").read_text().splitlines()) == 4 * attempt
    assert not Path("out.extxyz").exists()


def test_numbers_that_are_not_finite(failing):
    with pytest.raises(RunError, match="not finite"):
        label("frames.extxyz", CalculatorLabeller("failing:without_forces"), failing / "o.extxyz")


def test_arguments(failing):
    labeller = CalculatorLabeller("failing.py:make", {"number": 2.0})
    assert label("frames.extxyz", labeller, failing / "o.extxyz").labelled == 6
    for name, arguments, message in (
        ("failing.py:make", {"number": 2.0, "nothing": True}, "makes a int, no calculator"),
        ("failing.py:make", {"colour": 1}, "can't be called with its arguments"),
        ("failing.py:nowhere", {}, "there is no function 'nowhere'"),
        ("nowhere.py:make", {}, r"nowhere\.py: this module can't be imported"),
        ("no.such.module:make", {}, "this module can't be imported"),
    ):
        with pytest.raises(RunError, match=message):
            CalculatorLabeller(name, arguments)


def command(folder: Path, change: str = "") -> str:
    (folder / "program.py").write_text(PROGRAM.format(change=change))
    return f"{sys.executable} ../../program.py"


def test_a_command(folder, capsys):
    words = ["label", "frames.extxyz", "--command", command(folder), "-o", "out.extxyz"]
    assert main(words) == 0
    assert_labelled(read("out.extxyz", ":"), EMT())
    assert "an energy of" in (folder / "out.work" / "frame-00003" / "stdout").read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("sys.exit('the cluster is full')", "exit status 1: the cluster is full"),
        ("sys.exit(0)", "the command wrote no out.work/frame-00000/labelled.extxyz"),
        ("atoms = atoms[::-1]; atoms.symbols[0] = 'Ag'", "the atoms are not those"),
        ("atoms.positions[0] += 0.01", "the atoms or the cell are not where"),
        ("atoms.cell *= 1.01", "the atoms or the cell are not where"),
        ("atoms.calc = None", "there is no energy, or there are no forces"),
        ("del atoms.calc.results['forces']", "there is no energy, or there are no forces"),
        ("open('labelled.extxyz', 'w').write('x'); sys.exit(0)", "can't read this structure"),
    ],
)
def test_commands_that_fail(folder, change, reason):
    labeller = CommandLabeller(command(folder, change), Path("out.work"))
    results = labeller.label([metal(0)], [0])
    assert isinstance(results[0], str) and reason in results[0]


def test_atoms_may_come_back_in_another_image(folder):
    labeller = CommandLabeller(command(folder, "atoms.wrap()"), Path("out.work"))
    atoms = metal(0)
    atoms.positions += 5 * atoms.cell.array.sum(axis=0)
    (results,) = labeller.label([atoms], [0])
    atoms.calc = EMT()
    np.testing.assert_allclose(results["forces"], atoms.get_forces(), atol=1e-6)


def test_a_command_that_hangs(folder):
    """It is killed with what it started."""
    text = "sleep 60 & echo $! > child; wait"
    labeller = CommandLabeller(text, Path("out.work"), timeout=1.0)
    began = time.monotonic()
    assert labeller.label([metal(0)], [0]) == ["it took longer than 1 s"]
    assert time.monotonic() - began < 20
    assert_ended(int((folder / "out.work" / "frame-00000" / "child").read_text()))


def assert_ended(process: int) -> None:
    """Soon: the system may take a while to notice."""
    for _ in range(100):
        state = Path(f"/proc/{process}/stat")
        if not state.exists() or state.read_text().split(")")[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} lives")


def test_a_command_ends_with_the_program(folder):
    """As queues end jobs, by SIGTERM."""
    words = [sys.executable, "-m", "dpa2md", "label", "frames.extxyz", "-o", "out.extxyz", "--command",
             "echo $$ > shell; sleep 60; true"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(Path(dpa2md.__file__).parents[1])}
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    shell = folder / "out.work" / "frame-00000" / "shell"
    while not (shell.exists() and shell.read_text()) and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(30) == 2
    assert process.stderr.read() == "dpa2md label: stopped.\n"
    assert_ended(int(shell.read_text()))


SLOW = """
import time
from ase.calculators.emt import EMT

class Slow(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        if "positions" in system_changes:
            with open("begun", "a") as log:
                log.write(f"{atoms.positions[0, 0]:.8f}\\n")
            time.sleep(0.05)
        super().calculate(atoms, properties, system_changes)
        if len(self.atoms) == 8:
            raise RuntimeError("too large")
"""


def lines_of(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_killed_labellings_label_nothing_twice(folder):
    (folder / "slow.py").write_text(SLOW)
    frames = [metal(2 * k + (k % 3 > 0)) for k in range(15)]  # every third one fails
    write("frames.extxyz", frames)
    words = [sys.executable, "-m", "dpa2md", "label", "slow.py:Slow", "frames.extxyz", "-o",
             "out.extxyz", "--attempts", "1"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(Path(dpa2md.__file__).parents[1])}
    begun, kills = folder / "begun", 0
    for wanted in (2, 7, 11):
        process = subprocess.Popen(words, env=environment)
        while len(lines_of(begun)) < wanted and process.poll() is None:
            time.sleep(0.005)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills == 3
    assert subprocess.run(words, env=environment, check=False).returncode == 0
    labelled, failed = read("out.extxyz", ":"), read("out.failed.extxyz", ":")
    done = [frame.info["frame"] for frame in (*labelled, *failed)]
    assert sorted(done) == list(range(15)) and len(failed) == 5
    assert_labelled(labelled, EMT())
    # a kill loses the frame that is being labelled, and no other
    assert 15 <= len(lines_of(begun)) <= 15 + kills
    before = Path("out.extxyz").stat().st_mtime_ns
    assert subprocess.run(words, env=environment, check=False).returncode == 0
    assert Path("out.extxyz").stat().st_mtime_ns == before


def test_cut_off_anywhere(folder):
    """Whatever part of the file has reached the disk, only whole frames count."""
    labeller = CalculatorLabeller(EMT_NAME)
    output, part = folder / "out.extxyz", folder / "out.part.extxyz"
    label("frames.extxyz", labeller, output)
    whole = output.read_bytes()
    lines, ends = whole.splitlines(keepends=True), []
    while sum(map(len, lines)):
        lines = lines[int(lines[0]) + 2 :]
        ends.append(len(whole) - sum(map(len, lines)))
    assert len(ends) == 6
    note = json.loads(Path("out.json").read_text())
    for cut in [0, 1, 2, *range(50, len(whole), 397), ends[2] - 1, ends[2], ends[-1] - 1, ends[-1]]:
        output.unlink(missing_ok=True)
        part.write_bytes(whole[:cut])
        Path("out.json").write_text(json.dumps(note | {"state": "running"}))
        done: list[int] = []
        label("frames.extxyz", labeller, output, report=done.append)
        assert len(done) == sum(end > cut for end in ends), cut  # whole frames are not done again
        found = read(output, ":")
        assert [frame.info["frame"] for frame in found] == list(range(6))
        assert_labelled(found, EMT())


def test_the_same_command_again(folder):
    output = folder / "out.extxyz"
    label("frames.extxyz", CalculatorLabeller(EMT_NAME), output)
    with pytest.raises(
        RunError, match=r"out\.json: the work was begun with another value of arguments"
    ):
        label("frames.extxyz", CommandLabeller("true", folder), output)
    write("frames.extxyz", [metal(k) for k in range(3)])
    with pytest.raises(RunError, match="another value of frames, sha256"):
        label("frames.extxyz", CalculatorLabeller(EMT_NAME), output)
    with pytest.raises(RunError, match="another value of frames, name"):
        label("frames.extxyz@:2", CalculatorLabeller(EMT_NAME), output)
    found = label("frames.extxyz@:2", CalculatorLabeller(EMT_NAME), output, overwrite=True)
    assert found.labelled == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frames.extxyz"], "Labels need one source"),
        (["water", "frames.extxyz", "--command", "true"], "Labels need one source"),
        (["water", "frames.extxyz"], "doesn't know the element"),
        (["water", "frames.extxyz", "--arguments", "{}"], "leave them out"),
        (["water", "frames.extxyz", "--timeout", "5"], "--timeout is for a --command"),
        ([EMT_NAME, "frames.extxyz", "--threads", "1"], "--threads is for a model"),
        ([EMT_NAME, "frames.extxyz", "--arguments", "{"], "--arguments: this is no JSON"),
        ([EMT_NAME, "frames.extxyz", "--arguments", "[]"], "--arguments: give names"),
        ([EMT_NAME, "frames.extxyz", "--attempts", "0"], "give 1 or more"),
        (["frames.extxyz", "--command", "true", "--timeout", "0"], "The timeout is 0.0"),
        ([EMT_NAME, "nowhere.extxyz"], "nowhere.extxyz: there is no such structure file"),
        (["nowhere.dpa2", "frames.extxyz"], "nowhere.dpa2: there is no such model"),
    ],
)
def test_refusals(folder, capsys, words, message):
    assert main(["label", *words, "-o", "out.extxyz"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in folder.iterdir()] == ["frames.extxyz"]
