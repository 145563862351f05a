"""Students that learn from what is written as they train, through the one loop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.data.batches import Batches
from distill.errors import Interrupted
from distill.records import Batch, ScheduleValues, TokenAnswers
from distill.sampling.records import DraftRequest, GenerationRequest
from distill.sampling.verification import Verification
from distill.teachers.local import LocalTeachers
from distill.training.engines import make_engine
from distill.training.fit import build_module, fit, load_best, open_source
from distill.training.job import Job
from tests.toys_language import llama
from tests.training.test_language_fit import job_of

PROMPTS = {"columns": {"prompt": "prompt", "completion": "completion", "domain": "domain"}}
SKD = {"type": "skd", "teacher": "films", "drafts": 3, "top_k": 4}
ONLY_MEALS = {"type": "single", "teacher": "meals"}


def sampled_job(
    root: Path, folder: str, sampling: dict[str, Any], wire: Any = None, **changes: Any
) -> Job:
    data = {
        "path": str(root / "texts.parquet"),
        "columns": {**PROMPTS["columns"], "split": "split"},
        "max_length": 24,
        "packing": False,
        "cache_dir": str(root / "data-cache"),
    }
    raw: dict[str, Any] = {
        "data": data,
        "sampling": sampling,
        "kd": {"temperature": 1.0, "alpha": 1.0},
        "trainer": {"epochs": 0.2, "batch_size": 8, "log_every": 1, "eval_every": 2},
        **changes,
    }
    return replace(job_of(root, folder, wire, **raw), sampling=_parsed(sampling))


def _parsed(sampling: dict[str, Any]) -> Any:
    from pydantic import TypeAdapter

    from distill.sampling import Sampling

    return TypeAdapter(Sampling).validate_python(sampling)


def logged(job: Job) -> list[dict[str, float]]:
    lines = (Path(job.folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines if "loss" in line]


def weights_after(job: Job) -> dict[str, torch.Tensor]:
    fit(job)
    return load_best(job).student.state_dict()


def steps_of(job: Job, num_steps: int = 2) -> list[tuple[Batch, Any]]:
    assert job.teacher_setup is not None
    module = build_module(job)
    engine = make_engine(module, job.optimizer, job.trainer, 1)
    batches = Batches(job.data.open(), job.train_rows, 8, job.seed)
    source = open_source(job, job.teacher_setup, engine, "rank0")
    steps = list(source.feed(batches, 0, num_steps))
    source.close()
    return [part for step in steps for part in step.parts]


def test_teachers_are_asked_about_the_very_tokens_that_were_written(tmp_path: Path) -> None:
    """The answers are those of a whole forward over the sampled batch, without any cache."""
    job = sampled_job(tmp_path, "run", {"type": "on_policy"}, aggregation={"type": "mean"})
    data = dict(
        batch_texts(b) for b, _ in steps_of(replace(job, sampling=_parsed({"type": "dataset"})))
    )
    for batch, answers in steps_of(job):
        assert isinstance(answers, TokenAnswers)
        assert batch.input_ids_BT is not None and batch.targets_BT is not None
        assert batch.num_valid == int(batch.targets_BT.sum())
        films = llama(1)
        hidden_BTH = films.model(
            input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT
        ).last_hidden_state
        torch.testing.assert_close(
            answers.payloads[0].float(), hidden_BTH[batch.targets_BT], atol=2e-2, rtol=2e-2
        )
        texts = dict([batch_texts(batch)])
        (rows,) = texts
        assert texts[rows] != data[rows]  # another text, to the same prompts


def batch_texts(batch: Batch) -> tuple[tuple[int, ...], list[list[int]]]:
    assert batch.input_ids_BT is not None and batch.targets_BT is not None
    next_BT = batch.input_ids_BT.roll(-1, 1)
    texts = [next_BT[b][batch.targets_BT[b]].tolist() for b in range(len(batch.rows_B))]
    return tuple(batch.rows_B.tolist()), texts


@pytest.mark.parametrize(
    "sampling",
    [{"type": "on_policy"}, SKD, {"type": "mixed"}, {"type": "teacher", "teacher": "films"}],
)
def test_a_stopped_fit_goes_on_bit_for_bit(tmp_path: Path, sampling: dict[str, Any]) -> None:
    whole_job = sampled_job(tmp_path, "whole", sampling)
    whole = weights_after(whole_job)
    stop = tmp_path / "stop"
    job = sampled_job(tmp_path, "stopped", sampling)
    with pytest.raises(Interrupted, match="stopped at step 3 of"):
        fit(replace(job, stop_file=str(stop)), report=lambda cursor: stop.touch())
    resumed = weights_after(job)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    text = logged(whole_job)
    # A step of mixed text may have written none.
    wrote = [row["sampling.new_tokens"] > 0 for row in text]
    assert any(wrote) if sampling["type"] == "mixed" else all(wrote)
    assert all(("sampling.tokens_per_row" in row) == w for row, w in zip(text, wrote, strict=True))
    if sampling["type"] == "skd":
        assert all(0 <= row["sampling.acceptance_rate"] <= 1 for row in text)
        assert all(1 <= row["sampling.tokens_per_call"] <= 4 for row in text)


def test_micro_batches_write_and_learn_the_same(tmp_path: Path) -> None:
    intervals = {"epochs": 0.1, "batch_size": 8}
    whole = weights_after(sampled_job(tmp_path, "whole", SKD, trainer=intervals))
    small = weights_after(
        sampled_job(tmp_path, "small", SKD, trainer=intervals | {"micro_batch_size": 3})
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(small[name], tensor, atol=2e-4, rtol=1e-3)


class Forgetful(LocalTeachers):
    """Teachers that lose their caches whenever they are asked: as if killed each time."""

    def call(self, teacher: str, request: Any, *args: Any) -> Any:
        backend: Any = self.backends[teacher]
        model = backend.language_model
        model.judging = Verification(model.model, backend.teacher.width)
        return super().call(teacher, request, *args)


def test_a_teacher_that_forgets_everything_changes_nothing(tmp_path: Path) -> None:
    kept = sampled_job(tmp_path, "kept", SKD)
    lost = sampled_job(tmp_path, "lost", SKD)
    assert lost.teacher_setup is not None
    client = Forgetful(dict(lost.teacher_setup.client.backends))  # type: ignore[attr-defined]
    lost = replace(lost, teacher_setup=replace(lost.teacher_setup, client=client))
    expected = weights_after(kept)
    assert all(torch.equal(v, expected[k]) for k, v in weights_after(lost).items())


def test_the_teachers_text_alone_is_learnt_by_its_cross_entropy(tmp_path: Path) -> None:
    """SeqKD: with alpha 0 nobody is asked for distributions."""
    job = sampled_job(tmp_path, "run", {"type": "teacher", "teacher": "films"}, kd={"alpha": 0.0})
    parts = steps_of(job)
    assert all(answers is None for _, answers in parts)
    module: Any = build_module(job)
    batch = parts[0][0]
    output = module(batch, None, ScheduleValues(1.0, 0.0))
    _, texts = batch_texts(batch)
    films = llama(1)
    for text in texts:
        assert len(text) > 0
    with torch.no_grad():
        logits_BTV = films(input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT).logits
    greedy_BT = logits_BTV.argmax(-1)
    next_BT = batch.input_ids_BT.roll(-1, 1)  # type: ignore[union-attr]
    assert torch.equal(greedy_BT[batch.targets_BT], next_BT[batch.targets_BT])
    assert np.isfinite(float(output.loss))


def test_a_rank_without_rows_drafts_and_asks_nobody(tmp_path: Path) -> None:
    job = sampled_job(tmp_path, "run", SKD)
    assert job.teacher_setup is not None
    engine = make_engine(build_module(job), job.optimizer, job.trainer, 1)
    source: Any = open_source(job, job.teacher_setup, engine, "rank0")
    try:
        assert source._students_texts({}, np.zeros(0, np.uint64), 0, job.sampling) == []
    finally:
        source.close()


class Slow(LocalTeachers):
    """Teachers that say they have computed for a long time when they judge or write."""

    num_calls = 0

    def call(self, teacher: str, request: Any, *args: Any) -> Any:
        answer = super().call(teacher, request, *args)
        if not isinstance(request, DraftRequest | GenerationRequest):
            return answer
        self.num_calls += 1
        return replace(answer, compute_s=1e6)


@pytest.mark.parametrize("sampling", [SKD, {"type": "teacher", "teacher": "films"}])
def test_judging_and_writing_are_a_teachers_work(tmp_path: Path, sampling: dict[str, Any]) -> None:
    job = sampled_job(tmp_path, "run", sampling)
    assert job.teacher_setup is not None
    client = Slow(dict(job.teacher_setup.client.backends))  # type: ignore[attr-defined]
    fit(replace(job, teacher_setup=replace(job.teacher_setup, client=client)))
    text = logged(job)
    seconds = sum(row["teacher.films.compute_s"] for row in text)
    assert client.num_calls > 0 and seconds == pytest.approx(1e6 * client.num_calls, rel=1e-3)
    assert all(row["teacher.films.idle_rate"] == 0 for row in text)
    assert all(0 < row["teacher.meals.idle_rate"] < 1 for row in text)
    assert all(0 < row["sampling.generate_rate"] < 1 for row in text)


def test_teachers_tell_how_long_they_judge_and_write(tmp_path: Path) -> None:
    for sampling in (SKD, {"type": "teacher", "teacher": "films"}):
        job = sampled_job(tmp_path, sampling["type"], sampling, aggregation=ONLY_MEALS)
        fit(job)
        text = logged(job)
        assert all(row["teacher.films.rows"] == 0 for row in text)
        assert sum(row["teacher.films.compute_s"] for row in text) > 0
