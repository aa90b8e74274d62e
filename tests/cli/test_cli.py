"""The command line, as a user types it."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import dpa2md
import numpy as np
import pytest
from ase.io import read, write
from dpa2md import DPA2Calculator, demo
from dpa2md.cli import build_parser, main, progress

from tests.support.paths import ROOT
from tests.support.small_models import crystal, small_model, two_head_checkpoint

COMMAND = [sys.executable, "-m", "dpa2md"]
# The package under test, also for a process that starts in another folder.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(dpa2md.__file__).parents[1])}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"), scale=100.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to run in, with a structure."""
    atoms = crystal(rattle=0.05)
    atoms.set_masses(np.full(len(atoms), 50.0))
    write(tmp_path / "start.traj", atoms)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def md(model, folder):
    """Runs ``dpa2md md`` in this process; returns the exit status."""

    def run(*options: str) -> int:
        return main(["md", "start.traj", "--model", str(model), "--threads", "1", *options])

    return run


def error_line(capsys) -> str:
    """What stands on stderr: one line, no traceback."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


def test_help_and_version():
    text = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "examples:" in text.stdout
    text = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert text.stdout == f"dpa2md {dpa2md.__version__}\n"
    assert subprocess.run(COMMAND, capture_output=True, check=False).returncode == 2


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parsers of all sub-commands."""
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def test_every_help_shows_an_example():
    for name, parser in commands().items():
        text = parser.format_help()
        assert f"  dpa2md {name}" in text.split("examples:")[1], name


def test_every_help_fits_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name, parser in {"dpa2md": build_parser(), **commands()}.items():
        assert max(map(len, parser.format_help().splitlines())) <= 80, name


def examples() -> list[str]:
    """The commands in the help texts and in the code blocks of the documentation."""
    helps = "\n".join(p.format_help() for p in [build_parser(), *commands().values()])
    # a remark follows after two blanks, where the command goes on after one
    found = re.findall(r"^  (dpa2md .*?)(?:  .*)?$", helps.split("examples:", 1)[1], re.MULTILINE)
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for block in re.findall(r"^ *```sh\n(.*?)```", page.read_text(), re.MULTILINE | re.DOTALL):
            found += re.findall(r"^ *(dpa2md .*?)(?: +#.*)?$", block, re.MULTILINE)
    return [re.sub(r" > .*", "", line) for line in found]


def test_examples_are_commands():
    """All that help and documentation show is understood; with these files it would run."""
    assert len(examples()) > 50
    for line in examples():
        if line not in ("dpa2md md --help",):
            build_parser().parse_args(shlex.split(line)[1:])


def test_names_are_the_same_everywhere():
    """A model, a structure, a precision, a device have one name each."""
    for name, parser in commands().items():
        for action in parser._actions:
            if action.dest in ("precision", "device", "threads", "head"):
                assert f"--{action.dest}" in action.option_strings, name
            if not action.option_strings and action.dest in ("model", "structure", "structures"):
                assert action.metavar in ("MODEL", "STRUCTURE", "STRUCTURES", "IN"), name
        present = {action.dest for action in parser._actions}
        if name not in ("train", "finetune"):  # in the model's own precision, on the CPU
            assert ("precision" in present) == ("device" in present) == ("threads" in present), name


def test_the_documentation_knows_every_command_and_option():
    """docs/commands.md names all commands, and no option that does not exist."""
    text = (ROOT / "docs" / "commands.md").read_text()
    known = {"--help", "--pt", "--pt-expt"}  # the last two are DeePMD-kit's
    for name, parser in commands().items():
        assert f"`{name}`" in text, name
        known |= {option for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)) - {"--peer-python"} <= known


def test_progress_bar(monkeypatch):
    """Nothing for two seconds or into a file; then a line that is wiped out at the end."""
    for terminal, patience in ((True, 60.0), (False, 0.0), (True, 0.0)):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda t=terminal: t)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(progress, "_PATIENCE", patience)
        with progress.progress_bar("structures", 8) as show:
            time.sleep(0.25)
            show(2)
        text = stream.getvalue()
        if terminal and not patience:
            assert "[#####...............] 2/8 structures, ETA" in text
            assert text.endswith("\r") and not text.split("\r")[-2].strip()
        else:
            assert text == ""


def test_completion(tmp_path, monkeypatch, capsys):
    """In bash, which comes with every Linux; and the other shells' scripts are there."""
    pytest.importorskip("shtab")
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        (tmp_path / shell).write_text(capsys.readouterr().out)
    (tmp_path / "model.dpa2").touch()
    cases = ["dpa2md ev", "dpa2md check --pre", "dpa2md md --ensemble ", "dpa2md info mod"]
    script = f"source {tmp_path}/bash; cd {tmp_path}\n"
    script += "call=$(complete -p dpa2md | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
    for case in cases:
        words = " ".join(word or "''" for word in case.split(" "))
        script += f"COMP_WORDS=({words}); COMP_CWORD={case.count(' ')}; $call; "
        script += 'echo "${COMPREPLY[@]}"\n'
    out = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["eval", "--precision", "nve nvt npt", "model.dpa2"]
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install shtab" in error_line(capsys)


def test_info(model, capsys):
    assert main(["info", str(model)]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["elements"].strip() == "O H Si"
    assert "cutoff / angstrom 4" in lines["repinit"]
    assert lines["source"].strip() == "small.pt"


def test_info_json(folder, capsys):
    source = two_head_checkpoint(folder)
    assert main(["info", str(source), "--head", "B", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["kind"] == "dpa2"
    assert summary["elements"] == ["O", "H", "Si"]
    assert summary["layers"] == 2
    assert summary["head"] == "B"
    assert summary["repformer"]["neighbours at most"] == 39
    assert summary["parameters"] > 100


def test_convert(folder, capsys):
    source = two_head_checkpoint(folder)
    assert main(["convert", str(source), "-o", "b.dpa2", "--head", "B"]) == 0
    assert "head B" in capsys.readouterr().out
    energy = DPA2Calculator("b.dpa2", threads=1).get_potential_energy(crystal())
    assert np.isfinite(energy)


def test_md_writes_its_outputs(md, folder, capsys):
    pytest.importorskip("matplotlib")
    assert md("--steps", "6", "--interval", "2", "--plots", "--rdf", "Si-O", "--progress") == 0
    out, err = capsys.readouterr()
    assert "steps/s" in out
    assert "ns/day" in out
    assert "6/6" in err
    assert len(read("md.traj", ":")) == 4
    names = {file.name for file in folder.iterdir()}
    assert names == {"md.traj", "md.csv", "md.png", "md.rdf.png", "md.checkpoint.npz",
                     "md.settings.json", "start.traj"}  # fmt: skip


def test_md_files_with_an_at_sign(md, folder):
    """ASE would take what follows it for an index."""
    pytest.importorskip("matplotlib")
    names = ["--traj", "run@300K.traj", "--log", "run@300K.csv", "--checkpoint", "run@300K.npz"]
    assert md("--steps", "2", "--interval", "1", "--quiet", "--plots", *names) == 0
    assert (folder / "run@300K.rdf.png").exists()


def test_md_names_and_quiet(md, folder, capsys):
    options = ["--traj", "a.xyz", "--log", "b.csv", "--checkpoint", "c.npz", "--quiet"]
    assert md("--steps", "2", "--interval", "1", "--precision", "float32", *options) == 0
    assert capsys.readouterr() == ("", "")
    assert len(read("a.xyz", ":")) == 3
    assert {"a.xyz", "b.csv", "c.npz"} < {file.name for file in folder.iterdir()}


def test_md_does_what_the_library_does(md, model):
    """The options arrive: one step of velocity Verlet from rest, by hand."""
    assert md("--ensemble", "nve", "--temperature", "0", "--timestep", "2", "--steps", "1",
              "--interval", "1", "--quiet") == 0  # fmt: skip
    atoms = read("start.traj")
    atoms.calc = DPA2Calculator(model, threads=1)
    from ase import units

    push = atoms.get_forces() / atoms.get_masses()[:, None] * (2 * units.fs) ** 2 / 2
    moved = read("md.traj").positions - atoms.positions
    assert np.abs(push).max() > 1e-6
    np.testing.assert_allclose(moved, push, rtol=0, atol=1e-12)


def test_md_restart(md, capsys):
    steps = ["--interval", "2", "--checkpoint-interval", "4", "--seed", "5"]
    assert md("--steps", "8", *steps, "--traj", "whole.traj", "--quiet") == 0
    assert md("--steps", "4", *steps, "--restart") == 0
    assert "starting at step 0" in capsys.readouterr().out
    assert md("--steps", "8", *steps, "--restart") == 0
    assert "continuing from md.checkpoint.npz" in capsys.readouterr().out
    np.testing.assert_array_equal(read("md.traj").positions, read("whole.traj").positions)
    assert md("--steps", "8", *steps, "--restart") == 0
    assert "already reached step 8; raise --steps" in capsys.readouterr().out


def test_md_protects_existing_files(md, folder, capsys):
    (folder / "md.csv").write_text("precious")
    assert md("--steps", "1") == 2
    assert "md.csv exists; add --restart" in error_line(capsys)
    assert md("--steps", "1", "--restart") == 2
    assert "md.csv exists without the checkpoint" in error_line(capsys)
    assert (folder / "md.csv").read_text() == "precious"
    assert md("--steps", "1", "--overwrite", "--quiet") == 0
    assert (folder / "md.csv").read_text() != "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--traj", "md.dcd"], "must end in .traj, .xyz or .extxyz"),
        (["--traj", "nowhere/md.traj"], "nowhere: there is no such folder"),
        (["--log", "md.traj"], "must be different files"),
        (["--model", "missing.dpa2"], "missing.dpa2: there is no such model"),
        (["--model", "start.traj"], "start.traj"),
        (["--timestep", "-1"], "timestep is -1.0"),
        (["--threads", "0"], "threads is 0"),
        (["--head", "A"], "single head"),
        (["--max-temperature", "1", "--quiet"], "failed at step 1"),
        (["--restart", "--overwrite"], "contradict"),
    ],
)
def test_md_errors(md, options, message, capsys):
    assert md("--steps", "5", *options) == 2
    assert message in error_line(capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such structure"), ("nonsense\n", "ASE can't read"), ("1\n\nHe 0 0 0\n", "He")],
)
def test_structure_errors(model, folder, content, message, capsys):
    if content is not None:
        (folder / "bad.xyz").write_text(content)
    assert main(["md", "bad.xyz", "--model", str(model), "--threads", "1", "--quiet"]) == 2
    assert message in error_line(capsys)


@pytest.mark.parametrize("name", ["missing.dpa2", "start.traj", "damaged.dpa2"])
def test_info_errors(folder, name, model, capsys):
    (folder / "damaged.dpa2").write_bytes(model.read_bytes()[:-100])
    assert main(["info", name]) == 2
    assert name in error_line(capsys)


@pytest.mark.parametrize(
    "option", ["--structure=x.cif", "--threads=0", "--device=cuda", "--low-memory"]
)
def test_info_refuses_what_it_would_ignore(option, model, capsys):
    assert main(["info", str(model), option]) == 2
    assert f"{option.split('=')[0]} is for measuring: add --atoms N" in error_line(capsys)


def test_demo(folder, capsys):
    pytest.importorskip("matplotlib")
    options = ["--threads", "1", "--output", "out", "--steps", "20", "--student-steps", "350"]
    assert demo.main(options) == 0
    out = capsys.readouterr().out
    assert "us/atom/step" in out
    names = {file.name for file in (folder / "out").iterdir()}
    pictures = {"water-thermo.png", "water-rdf.png", "student-parity.png"}
    assert names == {"water.traj", "water.csv", "distillation"} | pictures
    assert len(read("out/water.traj", ":")) == 3
    student = DPA2Calculator("out/distillation/student.dpa2")
    assert student.engine.elements == ["O", "H"]
    assert demo.main(["--model", "missing.dpa2"]) == 2
    assert "missing.dpa2" in error_line(capsys)


def test_ctrl_c(model, folder):
    """A run that is interrupted stops with a sentence and can be continued."""
    command = [*COMMAND, "md", "start.traj", "--model", str(model), "--threads", "1",
               "--interval", "1"]  # fmt: skip
    with subprocess.Popen([*command, "--steps", "1000000"], stdout=subprocess.PIPE,
                          text=True, env=ENVIRONMENT) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        log = folder / "md.csv"
        while not (log.exists() and log.read_text().count("\n") > 3):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "repeat the command with --restart" in out
    done = int(out.split("Stopped at step ")[1].split(";")[0])
    assert main([*command[3:], "--steps", str(done + 2), "--restart", "--quiet"]) == 0
    assert len(log.read_text().splitlines()) == done + 2 + 2
