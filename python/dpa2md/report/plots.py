"""Pictures of a run and of a comparison: the thermo table, radial distributions, parity, scaling."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..base.files import whole_file
from ..comparison import Pairs
from ..errors import RunError
from .distributions import shells

PICTURES = (".png", ".pdf", ".svg")  # the endings of names that `save_figure` takes


def plot_rdf(
    frames: Sequence[Atoms],
    path: str | os.PathLike,
    first: str = "O",
    second: str = "O",
    rmax: float | None = None,
) -> Path:
    """Draw a radial distribution function and its integral, the coordination number; returns `path`.

    The other parameters and the errors are those of `distributions.radial_distribution`; `RunError` without matplotlib.
    """
    edges, g, n = shells(frames, first, second, rmax, 100)
    figure, [axis] = new_figure(1)
    axis.plot((edges[1:] + edges[:-1]) / 2, g)
    axis.axhline(1, color="0.7", linewidth=0.8, zorder=0)
    axis.set(xlabel=f"{first}-{second} distance / Å", ylabel="g(r)", xlim=(0, edges[-1]), ylim=0)
    axis.set_title(f"{first}-{second} radial distribution, {len(frames)} frames")
    numbers = axis.twinx()
    numbers.plot(edges[1:], n, "--", color="C1")
    numbers.set_ylabel(f"{second} atoms around {first}, up to r", color="C1")
    # a liquid has some dozen neighbours in its first shells; the steep rest would flatten these
    numbers.set_ylim(0, min(max(n[-1], 1), 20))
    numbers.tick_params(axis="y", colors="C1")
    numbers.locator_params(axis="y", integer=True)
    return save_figure(figure, path)


def plot_thermo(log: str | os.PathLike, path: str | os.PathLike) -> Path:
    """Draw the columns of a run's CSV file over time.

    Parameters
    ----------
    log
        The file that ``dpa2md md`` or `run_md` wrote.
    path
        The picture; its name ends in one of `PICTURES`.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    RunError
        Without matplotlib, or for a name with another ending.
    OSError
        When a file can't be read or written.
    """
    table = np.atleast_1d(np.genfromtxt(log, delimiter=",", names=True))
    columns = [
        ("total_energy_eV", "E total / eV"),
        ("potential_energy_eV", "E pot / eV"),
        ("temperature_K", "T / K"),
        ("pressure_bar", "P / bar"),
        ("density_g_cm3", "density / (g/cm³)"),
    ]
    shown = [(name, label) for name, label in columns if np.isfinite(table[name]).any()]
    figure, axes = new_figure(len(shown))
    for axis, (name, label) in zip(axes, shown, strict=True):
        axis.plot(table["time_ps"], table[name])
        axis.set_ylabel(label)
        axis.ticklabel_format(axis="y", useOffset=False)
    axes[-1].set_xlabel("time / ps")
    return save_figure(figure, path)


def plot_parity(pairs: Sequence[Pairs], path: str | os.PathLike, title: str) -> Path:
    """Draw labels against the model's values, a panel for energies, forces, stresses, each with its errors.

    Forces are coloured by element; their errors are those of all.
    """
    panels: dict[str, list[Pairs]] = {}
    for pair in pairs:
        panels.setdefault(pair.name.split()[0], []).append(pair)
    for again in ("total", "virial"):  # the energy and the stress times numbers
        panels.pop(again, None)
    for name, parts in panels.items():
        panels[name] = parts[1:] or parts  # elements in place of all forces together
    figure, axes = new_figure(1, len(panels))
    figure.suptitle(title, fontsize="medium")
    for axis, (name, parts) in zip(axes, panels.items(), strict=True):
        whole = next(pair for pair in pairs if pair.name == name)
        for part in parts:
            label = part.name.removeprefix(name).strip()
            axis.plot(part.label, part.model, ".", markersize=2, label=label, rasterized=True)
        values = np.concatenate([v for p in parts for v in (p.label, p.model)])
        ends = [values.min(), values.max()]
        axis.plot(ends, ends, color="0.5", linewidth=0.8, zorder=0)
        axis.set(xlabel=f"{name}, label / ({whole.unit})", ylabel="model")
        errors = whole.errors()
        numbers = f"MAE {errors['MAE']:.3g}, RMSE {errors['RMSE']:.3g} {whole.unit}"
        axis.set_title(numbers, fontsize="small")
        axis.ticklabel_format(useOffset=False)
        axis.locator_params(nbins=4)
        if len(parts) > 1 or name == "force":
            axis.legend(frameon=False, markerscale=5)
    return save_figure(figure, path)


def plot_scaling(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike, title: str) -> Path:
    """Draw time and memory over atoms.

    Parameters
    ----------
    rows
        The table of ``dpa2md bench``: its columns atoms, us/atom and MB, and those of DeePMD-kit where there are.
    path
        The picture; its name ends in one of `PICTURES`.
    title
        Stands above.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    RunError
        Without matplotlib, or for a name with another ending.
    """
    figure, axes = new_figure(1, 2)
    figure.suptitle(title, fontsize="small")
    atoms = [row["atoms"] for row in rows]
    for axis, column, label in (
        (axes[0], "us/atom", "time / (us/atom)"),
        (axes[1], "MB", "memory of the process / MB"),
    ):
        for name, prefix in (("dpa2md", ""), ("DeePMD-kit", "DeePMD-kit ")):
            if prefix + column in rows[0]:
                axis.plot(atoms, [row[prefix + column] for row in rows], "o-", label=name)
        axis.set(xscale="log", xlabel="atoms", ylabel=label)
        axis.set_ylim(0, 1.08 * axis.dataLim.y1)  # a margin above the highest point
        axis.set_xticks(atoms, [str(n) for n in atoms])
        axis.set_xticks([], minor=True)
        axis.legend(frameon=False)
    return save_figure(figure, path)


def check_matplotlib() -> None:
    """Raise `RunError` when matplotlib is not installed."""
    # found but not imported: that would count in the memory that is measured
    if importlib.util.find_spec("matplotlib") is None:
        raise RunError("Plots need matplotlib: pip install matplotlib.")


def check_picture(path: str | os.PathLike) -> None:
    """Raise `RunError` unless a picture of this name can be drawn; for use before the work."""
    check_matplotlib()
    if Path(path).suffix.lower() not in PICTURES:
        raise RunError(f"{path}: a picture's name must end in {', '.join(PICTURES)}.")


def new_figure(
    rows: int, columns: int = 1, size: tuple[float, float] | None = None
) -> tuple[Any, list[Any]]:
    """A figure of this many panels, and the panels row by row; `size` in inches."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if size is None:
        size = (6 if columns == 1 else 4 * columns, 4 if rows == 1 else 1.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.ravel(figure.subplots(rows, columns, sharex=columns == 1)))


def save_figure(figure: Any, path: str | os.PathLike) -> Path:
    """Write a figure into a file, in the format of its name (`PICTURES`)."""
    path = Path(path)
    check_picture(path)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150)
    return path
