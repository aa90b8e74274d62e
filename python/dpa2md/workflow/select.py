"""Which of the explored frames are worth a label: those that a student does not master."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ..engine import Engine
from ..errors import RunError
from ..train.draws import order
from .distances import Distances, violation
from .diversity import farthest_points, frame_features
from .evaluation import check_elements, chunks, evaluate_each, frames_of

MEDIANS = 10.0  # the automatic upper level, in medians of the deviations
LEAST_UPPER = 1.0  # eV/angstrom, and at least so much
LEAST_LOWER = 0.01  # eV/angstrom, of the automatic lower level
_CHOICE = 4  # the automatic lower level leaves so many candidates for each frame that is wanted,
_SHARE = 0.05  # and at least so much of the frames
_HOLD_OUT_STREAM = 31  # of random numbers, beside those of the trainings

Report = Callable[[str, int], None]  # what is done, and of how many frames


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be selected."""

    max_frames: int = 50  #: the most frames to choose
    lower: float | None = None  #: eV/angstrom; a smaller deviation is accurate; None: by the frames
    upper: float | None = None  #: eV/angstrom; a larger one is failed; None: by the frames
    max_force: float = 50.0  #: eV/angstrom; a larger force of the teacher is insane
    limits: Distances = dataclasses.field(
        default_factory=dict
    )  #: angstrom; a smaller one is insane
    hold_out: float = 0.0  #: the part of the chosen frames that is held out
    seed: int = 1  #: which those are

    def __post_init__(self) -> None:
        if self.max_frames < 1 or not 0 <= self.hold_out < 1 or self.seed < 0:
            raise RunError(
                f"{self.max_frames} frames with {self.hold_out} held out by the seed {self.seed} "
                "can't be chosen; give 1 frame or more, a part from 0 to below 1, a seed from 0 on."
            )
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise RunError(
                f"The lower level {self.lower} must be below the upper one {self.upper}."
            )


@dataclasses.dataclass(frozen=True)
class Scores:
    """What was found of all frames, in their order."""

    deviations: np.ndarray  #: (n,) eV/angstrom; inf where the student can't compute; nan if insane
    energy_deviations: np.ndarray  #: (n,) eV/atom, likewise
    insane: list[str]  #: why a frame is insane, "" for those that are not
    conditions: list[dict[str, Any]]  #: what each frame says of its origin


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was selected, and why."""

    chosen: list[Atoms]  #: to be labelled for the training, the most different ones first
    held_out: list[Atoms]  #: to be labelled for tests
    summary: dict[str, Any]  #: counts, levels, deviations, conditions and warnings, for JSON


def select(
    candidates: Sequence[str],
    teacher: Engine,
    student: Engine | None,
    request: Request,
    *,
    known: Sequence[str] = (),
    report: Report | None = None,
) -> Selection:
    """Select frames of files.

    A frame's deviation is the largest difference of an atom's force between student and teacher.
    Frames are insane (elements nearer than the limits, a force of the teacher that is too large,
    not to be computed), accurate (below the lower level), failed (above the upper level) or
    candidates; without a student all sane ones are candidates. Of these the most different ones are
    chosen, see `dpa2md.workflow.diversity`.

    Levels that are not given follow from the frames. The upper one is ten times the median
    deviation, at least 1 eV/angstrom: what is beyond it came from a run that went astray. The lower
    one leaves, of the frames below the upper level, the most deviating ones, four for each frame
    that is wanted and at least a twentieth of them: DP-GEN 2's adaptive lower level. It falls from
    round to round, down to 0.01 eV/angstrom.

    Parameters
    ----------
    candidates
        Names of files; they are read up to three times, and only the chosen frames are kept.
    teacher, student
        The models; a student is left out where there is none yet.
    request
        How many frames, levels, limits.
    known
        Files of labelled frames; chosen frames are different from these, too.
    report
        Called as ``report(what, frames)`` after each part of the frames.

    Raises
    ------
    RunError
        When a file can't be read.
    ValueError
        For an element that a model doesn't know.
    """
    show = report or (lambda what, count: None)
    scores = _scores(candidates, teacher, student, request, show)
    sane = np.array([not why for why in scores.insane])
    lower, upper = _levels(scores.deviations[sane], request, student is not None)
    kinds = _kinds(scores.deviations, sane, lower, upper, student is not None)
    features = _features(teacher, _taken(candidates, np.flatnonzero(kinds == "candidate")), show)
    old = _features(teacher, frames_of(known), show) if len(features) else features
    best = farthest_points(features, old, request.max_frames)
    chosen = np.flatnonzero(kinds == "candidate")[best]
    held = _held_out(len(chosen), request)
    frames = _collected(candidates, chosen, scores.deviations)
    summary = _summary(scores, kinds, chosen, request)
    summary["levels"] = {"lower": lower, "upper": upper}
    summary["held_out"] = int(held.sum())
    return Selection(
        [atoms for atoms, out in zip(frames, held, strict=True) if not out],
        [atoms for atoms, out in zip(frames, held, strict=True) if out],
        summary,
    )


def force_deviation(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference (eV/angstrom) of an atom's force, as a vector, in two sets (n, 3)."""
    return float(np.linalg.norm(first - second, axis=1).max())


def _scores(
    names: Sequence[str], teacher: Engine, student: Engine | None, request: Request, show: Report
) -> Scores:
    scores = Scores(np.zeros(0), np.zeros(0), [], [])
    checked: set[str] = set()
    found: list[tuple[float, float]] = []
    for part in chunks(frames_of(names)):
        elements = {element for atoms in part for element in atoms.symbols.species()}
        for engine in (teacher, student):
            if engine is not None and elements - checked:
                check_elements(engine, elements - checked)
        checked |= elements
        reasons, deviations = _scored(part, teacher, student, request)
        scores.insane.extend(reasons)
        found += deviations
        scores.conditions.extend(_condition(atoms) for atoms in part)
        show("frames compared", len(found))
    both = np.array(found).reshape(-1, 2)
    return dataclasses.replace(scores, deviations=both[:, 0], energy_deviations=both[:, 1])


def _scored(
    frames: list[Atoms], teacher: Engine, student: Engine | None, request: Request
) -> tuple[list[str], list[tuple[float, float]]]:
    """Why each frame is insane, and the deviations of forces and energies."""
    reasons = [_too_close(atoms, request.limits) for atoms in frames]
    deviations = [(np.nan, np.nan)] * len(frames)
    sane = [k for k, why in enumerate(reasons) if not why]
    of_teacher = evaluate_each(teacher, [frames[k] for k in sane])
    for k, result in zip(sane, of_teacher, strict=True):
        reasons[k] = _strange(result, request.max_force)
    if student is None:
        return reasons, deviations
    of_student = evaluate_each(student, [frames[k] for k in sane])
    for k, own, true in zip(sane, of_student, of_teacher, strict=True):
        if reasons[k] or isinstance(true, str):
            continue
        if isinstance(own, str):
            deviations[k] = (np.inf, np.inf)
        else:
            energy = abs(own["energy"] - true["energy"]) / len(frames[k])
            deviations[k] = (force_deviation(own["forces"], true["forces"]), energy)
    return reasons, deviations


def _too_close(atoms: Atoms, limits: Distances) -> str:
    try:
        return "distance" if violation(atoms, limits) else ""
    except ValueError:
        return "not computed"


def _strange(result: dict[str, Any] | str, max_force: float) -> str:
    if isinstance(result, str):
        return "not computed"
    return "force" if np.linalg.norm(result["forces"], axis=1).max() > max_force else ""


def _levels(
    deviations: np.ndarray, request: Request, with_student: bool
) -> tuple[float | None, float | None]:
    """The lower and the upper level of sane frames."""
    if not with_student or not len(deviations):
        return request.lower, request.upper
    upper = request.upper
    if upper is None:
        upper = max(LEAST_UPPER, MEDIANS * float(np.median(deviations)), 2 * (request.lower or 0.0))
    if request.lower is not None:
        return request.lower, upper
    below = np.sort(deviations[deviations <= upper])
    wanted = max(_CHOICE * request.max_frames, int(np.ceil(_SHARE * len(below))))
    lowest = float(below[max(0, len(below) - wanted)]) if len(below) else 0.0
    return max(LEAST_LOWER, lowest), upper


def _kinds(
    deviations: np.ndarray,
    sane: np.ndarray,
    lower: float | None,
    upper: float | None,
    with_student: bool,
) -> np.ndarray:
    """What each frame is: insane, accurate, candidate or failed."""
    kinds = np.full(len(sane), "candidate", dtype="<U9")
    if with_student and lower is not None and upper is not None:
        kinds[deviations < lower] = "accurate"
        kinds[deviations > upper] = "failed"
    kinds[~sane] = "insane"
    return kinds


def _features(engine: Engine, frames: Iterator[Atoms], show: Report) -> np.ndarray:
    found = []
    for part in chunks(frames):
        found.append(frame_features(engine, part))
        show("frames described", sum(map(len, found)))
    size = len(engine.elements) * engine.descriptor_dim
    return np.concatenate(found) if found else np.zeros((0, size))


def _taken(names: Sequence[str], numbers: np.ndarray) -> Iterator[Atoms]:
    """The frames with these numbers, which rise."""
    wanted = set(numbers.tolist())
    if not wanted:
        return
    for number, atoms in enumerate(frames_of(names)):
        if number in wanted:
            yield atoms


def _collected(names: Sequence[str], chosen: np.ndarray, deviations: np.ndarray) -> list[Atoms]:
    """The chosen frames in their order, with their deviations."""
    numbers = np.sort(chosen)
    found = dict(zip(numbers.tolist(), _taken(names, numbers), strict=True))
    for number, atoms in found.items():
        if np.isfinite(deviations[number]):
            atoms.info["deviation"] = float(deviations[number])
    return [found[number] for number in chosen.tolist()]


def _held_out(count: int, request: Request) -> np.ndarray:
    """(count,) which of the chosen frames are held out: at least one of two or more."""
    held = np.zeros(count, bool)
    if request.hold_out and count > 1:
        number = min(count - 1, max(1, round(request.hold_out * count)))
        held[order(count, 0, 0, request.seed, _HOLD_OUT_STREAM)[:number]] = True
    return held


def _condition(atoms: Atoms) -> dict[str, Any]:
    """What a frame of `dpa2md explore` says of its origin."""
    names = ("start", "ensemble", "temperature", "pressure")
    found = {name: atoms.info[name] for name in names if name in atoms.info}
    return found | ({"perturbed": True} if "perturbed" in atoms.info else {})


KINDS = ("accurate", "candidate", "failed", "insane")


def _summary(
    scores: Scores, kinds: np.ndarray, chosen: np.ndarray, request: Request
) -> dict[str, Any]:
    picked = np.zeros(len(kinds), bool)
    picked[chosen] = True
    reasons = sorted(set(scores.insane) - {""})
    summary: dict[str, Any] = {"frames": len(kinds), **_counts(kinds), "chosen": len(chosen)}
    summary["insane_by"] = {why: scores.insane.count(why) for why in reasons}
    for name, values in (
        ("deviation", scores.deviations),
        ("energy_deviation", scores.energy_deviations),
    ):
        if (finite := values[np.isfinite(values)]).size:
            summary[name] = _statistics(finite)
    keys = [tuple(condition.items()) for condition in scores.conditions]
    summary["conditions"] = []
    for key in dict.fromkeys(keys):
        own = np.array([k == key for k in keys])
        deviations = scores.deviations[own & np.isfinite(scores.deviations)]
        row = {**dict(key), "frames": int(own.sum()), **_counts(kinds[own])}
        row["chosen"] = int(picked[own].sum())
        if deviations.size:
            row["median_deviation"] = float(np.median(deviations))
        summary["conditions"].append(row)
    summary["warnings"] = _warnings(summary, request)
    return summary


def _counts(kinds: np.ndarray) -> dict[str, int]:
    return {kind: int((kinds == kind).sum()) for kind in KINDS}


def _statistics(values: np.ndarray) -> dict[str, Any]:
    """Mean, root mean square, quantiles and a histogram of forty bins up to the largest one."""
    counts, edges = np.histogram(values, bins=40, range=(0.0, max(float(values.max()), 1e-12)))
    quantiles = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    return {
        "mean": float(values.mean()),
        "rms": float(np.sqrt(np.mean(values**2))),
        "max": float(values.max()),
        "quantiles": dict(zip(("5%", "25%", "50%", "75%", "95%"), quantiles.tolist(), strict=True)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _warnings(summary: dict[str, Any], request: Request) -> list[str]:
    frames, sane = summary["frames"], summary["frames"] - summary["insane"]
    if not sane:
        return [f"all {frames} frames are insane: none is chosen; look at the runs they are from."]
    if not summary["candidate"]:
        if not summary["failed"]:
            return ["the student is accurate on all sane frames: none is chosen."]
        return ["no frame is between the levels: none is chosen; raise the upper level."]
    if summary["chosen"] < request.max_frames:
        copies = summary["candidate"] - summary["chosen"]
        why = f"; {copies} candidates are copies of others" if copies else ""
        text = f"{summary['chosen']} frames are chosen, not the {request.max_frames} asked for: "
        return [f"{text}there are no more different candidates{why}."]
    return []
