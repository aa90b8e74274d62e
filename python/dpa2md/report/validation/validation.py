"""Makes a validation report's numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..._core import __version__
from ...base.files import sha256
from ...bench import machine
from ...calculator import DPA2Calculator
from ...conversion import load_records
from ...engine import Engine
from ...errors import RunError
from ...shipped import model_file
from . import dynamic
from .errors import Errors, compute_errors
from .request import DYNAMIC, SECTIONS, Request, Subject
from .runs import Run, open_work, run_all
from .solid import Solid, compute_solid
from .speed import Speeds, compute_speed

#: Called with a text, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model is."""

    name: str  #: in the report
    file: str  #: its path
    sha256: str  #: its checksum
    kind: str  #: dpa2, dpa1
    parameters: int  #: numbers that were trained
    rcut: float  #: angstrom, the largest cutoff
    elements: list[str]  #: that it knows
    precision: str  #: that it is run in
    engine: str  #: device, instruction set, threads


@dataclasses.dataclass(frozen=True)
class Validation:
    """All numbers of a report; sections that were not made are None, and `missing` says why."""

    date: str  #: ISO 8601, UTC
    version: str  #: of dpa2md
    machine: str  #: the processor
    models: list[Facts]  #: one or two
    conditions: dict[str, Any]  #: of the molecular dynamics
    start: str  #: what it began with
    missing: dict[str, str] = dataclasses.field(default_factory=dict)  #: section to reason
    failed: dict[str, str] = dataclasses.field(default_factory=dict)  #: part of one model to reason
    errors: Errors | None = None  #: against labels and each other
    thermo: list[dynamic.Thermo] | None = None  #: means of the production runs
    rdf: list[dynamic.Radial] | None = None  #: by pair of elements
    adf: list[dynamic.Angular] | None = None  #: by triplet of elements
    diffusion: list[dynamic.Transport] | None = None  #: by model and element
    density: list[dynamic.Density] | None = None  #: by model
    drift: list[dynamic.Drift] | None = None  #: by model
    solid: list[Solid] | None = None  #: by model
    speed: Speeds | None = None  #: of a step


def validate(
    request: Request,
    work: Path,
    *,
    replace: bool = False,
    report: Progress = lambda *_: None,
) -> Validation:
    """Make all sections of a report.

    Molecular dynamics is kept in `work`: after an interruption the same call goes on from its checkpoints.
    A run that explodes is told in the report and doesn't end the rest.

    Parameters
    ----------
    request
        What to make.
    work
        The folder, which is made if need be.
    replace
        Delete the runs of other settings in `work`.
    report
        Called as the work goes on.

    Raises
    ------
    RunError
        When an element is unknown to a model, or `work` holds something else.
    ModelError, OSError
        As `Engine`.
    KeyboardInterrupt
        When the molecular dynamics was stopped, with its state saved.
    """
    engines = [_engine(request, subject, subject.precision) for subject in request.subjects]
    request.check(tuple(engines))
    facts = [_facts(s, e) for s, e in zip(request.subjects, engines, strict=True)]
    wanted = request.wanted()
    open_work(work, _runs_depend_on(request, facts), replace=replace)
    missing = request.missing()
    found: dict[str, Any] = {}
    models = [(s.name, DPA2Calculator(e)) for s, e in zip(request.subjects, engines, strict=True)]
    if "errors" in wanted:
        found["errors"] = compute_errors(models, request.frames, request.labels, report)
    failed = _dynamics(request, models, work, found, missing, report)
    if "solid" in wanted:
        failed |= _solids(request, found, missing, report)
    if "speed" in wanted:
        try:
            found["speed"] = compute_speed(request, work, report)
        except RunError as error:
            missing["speed"] = str(error).rstrip(".")
    return Validation(
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        __version__,
        machine(),
        facts,
        _conditions(request),
        _start(request.structure),
        {n: missing[n] for n in (request.sections or SECTIONS) if n in missing},
        failed,
        **found,
    )


def _engine(request: Request, subject: Subject, precision: str | None) -> Engine:
    return Engine(
        subject.path,
        precision,
        request.threads,
        request.device,
        head=subject.head,
        low_memory=request.low_memory,
    )


def _facts(subject: Subject, engine: Engine) -> Facts:
    path = model_file(subject.path)
    records = load_records(path, subject.head)
    cutoffs = [float(v) for k, v in records.items() if k.endswith(".rcut")]  # type: ignore[arg-type]
    return Facts(
        subject.name,
        str(path),
        sha256(path),
        str(records["model.kind"]),
        sum(v.size for v in records.values() if isinstance(v, np.ndarray)),
        max(cutoffs),
        list(engine.elements),
        engine.precision,
        engine.description,
    )


def _runs_depend_on(request: Request, facts: list[Facts]) -> dict[str, Any]:
    """What the files of the runs are of account for; other sections are made anew each time."""
    start = request.structure
    arrays = {} if start is None else {k: v.tolist() for k, v in start.arrays.items()}
    return {
        "models": [[f.name, f.sha256, f.precision] for f in facts],
        "heads": [subject.head for subject in request.subjects],
        "conditions": dataclasses.asdict(request.conditions),
        "structure": arrays | ({} if start is None else {"cell": start.cell.tolist()}),
    }


def _conditions(request: Request) -> dict[str, Any]:
    """As they were given, and the lengths of the runs."""
    steps = {f"{name} steps": s.steps for name, s in request.conditions.stages().items()}
    return dataclasses.asdict(request.conditions) | steps


def _start(atoms: Atoms | None) -> str:
    return "" if atoms is None else f"{len(atoms)} atoms, {atoms.get_chemical_formula()}"


def _dynamics(
    request: Request,
    models: list[tuple[str, DPA2Calculator]],
    work: Path,
    found: dict[str, Any],
    missing: dict[str, str],
    report: Progress,
) -> dict[str, str]:
    """Run, and add the sections that come from it to `found`, or reasons to `missing`; returns failures."""
    wanted = [name for name in request.wanted() if name in DYNAMIC]
    if not wanted:
        return {}
    assert request.structure is not None
    stages = ["equilibration", "production", *(["nve"] if "drift" in wanted else [])]
    runs = [
        run_all(
            name,
            calculator,
            request.structure,
            request.conditions,
            work / f"run-{k + 1}",
            stages,
            report,
        )
        for k, (name, calculator) in enumerate(models)
    ]
    natoms, conditions = len(request.structure), request.conditions
    makers: dict[str, Callable[[list[Run]], Any]] = {
        "thermo": lambda runs: dynamic.thermo(runs, natoms),
        "rdf": lambda runs: dynamic.radial(runs, report),
        "adf": lambda runs: dynamic.angular(
            runs, found.get("rdf") or dynamic.radial(runs, report), report
        ),
        "diffusion": lambda runs: dynamic.transport(runs, conditions.temperature),
        "density": dynamic.density,
        "drift": lambda runs: dynamic.drifts(runs, natoms, conditions.timestep),
    }
    for name in wanted:
        stage = "nve" if name == "drift" else "production"
        whole = [run for run in runs if stage in run.done]
        try:
            if not whole:
                raise RunError("the molecular dynamics failed")
            found[name] = makers[name](whole)
        except RunError as error:
            missing[name] = str(error).rstrip(".")
    return {f"molecular dynamics of {run.name}": run.failed for run in runs if run.failed}


def _solids(
    request: Request, found: dict[str, Any], missing: dict[str, str], report: Progress
) -> dict[str, str]:
    """Add the crystal of every model to `found`, or a reason to `missing`; returns failures."""
    assert request.solid is not None
    parts, failed = [], {}
    for subject in request.subjects:
        calculator = DPA2Calculator(_engine(request, subject, "float64"))
        try:
            parts.append(compute_solid(subject.name, calculator, request.solid, report))
        except RunError as error:
            failed[f"crystal in {subject.name}"] = str(error)
    if parts:
        found["solid"] = parts
    else:
        missing["solid"] = "no model can hold the crystal"
    return failed
