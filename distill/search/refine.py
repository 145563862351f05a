"""A proposal, tried in brief runs and refined (HPM-KD, component 1). Starts no process.

arXiv 2512.09886. [draft]: a validation run of 10 epochs, and a refinement where it is below a
threshold. [ours]: the run has a quarter of the steps (few of our fits have 10 epochs), the
threshold is the run of the configuration's own values, and the refinement moves one axis at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distill.search.configuration_memory import AXES, EPSILON

BRIEF = 0.25
"""Steps of a brief run, as a share of the fit's own."""
PROPOSAL, OWN = "proposal", "configuration"

Values = dict[str, float]


@dataclass(frozen=True)
class BriefRun:
    """One configuration and what its brief run reached."""

    name: str
    """``proposal``, ``configuration`` (its own values), or an axis and a direction."""
    values: Values
    quality: float
    """On validation, higher is better; −inf: the run failed."""


@dataclass(frozen=True)
class Choice:
    """The best of the brief runs."""

    best: BriefRun
    runs: tuple[BriefRun, ...]
    """In the order in which they ran."""
    why: str
    """One sentence for people."""


def choose(
    proposed: Values,
    own: Values,
    measure: Callable[[str, Values], float],
    placed: Callable[[Values], Values] = lambda values: values,
) -> Choice:
    """The better of the proposal and the configuration's ``own`` values, in brief runs.

    If the proposal is worse, or its run failed, it is refined: for one axis after the other, both
    values one step away are tried, and the best so far is where the next axis starts: at most 8
    more runs, none of them twice. The best of all runs is the result, the proposal before the
    configuration and both before a refinement that is only as good.

    ``measure`` has the quality of a brief run of these values. ``placed``: the nearest values that
    may be tried. Epsilon is not refined: a brief run has no chain.
    """
    proposal = _measured(BriefRun(PROPOSAL, placed(proposed), 0.0), measure)
    if _are_equal(proposal.values, own):
        return Choice(proposal, (proposal,), "the proposal is the configuration's own values")
    configuration = _measured(BriefRun(OWN, own, 0.0), measure)
    runs = [proposal, configuration]
    compared = f"{_shown(proposal)} in the brief run, the configuration {_shown(configuration)}"
    if math.isfinite(proposal.quality) and proposal.quality >= configuration.quality:
        why = f"the proposal is no worse than the configuration: {compared}"
        return Choice(proposal, tuple(runs), why)
    start = proposal
    for axis in AXES:
        if axis.key not in start.values or axis.key == EPSILON:
            continue
        centre = start
        for sign, direction in ((1, "up"), (-1, "down")):
            moved = axis.moved(centre.values[axis.key], sign)
            values = placed({**centre.values, axis.key: moved})
            if any(_are_equal(values, run.values) for run in runs):
                continue
            run = _measured(BriefRun(f"{axis.key}-{direction}", values, 0.0), measure)
            runs.append(run)
            if run.quality > start.quality:
                start = run
    best = max(runs, key=lambda run: run.quality)  # of equals the first
    if not math.isfinite(best.quality):
        best = configuration
    why = (
        f"the proposal is worse than the configuration: {compared}; of {len(runs) - 2} refinements "
        f"and these two the best is {best.name} ({_shown(best)})"
    )
    return Choice(best, tuple(runs), why)


def _measured(run: BriefRun, measure: Callable[[str, Values], float]) -> BriefRun:
    quality = measure(run.name, run.values)
    return BriefRun(run.name, run.values, quality if math.isfinite(quality) else -math.inf)


def _shown(run: BriefRun) -> str:
    return f"{run.quality:.4g}" if math.isfinite(run.quality) else "failed"


def _are_equal(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(math.isclose(value, other[key], rel_tol=1e-9) for key, value in one.items())
