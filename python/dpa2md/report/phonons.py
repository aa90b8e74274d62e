"""The picture of ``dpa2md phonons``: bands, and beside them the density of states."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..phonons import INVCM, Bands
from .plots import new_figure, save_figure


def plot_phonons(
    bands: Bands, dos: tuple[np.ndarray, np.ndarray], path: str | os.PathLike, title: str
) -> Path:
    """Draw bands and density of states (per 1/cm and primitive cell) into a PNG file."""
    figure, (left, right) = new_figure(1, 2, size=(8, 4.5))
    figure.suptitle(title)
    breaks = np.flatnonzero(np.diff(bands.distances) == 0) + 1  # the path goes on elsewhere
    for part in np.split(np.arange(len(bands.distances)), breaks):
        shown = bands.frequencies[part] * INVCM
        left.plot(bands.distances[part], shown, color="tab:blue", linewidth=0.8)
    names = ["Γ" if name == "G" else name for name in bands.labels]
    left.set_xticks(bands.ticks, names)
    left.set(xlim=(bands.distances[0], bands.distances[-1]), ylabel="frequency (1/cm)")
    left.grid(axis="x")
    left.axhline(0, color="0.3", linewidth=0.8)
    frequencies, states = dos
    right.plot(states / INVCM, frequencies * INVCM, color="tab:blue", linewidth=0.8)
    right.set(xlabel="states per 1/cm and primitive cell", ylim=left.get_ylim(), xlim=(0, None))
    return save_figure(figure, path)
