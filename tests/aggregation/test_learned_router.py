"""A learned router of language-model teachers: its loss, what it trains, and that it learns.

Shape suffixes: B rows, T tokens, N positions, K teachers, V vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from distill.aggregation.mixture import mix
from distill.data.batches import Batches
from distill.objectives import ForwardKL
from distill.records import Batch, ScheduleValues, TokenAnswers
from distill.tasks.language_model.scores import Compared, ExactTeachers, compare
from distill.training.fit import build_module, fit, load_best
from distill.training.job import Job
from distill.training.token_module import TokenModule, labels_at, sequences_at
from tests.toys_language import DOMAINS, NUM_TOKENS, language_experiment, write_tokenizer
from tests.training.test_language_fit import job_of

PACE = {"epochs": 6, "batch_size": 4, "log_every": 5}


def learned(per: str, **more: Any) -> dict[str, Any]:
    return {"aggregation": {"type": "learned", "per": per, **more}}


def drawn_module(job: Job) -> TokenModule:
    """The student with a router that trusts one teacher here and another there."""
    module = build_module(job).train()
    assert isinstance(module, TokenModule) and module.router is not None
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for param in module.router.parameters():
            torch.nn.init.normal_(param)
    return module


def first_step(job: Job, module: TokenModule) -> tuple[Batch, TokenAnswers]:
    assert job.teacher_setup is not None
    rows = job.data.open()
    batches = Batches(rows, rows.rows("train"), 4, seed=0)
    with job.teacher_setup.open(job.data, "test") as stream:
        module.take_heads(stream.heads(), "cpu")
        ((batch, answers),) = next(stream.feed(batches, 0, 1)).parts
    assert isinstance(answers, TokenAnswers)
    return batch, answers


def dense(
    root: Path, module: TokenModule, batch: Batch, per: str, schedule_values: ScheduleValues
) -> Tensor:
    """All terms from whole logits, by their definitions."""
    assert batch.targets_BT is not None and module.router is not None
    labels_N = labels_at(batch)
    with torch.no_grad():
        teachers = [AutoModelForCausalLM.from_pretrained(root / name) for name in DOMAINS]
        payloads = [t(**batch.inputs(), use_cache=False).logits[batch.targets_BT] for t in teachers]
    logits_KNV = torch.stack([logits_NV[:, :NUM_TOKENS] for logits_NV in payloads])
    hidden_NH, _ = module.positions(batch)
    seen_NH = hidden_NH.detach()
    if per == "sample":
        sequences_N = sequences_at(batch)
        seen_NH = torch.stack([seen_NH[sequences_N == s].mean(0) for s in sequences_N])
    normed_NH = seen_NH - seen_NH.mean(1, keepdim=True)
    normed_NH = normed_NH / (normed_NH.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    score: Any = module.router[1]  # pyright: ignore[reportIndexIssue]
    weights_NK = (normed_NH @ score.weight.T + score.bias).softmax(1)
    probs_KN = logits_KNV.softmax(-1)[:, torch.arange(len(labels_N)), labels_N]
    nll = -(weights_NK.T * probs_KN).sum(0).log().mean()
    target = mix(logits_KNV, weights_NK.T.detach(), schedule_values.temperature, "probabilities")
    logits_NV = hidden_NH @ module.student.get_output_embeddings().weight.T
    soft = (
        ForwardKL()(logits_NV, target, schedule_values.temperature).mean()
        * schedule_values.temperature**2
    )
    hard = cross_entropy(logits_NV, labels_N)
    return schedule_values.alpha * soft + (1 - schedule_values.alpha) * hard + nll


def gradients(module: TokenModule, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: param.grad.clone() for name, param in module.named_parameters()}


@pytest.mark.parametrize("loss_chunk_mb", [256, 0.003], ids=["rows", "columns"])
@pytest.mark.parametrize("per", ["token", "sample"])
def test_loss_and_every_gradient_are_those_of_the_definitions(
    tmp_path: Path, per: str, loss_chunk_mb: float
) -> None:
    """So the distillation does not pull the router, nor the router's loss the student."""
    trainer = {"batch_size": 4, "loss_chunk_mb": loss_chunk_mb}
    job = job_of(tmp_path, trainer=trainer, **learned(per))
    module = drawn_module(job)
    batch, answers = first_step(job, module)
    assert len(sequences_at(batch).unique()) > len(batch.rows_B), "sequences are packed"
    schedule_values = ScheduleValues(temperature=2.0, alpha=0.5)
    found = module(batch, answers, schedule_values).loss
    expected = dense(tmp_path, module, batch, per, schedule_values)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    wanted = gradients(module, expected)
    for name, gradient in gradients(module, found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)
    assert all(wanted[name].norm() > 1e-4 for name in wanted if name.startswith("router"))


def test_a_samples_weights_are_its_own_whatever_it_is_packed_with(tmp_path: Path) -> None:
    job = job_of(tmp_path, **learned("sample"))
    module = drawn_module(job).eval()
    batch, _ = first_step(job, module)
    assert batch.input_ids_BT is not None and batch.targets_BT is not None
    routes = module.routes(batch, module.positions(batch)[0])
    assert routes is not None
    sequences_N = sequences_at(batch)
    sizes = []
    for sequence in sequences_N.unique():
        is_own_N = sequences_N == sequence
        places = batch.targets_BT.nonzero()[is_own_N]
        row, start, stop = int(places[0, 0]), int(places[0, 1]), int(places[-1, 1]) + 2
        ids_BT = batch.input_ids_BT[row : row + 1, start:stop]
        targets_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        targets_BT[:, -1] = False
        on_BT = torch.arange(stop - start)[None]
        alone = replace(
            batch,
            input_ids_BT=ids_BT,
            position_ids_BT=on_BT,
            targets_BT=targets_BT,
            domains_B=batch.domains_B[row : row + 1],
        )
        own = module.routes(alone, module.positions(alone)[0])
        assert own is not None
        torch.testing.assert_close(
            routes.log_weights_KN[:, is_own_N], own.log_weights_KN, rtol=1e-4, atol=1e-5
        )
        sizes.append(routes.log_weights_KN[0, is_own_N][0].exp())
    assert torch.stack(sizes).std() > 0.01, "samples differ in their weights"


def write_teachers(root: Path) -> None:
    """Each has learnt one domain's texts and not the other's."""
    intervals = {"epochs": 8, "batch_size": 4, "eval_every": 99}
    job = replace(job_of(root, "tuning", trainer=intervals), teacher_setup=None)
    blocks = job.data.open()
    rows = np.asarray(blocks.rows("train"))
    for d, domain in enumerate(DOMAINS):
        own = rows[blocks.domains_of(rows) == blocks.domain_names.index(domain)]
        tuned = replace(job, folder=str(root / "fits" / domain), seed=d, train_rows=own)
        fit(tuned)
        load_best(tuned).student.save_pretrained(root / "tuned" / domain)
        write_tokenizer(root / "tuned" / domain)


def tuned_job(root: Path, folder: str, **changes: Any) -> Job:
    teachers = [{"name": d, "path": str(root / "tuned" / d), "num_cpus": 0.1} for d in DOMAINS]
    return job_of(root, folder, teachers=teachers, **changes)


def compared(job: Job, module: TokenModule | None) -> Compared:
    assert job.teacher_setup is not None
    teachers = ExactTeachers.of(job.teacher_setup)
    with teachers.open(job.data) as stream:
        blocks, aggregation = job.data.open(), job.teacher_setup.aggregation
        return compare(module, blocks, teachers, stream, aggregation, lambda: False, 64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("router")
    language_experiment(folder)
    write_teachers(folder)
    return folder


@pytest.mark.parametrize("per", ["token", "sample"])
def test_it_learns_which_teacher_knows_a_text(root: Path, per: str) -> None:
    job = tuned_job(root, f"learns-{per}", trainer=PACE, **learned(per))
    start = compared(job, build_module(job).eval())
    assert start.routing is not None
    assert start.routing.metrics()["router.load.films.meals"] == pytest.approx(0.5)
    fit(job)
    found = compared(job, load_best(job))
    assert found.routing is not None
    metrics = found.routing.metrics()
    for domain in DOMAINS:
        assert metrics[f"router.load.{domain}.{domain}"] > (0.75 if per == "sample" else 0.5)
    alone = [found.teachers[domain].total.perplexity for domain in DOMAINS]
    assert found.aggregate.total.perplexity < start.aggregate.total.perplexity < min(alone)
    text = [json.loads(line)["metrics"] for line in (Path(job.folder) / "metrics.jsonl").open()]
    losses = [metrics["router.loss"] for metrics in text if "router.loss" in metrics]
    assert losses[-1] < losses[0] - 0.05
    assert all(metrics["teacher.films.divergence"] > 0 for metrics in text if "kd.loss" in metrics)


def test_micro_batches_change_nothing_of_student_and_router(root: Path) -> None:
    intervals = {"epochs": 1, "batch_size": 8}
    whole = tuned_job(root, "whole", trainer=intervals, **learned("sample"))
    parts = tuned_job(
        root, "parts", trainer=intervals | {"micro_batch_size": 4}, **learned("sample")
    )
    fit(whole)
    fit(parts)
    other = load_best(parts).state_dict()
    for name, tensor in load_best(whole).state_dict().items():
        torch.testing.assert_close(other[name], tensor, atol=1e-4, rtol=1e-3)


def test_without_a_router_there_is_no_aggregate(root: Path) -> None:
    """Of the teachers alone, and beside a student that has none: left out, not made up."""
    job = tuned_job(root, "nobody", **learned("token"))
    plain = build_module(replace(job, teacher_setup=None)).eval()
    for found in (compared(job, None), compared(job, plain)):
        assert not found.aggregate.by_domain and found.routing is None
        assert found.teachers["films"].total.num_labelled > 0
    assert found.student.total.agreement is None
