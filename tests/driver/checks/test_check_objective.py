"""What an objective needs of batches, classes and text is checked before any process starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import Experiment, parse
from distill.driver.checks.check import check_keys
from distill.errors import ConfigError
from distill.run_folder import identity
from distill.search.plan import raw_of
from distill.search.values import with_values
from distill.tasks.checks.objective import check_classes
from distill.tasks.checks.sampling import check_sampling
from tests.toys import toy_experiment
from tests.toys_language import language_experiment

FORWARD_AND_DIST = [{"type": "forward_kl"}, {"type": "dist", "weight": 0.5}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objective")


def classifier(root: Path, objective: Any, **trainer: Any) -> Experiment:
    raw = toy_experiment(root, objective=objective)
    raw["trainer"] = {"batch_size": 16, **trainer}
    return parse(raw)


@pytest.mark.parametrize(
    ("objective", "named"),
    [
        ({"type": "dist"}, "objective.type dist"),
        ({"type": "comparative"}, "objective.type comparative"),
        (FORWARD_AND_DIST, "objective.1.type dist"),
    ],
)
@pytest.mark.parametrize(
    ("trainer", "way_out"),
    [
        (
            {"micro_batch_size": 8},
            "trainer.micro_batch_size 8 splits .*16: set trainer.micro_batch_size: null",
        ),
        ({"num_workers": 2}, "trainer.num_workers 2 splits .*set trainer.num_workers: 1"),
    ],
)
def test_a_split_batch_is_refused_where_rows_are_compared(
    root: Path, objective: Any, named: str, trainer: dict[str, int], way_out: str
) -> None:
    with pytest.raises(ConfigError, match=f"{named} compares all rows .*{way_out}"):
        check_keys(classifier(root, objective, **trainer))


def test_whole_batches_and_objectives_of_single_rows_are_accepted(root: Path) -> None:
    check_keys(classifier(root, {"type": "dist"}))
    check_keys(classifier(root, {"type": "dist"}, micro_batch_size=16))
    check_keys(classifier(root, {"type": "dist", "class_weight": 0}, num_workers=2))
    check_keys(classifier(root, {"type": "cosine"}, num_workers=2, micro_batch_size=4))
    alone = toy_experiment(root, objective={"type": "dist"}, experts=None)
    alone["aggregation"] = {"type": "mean"}
    alone["trainer"] = {"num_workers": 2}
    check_keys(parse(alone))  # without teachers there is no objective


def test_only_dist_can_do_without_other_rows(root: Path) -> None:
    for objective, named in (("dist", True), ("comparative", False)):
        with pytest.raises(ConfigError) as caught:
            check_keys(classifier(root, {"type": objective}, num_workers=2))
        assert ("objective.class_weight: 0" in str(caught.value)) == named


@pytest.mark.parametrize("kind", ["cosine", "cmkd", "r2kd"])
def test_correlations_over_two_classes_are_refused(root: Path, kind: str) -> None:
    experiment = classifier(root, {"type": kind})
    with pytest.raises(ConfigError, match=rf"objective.type {kind} has no gradient for 2 classes"):
        check_classes(experiment, 2)
    check_classes(experiment, 3)
    check_classes(classifier(root, {"type": "dist"}), 2)
    with pytest.raises(ConfigError, match=r"objective.0.type dist has no gradient for 2 classes"):
        check_classes(classifier(root, [{"type": "dist", "class_weight": 0}]), 2)


def language(root: Path, objective: Any, **changes: Any) -> Experiment:
    return parse(language_experiment(root, objective=objective, **changes))


def test_language_models_compare_no_rows(root: Path) -> None:
    check_keys(language(root, {"type": "dist"}, trainer={"num_workers": 2, "micro_batch_size": 2}))
    for objective, key in (
        ({"type": "comparative"}, "objective.type"),
        ([{"type": "jsd"}, {"type": "comparative"}], "objective.1.type"),
        ({"type": "dist", "row_weight": 0}, "objective.type"),  # nothing else is left
    ):
        with pytest.raises(ConfigError, match=f"{key} .* compares .*use forward_kl"):
            check_keys(language(root, objective))


def test_the_students_own_tokens_are_no_labels(root: Path) -> None:
    changes: dict[str, Any] = {"sampling": {"type": "on_policy"}, "kd": {"alpha": 1}}
    raw = language_experiment(root, objective=[{"type": "forward_kl"}], **changes)
    raw["data"] |= {"columns": {"prompt": "prompt", "completion": "completion"}, "packing": False}
    check_sampling(parse(raw))
    raw["objective"] = [{"type": "forward_kl"}, {"type": "decoupled"}]
    with pytest.raises(ConfigError, match=r"objective.1.type decoupled with sampling.type on_pol"):
        check_sampling(parse(raw))


@pytest.mark.parametrize("objective", [{"type": "forward_kl"}, {"type": "jsd", "beta": 0.3}])
def test_a_single_objective_has_the_identity_that_it_had(root: Path, objective: Any) -> None:
    found = identity(classifier(root, objective), "data")
    of_objective = {k: v for k, v in found.items() if k.startswith("objective")}
    assert of_objective == {f"objective.{key}": value for key, value in objective.items()}
    again = classifier(root, objective | {"weight": 1.0})
    assert identity(again, "data") == found
    assert again.model_dump(mode="json")["objective"] == objective


def test_a_sum_is_a_part_of_the_identity_and_comes_back_from_its_dump(root: Path) -> None:
    experiment = classifier(root, FORWARD_AND_DIST)
    found = identity(experiment, "data")
    assert found["objective.1.weight"] == 0.5 and found["objective.0.type"] == "forward_kl"
    assert "objective.0.weight" not in found and "objective.type" not in found
    assert parse(experiment.model_dump(mode="json")) == experiment
    assert parse(raw_of(experiment)).objective == experiment.objective


def test_a_searched_type_keeps_the_keys_that_it_has(root: Path) -> None:
    raw = raw_of(classifier(root, {"type": "jsd", "beta": 0.3, "weight": 2}))
    changed = with_values(raw, {"objective.type": "cosine"}).objective
    assert changed.model_dump() == {"type": "cosine", "weight": 2}
    raw = raw_of(classifier(root, [{"type": "forward_kl"}, {"type": "jsd", "beta": 0.3}]))
    changed = with_values(raw, {"objective.1.type": "cosine", "objective.1.weight": 0.1})
    assert changed.objective.type == "forward_kl + 0.1 cosine"
    with pytest.raises(ConfigError, match=r"objective.type: objective has 2 entries"):
        with_values(raw, {"objective.type": "cosine"})


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ([], "objective is an empty list"),
        ([{"type": "cosin"}], r"objective.0.type must be one of .*did you mean cosine"),
        ([{"type": "jsd"}, {"type": "jsd", "beta": 3}], "objective.1.beta must be less than 1"),
        ([{"type": "cosine", "weight": 0}], "objective.0.weight must be greater than 0, got 0"),
        ([{"type": "cosine", "wight": 1}], "unknown key objective.0.wight: did you mean weight"),
        (["cosine"], r"objective.0 must be a section.*write - \{type: cosine\}"),
        ({"type": "jsd", "bta": 1}, "unknown key objective.bta: did you mean beta"),
        ([{"type": "uld"}, {"type": "forward_kl"}], "give uld alone"),
        ([{"weight": 2}], "objective.0.type is missing"),
    ],
)
def test_a_wrong_list_is_one_line_with_the_key(root: Path, objective: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        classifier(root, objective)
    assert len(str(caught.value).splitlines()) == 1
