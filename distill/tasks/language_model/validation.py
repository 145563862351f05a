"""A student, and the aggregated teachers of its fit, on the validation split."""

from __future__ import annotations

import math

from distill.tasks.base import IsStopped
from distill.tasks.language_model.comparison import LanguageModels
from distill.tasks.plan import Plan
from distill.training.job import Job
from distill.training.token_module import TokenModule
from distill.training.trainable import Trainable

MAX_CE = 700.0
"""exp of more is infinite, and no run should end because its first evaluation is that bad."""


def metrics_of(means: dict[str, float]) -> dict[str, float]:
    """exp of the mean cross-entropy, and the top-1 hits."""
    return {
        "eval.perplexity": math.exp(min(means["ce.loss"], MAX_CE)),
        "eval.accuracy": means["train.accuracy"],
    }


def of_teachers(
    plan: Plan, job: Job, module: Trainable, is_stopped: IsStopped
) -> dict[str, float] | None:
    """``eval.*`` of the teachers of ``job``, which are served. ``module``: of that job, with any
    weights of the aggregation. None where their tokens are not the student's."""
    assert isinstance(module, TokenModule)
    models = LanguageModels(plan, job.data, job.teacher_setup, is_stopped, module)
    if not models.can_compare:
        return None
    total = models.compared(job.data, split="validation").aggregate.total
    return {"eval.perplexity": total.perplexity, "eval.accuracy": total.accuracy}
