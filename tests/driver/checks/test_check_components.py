"""What the plan shows of the aggregation, the objective and the shared memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.config import parse
from distill.data.blocks import Blocks
from distill.data.corpus import Corpus
from distill.driver.checks.check import check
from distill.driver.checks.components import component_lines
from distill.records import Line
from tests.toys import toy_experiment
from tests.toys_language import language_experiment


class Rows(Corpus):
    """3 training rows, 1 of transfer."""

    def __init__(self, *labels: int) -> None:
        self.labels = np.array(labels)

    def rows(self, split: str) -> range:
        return {"train": range(0, 3), "transfer": range(3, 4)}[split]

    def labels_of(self, rows: range) -> np.ndarray:
        return self.labels[np.array(rows)]


class Texts(Rows):
    """The same, of a language model."""

    is_self_labelled, unit, pooled_unit = Blocks.is_self_labelled, Blocks.unit, Blocks.pooled_unit


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("components")


def shown(raw: dict[str, Any], labels: tuple[int, ...] = (-100, -100, -100, 1)) -> dict[str, Any]:
    kind = Texts if raw.get("task") == "language_model" else Rows
    lines = component_lines(parse(raw), 2, kind(*labels))
    return {line.part: (line.what, line.size) for line in lines}


def test_a_classifier(root: Path) -> None:
    objective = [{"type": "forward_kl"}, {"type": "jsd", "weight": 0.1}]
    kd = {"temperature": 4, "alpha": 0.7}
    raw = toy_experiment(root, aggregation={"type": "attention"}, objective=objective, kd=kd)
    attention = "weights for each row, trained by the labels"
    loss = ("forward_kl + 0.1 jsd", "alpha 0.7, temperature 4")
    assert shown(raw) == {"aggregation": ("attention", attention), "objective": loss}
    no_label = "attention needs labels: no training row has one"
    assert shown(raw, (-100,) * 4)["aggregation"] == ("uncertainty", no_label)
    raw["kd"] = kd | {"schedule": {"type": "cosine"}}  # has a line of its own
    assert shown(raw)["objective"] == ("forward_kl + 0.1 jsd", "alpha 0.7")
    lines = [line.part for line in check(parse(raw)).lines]
    assert lines.index("aggregation") + 2 == lines.index("temperature")


@pytest.mark.parametrize(("per", "unit"), [("token", "token"), ("sample", "sequence")])
def test_a_language_model(root: Path, per: str, unit: str) -> None:
    raw = language_experiment(root, aggregation={"type": "attention", "per": per})
    expected = ("attention", f"weights for each {unit}, trained by the labels")
    assert shown(raw)["aggregation"] == expected
    assert "aggregation" in [line.part for line in check(parse(raw)).lines]


def test_the_shared_memory(root: Path, tmp_path: Path) -> None:
    raw = toy_experiment(root, memory={"path": str(tmp_path / "new"), "limit_mb": 2000})
    empty = "0 fits, outputs of 0 teachers, 0.0 MB; limit 2,000 MB"
    assert shown(raw)["shared memory"] == (str(tmp_path / "new"), empty)
    for name in ("fits/a", "fits/b", "fits/.removed-c", "answers/d"):
        folder = tmp_path / "new" / name
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(bytes(500_000))
    held = "2 fits, outputs of 1 teacher, 1.5 MB; limit 2,000 MB"
    assert shown(raw)["shared memory"][1] == held


def test_trained_weights_of_one_teacher_are_one(root: Path) -> None:
    raw = toy_experiment(root, aggregation={"type": "attention"})
    line, _ = component_lines(parse(raw), 1, Rows(1, 1, 1, 1))
    assert line == Line("aggregation", "attention", "of one teacher: its weight is always 1")
    raw["aggregation"] = {"type": "mean"}
    assert [line.part for line in component_lines(parse(raw), 1, Rows(1))] == ["objective"]
