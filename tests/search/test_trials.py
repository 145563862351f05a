"""The frontier of a sweep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distill.config.search import Goal
from distill.search.trials import Trial, frontier

GOALS = (Goal("eval.accuracy", "max"), Goal("student.size_mb", "min"))


def trial(name: str, accuracy: float, size: float, status: str = "finished") -> Trial:
    metrics = {"eval.accuracy": accuracy, "student.size_mb": size}
    return Trial(name, status, {}, metrics)  # type: ignore[arg-type]


def test_only_what_nothing_beats_is_kept_smallest_first() -> None:
    trials = [
        trial("large", 0.9, 10),
        trial("beaten", 0.8, 10),
        trial("small", 0.7, 1),
        trial("equal to small", 0.7, 1),
        trial("worse and larger than small", 0.6, 2),
        trial("failed", 0.99, 0.1, "failed"),
        trial("stopped", 0.99, 0.1, "stopped"),
        trial("not a number", float("nan"), 0.1),
        Trial("nothing known", "finished", {}, {}),
    ]
    assert [t.name for t in frontier(trials, GOALS)] == ["small", "large"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_every_trial_is_kept_or_beaten_by_one_that_is(points: list[tuple[int, int]]) -> None:
    trials = [trial(str(i), float(a), float(s)) for i, (a, s) in enumerate(points)]
    kept = frontier(trials, GOALS)
    for one in trials:
        beaten_by = [
            k
            for k in kept
            if k.metrics["eval.accuracy"] >= one.metrics["eval.accuracy"]
            and k.metrics["student.size_mb"] <= one.metrics["student.size_mb"]
        ]
        assert beaten_by
        assert one not in kept or [k.metrics for k in beaten_by] == [one.metrics]
