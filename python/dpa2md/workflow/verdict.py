"""What follows from a round: whether its model is good, and whether it is the last round."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.files import whole_file
from .outcomes import Errors, Runs, read_json

_GROWTH = 2.0  # an error that is so many times that of a good model is a step back
_USELESS = 0.95  # of the forces themselves: a tenth of what they vary is explained
_FEW = 0.02  # of the explored frames


@dataclass(frozen=True)
class RoundState:
    """A round that has ended; what ``round.json`` has."""

    round: int
    explored: int  #: frames
    candidates: int  #: of these, those that the model did not master
    labelled: int  #: new frames to train on
    frames: int  #: all frames that were trained on
    steps: int  #: of the training
    good: bool  #: whether later rounds go on from its model
    last: bool  #: whether no round follows
    why: str  #: the reason of both, a sentence
    force_error: float | None = None  #: eV/angstrom, against the labels of new frames
    energy_error: float | None = None  #: eV/atom
    training_error: float | None = None  #: eV/angstrom, over the frames that were trained on
    given_force_error: float | None = None  #: the same against the frames that the user gave
    given_energy_error: float | None = None
    runs: int = 0  #: that the model drove to be validated
    early: int = 0  #: of these, those that blew up
    hopeless: bool = False  #: whether all of them blew up at once
    set_aside: tuple[str, ...] = ()  #: jobs that failed
    seconds: float = 0.0  #: of all jobs

    def write(self, path: Path) -> None:
        """As JSON. OSError."""
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> RoundState:
        """Of a file that `write` wrote; RunError for another one."""
        data = read_json(path)
        return cls(**data | {"set_aside": tuple(data["set_aside"])})


@dataclass(frozen=True)
class Verdict:
    """What follows from a round."""

    good: bool
    last: bool
    why: str


def few_candidates(explored: int, candidates: int) -> bool:
    """Whether the model masters nearly all new frames, so that more of them would teach it little."""
    return candidates < _FEW * explored


def judge(
    before: Sequence[RoundState],
    errors: Errors,
    runs: Runs,
    *,
    training_error: float | None = None,
    spread: float,
    target: float,
    end: str = "",
    fault: str = "",
) -> Verdict:
    """Judge a round's model.

    Parameters
    ----------
    before
        The rounds before.
    errors, runs
        Those of its validation.
    training_error
        Of the forces of the frames that were trained on, eV/angstrom.
    spread
        The root mean square of these forces, eV/angstrom.
    target
        The force error (eV/angstrom) that is good enough.
    end
        Why no round should follow in any case; empty: one may.
    fault
        Why nothing is known of the model; empty: something is.
    """
    good = [state for state in before if state.good]
    bad = fault or _fault(good, errors, runs, training_error, spread)
    if bad:
        again = bool(before) and not before[-1].good
        keeps = f"; the model of round {good[-1].round} is kept" if good else ""
        return Verdict(False, again or bool(end) or (bool(fault) and not good), f"{bad}{keeps}")
    error = errors.force
    if error is not None and error < target and not runs.early:
        return Verdict(True, True, f"the force error is below {target:g} eV/angstrom")
    if end:
        return Verdict(True, True, end)
    if runs.hopeless:
        return Verdict(True, False, "its molecular dynamics ends at once everywhere")
    return Verdict(True, False, "the force error is not low enough yet")


def _fault(
    good: Sequence[RoundState],
    errors: Errors,
    runs: Runs,
    training_error: float | None,
    spread: float,
) -> str:
    """What is wrong with a model; empty: nothing."""
    if training_error is not None and not training_error <= _USELESS * spread:
        return (
            f"the force error of the frames that it was trained on, {training_error:.3g} "
            f"eV/angstrom, is that of no forces at all, {spread:.3g}"
        )
    best = min((s.force_error for s in good if s.force_error is not None), default=None)
    # where runs went astray, their frames are as bad as they went far
    if errors.force is None or best is None or runs.early or errors.force <= _GROWTH * best:
        return ""
    return (
        f"its force error, {errors.force:.3f} eV/angstrom, is more than {_GROWTH:g} times that of an "
        f"earlier round, {best:.3f}"
    )
