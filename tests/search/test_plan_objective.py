"""Sweeps over objectives: lists as values, and trials whose batches an objective cannot serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import parse
from distill.errors import ConfigError
from distill.search.plan import raw_of
from distill.search.values import with_values
from tests.search.test_plan import GRID, plan_of

TYPES = GRID | {"values": ["forward_kl", "dist"]}
MICRO = GRID | {"values": [4, 8]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan-objective")


SPLIT = {"trainer": {"batch_size": 8, "micro_batch_size": 4}}
WHOLE = {"trainer": {"batch_size": 8}}
SUMS = GRID | {"values": [[{"type": "jsd"}, {"type": "dist"}], {"type": "jsd"}]}


@pytest.mark.parametrize(
    ("space", "changes"),
    [
        ({"objective.type": TYPES}, SPLIT),
        ({"trainer.micro_batch_size": MICRO}, WHOLE | {"objective": {"type": "dist"}}),
        ({"objective.type": TYPES, "trainer.micro_batch_size": MICRO}, WHOLE),
        ({"objective": SUMS}, SPLIT),
    ],
)
def test_a_trial_that_splits_the_batch_of_coupled_rows_is_refused(
    root: Path, space: dict[str, Any], changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"search.space.*dist compares all rows .*size 4 splits"):
        plan_of(root, space, changes)


def test_a_trial_without_gradient_for_two_classes_is_refused(root: Path) -> None:
    space = {"objective.type": GRID | {"values": ["forward_kl", "cosine"]}}
    with pytest.raises(ConfigError, match=r"search.space: objective.type cosine has no gradient"):
        plan_of(root, space, {})


def test_a_value_may_be_a_list_of_objectives(root: Path) -> None:
    values = [[{"type": "forward_kl"}, {"type": "dist", "weight": 0.1}], {"type": "jsd"}]
    plan = plan_of(root, {"objective": GRID | {"values": values}}, {})
    search = plan.experiment.search
    assert search is not None
    written = search.space["objective"].ends
    assert written == ("[{type: forward_kl}, {type: dist, weight: 0.1}]", "{type: jsd}")
    tried = [with_values(raw_of(plan.experiment), {"objective": v}) for v in written]
    assert [e.objective.model_dump(mode="json", exclude_unset=True) for e in tried] == values
    assert parse(plan.experiment.model_dump(mode="json")).search == search
