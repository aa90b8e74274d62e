"""Errors of models against labels and against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ...batch import WithEngine, evaluate
from ...comparison import Pairs, energy_shift, labelled, pair_up

_GROUPS = ("config_type", "condition")  # names in a frame's info, the first that is there counts
_SHOWN = ("energy", "energy shifted", "force", "stress", "virial")  # and the forces by element


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What one model gives, beside labels or beside what the other gives."""

    model: str  #: the name of the model
    reference: str  #: "labels", or the name of the other model
    group: str  #: of the frames; "" for all of them
    frames: int  #: so many
    rows: list[dict[str, Any]]  #: as `Pairs.errors` gives them


@dataclasses.dataclass(frozen=True)
class Errors:
    """All comparisons on one set of frames."""

    source: str  #: the file of the frames
    frames: int  #: so many
    group_key: str | None  #: the name in the frames' info that groups come from
    comparisons: list[Comparison]  #: all frames first, then by group
    ratios: dict[str, float]  #: RMSE of the first model over that of the second, by quantity
    parity: list[tuple[str, str, list[Pairs]]] = dataclasses.field(
        default_factory=list, metadata={"json": False}
    )  #: model, reference, and their values on all frames


def compute_errors(
    models: Sequence[tuple[str, WithEngine]],
    frames: Sequence[Atoms],
    source: str,
    report: Callable[[str, int, int], None],
) -> Errors:
    """Evaluate all frames with every model and compare.

    Parameters
    ----------
    models
        Names and calculators; the last of two is what the first is compared with.
    frames
        With labels, or without any where there are two models.
    source
        What the frames' file is called.
    report
        Called with a text, the frames done and their number.
    """
    results = [
        evaluate(
            calculator,
            frames,
            report=lambda k, name=name: report(f"{name}: frames", k, len(frames)),  # type: ignore[misc]
        )
        for name, calculator in models
    ]
    references = [("labels", list(frames))] if labelled(frames) else []
    if len(models) == 2:
        references.append((models[1][0], _as_labels(frames, results[1])))
    key = next((k for k in _GROUPS if any(k in atoms.info for atoms in frames)), None)
    groups = _groups(frames, key)
    comparisons: list[Comparison] = []
    parity = []
    for group, chosen in groups.items():
        for reference, labels in references:
            for (name, _), result in zip(models, results, strict=True):
                if name == reference:
                    continue
                pairs = _pairs([labels[k] for k in chosen], [result[k] for k in chosen])
                rows = [pair.errors() for pair in pairs]
                comparisons.append(Comparison(name, reference, group, len(chosen), rows))
                if not group:
                    parity.append((name, reference, pairs))
    return Errors(source, len(frames), key, comparisons, _ratios(comparisons), parity)


def _pairs(frames: Sequence[Atoms], results: Sequence[dict[str, Any]]) -> list[Pairs]:
    """The quantities that are told, with energies after the best shift of each element's energy, too."""
    out: list[Pairs] = []
    for pair in pair_up(frames, results):
        if pair.name in _SHOWN or pair.name.startswith("force"):
            out.append(pair)
        if pair.name == "energy" and (shift := energy_shift(frames, results)) is not None:
            energy = next(p for p in pair_up(frames, results, shift) if p.name == "energy")
            out.append(dataclasses.replace(energy, name="energy shifted"))
    return out


def _as_labels(frames: Sequence[Atoms], results: Sequence[dict[str, Any]]) -> list[Atoms]:
    """The frames with a model's results in place of labels."""
    out = []
    for atoms, result in zip(frames, results, strict=True):
        names = ("energy", "forces", "stress")
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **{k: result[k] for k in names if k in result})
        out.append(copy)
    return out


def _groups(frames: Sequence[Atoms], key: str | None) -> dict[str, list[int]]:
    """Numbers of the frames by group; "" has all of them."""
    groups: dict[str, list[int]] = {"": list(range(len(frames)))}
    if key is not None:
        for k, atoms in enumerate(frames):
            groups.setdefault(str(atoms.info.get(key, "(none)")), []).append(k)
    return groups if len(groups) > 2 else {"": groups[""]}


def _ratios(comparisons: Sequence[Comparison]) -> dict[str, float]:
    whole = [c for c in comparisons if c.reference == "labels" and not c.group]
    if len(whole) < 2:
        return {}
    first, second = ({row["quantity"]: row["RMSE"] for row in c.rows} for c in whole)
    return {q: first[q] / second[q] for q in first if q in second and second[q] > 0}
