"""The student to use: limits on size and latency, and the best within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill.config.search import Goal
from distill.metrics import SIZE
from distill.search.trials import Trial


def within(trials: Sequence[Trial], limits: Mapping[str, float]) -> list[Trial]:
    """Finished trials whose metrics lie at or below every limit; a trial without the metric
    is left out."""
    return [
        trial
        for trial in trials
        if trial.status == "finished"
        and all(trial.metrics.get(name, float("inf")) <= limit for name, limit in limits.items())
    ]


def best(trials: Sequence[Trial], goals: Sequence[Goal]) -> Trial | None:
    """The finished trial that is best in the first goal; of equals, in the next ones."""
    known = [
        trial
        for trial in trials
        if trial.status == "finished" and goals[0].cost(trial.metrics) != float("inf")
    ]
    return min(known, key=lambda t: tuple(g.cost(t.metrics) for g in goals), default=None)


def plane(goals: Sequence[Goal], metric: str = "") -> tuple[Goal, Goal]:
    """The two goals of a plot: the quality, and ``metric`` (else the first cost)."""
    quality, *costs = goals
    if metric:
        return quality, next((g for g in costs if g.metric == metric), Goal(metric, "min"))
    return quality, costs[0] if costs else Goal(SIZE, "min")


def cheapest_near(trials: Sequence[Trial], goals: Sequence[Goal], within: float) -> Trial | None:
    """The cheapest trial whose quality is at most ``within`` worse than the best one's."""
    quality, cost = plane(goals)
    top = best(trials, goals)
    if top is None:
        return None
    bar = quality.cost(top.metrics) + within
    near = [t for t in trials if t.status == "finished" and quality.cost(t.metrics) <= bar]
    return min(near, key=lambda t: (cost.cost(t.metrics), quality.cost(t.metrics)))


def size_limits(trials: Sequence[Trial]) -> list[float]:
    """0.1, 0.25, 0.5, 1, … MB: from the first that a trial meets to the first that all meet."""
    sizes = [t.metrics[SIZE] for t in trials if t.status == "finished" and SIZE in t.metrics]
    steps = [float(f"{digit}e{power}") for power in range(-3, 7) for digit in (1, 2.5, 5)]
    if not sizes:
        return []
    last = next((i for i, step in enumerate(steps) if step >= max(sizes)), len(steps) - 1)
    return [step for step in steps[: last + 1] if step >= min(sizes)]


def winners(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[tuple[float, Trial]]:
    """Under each of :func:`size_limits` (MB) the best trial; of equals the smallest."""
    found = []
    for limit in size_limits(trials):
        won = best(within(trials, {SIZE: limit}), [goals[0], Goal(SIZE, "min")])
        if won is not None:
            found.append((limit, won))
    return found
