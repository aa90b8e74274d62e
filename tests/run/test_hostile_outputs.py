"""Full disks and folders that can't be written: one sentence with the file's name, nothing half-written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import dpa2md
import pytest
from ase.io import read, write
from dpa2md.base.files import whole_file
from dpa2md.cli import main
from dpa2md.run.checkpoint import load_checkpoint
from dpa2md.structures import water_box

FULL = Path("/dev/full")  # a device on which every write fails as on a full disk
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
WATER = str(Path(dpa2md.__file__).parent / "models" / "water.dpa2")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write(tmp_path / "start.xyz", water_box(4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, largest: int | None = None, **options) -> subprocess.CompletedProcess:
    """`dpa2md` in a process whose files can't grow beyond `largest` bytes, as on a small disk."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    environment = os.environ | {"PYTHONPATH": str(Path(dpa2md.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "dpa2md", *words],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=environment,
        preexec_fn=limit,
        **({"stdout": subprocess.PIPE} | options),
    )


@needs_full
@pytest.mark.parametrize(
    "words",
    [
        ["eval", WATER, "start.xyz", "-o", "/dev/full"],
        ["md", WATER, "start.xyz", "--steps", "2", "--checkpoint", "/dev/full",
         "--overwrite"],
        ["md", WATER, "start.xyz", "--steps", "2", "--interval", "1", "--log", "/dev/full",
         "--overwrite"],
        ["bench", "--atoms", "12", "--structure", "start.xyz", "--steps", "1", "--csv", "/dev/full"],
        ["convert", WATER, "-o", "/dev/full"],
    ],
    ids=lambda words: f"{words[0]} {words[-3]}",
)  # fmt: skip
def test_full_devices(folder, words, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error == f"dpa2md {words[0]}: /dev/full: No space left on device.\n"
    assert FULL.is_char_device()  # and not replaced by a file


@needs_full
@pytest.mark.parametrize("words", [["info", WATER], ["eval", WATER, "start.xyz"]])
def test_a_full_standard_output(folder, words):
    with open(FULL, "w") as full:
        done = run(*words, stdout=full)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"dpa2md {words[0]}: standard output: No space left")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["eval", WATER, "start.xyz", "-o", "out.extxyz"], "out.extxyz"),
        (["relax", WATER, "start.xyz", "--steps", "50"], "relaxed.traj"),
        (["convert", WATER, "-o", "out.dpa2"], "out.dpa2"),
    ],
)
def test_a_disk_that_fills_up(folder, words, name):
    done = run(*words, largest=1000)
    assert done.returncode == 2
    assert done.stderr == f"dpa2md {words[0]}: {name}: File too large.\n"
    # what is written as a whole is not there; a trajectory ends where the disk did
    left = {path.name for path in folder.iterdir()} - {"start.xyz"}
    assert left <= {"relaxed.traj"}


def test_a_run_on_a_disk_that_fills_up_can_go_on(folder):
    """The last checkpoint is whole, and with room the run continues from it."""
    command = [
        "md",
        WATER,
        "start.xyz",
        "--interval",
        "1",
        "--checkpoint-interval",
        "5",
        "--threads",
        "1",
    ]
    command += ["--traj", "md.xyz"]
    done = run(*command, "--steps", "500", largest=40_000)
    assert done.returncode == 2
    assert done.stderr == "dpa2md md: md.xyz: File too large.\n"
    _, facts = load_checkpoint(folder / "md.checkpoint.npz")
    assert facts["step"] >= 5
    done = run(*command, "--steps", str(facts["step"] + 5), "--restart")
    assert done.returncode == 0, done.stderr
    assert len(read("md.xyz", ":")) == facts["step"] + 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(folder, capsys):
    closed = folder / "closed"
    closed.mkdir(mode=0o500)
    for words, name in (
        (["eval", WATER, "start.xyz", "-o", "closed/o.extxyz"], "closed/o.extxyz"),
        (["convert", WATER, "-o", "closed/o.dpa2"], "closed/o.dpa2"),
        (["md", WATER, "start.xyz", "--traj", "closed/md.traj"], "closed/md"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert name in error and "Permission denied" in error and error.count("\n") == 1


def test_outputs_are_judged_before_the_work(folder, monkeypatch, capsys):
    """A folder that can't be written to is told before an hour of evaluation, not after it."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("dpa2md.batch.evaluate", lambda *_, **__: pytest.fail("it was evaluated"))
    assert main(["eval", WATER, "start.xyz", "-o", "out.extxyz"]) == 2
    assert capsys.readouterr().err == "dpa2md eval: out.extxyz: Permission denied.\n"


def test_a_file_system_that_takes_no_files(folder, capsys):
    """/proc refuses new files even to root."""
    if not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    assert main(["convert", WATER, "-o", "/proc/o.dpa2"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dpa2md convert: /proc/o.dpa2: ") and error.count("\n") == 1


def test_whole_files_are_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="directory") as error, whole_file(tmp_path) as temporary:
        temporary.write_text("x")
    assert error.value.filename == str(tmp_path)
    assert list(tmp_path.parent.glob(".tmp.*")) == []
    with whole_file(tmp_path / "structure.xyz.gz") as temporary:
        assert temporary.name.endswith(".structure.xyz.gz")  # which names format and compression
        temporary.touch()
