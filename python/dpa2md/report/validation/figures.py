"""The pictures of the page."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...comparison import Pairs
from ..plots import new_figure
from .dynamic import Curve
from .errors import Errors
from .tables import SHOWN
from .validation import Validation

_DENSE = 3000  # more points than these are counted in hexagons
_COLUMNS = 3
_MOST = 24  # panels of one picture
_STYLES = (("C0", "-"), ("C1", "--"))
_OFFSET = 0.1  # eV/atom; beyond it the energies are drawn shifted


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that stands in the page itself."""

    uri: str  #: a data: address with all of it
    caption: str  #: below it; also what is read out in its place


def parity(errors: Errors) -> Picture:
    """Reference against model, a row for each comparison and a column for each quantity."""
    rows = [(m, ref, _panels(pairs)) for m, ref, pairs in errors.parity]
    columns = max(len(panels) for _, _, panels in rows)
    figure, axes = new_figure(len(rows), columns, size=(3.2 * columns, 3.0 * len(rows)))
    for k, (model, reference, panels) in enumerate(rows):
        line = axes[k * columns : (k + 1) * columns]
        for axis, pair in zip(line, panels, strict=False):
            _parity(axis, pair, model, reference)
        for axis in line[len(panels) :]:
            axis.set_visible(False)
    return _picture(figure, "Parity: on the line the two agree.", "png")


def _panels(pairs: Sequence[Pairs]) -> list[Pairs]:
    named = {pair.name: pair for pair in pairs}
    energy = named.get("energy")
    if energy is not None and abs(energy.errors()["mean"]) > _OFFSET:
        named["energy"] = named.get("energy shifted", energy)
    return [named[n] for n in ("energy", "force", "stress") if n in named]


def _parity(axis: Any, pair: Pairs, model: str, reference: str) -> None:
    factor, unit = SHOWN[pair.unit]
    if factor == 1e3:  # the axes are in eV
        factor, unit = 1.0, pair.unit.replace("angstrom", "Å")
    x, y = factor * pair.label, factor * pair.model
    if len(x) > _DENSE:
        axis.hexbin(x, y, gridsize=60, bins="log", mincnt=1, cmap="viridis", linewidths=0.1)
    else:
        axis.plot(x, y, ".", markersize=3)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    axis.plot(ends, ends, color="0.4", linewidth=0.8)
    axis.set(xlabel=f"{reference} / ({unit})", ylabel=f"{model} / ({unit})")
    axis.set_title(pair.name.replace(" shifted", ", shifted"), fontsize="small")
    axis.ticklabel_format(useOffset=False)
    axis.locator_params(axis="x", nbins=3)
    axis.locator_params(axis="y", nbins=4)


def changing(v: Validation) -> list[str]:
    """The quantities that are not constant along the production runs."""
    parts = v.thermo or []
    return list(dict.fromkeys(q for t in parts for q, x in t.series.items() if np.ptp(x) > 0))


def series(v: Validation) -> Picture:
    """The production runs over time."""
    parts = v.thermo or []
    titles = changing(v)
    figure, axes = new_figure(len(titles), size=(8, 1.7 * len(titles)))
    for axis, title in zip(axes, titles, strict=True):
        for t in parts:
            if title in t.series:
                color, style = _style(v, t.model)
                line = {"color": color, "linestyle": style, "linewidth": 0.8, "label": t.model}
                axis.plot(t.times, t.series[title], **line)
        axis.set_ylabel(title.replace(" / ", "\n").replace("A3", "Å³"), fontsize="small")
        axis.ticklabel_format(axis="y", useOffset=False)
    axes[-1].set_xlabel("time / ps")
    axes[0].legend(frameon=False, ncols=2)
    return _picture(
        figure,
        "The production runs of both models over time."
        if len(parts) > 1
        else "The production run over time.",
    )


def curves(v: Validation, parts: Sequence[Curve], xlabel: str, ylabel: str) -> Picture:
    """A panel for each distribution, with the curves of all models."""
    shown = parts[:_MOST]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = new_figure(rows, columns, size=(max(5, 3.1 * columns), 2.5 * rows))
    for k, axis in enumerate(axes):
        if k >= len(shown):
            axis.set_visible(False)
            continue
        for name, values in shown[k].values.items():
            color, style = _style(v, name)
            axis.plot(shown[k].x, values, color=color, linestyle=style, linewidth=1.2, label=name)
        axis.set_title(shown[k].name, fontsize="small")
        axis.set(xlim=(0, None), ylim=(0, None))
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
    axes[0].legend(frameon=False, fontsize="small")
    rest = len(parts) - len(shown)
    left = f" {rest} more are in the JSON file." if rest else ""
    return _picture(figure, f"{ylabel} of {', '.join(c.name for c in shown)}.{left}")


def displacements(v: Validation) -> Picture:
    """Mean squared displacements, a panel for each element."""
    parts = v.diffusion or []
    elements = list(dict.fromkeys(t.element for t in parts))
    columns = min(_COLUMNS, len(elements))
    rows = -(-len(elements) // columns)
    figure, axes = new_figure(rows, columns, size=(max(5, 3.1 * columns), 2.8 * rows))
    for k, axis in enumerate(axes):
        if k >= len(elements):
            axis.set_visible(False)
            continue
        for t in parts:
            if t.element == elements[k]:
                color, style = _style(v, t.model)
                y = t.result.displacement
                axis.plot(t.result.lags, y, color=color, linestyle=style, label=t.model)
                axis.axvspan(*t.result.window, color="0.92", zorder=0)
        axis.set_title(elements[k], fontsize="small")
        axis.set(xlabel="lag / ps", ylabel="displacement² / Å²", xlim=(0, None), ylim=(0, None))
    axes[0].legend(frameon=False, fontsize="small")
    return _picture(figure, "Mean squared displacements; lines are fitted in the grey window.")


def over_time(v: Validation, parts: Sequence[tuple[str, Any, Any]], ylabel: str) -> Picture:
    """One quantity over time, as model, times (ps) and values."""
    figure, [axis] = new_figure(1, size=(8, 2.6))
    for name, times, values in parts:
        color, style = _style(v, name)
        axis.plot(times, values, color=color, linestyle=style, linewidth=0.9, label=name)
    axis.set(xlabel="time / ps", ylabel=ylabel)
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.legend(frameon=False, ncols=2)
    return _picture(figure, f"{ylabel} over time.")


def states(v: Validation) -> Picture:
    """The equations of state."""
    figure, [axis] = new_figure(1, size=(6, 3.4))
    for s in v.solid or []:
        color, _ = _style(v, s.model)
        y = 1e3 * (s.energies - s.energies.min())
        axis.plot(s.volumes, y, "o-", color=color, label=s.model)
    axis.set(xlabel="volume / (Å³/atom)", ylabel="energy / (meV/atom)")
    axis.legend(frameon=False)
    return _picture(figure, "Energy over volume, atoms relaxed; the lowest energy is 0.")


def _style(v: Validation, name: str) -> tuple[str, str]:
    return _STYLES[[m.name for m in v.models].index(name)]


def _picture(figure: Any, caption: str, form: str = "svg") -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format=form, dpi=130, metadata={"Date": None} if form == "svg" else None)
    kind = {"svg": "image/svg+xml", "png": "image/png"}[form]
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:{kind};base64,{data}", caption)
