"""A fit ends at its first evaluation that is not finite, and keeps nothing of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.config import Optimizer, Trainer
from distill.errors import TrainingError
from distill.tasks.language_model.validation import metrics_of
from distill.training.checkpoints import FolderStore
from distill.training.class_module import DistillModule
from distill.training.engines import TorchEngine
from distill.training.loop import (
    NoTeachers,
    Selection,
    TrainingIntervals,
    count_predictions,
    train,
)
from distill.training.schedule import Schedule
from tests.toys import NUM_CLASSES, tiny_bert, toy_batches

OPTIMIZER = Optimizer(lr=1e-3)


def engine_of(module: DistillModule) -> TorchEngine:
    return TorchEngine(module, OPTIMIZER, Trainer(engine="torch"), torch.device("cpu"))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_nothing_of_a_broken_evaluation_is_kept(tmp_path: Path, broken: float) -> None:
    """Also where the metric that is selected by is a number."""
    found = iter([1.0, broken])
    heard: list[Any] = []
    with pytest.raises(TrainingError, match=r"eval.perplexity became (nan|inf) by step 4: lower"):
        train(
            engine_of(DistillModule(tiny_bert(0))),
            toy_batches(),
            NoTeachers(),
            Schedule(6, OPTIMIZER),
            FolderStore(tmp_path),
            lambda engine: {"eval.accuracy": 0.5, "eval.perplexity": next(found)},
            Selection("eval.accuracy"),
            TrainingIntervals(log=100, evaluate=2, checkpoint=2),
            log=lambda step, metrics: heard.append(step),
            report=lambda cursor: heard.append(cursor.step),
        )
    assert heard == [2, 2]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_classes_are_not_predicted_from_logits_that_are_not_finite() -> None:
    """The first of them would be: at a quarter of the rows that looks like an accuracy."""
    module = DistillModule(tiny_bert(0)).eval()
    engine = engine_of(module)
    counts_CC = count_predictions(engine, toy_batches(shuffle=False), NUM_CLASSES)
    assert int(counts_CC.sum()) == 37  # of fifty rows those with a label
    with torch.no_grad():
        module.student.classifier.bias[1] = math.nan  # type: ignore[union-attr, index]
    with pytest.raises(TrainingError, match=r"logits of 50 validation rows are not finite: lower"):
        count_predictions(engine, toy_batches(shuffle=False), NUM_CLASSES)


def test_a_perplexity_beyond_numbers_is_a_number_and_one_of_nan_is_not() -> None:
    def perplexity(ce: float) -> float:
        return metrics_of({"ce.loss": ce, "train.accuracy": 0.0})["eval.perplexity"]

    assert math.isfinite(perplexity(1e9)) and math.isnan(perplexity(math.nan))
