"""Domains and the search section: what is refused, and what is proposed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import load, parse
from distill.config.search import NSGA2, Goal, GridSampler, Search, default_goals
from distill.config.search_space import belongs, fitted, middle, read_value
from distill.errors import ConfigError


def search_of(**section: Any) -> Search:
    raw = {"data": {"path": "x"}, "output": "o", "search": section}
    found = parse(raw).search
    assert found is not None
    return found


GRID = {"type": "grid", "values": [1.0, 2.0]}
CHOICE = {"type": "choice", "values": [1.0, 2.0]}


def test_all_grids_are_gone_through_and_anything_else_is_searched() -> None:
    grid = search_of(space={"kd.temperature": GRID, "student.layers": GRID | {"values": [1, 2, 4]}})
    assert isinstance(grid.sampling, GridSampler) and grid.total_trials == 6
    mixed = search_of(space={"kd.temperature": CHOICE, "student.layers": CHOICE})
    assert isinstance(mixed.sampling, NSGA2) and mixed.sampling.population == 8
    assert mixed.total_trials == 30
    resolved = mixed.resolved(default_goals(Goal("eval.accuracy", "max")))
    assert [(g.metric, g.mode) for g in resolved.ordered_goals] == [
        ("eval.accuracy", "max"),
        ("student.size_mb", "min"),
    ]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"space": {}}, "search.space"),
        ({"space": {"kd.alpha": GRID}, "goals": {}}, "search.goals is empty"),
        ({"space": {"kd.alpha": GRID}, "goals": {"eval.acuracy": "max"}}, "no trial logs"),
        ({"space": {"kd.alpha": GRID}, "goals": {"eval.f1": "up"}}, "search.goals.eval.f1"),
        (
            {
                "space": {"kd.alpha": CHOICE},
                "goals": {"student.size_mb": "min"},
                "scheduler": {"type": "asha"},
            },
            "is not reported while a trial trains",
        ),
        ({"space": {"kd.alpha": GRID}, "sampler": {"type": "tpe"}}, "make it a choice"),
        ({"space": {"kd.alpha": CHOICE}, "sampler": {"type": "grid"}}, "needs values"),
        ({"space": {"kd.alpha": GRID}, "num_trials": 7}, "the grid has 2 combinations"),
        ({"space": {"kd.alpha": {"type": "grid", "values": [1, 1]}}}, "values must differ"),
        (
            {"space": {"kd.alpha": {"type": "uniform", "low": 1, "high": 0}}},
            "low must be below high",
        ),
        (
            {"space": {"kd.alpha": {"type": "loguniform", "low": 0, "high": 1}}},
            "above 0, got 0",
        ),
        (
            {"space": {"kd.alpha": {"type": "quantised", "low": 0, "high": 1, "step": 0.3}}},
            "whole steps",
        ),
        (
            {
                "space": {"student.layers": CHOICE},
                "sampler": {"type": "random"},
                "scheduler": {"type": "pbt"},
            },
            "cannot change: search only kd",
        ),
        (
            {"space": {"kd.alpha": CHOICE}, "scheduler": {"type": "pbt"}},
            "needs search.sampler random",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search_of(**section)


def test_a_value_is_fitted_into_its_domain() -> None:
    space = search_of(
        space={
            "kd.temperature": {"type": "choice", "values": [1, 2, 4]},
            "objective.type": {"type": "choice", "values": ["jsd", "forward_kl"]},
            "student.hidden": {"type": "quantised", "low": 16, "high": 64, "step": 16},
            "optimizer.lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
            "student.layers": {"type": "uniform", "low": 1, "high": 4},
        }
    ).space
    assert fitted(3.4, space["kd.temperature"]) == 4
    assert fitted(3.4, space["objective.type"]) == "forward_kl"
    assert fitted(39, space["student.hidden"]) == 32
    assert fitted(1.0, space["optimizer.lr"]) == 1e-2
    assert fitted("x", space["optimizer.lr"]) == pytest.approx(1e-3)
    assert fitted(2.6, space["student.layers"]) == 3
    inside = {key: middle(domain) for key, domain in space.items()}
    assert belongs(inside, space)
    assert not belongs(inside | {"student.hidden": 17}, space)
    assert not belongs({"student.hidden": 16}, space)
    assert [type(middle(domain)) for domain in space.values()] == [int, str, int, float, int]


def test_equal_numbers_are_one_value_however_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    for values in ("[1e-4, 0.0001]", "[1, 1.0]", "[1e-4, '0.0001']"):
        space = f"{{optimizer.lr: {{type: choice, values: {values}}}}}"
        path.write_text(f"data: {{path: x}}\nsearch: {{space: {space}}}")
        with pytest.raises(ConfigError, match=r"values must differ, got \["):
            load(path)


def test_a_truth_value_is_no_number() -> None:
    values = [True, 1]
    space = search_of(space={"trainer.gradient_checkpointing": CHOICE | {"values": values}}).space
    assert list(space["trainer.gradient_checkpointing"].ends) == values


def test_a_section_keeps_its_numbers_and_words() -> None:
    section = {"type": "jsd", "beta": 1e-4, "word": "1e-4"}
    space = search_of(space={"objective": GRID | {"values": [section]}}).space
    assert read_value(space["objective"].ends[0]) == section
