"""The page of ``dpa2md check``: what was measured, in six panels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..check import STEPS, Check, Subject
from .plots import new_figure, save_figure

_STYLES = ("-", "--", ":")  # of the blocks, two of which may have the same curve
_COLORS = {"pass": "tab:green", "fail": "tab:red"}


def plot_checks(
    checks: Sequence[Check], subject: Subject, path: str | os.PathLike, title: str
) -> Path:
    """Draw the verdicts and the curves behind them; the name of `path` ends in one of `plots.PICTURES`."""
    figure, axes = new_figure(2, 3, size=(13, 7.5))
    failed = sum(c.verdict == "fail" for c in checks)
    figure.suptitle(f"{title}: {failed or 'nothing'} failed")
    _verdicts(axes[0], checks)
    panels = (_derivatives, _single, _cutoffs, _room, _nve)
    for axis, panel in zip(axes[1:], panels, strict=True):
        panel(axis, subject.curves)
    return save_figure(figure, path)


def _verdicts(axis: Any, checks: Sequence[Check]) -> None:
    shown = [c for c in checks if c.verdict != "skipped"]
    # no deviation at all has no place on a logarithmic axis
    ratios = [max(c.measured / c.allowed, 1e-8) for c in shown]
    ratios = [r if np.isfinite(r) else 1e3 for r in ratios]
    axis.barh([c.name for c in shown], ratios, color=[_COLORS[c.verdict] for c in shown])
    axis.axvline(1, color="0.3", linewidth=0.8)
    axis.set(xscale="log", xlabel="measured / allowed", title="verdicts")
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize="small")


def _derivatives(axis: Any, curves: dict[str, Any]) -> None:
    for name, unit in (("forces", "eV/Å"), ("virial", "eV")):
        axis.loglog(STEPS, np.maximum(curves[name], 1e-16), "o-", label=f"{name} / ({unit})")
    axis.loglog(STEPS, curves["forces"][0] * (STEPS / STEPS[0]) ** 2, "k:", label="step²")
    axis.set_xticks(STEPS, [f"{h:g}" for h in STEPS])
    axis.set_xticks([], minor=True)
    axis.set(xlabel="step / Å", title="central differences, error")
    axis.legend(frameon=False)


def _single(axis: Any, curves: dict[str, Any]) -> None:
    values = np.maximum(curves["single"], 1e-9)
    axis.hist(values, bins=np.geomspace(values.min(), values.max() * 1.01, 40))
    axis.set(xscale="log", xlabel="|F(float32) - F(float64)| / (eV/Å)", title="float32")
    axis.set_ylabel("components")


def _cutoffs(axis: Any, curves: dict[str, Any]) -> None:
    colors: dict[str, str] = {}
    for name, at, energy in curves.get("cutoffs", []):
        label = None if name in colors else name
        color = colors.setdefault(name, f"C{len(colors)}")
        style = _STYLES[list(colors).index(name)]
        axis.plot(1e4 * at, energy, "o", linestyle=style, markersize=3, color=color, label=label)
    axis.set(xlabel="distance beyond the cutoff / 10⁻⁴ Å", title="a neighbour crosses a cutoff")
    axis.set_ylabel("energy less the forces' work / eV")
    if colors:
        axis.legend(frameon=False)


def _room(axis: Any, curves: dict[str, Any]) -> None:
    for k, (name, (counts, nsel)) in enumerate(curves["room"].items()):
        values, number = np.unique(counts, return_counts=True)
        label = f"{name}, room for {nsel}"
        axis.plot(values, number, ".", linestyle=_STYLES[k], color=f"C{k}", label=label)
        axis.axvline(nsel, color=f"C{k}", linestyle=":")
    axis.set(xlabel="neighbours", ylabel="atoms", title="neighbours (dotted: room)")
    axis.legend(frameon=False, fontsize="small")


def _nve(axis: Any, curves: dict[str, Any]) -> None:
    if "nve" in curves:
        time, energy = curves["nve"]
        axis.plot(time, 1e3 * energy)
    axis.set(xlabel="time / ps", ylabel="total energy / (meV/atom)", title="NVE")
