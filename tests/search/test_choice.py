"""The student that is taken under limits."""

from __future__ import annotations

from dataclasses import replace

from distill.config.search import Goal
from distill.search.choice import SIZE, best, cheapest_near, size_limits, within
from distill.search.trials import Trial

GOALS = (Goal("eval.accuracy", "max"), Goal(SIZE, "min"))
TRIALS = [
    Trial("large", "finished", {}, {"eval.accuracy": 0.90, SIZE: 9.0}),
    Trial("twin", "finished", {}, {"eval.accuracy": 0.90, SIZE: 12.0}),
    Trial("middle", "finished", {}, {"eval.accuracy": 0.895, SIZE: 2.0}),
    Trial("small", "finished", {}, {"eval.accuracy": 0.7, SIZE: 0.4}),
    Trial("stopped", "stopped", {}, {"eval.accuracy": 0.99, SIZE: 0.1}),
    Trial("unmeasured", "finished", {}, {}),
]


def test_limits_are_met_or_the_trial_is_out():
    assert [t.name for t in within(TRIALS, {SIZE: 2.0})] == ["middle", "small"]
    assert [t.name for t in within(TRIALS, {SIZE: 2.0, "student.latency_ms": 1})] == []


def test_the_best_is_the_cheaper_of_equals():
    top = best(TRIALS, GOALS)
    assert top is not None and top.name == "large"
    assert best([], GOALS) is None


def test_nearly_as_good_and_much_smaller():
    near = cheapest_near(TRIALS, GOALS, 0.01)
    assert near is not None and near.name == "middle"


def test_limits_reach_from_the_smallest_to_the_largest():
    assert size_limits(TRIALS) == [0.5, 1, 2.5, 5, 10, 25]
    assert size_limits([]) == []
    small = [replace(TRIALS[0], metrics={SIZE: size}) for size in (0.0034, 0.0202)]
    assert size_limits(small) == [0.005, 0.01, 0.025]  # perceptrons of a few kilobytes
