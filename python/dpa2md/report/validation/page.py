"""The report as one HTML page that needs nothing else, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ...base.files import whole_file
from ..plots import check_matplotlib
from . import figures, tables
from .figures import Picture
from .request import SECTIONS
from .tables import Table
from .validation import Validation

_TITLES = {
    "errors": "Errors",
    "thermo": "Thermodynamics",
    "rdf": "Radial distributions",
    "adf": "Bond angles",
    "diffusion": "Diffusion",
    "density": "Density",
    "drift": "Energy drift",
    "solid": "Crystal",
    "speed": "Speed and memory",
}
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1.5rem; max-width: 62rem; background: #fff; color: #1b1b1b;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ccc; }
p, li { max-width: 46rem; }
.facts { color: #555; margin-top: 0; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none; }
a { color: #0b57a4; }
.wide { overflow-x: auto; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #e2e2e2; vertical-align: top; }
thead th { border-bottom: 2px solid #888; }
th { text-align: left; font-weight: 600; }
tbody th { font-weight: 400; }
td, thead th + th { text-align: right; }
td { white-space: nowrap; }
td.words, thead th.words { text-align: left; }
td.words { white-space: normal; max-width: 22rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: .85rem; color: #555; }
.missing { background: #f5f5f5; border-left: 4px solid #b26a00; padding: .5rem .8rem; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } nav { display: none; }
  .wide { overflow: visible; } tr, .missing { break-inside: avoid; } h2 { break-after: avoid; } }
"""


def write_report(validation: Validation, path: str | os.PathLike) -> tuple[Path, Path]:
    """Write the page, and beside it the JSON file with every number in it.

    Parameters
    ----------
    validation
        As `validate` gives it.
    path
        The page, whose name ends in .html.

    Returns
    -------
    page, numbers
        The two files.

    Raises
    ------
    RunError
        Without matplotlib.
    OSError
        When a file can't be written.
    """
    check_matplotlib()
    page = Path(path)
    numbers = page.with_suffix(".json")
    with whole_file(numbers) as temporary:
        temporary.write_text(json.dumps(as_json(validation), indent=1, allow_nan=False) + "\n")
    with whole_file(page) as temporary:
        temporary.write_text(html(validation), encoding="utf-8")
    return page, numbers


def as_json(value: Any) -> Any:
    """A report as JSON can hold it: arrays are lists, what isn't finite is null."""
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if f.metadata.get("json", True)]
        return {f.name: as_json(getattr(value, f.name)) for f in fields}
    if isinstance(value, dict):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [as_json(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def html(v: Validation) -> str:
    """The page."""
    names = [m.name for m in v.models]
    title = "Validation of " + " and ".join(names)
    shown = [n for n in SECTIONS if getattr(v, n) is not None or n in v.missing]
    links = "".join(f'<li><a href="#{n}">{escape(_TITLES[n])}</a></li>' for n in shown)
    body = "".join(_section(v, name) for name in shown)
    facts = f"dpa2md {v.version}, {v.date}, {v.machine}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="facts">{escape(facts)}</p>\n'
        f'<nav aria-label="Contents"><ul><li><a href="#summary">Summary</a></li>{links}</ul></nav>\n'
        f'<main>\n<section id="summary">\n<h2>Summary</h2>\n{_summary(v)}</section>\n{body}</main>\n'
        "</body>\n</html>\n"
    )


def _summary(v: Validation) -> str:
    parts = [_table(tables.summary_table(v)), _table(tables.model_table(v))]
    for what, why in v.failed.items():
        parts.append(_missing(f"Failed: {what}. {why}"))
    return "".join(parts)


def _section(v: Validation, name: str) -> str:
    head = f'<section id="{name}">\n<h2>{escape(_TITLES[name])}</h2>\n'
    if getattr(v, name) is None:
        return f"{head}{_missing(f'Not made: {v.missing[name]}.')}</section>\n"
    return f"{head}{_CONTENTS[name](v)}</section>\n"


def _errors(v: Validation) -> str:
    assert v.errors is not None
    notes = [f"{v.errors.frames} frames of {v.errors.source}."]
    if any(row["quantity"] == "energy shifted" for c in v.errors.comparisons for row in c.rows):
        notes.append(
            "“Energy, shifted”: after the constant for each element that fits best, which removes "
            "different zeros of energy."
        )
    parts = [_paragraph(" ".join(notes))]
    parts += [_table(table) for table in tables.error_tables(v.errors)]
    return "".join([*parts, _figure(figures.parity(v.errors))])


def _thermo(v: Validation) -> str:
    c = v.conditions
    text = f"{v.start}. {c['ensemble'].upper()} at {c['temperature']:g} K"
    text += f" and {c['pressure']:g} bar" if c["ensemble"] == "npt" else ""
    text += f", steps of {c['timestep']:g} fs, after an equilibration of "
    text += f"{c['equilibration steps']:,} steps. "
    if len(v.models) > 1:
        text += "Both models begin with the same structure and velocities. "
    text += "Errors are standard errors of five blocks."
    pictures = _figure(figures.series(v)) if figures.changing(v) else ""
    return _paragraph(text) + _table(tables.thermo_table(v)) + pictures


def _rdf(v: Validation) -> str:
    text = (
        "Difference: half of the area between two curves, in percent of the area of one. Noise: the same "
        "between the two halves of one run; a difference of that size says nothing."
    )
    picture = figures.curves(v, v.rdf or [], "distance / Å", "g(r)")
    return _paragraph(text) + _table(tables.radial_table(v)) + _figure(picture)


def _adf(v: Validation) -> str:
    if not v.adf:
        return _paragraph("No atom has two neighbours within the first minima of g(r).")
    text = (
        "Angles between two neighbours of the middle atom, within the first minima of g(r) above. "
        "Difference and noise are those of the radial distributions."
    )
    picture = figures.curves(v, v.adf, "angle / °", "probability per degree")
    return _paragraph(text) + _table(tables.angular_table(v)) + _figure(picture)


def _diffusion(v: Validation) -> str:
    text = (
        "A sixth of the slope of the mean squared displacement, over all time origins, relative to the "
        "centre of mass; errors from four blocks. The exponent is 1 where atoms diffuse, near 0 where they "
        "are bound to their places, and up to 2 where the run is too short, as it is, too, while atoms go less than 1 Å: then there is no D. A finite cubic box slows diffusion: for an "
        "infinite one add the correction in the last column, divided by the viscosity in mPa s "
        "(Yeh and Hummer, 2004). Models in the same box compare without it."
    )
    return _paragraph(text) + _table(tables.diffusion_table(v)) + _figure(figures.displacements(v))


def _density(v: Validation) -> str:
    parts = [(d.model, d.times, d.series) for d in v.density or []]
    picture = figures.over_time(v, parts, "density / (g/cm³)")
    return _table(tables.density_table(v)) + _figure(picture)


def _drift(v: Validation) -> str:
    text = (
        "At constant energy, from the end of the run above: the slope of a line through the total energy, "
        "and the standard deviation from it."
    )
    parts = [(d.model, d.times, d.energies) for d in v.drift or []]
    picture = figures.over_time(v, parts, "total energy / (meV/atom)")
    return _paragraph(text) + _table(tables.drift_table(v)) + _figure(picture)


def _solid(v: Validation) -> str:
    text = (
        "In float64. The cell and its atoms are relaxed; Birch-Murnaghan's equation of state; the stiffness "
        "from strains of 0.5 % both ways with relaxed atoms, the moduli by Hill."
    )
    parts = [_table(table) for table in tables.solid_tables(v)]
    return "".join([_paragraph(text), *parts, _figure(figures.states(v))])


def _speed(v: Validation) -> str:
    assert v.speed is not None
    count = "1 thread" if v.speed.threads == 1 else f"{v.speed.threads} threads"
    text = (
        f"{v.speed.atoms} atoms, {count}, {v.speed.machine}, {v.speed.device}; all models in turn."
    )
    told = _missing(f"LAMMPS not timed: {v.speed.no_lammps}.") if v.speed.no_lammps else ""
    return _paragraph(text) + _table(tables.speed_table(v)) + told


_CONTENTS = {
    "errors": _errors,
    "thermo": _thermo,
    "rdf": _rdf,
    "adf": _adf,
    "diffusion": _diffusion,
    "density": _density,
    "drift": _drift,
    "solid": _solid,
    "speed": _speed,
}


def _table(table: Table) -> str:
    kinds = [
        ' class="words"' if any(_words(row[k]) for row in table.rows) else ""
        for k in range(1, len(table.heads))
    ]
    heads = "".join(
        f'<th scope="col"{kind}>{escape(head)}</th>'
        for head, kind in zip(table.heads, ["", *kinds], strict=True)
    )
    lines = []
    for row in table.rows:
        cells = [f'<th scope="row">{escape(tables.text(row[0]))}</th>']
        for cell, kind in zip(row[1:], kinds, strict=True):
            cells.append(f"<td{kind}>{escape(tables.text(cell))}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    return (
        f'<div class="wide"><table>\n<caption>{escape(table.caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>\n</table></div>\n"
    )


def _words(cell: tables.Cell) -> bool:
    return isinstance(cell, str) and not cell.lstrip("-–")[:1].isdigit() and len(cell) > 9


def _figure(picture: Picture) -> str:
    caption = escape(picture.caption)
    return (
        f'<figure><img src="{picture.uri}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


def _missing(text: str) -> str:
    return f'<p class="missing">{escape(text)}</p>\n'
