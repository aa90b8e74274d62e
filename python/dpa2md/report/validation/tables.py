"""The tables of the page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from .. import transport
from .dynamic import Transport
from .errors import Comparison, Errors
from .validation import Validation

Cell = str | float | int | None
# What the page shows a quantity's errors in: the factor from the unit of `Pairs`, and the unit.
SHOWN = {
    "eV/atom": (1e3, "meV/atom"),
    "eV/angstrom": (1e3, "meV/Å"),
    "eV/angstrom^3": (160.21766, "GPa"),
}
_TITLES = {"energy shifted": "energy, shifted"}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its caption, heads of columns and rows, whose first cells are heads, too."""

    caption: str  #: above it
    heads: Sequence[str]  #: one a column
    rows: Sequence[Sequence[Cell]]  #: numbers are written with four digits


def text(cell: Cell) -> str:
    """A cell as it stands on the page."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "–"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else cell


def with_error(mean: transport.Mean, factor: float = 1.0) -> str:
    """A mean and its error, to the second digit of the error."""
    value, error = mean.value * factor, mean.error * factor
    if not math.isfinite(value):
        return "–"
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}"
    digits = 1 - math.floor(math.log10(error))
    if digits >= 0:
        return f"{value:.{digits}f} ± {error:.{digits}f}"
    return f"{round(value, digits):.0f} ± {round(error, digits):.0f}"


def model_table(v: Validation) -> Table:
    """What the models are."""
    rows: list[list[Cell]] = [
        ["file", *(m.file for m in v.models)],
        ["SHA-256", *(m.sha256[:16] for m in v.models)],
        ["kind", *(m.kind.upper().replace("DPA", "DPA-") for m in v.models)],
        ["parameters", *(m.parameters for m in v.models)],
        ["largest cutoff / Å", *(m.rcut for m in v.models)],
        ["elements", *(_few(m.elements) for m in v.models)],
        ["precision", *(m.precision for m in v.models)],
        ["run on", *(m.engine for m in v.models)],
    ]
    return Table("The models", ["", *(m.name for m in v.models)], rows)


def _few(elements: Sequence[str], most: int = 12) -> str:
    rest = len(elements) - most
    return " ".join(elements[:most]) + (f" and {rest} more" if rest > 0 else "")


def summary_table(v: Validation) -> Table:
    """One row for each number that decides."""
    names = [m.name for m in v.models]
    rows: list[list[Cell]] = [_row("parameters", [m.parameters for m in v.models])]
    if v.errors:
        rows += _summary_errors(v.errors, names)
    rows += _summary_apart(v)
    if v.density:
        found = {d.model: with_error(d.density) for d in v.density}
        rows.append(["density / (g/cm³)", *(found.get(n) for n in names)])
    for element in dict.fromkeys(t.element for t in v.diffusion or []):
        of = {t.model: _coefficient(t) for t in v.diffusion or [] if t.element == element}
        cells = [of.get(n) for n in names]
        rows.append([f"diffusion of {element} / (10⁻⁹ m²/s)", *cells])
    if v.drift:
        slopes = {d.model: d.slope for d in v.drift}
        rows.append(["drift of the energy / (meV/atom/ps)", *(slopes.get(n) for n in names)])
    for title, field in (("V₀ / (Å³/atom)", "volume"), ("bulk modulus / GPa", "bulk")):
        if v.solid:
            rows.append(_row(title, [getattr(s, field) for s in v.solid]))
    for program in dict.fromkeys(r.program for r in v.speed.rows) if v.speed else ():
        of_program = {r.model: r for r in v.speed.rows if r.program == program} if v.speed else {}
        parts = [of_program[n] for n in names]
        rows.append(_row(f"{program}: time / (µs/atom)", [p.microseconds for p in parts]))
        rows.append(_row(f"{program}: memory / MB", [p.megabytes for p in parts]))
    two = len(names) == 2
    rows = [row + [None] * (1 + len(names) + two - len(row)) for row in rows]
    return Table("Main numbers", ["", *names, *(["ratio"] if two else [])], rows)


def _row(title: str, values: Sequence[float]) -> list[Cell]:
    ratio = [values[0] / values[1]] if len(values) == 2 and values[1] else []
    return [title, *values, *ratio]


def _summary_errors(errors: Errors, names: Sequence[str]) -> list[list[Cell]]:
    """The RMSE against labels of every quantity but the virial, which is the stress again."""
    whole = [c for c in errors.comparisons if c.reference == "labels" and not c.group]
    found = {c.model: {row["quantity"]: row for row in c.rows} for c in whole}
    out = []
    for quantity, row in (found[names[0]] if found else {}).items():
        if quantity != "virial":
            factor, unit = SHOWN[row["unit"]]
            title = f"{_TITLES.get(quantity, quantity)}, RMSE / ({unit})"
            out.append(_row(title, [factor * found[n][quantity]["RMSE"] for n in names]))
    return out


def _summary_apart(v: Validation) -> list[list[Cell]]:
    """How far the first model is from the other one."""
    out: list[list[Cell]] = []
    if len(v.models) < 2:
        return out
    other = v.models[1].name
    for c in v.errors.comparisons if v.errors else []:
        forces = [1e3 * row["RMSE"] for row in c.rows if row["quantity"] == "force"]
        if c.reference == other and not c.group and forces:
            out.append([f"force against {other}, RMSE / (meV/Å)", forces[0]])
    apart = [c for c in v.rdf or [] if c.difference is not None]
    if apart:
        worst = max(apart, key=lambda c: c.difference or 0.0)
        out.append([f"g(r), largest difference ({worst.name}) / %", 100 * (worst.difference or 0)])
    return out


def error_tables(errors: Errors) -> list[Table]:
    """Against labels and against the other model, for all frames, then by group."""
    whole = [c for c in errors.comparisons if not c.group]
    tables = [_error_table(c) for c in whole]
    groups = [c for c in errors.comparisons if c.group]
    for reference in dict.fromkeys(c.reference for c in groups):
        part = [c for c in groups if c.reference == reference]
        tables.append(_group_table(errors.group_key or "", reference, part))
    return tables


def _error_table(c: Comparison) -> Table:
    rows: list[list[Cell]] = []
    for row in c.rows:
        factor, unit = SHOWN[row["unit"]]
        numbers = [factor * row[k] for k in ("RMSE", "MAE", "largest", "mean")]
        title = _TITLES.get(row["quantity"], row["quantity"])
        rows.append([title, unit, row["values"], *numbers])
    caption = f"{c.model} against {c.reference}, {c.frames} frames"
    return Table(caption, ["", "unit", "values", "RMSE", "MAE", "largest", "mean error"], rows)


def _group_table(key: str, reference: str, part: Sequence[Comparison]) -> Table:
    models = list(dict.fromkeys(c.model for c in part))
    heads, rows = [key, "frames"], []
    for name in models:
        heads += [f"{name}: energy / (meV/atom)", f"{name}: force / (meV/Å)"]
    for group in dict.fromkeys(c.group for c in part):
        own = {c.model: c for c in part if c.group == group}
        row: list[Cell] = [group, next(iter(own.values())).frames]
        for name in models:
            found = {r["quantity"]: 1e3 * r["RMSE"] for r in own[name].rows}
            row += [found.get("energy"), found.get("force")]
        rows.append(row)
    return Table(f"RMSE against {reference} by {key}", heads, rows)


def thermo_table(v: Validation) -> Table:
    """Means along the production runs."""
    parts = v.thermo or []
    quantities = dict.fromkeys(q for t in parts for q in t.means)
    rows: list[list[Cell]] = [["length / ps", *(t.picoseconds for t in parts)]]
    for quantity in quantities:
        shown = [with_error(t.means[quantity]) if quantity in t.means else None for t in parts]
        rows.append([quantity.replace("A3", "Å³"), *shown])
    return Table("Means along the run", ["", *(t.model for t in parts)], rows)


def radial_table(v: Validation) -> Table:
    """The first shells of all pairs of elements."""
    curves = v.rdf or []
    names = list(curves[0].values) if curves else []
    heads = ["pair", "end of first shell / Å"]
    for name in names:
        heads += [f"{name}: highest peak", f"{name}: neighbours"]
    heads += ["difference / %"] if len(names) == 2 else []
    heads.append("noise / %")
    rows = []
    for c in curves:
        row: list[Cell] = [c.name, c.end]
        for name in names:
            place, height = c.peaks[name]
            row += [f"{height:.2f} at {place:.2f} Å", c.neighbors.get(name)]
        row += [] if c.difference is None else [100 * c.difference]
        rows.append([*row, 100 * c.noise])
    return Table("First shells", heads, rows)


def angular_table(v: Validation) -> Table:
    """The bond angles of all triplets of elements."""
    curves = v.adf or []
    names = list(curves[0].values) if curves else []
    two = len(names) == 2
    heads = ["triplet", "angles a frame", *(f"{name}: mean / °" for name in names)]
    heads += [*(["difference / %"] if two else []), "noise / %"]
    rows = []
    for c in curves:
        own: list[Cell] = [] if c.difference is None else [100 * c.difference]
        number = c.numbers[names[-1]]
        rows.append([c.name, number, *(c.means[n] for n in names), *own, 100 * c.noise])
    return Table("Means", heads, rows)


def diffusion_table(v: Validation) -> Table:
    """The diffusion coefficients."""
    rows: list[list[Cell]] = []
    for t in v.diffusion or []:
        begin, end = t.result.window
        row: list[Cell] = [t.model, t.element, _coefficient(t), t.result.exponent]
        rows.append([*row, f"{begin:.3g} to {end:.3g}", 10 * t.correction])
    heads = ["model", "element", "D / (10⁻⁹ m²/s)", "exponent", "fitted / ps", "correction"]
    return Table("Coefficients", heads, rows)


def _coefficient(t: Transport) -> str:
    """The coefficient, or why there is none."""
    motion = t.result.motion
    return with_error(t.result.coefficient, 10) if motion == "diffusive" else motion


def density_table(v: Validation) -> Table:
    """The densities."""
    rows = [[d.model, with_error(d.density)] for d in v.density or []]
    return Table("Mean and standard error", ["model", "density / (g/cm³)"], rows)


def drift_table(v: Validation) -> Table:
    """The drifts of the total energy."""
    rows: list[list[Cell]] = [
        [d.model, d.slope, d.deviation, float(d.times[-1]), d.timestep] for d in v.drift or []
    ]
    heads = [
        "model",
        "drift / (meV/atom/ps)",
        "fluctuation / (meV/atom)",
        "length / ps",
        "step / fs",
    ]
    return Table("Lines through the total energy", heads, rows)


def solid_tables(v: Validation) -> list[Table]:
    """Equations of state, and the stiffness of every model."""
    parts = v.solid or []
    rows: list[list[Cell]] = [
        ["a, b, c / Å", *(", ".join(f"{x:.4f}" for x in s.lengths) for s in parts)],
        ["α, β, γ / °", *(", ".join(f"{x:.2f}" for x in s.angles) for s in parts)],
        ["V₀ / (Å³/atom)", *(s.volume for s in parts)],
        ["E₀ / (eV/atom)", *(f"{s.energy:.5f}" for s in parts)],
        ["bulk modulus, equation of state / GPa", *(s.bulk for s in parts)],
        ["bulk modulus, stiffness / GPa", *(s.moduli.bulk for s in parts)],
        ["shear modulus, stiffness / GPa", *(s.moduli.shear for s in parts)],
    ]
    formula = parts[0].formula if parts else ""
    tables = [Table(f"{formula}, relaxed", ["", *(s.model for s in parts)], rows)]
    axes = ["xx", "yy", "zz", "yz", "xz", "xy"]
    for s in parts:
        lines = [
            [a, *(f"{round(float(x), 2) + 0.0:.2f}" for x in row)]
            for a, row in zip(axes, s.stiffness, strict=True)
        ]
        tables.append(Table(f"Stiffness of {s.model} / GPa", ["", *axes], lines))
    return tables


def speed_table(v: Validation) -> Table:
    """Time and memory."""
    rows: list[list[Cell]] = [
        [r.program, r.model, r.microseconds, r.fastest, r.megabytes]
        for r in (v.speed.rows if v.speed else [])
    ]
    heads = ["program", "model", "median / (µs/atom)", "fastest / (µs/atom)", "memory / MB"]
    return Table("A step: energy, forces and virial", heads, rows)
