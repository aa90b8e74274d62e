"""What follows from the errors of a round."""

from __future__ import annotations

import math

from dpa2md.workflow.outcomes import Errors, Runs
from dpa2md.workflow.verdict import RoundState, Verdict, few_candidates, judge

CALM = Runs(4, 0, 0, ())


def state(number: int, error: float | None, good: bool = True) -> RoundState:
    return RoundState(number, 100, 50, 20, 20 * number, 100, good, False, "", force_error=error)


def test_converged():
    verdict = judge([], Errors(0.04, 0.0), CALM, spread=0.8, target=0.05)
    assert verdict.good and verdict.last
    assert not judge([], Errors(0.06, 0.0), CALM, spread=0.8, target=0.05).last


def test_a_model_that_blows_up_is_not_converged():
    """Its error is that of the frames before; it may still explore."""
    verdict = judge([], Errors(0.04, 0.0), Runs(4, 1, 0, ("T",)), spread=0.8, target=0.05)
    assert verdict.good and not verdict.last
    assert Runs(4, 4, 4, ()).hopeless and not Runs(4, 4, 3, ()).hopeless


def test_a_step_back():
    """An error that doubles, a training that led to nothing or failed: the good model is kept."""
    before = [state(1, 0.2), state(2, 0.1)]
    for errors, training_error, fault in (
        (Errors(0.21, 0.0), 0.1, ""),
        (Errors(0.1, 0.0), 0.78, ""),
        (Errors(0.1, 0.0), math.inf, ""),
        (Errors(None, None), None, "the training failed"),
    ):
        verdict = judge(before, errors, CALM, spread=0.8, target=0.05,
                        training_error=training_error, fault=fault)  # fmt: skip
        assert not verdict.good and not verdict.last
        assert "the model of round 2 is kept" in verdict.why
    assert judge(before, Errors(0.19, 0.0), CALM, spread=0.8, target=0.05).good


def test_frames_of_runs_that_went_astray():
    """They are as bad as the run went far, so that their error tells nothing of a step back."""
    astray = Runs(4, 1, 0, ("T",))
    before = [state(1, 0.1)]
    assert judge(before, Errors(5.0, 0.0), astray, spread=0.8, target=0.05).good
    assert not judge(before, Errors(5.0, 0.0), CALM, spread=0.8, target=0.05).good


def test_the_last_round():
    verdict = judge([], Errors(0.2, 0.0), CALM, spread=0.8, target=0.05, end="it is")
    assert verdict == Verdict(True, True, "it is")


def test_two_steps_back_end_a_run():
    before = [state(1, 0.1), state(2, 0.5, good=False)]
    assert judge(before, Errors(0.4, 0.0), CALM, spread=0.8, target=0.05).last


def test_a_first_round_that_leads_to_nothing():
    """Another one follows, with more frames; not so where the training does not run."""
    first = judge([], Errors(1.0, 0.0), CALM, training_error=0.8, spread=0.8, target=0.05)
    assert not first.good and not first.last
    assert "that of no forces at all, 0.8" in first.why
    failed = judge([], Errors(None, None), CALM, spread=0.8, target=0.05, fault="it failed")
    assert failed.last and failed.why == "it failed"


def test_few_candidates():
    assert few_candidates(1000, 19)
    assert not few_candidates(1000, 20)


def test_states_are_read_back(tmp_path):
    state(1, 0.2).write(tmp_path / "round.json")
    assert RoundState.read(tmp_path / "round.json") == state(1, 0.2)
