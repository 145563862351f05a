"""A sweep that cannot be is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.driver.checks.check import check
from distill.errors import ConfigError
from distill.search.plan import raw_of
from distill.search.values import with_values
from tests.toys import toy_experiment

GRID = {"type": "grid", "values": [1.0, 2.0]}


def plan_of(root: Path, space: dict[str, Any], changes: dict[str, Any], **search: Any) -> Any:
    raw = toy_experiment(root, search={"space": space, **search}, cluster={"num_cpus": 2})
    raw["student"] |= {"tokenizer": str(root / "encoder")}
    return check(parse(raw | changes), command="sweep")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan")


def test_the_plan_says_what_is_tried_and_how_many_at_once(root: Path) -> None:
    plan = plan_of(
        root, {"kd.temperature": GRID, "student.hidden": GRID | {"values": [16, 32]}}, {}
    )
    text = {line.part: (line.what, line.size) for line in plan.lines}
    assert text["search"] == ("grid, to the end, 2 in parallel", "4 trials")
    assert text["search student.hidden"] == ("16, 32", "grid")
    assert plan.identity["command"] == "sweep"


@pytest.mark.parametrize(
    ("space", "search", "changes", "message"),
    [
        ({"kd.temprature": GRID}, {}, {}, "temprature.*did you mean temperature"),
        ({"kd.temperature": GRID | {"values": [0, 2]}}, {}, {}, "temperature.*greater than 0"),
        ({"kd.alpha": {"type": "uniform", "low": 0.5, "high": 1.5}}, {}, {}, "alpha.*got 1.5"),
        ({"objective.type": GRID | {"values": ["jsd", "kl"]}}, {}, {}, "objective.*'kl'"),
        ({"student.size_mb": GRID}, {}, {}, "remove student.hidden"),
        (
            {"student.size_mb": GRID | {"values": [0.0001, 1.0]}},
            {},
            {"student": {}},
            "size_mb 0.0001 is too small",
        ),
        (
            {"student.heads": GRID | {"values": [2, 3]}},
            {},
            {},
            "heads 3 must divide the hidden size, 32",
        ),
        ({"data.max_length": GRID}, {}, {}, "data.max_length cannot be searched"),
        ({"trainer.num_workers": GRID}, {}, {}, "trainer.num_workers cannot be searched"),
        ({"output": GRID}, {}, {}, "output cannot be searched"),
        ({"warm_start": GRID}, {}, {}, "warm_start cannot be searched"),
        ({"kd.alpha": GRID | {"values": [0.5, 1]}}, {"max_concurrent": 3}, {}, "2 trials of"),
        ({"kd.alpha": GRID | {"values": [0.5, 1]}}, {}, {"cache": {"type": "none"}}, "cache.type"),
        ({"kd.alpha": GRID | {"values": [0.5, 1]}}, {"warm_start": True}, {}, "warm_start"),
        (
            {"kd.alpha": GRID | {"values": [0.5, 1]}},
            {"champion": {"name": "a/b"}},
            {},
            "cannot name a registered model",
        ),
        (
            {"optimizer.lr": GRID},
            {"goals": {"eval.retention": "max"}},
            {"experts": None, "aggregation": {"type": "mean"}},
            "compares with teachers, and there are none",
        ),
        (
            {"kd.alpha": GRID | {"values": [0.5, 1]}},
            {},
            {"trainer": {"num_workers": 2}, "experts": None, "aggregation": {"type": "mean"}},
            "0 trials of 2 ×",
        ),
        ({"aggregation.k": GRID | {"values": [2, 9]}}, {}, {}, "aggregation.k must lie .*got 9"),
        (
            {"optimizer.lr": GRID | {"values": ["1e-4", "3e-4"]}},
            {},
            {},
            "search.space.optimizer.lr: '1e-4' is text, but optimizer.lr must be a number",
        ),
        (
            {
                "aggregation": GRID | {"values": [{"type": "mean"}]},
                "aggregation.mix": GRID | {"values": ["logits", "probabilities"]},
            },
            {},
            {},
            "search.space.aggregation.mix lies within search.space.aggregation",
        ),
        (
            {"aggregation": GRID | {"values": [{"type": "single", "teacher": "cars"}]}},
            {},
            {},
            "'cars' is not a teacher: use one of films, meals, tools",
        ),
        (
            {"aggregation.teacher": GRID | {"values": ["films", "cars"]}},
            {},
            {"aggregation": {"type": "single", "teacher": "films"}},
            "aggregation.teacher 'cars' is not a teacher",
        ),
        (
            {"aggregation.type": GRID | {"values": ["mean", "routed"]}},
            {},
            {"aggregation": {"type": "mean"}},
            "needs a router",
        ),
    ],
)
def test_what_no_trial_could_be_is_refused(
    root: Path,
    space: dict[str, Any],
    search: dict[str, Any],
    changes: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(root, space, changes, **search)


def test_a_sweep_over_aggregations_goes_where_the_files_own_keys_do_not(root: Path) -> None:
    """The file's k = 2 is no key of mean, and mix is one of all."""
    aggregation = {"type": "routed", "k": 2, "mix": "probabilities"}
    space = {"aggregation.type": GRID | {"values": ["routed", "mean", "oracle"]}}
    plan = plan_of(root, space, {"aggregation": aggregation})
    tried = [
        with_values(raw_of(plan.experiment), {"aggregation.type": kind}).aggregation
        for kind in ("routed", "mean", "oracle")
    ]
    assert [a.type for a in tried] == ["routed", "mean", "oracle"]
    assert [a.mix for a in tried] == ["probabilities"] * 3
    assert getattr(tried[0], "k", None) == 2


def test_a_value_may_be_a_whole_section(root: Path) -> None:
    sections = [
        {"type": "single", "teacher": "films"},
        {"type": "oracle"},
        {"type": "routed", "k": "all"},
    ]
    plan = plan_of(root, {"aggregation": GRID | {"values": sections}}, {})
    search = plan.experiment.search
    assert search is not None
    values = search.space["aggregation"].ends
    assert values[0] == "{type: single, teacher: films}"
    tried = [with_values(raw_of(plan.experiment), {"aggregation": v}) for v in values]
    assert [e.aggregation.model_dump(exclude_unset=True) for e in tried] == sections
    assert parse(plan.experiment.model_dump(mode="json")).search == search


def test_a_sweep_needs_a_search(root: Path) -> None:
    with pytest.raises(ConfigError, match="no section search"):
        check(parse(toy_experiment(root)), command="sweep")


def test_keys_that_only_go_together_are_judged_together(root: Path) -> None:
    """hidden 48 does not go with the configuration's 32 heads' worth, but with its own heads."""
    space = {
        "student.hidden": GRID | {"values": [16, 48]},
        "student.heads": GRID | {"values": [4, 8]},
    }
    plan = plan_of(root, space, {"student": {"layers": 1, "hidden": 36, "heads": 4}})
    assert "search student.heads" in {line.part for line in plan.lines}


def test_a_folder_of_a_sweep_is_none_of_a_run(root: Path, tmp_path: Path) -> None:
    from distill.errors import RunFolderError
    from distill.run_folder import RunFolder

    raw = toy_experiment(root, search={"space": {"kd.alpha": GRID | {"values": [0, 1]}}})
    experiment = parse(raw | {"output": str(tmp_path / "out")})
    plan = check(experiment, command="sweep")
    folder = RunFolder(experiment.output)
    folder.claim(experiment, plan.identity)
    folder.close()
    with pytest.raises(RunFolderError, match="command"):
        check(experiment)
