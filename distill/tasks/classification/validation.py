"""The aggregated teachers of a fit on the validation split."""

from __future__ import annotations

from pathlib import Path

from distill.data.corpus import Corpus
from distill.tasks.base import IsStopped
from distill.tasks.classification.predict import predict
from distill.tasks.classification.split import Split
from distill.training.job import Job
from distill.training.trainable import Trainable


def of_teachers(
    job: Job, module: Trainable, writer: str, is_stopped: IsStopped = lambda: False
) -> dict[str, float]:
    """``eval.accuracy`` and ``eval.f1`` of the teachers of ``job``, which are served, or in the
    cache. ``module``: of that job, with any weights of the aggregation; ``writer`` names its
    segments of the cache."""
    assert job.teacher_setup is not None
    validation = Split(Corpus(Path(job.data.corpus)), "validation")
    with job.teacher_setup.open(job.data, writer) as stream:
        batches = validation.batches(job.data.open())
        predicted_R = predict(module, batches, stream, is_stopped).teacher_R
    assert predicted_R is not None
    f1 = validation.confusion(predicted_R).f1
    return {"eval.accuracy": validation.accuracy(predicted_R), "eval.f1": f1}
