"""A trial that diverges fails at its first broken evaluation, before anyone hears of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.config.search import Goal
from distill.driver.checks.check import check
from distill.driver.sweep.trial import Sweep, run_trial
from distill.errors import TrainingError
from distill.search.plan import raw_of
from distill.search.reporter import Metrics
from distill.search.trials import Trial, frontier
from tests.toys import toy_experiment
from tests.toys_language import language_experiment

Told = list[tuple[Metrics, Path | None]]
LR = 1e30
"""The first step's gradient is finite, and what its weights are multiplied by is not."""


def sweep_of(root: Path, raw: dict[str, Any], exchanges: bool = False) -> Sweep:
    """Trials without teachers, evaluated after every step."""
    intervals = {
        "engine": "torch",
        "epochs": 1,
        "batch_size": 16,
        "eval_every": 1,
        "log_every": 100,
    }
    raw |= {"output": str(root / "out"), "baselines": [], "trainer": intervals}
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


TASKS = {"classifier": classifier, "language model": language_model}


@pytest.mark.parametrize("is_member", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_a_trial_that_diverges_reports_only_numbers_and_says_why(
    tmp_path: Path, task: str, is_member: bool
) -> None:
    """Neither a scheduler nor another member of a population hears of anything broken."""
    sweep = sweep_of(tmp_path, TASKS[task](tmp_path), exchanges=is_member)
    number: dict[str, Any] = {"member": 0} if is_member else {}
    text: Told = []
    values = {"optimizer.lr": LR, **number}
    sweep.ledger.begin(values)
    with pytest.raises(TrainingError, match=r"finite|became nan") as raised:
        run_trial(sweep, values, lambda metrics, folder: text.append((metrics, folder)))
    assert "lower optimizer.lr" in str(raised.value)
    assert all(math.isfinite(value) for metrics, _ in text for value in metrics.values())
    # A decoder's norms turn such weights into the uniform distribution, until its next gradient.
    assert len(text) == (0 if task == "classifier" else 1)
    (entry,) = sweep.ledger.entries()
    assert not entry.student.exists()


def test_a_trial_whose_last_step_diverges_fails(tmp_path: Path) -> None:
    """No later step would find weights that are not finite: its evaluation does."""
    sweep = sweep_of(tmp_path, classifier(tmp_path))
    values = {"optimizer.lr": LR, "trainer.epochs": 0.01}
    sweep.ledger.begin(values)
    with pytest.raises(TrainingError, match=r"logits of 78 validation rows are not finite: lower"):
        run_trial(sweep, values, lambda metrics, folder: None)
    (entry,) = sweep.ledger.entries()
    assert not (entry.fit / "best.safetensors").exists() and not entry.history()[1:]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_not_a_number_is_on_no_frontier(broken: float | None, mode: Any) -> None:
    goals = [Goal("eval.accuracy", mode), Goal("student.size_mb", "min")]

    def trial(name: str, value: float | None) -> Trial:
        known = {} if value is None else {"eval.accuracy": value}
        return Trial(name, "finished", {}, {"student.size_mb": 1.0, **known})

    assert [t.name for t in frontier([trial("a", broken), trial("b", 0.5)], goals)] == ["b"]
