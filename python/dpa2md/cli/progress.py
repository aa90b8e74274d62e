"""The line that shows how far a run is, and the thermo table on the screen."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

_PATIENCE = 2.0  # seconds; a bar for less would only flicker
_SHOWN = (
    ("step", "step", "9d"),
    ("time_ps", "time/ps", "9.3f"),
    ("total_energy_eV", "E total/eV", "14.4f"),
    ("potential_energy_eV", "E pot/eV", "14.4f"),
    ("temperature_K", "T/K", "8.1f"),
    ("pressure_bar", "P/bar", "9.0f"),
    ("density_g_cm3", "g/cm3", "7.4f"),
)


class Progress:
    """Reports a run; its `report` is what `run_md` calls after every step.

    Parameters
    ----------
    last
        The step at which the run ends.
    timestep
        fs.
    natoms
        Number of atoms.
    table, bar
        Show the thermo table (on stdout), the moving line (on stderr).
    """

    def __init__(self, last: int, timestep: float, natoms: int, *, table: bool, bar: bool):
        self._first, self._last, self._timestep, self._natoms = 0, last, timestep, natoms
        self._table, self._bar = table, bar
        self._began: float | None = None
        self._drawn = 0.0
        self._line = Line()

    def report(self, step: int, row: Mapping[str, float] | None) -> None:
        """Show `step`; `row` is the thermo row where there is one."""
        now = time.perf_counter()
        if self._began is None:  # the first call: what came before is start-up
            self._began, self._first = now, step
            self._print_row(None)
        if row is not None:
            self._print_row(row)
        if self._bar and (now - self._drawn > 0.2 or step == self._last):
            self._drawn = now
            self._line.draw(step, self._last, *self._pieces(step))

    def finish(self) -> None:
        """End the moving line."""
        self._line.wipe()

    def speed(self, step: int) -> str:
        """Throughput so far, as text."""
        return ", ".join(self._rates(step)) or "no steps yet"

    def _rates(self, step: int) -> list[str]:
        seconds = time.perf_counter() - (self._began or time.perf_counter())
        done = step - self._first
        if done <= 0 or seconds <= 0:
            return []
        rate = done / seconds
        return [
            f"{rate:.1f} steps/s",
            f"{1e6 / rate / self._natoms:.1f} us/atom/step",
            f"{rate * self._timestep * 86400e-6:.2f} ns/day",
        ]

    def _pieces(self, step: int) -> tuple[list[str], list[str]]:
        """What must be seen, and what may be where there is room."""
        needed, rates = [f"{step}/{self._last}"], self._rates(step)
        if rates and self._began is not None:
            seconds = time.perf_counter() - self._began
            needed.append(f"ETA {clock(seconds / (step - self._first) * (self._last - step))}")
        return needed, rates

    def _print_row(self, row: Mapping[str, float] | None) -> None:
        if not self._table:
            return
        self._line.wipe()
        cells = []
        for key, title, form in _SHOWN:
            width = form.split(".")[0].rstrip("d")
            cells.append(f"{title:>{width}}" if row is None else f"{row[key]:{form}}")
        _write(sys.stdout, " ".join(cells) + "\n")


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """How much of a counted work is done, on stderr: on a terminal, and once two seconds have passed.

    Parameters
    ----------
    what
        The things that are counted.
    total
        How many there are.

    Yields
    ------
    callable
        To be called with the number of things that are done.
    """
    began = drawn = time.perf_counter()
    line = Line()

    def show(done: int) -> None:
        nonlocal drawn
        now = time.perf_counter()
        if not sys.stderr.isatty() or now - began < _PATIENCE or now - drawn < 0.2:
            return
        left = (now - began) * (total - done) / max(done, 1)
        line.draw(done, total, [f"{done}/{total} {what}", f"ETA {clock(left)}"])
        drawn = now

    try:
        yield show
    finally:
        line.wipe()


class Line:
    """A line on stderr that is drawn again in its place, and never longer than the terminal is wide."""

    def __init__(self) -> None:
        self._drawn = 0  # characters

    def draw(self, done: int, total: int, needed: Sequence[str], more: Sequence[str] = ()) -> None:
        """Show texts behind a bar, with those out of `more` that there is room for."""
        room = _columns(sys.stderr) - 1  # some terminals go on below once the last column is used
        text = ", ".join(needed)[:room]
        if (size := min(20, room - len(text) - 3)) >= 5:
            full = round(size * done / total) if total else size
            text = f"[{'#' * full}{'.' * (size - full)}] {text}"
        for piece in more:
            if len(text) + 2 + len(piece) > room:
                break
            text += f", {piece}"
        _write(sys.stderr, "\r" + text.ljust(min(self._drawn, room)))
        self._drawn = len(text)

    def wipe(self) -> None:
        """Leave the line empty."""
        if self._drawn:
            _write(sys.stderr, "\r" + " " * min(self._drawn, _columns(sys.stderr) - 1) + "\r")
        self._drawn = 0


def _columns(stream: TextIO) -> int:
    """The width of the terminal that a stream goes to, else what the environment says, else 80."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0  # as some pseudo-terminals say, too
    return columns or shutil.get_terminal_size().columns


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
