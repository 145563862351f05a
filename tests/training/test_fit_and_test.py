"""A baseline's predictions are those of its weights, wherever they are made."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.config import parse
from distill.driver.checks.check import check
from distill.driver.context import Work
from distill.driver.run_jobs import own_job
from distill.errors import Interrupted
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from distill.tasks.classification.comparison import fit_and_test, fit_row, predictions_file, row_of
from distill.tasks.classification.predict import predict
from distill.tasks.classification.split import Split
from distill.training.fit import is_saved, load_best
from distill.training.job import Job
from tests.toys import toy_experiment


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("tested")
    raw = toy_experiment(root)
    raw["trainer"] = raw["trainer"] | {"engine": "torch"}
    plan = check(parse(raw))
    work = Work(plan, RunFolder(plan.experiment.output), Progress(io.StringIO()))
    return replace(own_job(work), name="alone", folder=str(root / "alone"), num_steps=3)


def test_a_task_leaves_the_predictions_that_its_row_is_made_of(job: Job) -> None:
    fit_and_test(job)
    assert is_saved(job)
    inputs = job.data.open()
    test = Split(inputs.corpus, "test")
    expected = predict(load_best(job), test.batches(inputs)).student_R
    assert np.array_equal(np.load(predictions_file(job)), expected)
    row, own = fit_row(job, test, "baseline"), row_of(test, "alone", "baseline", expected)
    assert (row.name, row.accuracy, row.f1, row.per_domain) == (
        own.name,
        own.accuracy,
        own.f1,
        own.per_domain,
    )
    generated = predictions_file(job).stat().st_mtime_ns
    fit_and_test(job)
    assert predictions_file(job).stat().st_mtime_ns == generated  # done once


def test_predicting_ends_once_the_stop_file_exists(job: Job, tmp_path: Path) -> None:
    fit_and_test(job)
    kept = predictions_file(job)
    stop = tmp_path / "stop"
    stop.touch()
    kept.rename(tmp_path / "predictions.npy")
    with pytest.raises(Interrupted):
        fit_and_test(replace(job, stop_file=str(stop)))
    assert not kept.exists()
    (tmp_path / "predictions.npy").rename(kept)
