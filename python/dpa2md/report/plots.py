"""Pictures of a run: the thermo table, and radial distribution functions."""

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

PICTURES = (".png", ".pdf", ".svg")  # the endings of names that `save_figure` takes


def radial_distribution(
    frames: Sequence[Atoms],
    first: str = "O",
    second: str = "O",
    rmax: float | None = None,
    bins: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """The radial distribution function between two elements, averaged over frames.

    Every periodic image within `rmax` is counted, so small and skewed cells are done right.

    Parameters
    ----------
    frames
        Structures, periodic in three directions.
    first, second
        Chemical symbols.
    rmax
        Angstrom; None: half the smallest height of the first cell, at most 10.
    bins
        Number of bins.

    Returns
    -------
    r, g
        Middle of each bin (angstrom) and g there, both (bins,).

    Raises
    ------
    RunError
        When a frame isn't periodic in three directions or lacks one of the elements.
    """
    edges, g, _ = _shells(frames, first, second, rmax, bins)
    return (edges[1:] + edges[:-1]) / 2, g


def coordination_number(
    frames: Sequence[Atoms],
    first: str = "O",
    second: str = "O",
    rmax: float | None = None,
    bins: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """How many atoms of one element an atom of another has within a distance, in the mean.

    Parameters and errors are those of `radial_distribution`, of which this is the integral.

    Returns
    -------
    r, n
        Distances (angstrom), and the number of `second` around a `first` up to there, both (bins,).
    """
    edges, _, n = _shells(frames, first, second, rmax, bins)
    return edges[1:], n


def _shells(
    frames: Sequence[Atoms], first: str, second: str, rmax: float | None, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of the bins (bins + 1,), g in them, and the running coordination number, both (bins,)."""
    if not frames:
        raise RunError("There are no frames to make a radial distribution function from.")
    if rmax is None:
        rmax = min(10.0, float(_heights(frames[0]).min()) / 2)
    edges = np.linspace(0, rmax, bins + 1)
    g, around = np.zeros(bins), np.zeros(bins)
    for atoms in frames:
        if not (atoms.cell.rank == 3 and all(atoms.pbc)):
            raise RunError("A radial distribution function needs fully periodic structures.")
        symbols = np.array(atoms.get_chemical_symbols())
        a, b = (np.flatnonzero(symbols == element) for element in (first, second))
        if not (len(a) and len(b)):
            raise RunError(f"The structure has no pair {first}-{second}; name other elements.")
        expected = len(a) * len(b) / atoms.get_volume() * 4 / 3 * np.pi * np.diff(edges**3)
        counts = _count_pairs(atoms, a, b, edges)
        g += counts / expected
        around += counts / len(a)
    return edges, g / len(frames), np.cumsum(around) / len(frames)


def _heights(atoms: Atoms) -> np.ndarray:
    """Distances (3,) between opposite faces of the cell, angstrom."""
    return 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)


def _count_pairs(atoms: Atoms, a: np.ndarray, b: np.ndarray, edges: np.ndarray) -> np.ndarray:
    cell = atoms.cell.array
    fractional = atoms.positions @ np.linalg.inv(cell)
    # With differences wrapped to [-1/2, 1/2], an image |S| cells away is no nearer than
    # (|S| - 1/2) heights.
    reach = np.floor(edges[-1] / _heights(atoms) + 0.5).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach)), -1).reshape(-1, 3)
    counts = np.zeros(len(edges) - 1)
    for i in a:
        d = fractional[b] - fractional[i]
        d -= np.round(d)
        images = (d[:, None] + shifts) @ cell
        r = np.linalg.norm(images, axis=-1)
        own = np.all(shifts == 0, axis=1) & (b == i)[:, None]
        counts += np.histogram(r[~own], edges)[0]
    return counts


def plot_rdf(
    frames: Sequence[Atoms],
    path: str | os.PathLike,
    first: str = "O",
    second: str = "O",
    rmax: float | None = None,
) -> Path:
    """Draw a radial distribution function and its integral, the coordination number; returns `path`.

    The other parameters and the errors are those of `radial_distribution`; `RunError` without matplotlib.
    """
    edges, g, n = _shells(frames, first, second, rmax, 100)
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
