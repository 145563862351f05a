"""A trial that diverges fails at its first broken evaluation, before anyone hears of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from distill.check import check
from distill.config import parse
from distill.errors import TrainingError
from distill.search.plan import raw_of
from distill.search.trial import Metrics, Sweep, run_trial
from distill.search.trials import Goal, Trial, frontier
from tests.toys import toy_experiment
from tests.toys_language import language_experiment

Told = list[tuple[Metrics, Path | None]]
LR = 1e30
"""The first step's weights are finite, and whatever they are multiplied by is not."""


def sweep_of(root: Path, raw: dict[str, Any], exchanges: bool = False) -> Sweep:
    """Trials without teachers, evaluated after every step."""
    pace = {"engine": "torch", "epochs": 1, "batch_size": 16, "eval_every": 1, "log_every": 100}
    raw |= {"output": str(root / "out"), "baselines": [], "trainer": pace}
    raw["optimizer"] = {"lr": 1e-3, "warmup": 0.0}
    for key in ("experts", "teachers"):
        raw.pop(key, None)
    plan = check(parse(raw))
    folder = root / "out"
    return Sweep(
        raw_of(plan.experiment),
        folder,
        plan.corpus.folder,
        plan.tokenizer,
        None,
        None,
        folder / "stop",
        exchanges,
    )


def classifier(root: Path) -> dict[str, Any]:
    tokenizer = {"tokenizer": str(root / "encoder")}
    raw = toy_experiment(root, aggregation={"type": "mean"})
    raw["student"] = {"layers": 1, "hidden": 16, "heads": 2, **tokenizer}
    return raw


def language_model(root: Path) -> dict[str, Any]:
    raw = language_experiment(root, aggregation={"type": "mean"})
    raw["student"] |= {"tokenizer": str(root / "films")}
    return raw


TASKS = {"eval.accuracy": classifier, "eval.perplexity": language_model}


@pytest.mark.parametrize("is_member", [False, True])
@pytest.mark.parametrize("metric", TASKS)
def test_a_trial_that_diverges_reports_nothing_and_says_why(
    tmp_path: Path, metric: str, is_member: bool
) -> None:
    """Neither to a scheduler nor, as a member of a population, weights for others to take over."""
    sweep = sweep_of(tmp_path, TASKS[metric](tmp_path), exchanges=is_member)
    number: dict[str, Any] = {"member": 0} if is_member else {}
    told: Told = []
    values = {"optimizer.lr": LR, **number}
    sweep.ledger.begin(values)
    with pytest.raises(TrainingError, match=r"finite|nan.*: lower optimizer.lr"):
        run_trial(sweep, values, lambda metrics, folder: told.append((metrics, folder)))
    assert told == []
    (entry,) = sweep.ledger.entries()
    assert not entry.student.exists() and not (entry.fit / "best.safetensors").exists()
    assert not any("eval.accuracy" in line["metrics"] for line in entry.history())


@pytest.mark.parametrize("metric", TASKS)
def test_a_last_step_that_diverges_fails_the_trial(tmp_path: Path, metric: str) -> None:
    """No later step would find weights that are not finite: the evaluation does."""
    raw = TASKS[metric](tmp_path)
    sweep = sweep_of(tmp_path, raw)
    values = {"optimizer.lr": LR, "trainer.epochs": 0.01}
    sweep.ledger.begin(values)
    with pytest.raises(TrainingError, match="lower optimizer.lr"):
        run_trial(sweep, values, lambda metrics, folder: None)
    (entry,) = sweep.ledger.entries()
    assert not (Path(entry.fit) / "done.json").exists()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_not_a_number_is_on_no_frontier(broken: float | None, mode: Any) -> None:
    goals = [Goal("eval.accuracy", mode), Goal("student.size_mb", "min")]

    def trial(name: str, value: float | None) -> Trial:
        known = {} if value is None else {"eval.accuracy": value}
        return Trial(name, "finished", {}, {"student.size_mb": 1.0, **known})

    assert [t.name for t in frontier([trial("a", broken), trial("b", 0.5)], goals)] == ["b"]
