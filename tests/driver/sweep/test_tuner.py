"""Searchers and schedulers as the tuner builds them, driven by hand: no Ray is started."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from distill.config.search import Goal, Search
from distill.driver.sweep.tuner import _scheduler, _searcher, _tune_domain, reason_of_failure
from distill.errors import TrainingError

LR = {"optimizer.lr": {"type": "choice", "values": [1e-3, 1e6]}}
RETAINED = {"eval.accuracy": "max", "eval.retention": "max"}
"""Of a trial that is stopped early the second is never known."""


def search_of(**settings: Any) -> tuple[Search, dict[str, Any]]:
    search = Search.model_validate({"space": LR, "num_trials": 6, **settings}).resolved(
        Goal("eval.accuracy", "max")
    )
    return search, {key: _tune_domain(domain) for key, domain in search.space.items()}


@pytest.mark.parametrize("broken", [math.nan, None])
@pytest.mark.parametrize(
    "sampler", [{"type": "tpe", "num_startup": 2}, {"type": "nsga2", "population": 2}]
)
def test_a_trial_without_a_goal_is_over_for_the_searcher(
    sampler: dict[str, Any], broken: float | None
) -> None:
    search, space = search_of(sampler=sampler, goals=RETAINED)
    searcher = _searcher(search, space, [], seed=0)
    known = {} if broken is None else {"eval.retention": broken}
    ends: list[tuple[dict[str, float] | None, bool, str]] = [
        ({"eval.accuracy": 0.5, "eval.retention": 0.6}, False, "COMPLETE"),
        ({"eval.accuracy": 0.5, **known}, False, "PRUNED"),
        (None, True, "FAIL"),
        ({"eval.accuracy": 0.7, "eval.retention": 0.8}, False, "COMPLETE"),
        ({"eval.accuracy": 0.6, "eval.retention": 0.7}, False, "COMPLETE"),
    ]
    for number, (result, is_error, _) in enumerate(ends):
        assert searcher.suggest(f"t{number}")["optimizer.lr"] in (1e-3, 1e6)
        searcher.on_trial_complete(f"t{number}", result, is_error)
    states = [trial.state.name for trial in searcher._ot_study.trials]
    assert states == [state for _, _, state in ends]


class Trial:
    """What a scheduler looks at of one."""

    def __init__(self, number: int) -> None:
        self.trial_id = self.experiment_tag = f"trial_{number:05d}"
        self.config = {"optimizer.lr": 1e-3}
        self.evaluated_params: dict[str, Any] = {}
        self.status = "RUNNING"
        checkpoints = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        self.run_metadata = SimpleNamespace(checkpoint_manager=checkpoints)

    def is_finished(self) -> bool:
        return self.status in ("TERMINATED", "ERROR")


class Controller:
    """As much of Ray Tune's as schedulers call."""

    search_alg = None

    def __init__(self, trials: list[Trial]) -> None:
        self.trials = trials
        self.saved: list[Trial] = []

    def get_trials(self) -> list[Trial]:
        return self.trials

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.is_finished()]

    def _schedule_trial_save(self, trial: Trial, result: Any) -> None:
        self.saved.append(trial)


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "asha", "reduction": 2},
        {"type": "median", "min_trials": 2},
        {"type": "pbt", "quantile": 0.5},
    ],
    ids=lambda scheduler: scheduler["type"],
)
def test_a_trial_that_failed_counts_for_no_other(scheduler: dict[str, Any]) -> None:
    """One failed at its first evaluation, as all do that diverge: nothing of it was reported."""
    search, space = search_of(scheduler=scheduler, sampler={"type": "random"})
    tuned = _scheduler(search, space)
    broken, good, fair, poor = trials = [Trial(number) for number in range(4)]
    controller = Controller(trials)
    for trial in trials:
        tuned.on_trial_add(controller, trial)
    broken.status = "ERROR"
    tuned.on_trial_error(controller, broken)

    def decision(trial: Trial, iteration: int, accuracy: float) -> str:
        result = {"training_iteration": iteration, "eval.accuracy": accuracy}
        return tuned.on_trial_result(controller, trial, result)

    first = [decision(good, 1, 0.9), decision(fair, 1, 0.9), decision(poor, 1, 0.1)]
    is_exchange = scheduler["type"] == "pbt"
    assert first == ["CONTINUE", "CONTINUE", "CONTINUE" if is_exchange else "STOP"]
    assert decision(good, 2, 0.95) == "CONTINUE"
    assert broken not in controller.saved and (good in controller.saved) is is_exchange


def test_resample_is_how_often_a_value_of_the_population_is_drawn_again() -> None:
    scheduler = {"type": "pbt", "resample": 0.0}
    search, space = search_of(scheduler=scheduler, sampler={"type": "random"})
    assert _scheduler(search, space)._resample_probability == 0.0
    default, space = search_of(scheduler={"type": "pbt"}, sampler={"type": "random"})
    assert _scheduler(default, space)._resample_probability == 0.25


@pytest.mark.parametrize("own", [TrainingError("lower optimizer.lr"), MemoryError("line\nof 9 GB")])
def test_the_reason_of_a_failure_is_one_line(own: Exception) -> None:
    """Ray's error is of the cause's class as well, and says a traceback."""
    text = RayTaskError("train", "Traceback:\n  in train", own).as_instanceof_cause()
    assert isinstance(text, type(own)) and "Traceback" in str(text)
    is_ours = isinstance(own, TrainingError)
    assert reason_of_failure(text) == (str(own) if is_ours else "MemoryError: of 9 GB")


@pytest.mark.parametrize(
    "scheduler",
    [
        {"type": "asha", "reduction": 2, "grace": 3},
        {"type": "median", "min_trials": 2, "grace": 3},
        {"type": "pbt", "quantile": 0.5, "interval": 3},
    ],
    ids=lambda scheduler: scheduler["type"],
)
def test_before_its_first_rung_a_trial_is_compared_with_none(scheduler: dict[str, Any]) -> None:
    """Nor is the first that gets there, nor one that ended before, at its only evaluation."""
    search, space = search_of(scheduler=scheduler, sampler={"type": "random"})
    tuned = _scheduler(search, space)
    ended, good, poor = trials = [Trial(number) for number in range(3)]
    controller = Controller(trials)
    for trial in trials:
        tuned.on_trial_add(controller, trial)

    def result(iteration: int, accuracy: float) -> dict[str, float]:
        return {"training_iteration": iteration, "eval.accuracy": accuracy}

    decisions = [tuned.on_trial_result(controller, ended, result(1, 0.99))]
    ended.status = "TERMINATED"
    tuned.on_trial_complete(controller, ended, result(1, 0.99))
    for iteration in (1, 2):
        decisions.append(tuned.on_trial_result(controller, good, result(iteration, 0.9)))
        decisions.append(tuned.on_trial_result(controller, poor, result(iteration, 0.1)))
    decisions.append(tuned.on_trial_result(controller, poor, result(3, 0.1)))
    assert decisions == ["CONTINUE"] * 6
    assert ended not in controller.saved
