"""A sweep of language models that cannot be is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.driver.checks.check import check, search_of
from distill.errors import ConfigError, ModelError
from distill.tasks.plan import Plan
from tests.toys_language import language_experiment, write_tokenizer

TOPK = {"type": "topk", "k": 8, "temperatures": [1.0, 2.0, 4.0]}
GRID = {"type": "grid", "values": [1.0, 2.0, 4.0]}


def plan_of(
    root: Path, space: dict[str, Any], changes: dict[str, Any], wire: Any = TOPK, **search: Any
) -> Plan:
    raw = language_experiment(root, search={"space": space, **search}, cluster={"num_cpus": 2})
    for teacher in raw["teachers"]:
        teacher["wire"] = wire
    return check(parse(raw | changes), command="sweep")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("language-plan")


def test_perplexity_is_the_first_goal_where_none_is_named(root: Path) -> None:
    plan = plan_of(root, {"kd.temperature": GRID, "student.layers": GRID | {"values": [1, 2]}}, {})
    text = {line.part: (line.what, line.size) for line in plan.lines}
    assert text["search"] == ("grid, to the end, 2 in parallel", "6 trials")
    assert text["search goals"][0] == "min eval.perplexity, min student.size_mb"
    goal = search_of(plan).ordered_goals[0]
    assert (goal.metric, goal.mode) == ("eval.perplexity", "min")


def test_a_topk_wire_serves_a_range_of_its_temperatures_in_steps(root: Path) -> None:
    steps = {"type": "quantised", "low": 1, "high": 4, "step": 1}
    with pytest.raises(ConfigError, match="does not contain the temperature 3"):
        plan_of(root, {"kd.temperature": steps}, {})
    plan_of(root, {"kd.temperature": steps}, {}, TOPK | {"temperatures": [1, 2, 3, 4]})


@pytest.mark.parametrize(
    ("space", "wire", "changes", "message"),
    [
        ({"kd.temperature": GRID | {"values": [1, 3]}}, TOPK, {}, "not contain the temperature 3"),
        (
            {"kd.temperature": {"type": "uniform", "low": 1, "high": 4}},
            TOPK,
            {},
            "may be anything from 1 to 4, but the outputs of teachers.films.wire topk/8/1,2,4",
        ),
        (
            {"kd.temperature": GRID},
            {"type": "sampled", "temperature": 1.0},
            {},
            "samples are drawn at, but the student is trained at 2",
        ),
        (
            {"objective.type": GRID | {"values": ["forward_kl", "reverse_kl"]}},
            TOPK,
            {},
            "topk cannot serve objective.type 'reverse_kl'",
        ),
        (
            {"aggregation.type": GRID | {"values": ["mean", "uncertainty"]}},
            TOPK,
            {"aggregation": {"type": "mean", "mix": "probabilities"}},
            "aggregation.type 'uncertainty' compares the logits of all teachers",
        ),
        (
            {"student.heads": GRID | {"values": [2, 3]}},
            TOPK,
            {},
            "heads 3 must divide the hidden size, 32",
        ),
        ({"task": GRID | {"values": ["classification"]}}, TOPK, {}, "task cannot be searched"),
        (
            {"trainer.select_by": GRID | {"values": ["eval.f1"]}},
            TOPK,
            {},
            "eval.f1 applies only to classifiers",
        ),
    ],
)
def test_what_no_trial_could_be_is_refused(
    root: Path, space: dict[str, Any], wire: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    changes = {"kd": {"temperature": 1.0}} | changes
    with pytest.raises(ConfigError, match=message):
        plan_of(root, space, changes, wire)


def test_a_range_of_temperatures_goes_with_exact_wires(root: Path) -> None:
    space = {"kd.temperature": {"type": "uniform", "low": 1, "high": 4}}
    plan_of(root, space, {}, {"type": "hidden"}, num_trials=2)


def test_goals_that_a_language_model_does_not_log_are_refused(root: Path) -> None:
    for goal in ("eval.f1", "eval.retention"):
        with pytest.raises(
            ConfigError, match=rf"{goal} applies only to classifiers.*use eval.accuracy, "
        ):
            plan_of(root, {"kd.temperature": GRID}, {}, goals={goal: "max"})
    with pytest.raises(ConfigError, match="warm_start true applies only to classifiers"):
        plan_of(root, {"kd.temperature": GRID}, {}, warm_start=True)


def test_layers_that_a_folder_does_not_have_are_refused(root: Path) -> None:
    start = {"init_from": {"path": str(root / "films"), "layers": 1}}
    with pytest.raises(ModelError, match=r"init_from.layers 3 is more than the 2 layers"):
        plan_of(root, {"student.init_from.layers": GRID | {"values": [1, 3]}}, {"student": start})


def test_another_tokenizer_would_be_other_rows(root: Path) -> None:
    other = write_tokenizer(root / "other", extra=("more",))
    space = {"student.tokenizer": GRID | {"values": [str(root / "films"), str(other)]}}
    with pytest.raises(ConfigError, match="all trials share the packed rows"):
        plan_of(root, space, {})
