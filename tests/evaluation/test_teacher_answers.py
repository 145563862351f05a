"""Teachers generate answers to the student's test prompts as they are served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from distill.config import parse
from distill.driver.checks.check import check
from distill.errors import Interrupted
from distill.evaluation.generation import score_answers, write_answers
from distill.evaluation.teacher_answers import BATCH, score_teacher
from distill.models.language import load_language_model
from distill.models.tokenizer import load_tokenizer
from distill.sampling.records import GeneratedText, GenerationRequest
from distill.tasks.language_model.comparison import LanguageModels
from distill.teachers.backends import open_backends
from distill.teachers.local import LocalTeachers
from tests.toys_adapters import alone, write_adapter
from tests.toys_language import NUM_TOKENS, language_experiment, write_tokenizer
from tests.toys_moe import mixture
from tests.training.test_language_fit import job_of

PROMPTS = {"prompt": "prompt", "completion": "completion", "domain": "domain", "split": "split"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    language_experiment(folder)
    write_adapter(folder / "on-films", folder / "films", 0)
    mixture().save_pretrained(folder / "mixture")
    write_tokenizer(folder / "mixture")
    return folder


def tables_of(root: Path, teachers: list[dict[str, Any]], **changes: Any) -> tuple[Any, Any, Any]:
    """The tables of an experiment whose teachers are in this process, its plan and job."""
    raw = language_experiment(root)
    data = raw["data"] | {"columns": PROMPTS}
    teachers = [teacher | {"num_cpus": 0.1} for teacher in teachers]
    changes |= {"data": data, "teachers": teachers, "aggregation": {"type": "mean"}}
    job = job_of(root, f"run-{uuid4().hex}", **changes)
    plan = check(parse(raw | changes | {"output": str(root / "other")}))
    return LanguageModels(plan, job.data, job.teacher_setup, lambda: False), plan, job


def expected(plan: Any, model: Any, num: int) -> tuple[float, float]:
    """By the student's own way of generating."""
    prompts = plan.rows.prompts_of("test", num)
    tokenizer = load_tokenizer(plan.tokenizer)
    answers = write_answers(
        model, tokenizer, [p.ids for p in prompts], plan.experiment.generation.max_new_tokens
    )
    scores = score_answers(answers, [p.reference for p in prompts])
    return scores.exact_match, scores.rouge_l


def test_rows_of_teachers_have_the_scores_of_their_models(root: Path) -> None:
    films, mixed = str(root / "films"), str(root / "mixture")
    teachers = [
        {"name": "whole", "path": films},
        {"name": "adapter", "path": films, "adapter": str(root / "on-films")},
        {"name": "experts", "path": mixed},
    ]
    tables, plan, _ = tables_of(root, teachers, generation={"num_prompts": 12})
    rows = {row.name: row for row in tables.teachers()}
    models = {
        "whole": load_language_model(root / "films"),
        "adapter": alone(root / "films", root / "on-films"),
        "experts": load_language_model(root / "mixture"),
    }
    for name, model in models.items():
        assert (rows[name].exact_match, rows[name].rouge_l) == expected(plan, model, 12)
    assert len({rows[name].rouge_l for name in models}) > 1, "they answer differently"
    assert rows["mean ensemble"].exact_match is None


def test_all_experts_of_a_mixture_answer_where_they_are_served_so(root: Path) -> None:
    teachers = [{"name": "all", "path": str(root / "mixture"), "moe": {"type": "all"}}]
    _, plan, job = tables_of(root, teachers)
    from tests.toys_moe import NUM_EXPERTS

    all_teachers = mixture(own=NUM_EXPERTS)
    (spec,) = job.teacher_setup.teachers
    client = LocalTeachers(open_backends([spec]))
    prompts = plan.rows.prompts_of("test", 12)
    found = score_teacher(client, spec, prompts, load_tokenizer(plan.tokenizer), 64)
    assert found is not None
    assert (found.exact_match, found.rouge_l) == expected(plan, all_teachers.eval(), 12)


def test_without_prompts_nothing_is_generated(root: Path) -> None:
    teachers = [{"name": "whole", "path": str(root / "films")}]
    tables, _, _ = tables_of(root, teachers, generation={"num_prompts": 0})
    (row,) = tables.teachers()
    assert row.exact_match is None and row.rouge_l is None and row.perplexity is not None


class Recorder:
    """Answers each prompt with two tokens, the end of text and one more."""

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []

    def call(self, teacher: str, request: GenerationRequest) -> GeneratedText:
        self.requests.append(request)
        text = np.array([5, 6, 0, 7])
        return GeneratedText(request.request_id, (text,) * len(request.prompts))


def test_requests_are_small_and_limited_by_the_teachers_positions(root: Path) -> None:
    teachers = [{"name": "whole", "path": str(root / "films")}]
    _, plan, job = tables_of(root, teachers)
    (spec,) = job.teacher_setup.teachers
    client: Any = Recorder()
    prompts = plan.rows.prompts_of("test", 20)
    tokenizer = load_tokenizer(plan.tokenizer)
    scores = score_teacher(client, spec, prompts, tokenizer, 1000, turn_ends=(9,))
    assert scores is not None and scores.num == len(prompts) == 20
    sizes: Sequence[int] = [len(request.prompts) for request in client.requests]
    assert list(sizes) == [BATCH, BATCH, 4]
    first = client.requests[0]
    assert first.limits == tuple(64 - len(prompt.ids) for prompt in prompts[:BATCH])
    assert first.ends == (0, 9) and first.decoding.temperature == 0
    reference = tokenizer.decode([5, 6])
    assert scores.num_exact == sum(p.reference == reference for p in prompts)
    with pytest.raises(Interrupted):
        score_teacher(client, spec, prompts, tokenizer, 4, should_stop=lambda: True)


def test_the_columns_count_as_the_teachers_tokens(root: Path) -> None:
    """A padded vocabulary has logits for ids that are no tokens: they are never generated."""
    teachers = [{"name": "whole", "path": str(root / "meals")}]
    _, plan, job = tables_of(root, teachers)
    (spec,) = job.teacher_setup.teachers
    written: list[np.ndarray] = []

    class Listening(LocalTeachers):
        def call(self, teacher: str, request: Any, *args: Any) -> Any:
            found = super().call(teacher, request, *args)
            written.extend(found.texts)
            return found

    prompts = plan.rows.prompts_of("test", 4)
    client = Listening(open_backends([spec]))
    score_teacher(client, spec, prompts, load_tokenizer(plan.tokenizer), 8)
    assert len(written) == 4 and all(text.max() < NUM_TOKENS for text in written)
