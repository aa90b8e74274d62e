"""The moving lines stay within the terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

import pytest
from dpa2md.cli import progress
from dpa2md.cli.progress import Progress, progress_bar

ROW = {"step": 0, "time_ps": 0.0, "total_energy_eV": -1.0, "potential_energy_eV": -1.0}
ROW |= {"temperature_K": 300.0, "pressure_bar": 1.0, "density_g_cm3": 1.0}


@contextlib.contextmanager
def terminal(columns: int, monkeypatch):
    """A pseudo-terminal as stderr; yields a function that says what was drawn so far."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("COLUMNS", "200")  # the terminal knows better
        yield lambda: read_all(reader)
    os.close(reader)


def read_all(file: int) -> str:
    """A terminal gives what was written piece by piece."""
    text = ""
    while select.select([file], [], [], 0.05)[0]:
        text += os.read(file, 65536).decode()
    return text


def lines(text: str) -> list[str]:
    return text.replace("\n", "\r").split("\r")


@pytest.mark.parametrize("columns", [10, 40, 80, 150])
def test_a_run(columns, monkeypatch):
    with terminal(columns, monkeypatch) as drawn:
        bar = Progress(1_000_000, 0.5, 192, table=False, bar=True)
        bar.report(0, ROW)
        time.sleep(0.25)
        bar.report(250_000, None)
        bar.finish()
        text = drawn()
    assert max(map(len, lines(text))) < columns
    assert "250000/10"[: columns - 1] in text
    assert not lines(text)[-2].strip()  # wiped out at the end
    assert ("ETA 0:00:0" in text) == (columns >= 40)
    assert ("[" in text) == (columns >= 40)
    assert ("steps/s" in text) == (columns >= 80)
    assert ("ns/day" in text) == (columns >= 150)


@pytest.mark.parametrize("columns", [10, 40, 80])
def test_counted_work(columns, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    with terminal(columns, monkeypatch) as drawn:
        with progress_bar("groups of tests", 800) as show:
            time.sleep(0.25)
            show(200)
        text = drawn()
    assert max(map(len, lines(text))) < columns
    assert "200/800 g" in text and not lines(text)[-2].strip()
    assert ("[#####...............]" in text) == (columns == 80)


def test_a_window_made_narrower(monkeypatch):
    """What is wiped out is no longer than the line has become."""
    with terminal(80, monkeypatch) as drawn:
        bar = Progress(1000, 0.5, 192, table=False, bar=True)
        bar.report(0, ROW)
        time.sleep(0.25)
        bar.report(500, None)
        drawn()
        size = struct.pack("HHHH", 24, 40, 0, 0)
        fcntl.ioctl(sys.stderr.fileno(), termios.TIOCSWINSZ, size)
        time.sleep(0.25)
        bar.report(600, None)
        bar.finish()
        assert max(map(len, lines(drawn()))) < 40


def test_without_a_terminal_the_environment_counts(monkeypatch, capsys):
    for columns in (30, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        bar = Progress(10, 0.5, 192, table=False, bar=True)
        bar.report(0, ROW)
        bar.report(10, ROW)
        text = capsys.readouterr().err
        assert max(map(len, lines(text))) < columns and ("ns/day" in text) == (columns == 120)
