"""A proposal that is worse than the configuration is refined, one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from distill.search.refine import BRIEF, BriefRun, Choice, choose

OWN = {
    "kd.temperature": 2.0,
    "kd.alpha": 0.5,
    "optimizer.lr": 1e-3,
    "optimizer.weight_decay": 0.01,
    "chain.epsilon": 0.01,
}
PROPOSED = {
    "kd.temperature": 4.0,
    "kd.alpha": 0.3,
    "optimizer.lr": 3e-3,
    "optimizer.weight_decay": 1e-4,
    "chain.epsilon": 0.02,
}


def chosen(quality: Callable[[dict[str, float]], float], proposed=PROPOSED) -> Choice:
    return choose(proposed, OWN, lambda _, values: quality(values))


def names(choice: Choice) -> list[str]:
    return [run.name for run in choice.runs]


@pytest.mark.parametrize(
    ("proposed", "own", "is_refined"),
    [
        (0.8, 0.7, False),
        (0.7, 0.7, False),
        (0.69, 0.7, True),
        (math.nan, 0.7, True),
        (-math.inf, 0.7, True),
        (math.nan, math.nan, True),
        (0.1, math.nan, False),  # the configuration's run failed
    ],
)
def test_a_proposal_is_refined_if_worse_than_the_configuration(proposed, own, is_refined) -> None:
    qualities = {"proposal": proposed, "configuration": own}
    choice = choose(PROPOSED, OWN, lambda name, _: qualities.get(name, 0.0))
    assert (len(choice.runs) > 2) == is_refined
    assert ("refinements" in choice.why) == is_refined
    if not is_refined:
        assert choice.best == BriefRun("proposal", PROPOSED, proposed)


def test_each_axis_is_tried_one_step_up_and_down() -> None:
    choice = chosen(lambda values: float(values == OWN))
    assert names(choice) == [
        "proposal",
        "configuration",
        *(f"kd.temperature-{way}" for way in ("up", "down")),
        *(f"kd.alpha-{way}" for way in ("up", "down")),
        *(f"optimizer.lr-{way}" for way in ("up", "down")),
        *(f"optimizer.weight_decay-{way}" for way in ("up", "down")),
    ]  # 8 refinements; a brief run has no chain, so epsilon is not among them
    steps = [
        {"kd.temperature": 5.0},
        {"kd.temperature": 3.0},
        {"kd.alpha": 0.4},
        {"kd.alpha": 0.2},
        {"optimizer.lr": 3e-3 * math.exp(0.5)},
        {"optimizer.lr": 3e-3 * math.exp(-0.5)},
        {"optimizer.weight_decay": 1e-4 * math.e},
        {"optimizer.weight_decay": 1e-4 / math.e},
    ]
    for run, step in zip(choice.runs[2:], steps, strict=True):
        assert run.values == pytest.approx(PROPOSED | step)
    assert choice.best.name == "configuration"  # nothing was better


def test_an_axis_that_helps_is_kept_for_the_next() -> None:
    best = {"kd.temperature": 3.0, "kd.alpha": 0.4}

    def quality(values: dict[str, float]) -> float:
        if values == OWN:
            return -1.05  # better than the proposal (−1.1) and than either step alone from it
        return -sum(abs(values[key] - best[key]) for key in best)

    choice = chosen(quality)
    assert choice.best.values == pytest.approx(PROPOSED | best)
    # The temperature went down first: alpha is tried from there.
    assert choice.runs[4].values == pytest.approx(PROPOSED | best)
    assert choice.best.name == "kd.alpha-up" and "kd.alpha-up" in choice.why


def test_a_step_out_of_the_range_is_not_run_twice() -> None:
    edge = PROPOSED | {"kd.temperature": 8.0, "kd.alpha": 0.0}
    choice = chosen(lambda values: float(values == OWN), edge)
    assert names(choice)[2:4] == ["kd.temperature-down", "kd.alpha-up"]
    assert len(choice.runs) == 8


def test_if_every_brief_run_fails_the_configuration_stays() -> None:
    choice = chosen(lambda values: math.nan)
    assert choice.best.values == OWN
    assert "failed" in choice.why


def test_a_proposal_that_is_the_configuration_needs_one_run() -> None:
    choice = chosen(lambda values: 0.5, OWN)
    assert names(choice) == ["proposal"] and choice.best.values == OWN


def test_values_are_placed_before_they_are_tried() -> None:
    def placed(values: dict[str, float]) -> dict[str, float]:
        return values | {"kd.temperature": 4.0, "kd.alpha": round(values["kd.alpha"], 1)}

    choice = choose(PROPOSED, OWN, lambda _, values: float(values == OWN), placed)
    tried = {run.values["kd.temperature"] for run in choice.runs if run.values != OWN}
    assert tried == {4.0}
    assert names(choice)[2] == "kd.alpha-up"  # both steps of the temperature are the proposal


def test_a_brief_run_has_a_quarter_of_the_steps() -> None:
    assert BRIEF == 0.25
