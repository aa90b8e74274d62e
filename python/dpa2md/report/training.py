"""A picture of a training: its learning curve, redrawn while it grows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from ..train.curve import read_curve
from .plots import new_figure, save_figure

_LABELS = {
    "e": "energy / (eV/atom)",
    "f": "force / (eV/Å)",
    "v": "virial / (eV/atom)",
    "ae": "energy of an atom / eV",
}
_PATIENCE = 10.0  # seconds between two drawings


def plot_curve(curve: str | os.PathLike, path: str | os.PathLike) -> Path:
    """Draw the errors of training and held-out data, and the learning rate, over the steps.

    Parameters
    ----------
    curve
        `lcurve.out`, of dpa2md or DeePMD-kit.
    path
        The picture; its name ends in one of `plots.PICTURES`.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    InputError
        When the file is no learning curve.
    RunError
        Without matplotlib, or for a name with another ending.
    OSError
        When a file can't be read or written.
    """
    columns = read_curve(curve)
    steps, rate = columns.pop("step"), columns.pop("lr", None)
    panels: dict[str, list[str]] = {}
    for name in columns:
        kind = name.split("_")[1]
        if kind in _LABELS and np.isfinite(columns[name]).any():
            panels.setdefault(kind, []).append(name)
    figure, axes = new_figure(len(panels) + (rate is not None))
    for axis, (kind, names) in zip(axes, panels.items(), strict=False):
        for name in names:
            _, _, part, *task = name.split("_")
            label = " ".join(["held out" if part == "val" else "training", *task])
            axis.plot(steps, columns[name], label=label, linewidth=1)
        axis.set(yscale="log", ylabel=_LABELS[kind])
        axis.legend(frameon=False, fontsize="small")
    if rate is not None:
        axes[-1].plot(steps, rate, color="0.5", linewidth=1)
        axes[-1].set(yscale="log", ylabel="learning rate")
    axes[-1].set_xlabel("step")
    return save_figure(figure, path)


class LivePicture:
    """A picture of a curve that is drawn again from time to time.

    Parameters
    ----------
    curve, path
        As `plot_curve`.
    """

    def __init__(self, curve: str | os.PathLike, path: str | os.PathLike):
        self._curve, self._path = curve, path
        self._drawn = time.monotonic()

    def update(self) -> None:
        """Draw it unless that was done in the last ten seconds. Errors as `plot_curve`."""
        if time.monotonic() - self._drawn > _PATIENCE:
            self.draw()

    def draw(self) -> None:
        """Draw it now. Errors as `plot_curve`."""
        plot_curve(self._curve, self._path)
        self._drawn = time.monotonic()
