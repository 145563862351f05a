"""Each row judged, or written, by the teacher of its domain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.config import parse
from distill.config.sampling import Speculative
from distill.driver.checks.check import check
from distill.errors import ConfigError
from distill.sampling import Decoding
from distill.sampling.draw import row_seeds
from distill.sampling.generation import Drafted, write
from distill.sampling.records import DraftRequest, VerifiedDrafts
from distill.sampling.verification import Verification
from distill.teachers.local import LocalTeachers
from distill.training.job import Job
from distill.training.speculation import TeacherVerifier, verify_each
from tests.driver.checks.test_check_sampling import experiment_of, lines_of
from tests.sampling.test_fits import Forgetful, batch_texts, sampled_job, steps_of, weights_after
from tests.toys_language import NUM_TOKENS, llama

SKD = {"type": "skd", "drafts": 3, "top_k": 4}
WRITES = {"type": "teacher"}


def text_of_rows(job: Job) -> dict[int, tuple[int, list[int]]]:
    """Of each row its domain and what was written, over two steps."""
    found = {}
    for batch, _ in steps_of(job):
        rows, texts = batch_texts(batch)
        found |= dict(zip(rows, zip(batch.domains_B.tolist(), texts, strict=True), strict=True))
    return found


@pytest.mark.parametrize("sampling", [SKD, WRITES], ids=lambda one: one["type"])
def test_every_row_reads_as_if_its_own_teacher_were_the_only_one(
    tmp_path: Path, sampling: dict[str, Any]
) -> None:
    apart = text_of_rows(sampled_job(tmp_path, "apart", sampling))
    alone = [
        text_of_rows(sampled_job(tmp_path, f"{name}-alone", sampling | {"teacher": name}))
        for name in ("films", "meals")
    ]
    assert {domain for domain, _ in apart.values()} == {0, 1}
    for row, (domain, text) in apart.items():
        assert text == alone[domain][row][1]
    assert alone[0] != alone[1]


class Noted(LocalTeachers):
    """Teachers that keep what they are asked to judge."""

    def __init__(self, engines: dict[str, Any]) -> None:
        super().__init__(engines)
        self.requests: list[tuple[str, Any]] = []

    def call(self, teacher: str, request: Any, *args: Any) -> Any:
        if isinstance(request, DraftRequest):
            self.requests.append((teacher, request))
        return super().call(teacher, request, *args)


def test_a_judge_hears_of_its_own_rows_alone(tmp_path: Path) -> None:
    """Counted among them, in all rounds that are past."""
    job = sampled_job(tmp_path, "run", SKD)
    assert job.teacher_setup is not None
    client = Noted(dict(job.teacher_setup.client.backends))  # type: ignore[attr-defined]
    steps_of(replace(job, teacher_setup=replace(job.teacher_setup, client=client)), num_steps=1)
    prompts: dict[str, int] = {}
    for teacher, request in client.requests:
        prompts[teacher] = len(request.prompts)
        for rows_b in (request.rows_b, *(one.rows_b for one in request.past)):
            assert len(rows_b) > 0 and rows_b.min() >= 0 and rows_b.max() < len(request.prompts)
            assert (np.diff(rows_b) > 0).all()
    assert set(prompts) == {"films", "meals"} and sum(prompts.values()) == 8
    assert any(request.past for _, request in client.requests)


def test_teachers_that_forget_everything_change_nothing(tmp_path: Path) -> None:
    """Each is told again what its own rows have read."""
    expected = weights_after(sampled_job(tmp_path, "kept", SKD))
    lost = sampled_job(tmp_path, "lost", SKD)
    assert lost.teacher_setup is not None
    client = Forgetful(dict(lost.teacher_setup.client.backends))  # type: ignore[attr-defined]
    found = weights_after(replace(lost, teacher_setup=replace(lost.teacher_setup, client=client)))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Engines:
    """A client of nothing but judges."""

    def __init__(self, **models: Any) -> None:
        self.verifiers = {name: Verification(model, NUM_TOKENS) for name, model in models.items()}

    def call(self, teacher: str, request: DraftRequest) -> VerifiedDrafts:
        return self.verifiers[teacher].verify(request)


@pytest.mark.parametrize("owners", ["aaaa", "abab", "abba", "aaab"])
def test_any_share_of_the_prompts_is_judged_as_all_of_them(owners: str) -> None:
    """Prompts that end at different rounds: one judge may be done long before the other."""
    prompts = [[3, 4, 5], [6], [7, 8, 9, 10, 11], [2, 3]]
    limits = [20, 3, 16, 1]
    seeds_B = row_seeds(0, 7, np.arange(4))
    client: Any = Engines(a=llama(2), b=llama(3))
    settings = Speculative(drafts=3, top_k=2)

    def judge_of(teacher: str, mine_N: np.ndarray) -> TeacherVerifier:
        return TeacherVerifier(
            client,
            computed=lambda *_: None,
            teacher=teacher,
            writer=owners,
            step=0,
            prompts=tuple(np.array(prompts[place]) for place in mine_N),
            seeds_N=seeds_B[mine_N],
            sampling=settings,
            top_k=2,
            num_tokens=NUM_TOKENS,
        )

    def generated(verify: Any) -> list[list[int]]:
        student, decoding = llama(1), Decoding()
        found = write(student, NUM_TOKENS, prompts, limits, (0,), seeds_B, decoding, 3, verify)
        return found.texts

    shares = {
        name: np.flatnonzero([owner == name for owner in owners]) for name in sorted({*owners})
    }
    together = generated(
        verify_each([(mine_N, judge_of(n, mine_N)) for n, mine_N in shares.items()])
    )
    for name, mine_N in shares.items():
        alone = generated(judge_of(name, np.arange(4)))
        for place in mine_N:
            assert together[place] == alone[place]


def test_what_fails_at_one_judge_is_raised_as_itself() -> None:
    def fine(drafted: Drafted) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(len(drafted.rows_b), np.int64), np.full(len(drafted.rows_b), -1)

    def broken(drafted: Drafted) -> tuple[np.ndarray, np.ndarray]:
        raise ConfigError("no judge today")

    verify = verify_each([(np.array([0, 2]), fine), (np.array([1]), broken)])
    rows_b = np.arange(3)
    drafted = Drafted((), rows_b, rows_b, rows_b, rows_b[:, None])
    with pytest.raises(ConfigError, match="no judge today"):
        verify(drafted)


@pytest.mark.parametrize(("sampling", "what"), [(SKD, "verify the drafts"), (WRITES, "generate")])
def test_without_domains_that_choose_the_one_teacher_must_be_named(
    tmp_path: Path, sampling: dict[str, Any], what: str
) -> None:
    text = lines_of(experiment_of(tmp_path, sampling))
    assert text["teacher of the text"][0] == "by domain"
    assert "teacher of the text" not in lines_of(
        experiment_of(tmp_path, sampling | {"teacher": "films"})
    )
    message = (
        rf"sampling\.teacher is missing: name one of films, meals to {what}, or set "
        r"aggregation\.type \(mean\) to oracle"
    )
    with pytest.raises(ConfigError, match=message):
        check(parse(experiment_of(tmp_path, sampling, aggregation={"type": "mean"})))
