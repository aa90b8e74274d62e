"""The line that shows how far a run is, and the thermo table on the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
        self._width = 0

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
            self._draw(self._line(step))

    def finish(self) -> None:
        """End the moving line."""
        if self._width:
            self._draw("")
            self._width = 0

    def speed(self, step: int) -> str:
        """Throughput so far, as text."""
        seconds = time.perf_counter() - (self._began or time.perf_counter())
        done = step - self._first
        if done <= 0 or seconds <= 0:
            return "no steps yet"
        rate = done / seconds
        return (
            f"{rate:.1f} steps/s, {1e6 / rate / self._natoms:.1f} us/atom/step, "
            f"{rate * self._timestep * 86400e-6:.2f} ns/day"
        )

    def _line(self, step: int) -> str:
        text = f"{_bar(step, self._last)}  {self.speed(step)}"
        done = step - self._first
        if done > 0 and self._began is not None:
            left = (time.perf_counter() - self._began) / done * (self._last - step)
            text += f", ETA {_clock(left)}"
        return text

    def _draw(self, text: str) -> None:
        _write(sys.stderr, "\r" + text.ljust(self._width) + ("" if text else "\r"))
        self._width = len(text)

    def _print_row(self, row: Mapping[str, float] | None) -> None:
        if not self._table:
            return
        if self._width:
            self._draw("")
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
    width = 0

    def show(done: int) -> None:
        nonlocal drawn, width
        now = time.perf_counter()
        if not sys.stderr.isatty() or now - began < _PATIENCE or now - drawn < 0.2:
            return
        left = (now - began) * (total - done) / max(done, 1)
        text = f"{_bar(done, total)} {what}, ETA {_clock(left)}"
        _write(sys.stderr, "\r" + text.ljust(width))
        drawn, width = now, len(text)

    try:
        yield show
    finally:
        if width:
            _write(sys.stderr, "\r" + " " * width + "\r")


def _bar(done: int, total: int) -> str:
    full = round(20 * done / total) if total else 20
    return f"[{'#' * full}{'.' * (20 - full)}] {done}/{total}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
