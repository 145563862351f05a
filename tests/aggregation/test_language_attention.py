"""Attention over language models: its loss, and that the good teacher wins.

Shape suffixes: N positions, K teachers, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from distill.aggregation import UniformMean
from distill.aggregation.mixture import mix
from distill.aggregation.saved import read_weights
from distill.config import parse
from distill.data.batches import Batches
from distill.driver.checks.check import check
from distill.objectives import ForwardKL
from distill.records import ScheduleValues
from distill.run_folder import RunFolder
from distill.tasks.chained import Chained, Decision, Link, value_of_teachers
from distill.tasks.outcome import evaluate
from distill.training.fit import build_module, fit, load_best
from distill.training.interrupt import StopOnSignal
from distill.training.job import Job
from distill.training.token_module import TokenModule, labels_at, sequences_at
from tests.aggregation.test_learned_router import compared, first_step, gradients
from tests.toys_language import (
    DOMAINS,
    NUM_TOKENS,
    language_experiment,
    llama,
    write_llama,
    write_tokenizer,
)
from tests.training.test_language_fit import job_of

TEACHERS = ("good", "uniform", "random")
PACE = {"epochs": 6, "batch_size": 4, "log_every": 5}


def attention(**more: Any) -> dict[str, Any]:
    return {"aggregation": {"type": "attention", "dropout": 0.0, **more}}


@pytest.mark.parametrize("loss_chunk_mb", [256, 0.003], ids=["rows", "columns"])
@pytest.mark.parametrize("per", ["token", "sample"])
def test_loss_and_every_gradient_are_those_of_the_definitions(
    root: Path, per: str, loss_chunk_mb: float
) -> None:
    """The student's terms with the weights as constants, and likelihood and entropy with the
    student as one; β is multiplied by α · T²."""
    trainer = {"batch_size": 4, "loss_chunk_mb": loss_chunk_mb}
    aggregation = attention(per=per, entropy_weight=0.3)
    job = job_of(root, f"loss-{per}-{loss_chunk_mb}", trainer=trainer, **aggregation)
    module = build_module(job).train()
    assert isinstance(module, TokenModule) and module.router is not None
    torch.manual_seed(3)
    for param in module.router.parameters():
        torch.nn.init.normal_(param, std=0.3)
    batch, answers = first_step(job, module)
    schedule_values = ScheduleValues(temperature=2.0, alpha=0.5)
    found = module(batch, answers, schedule_values).loss

    labels_N = labels_at(batch)
    with torch.no_grad():
        teachers = [AutoModelForCausalLM.from_pretrained(root / name) for name in DOMAINS]
        payloads = [t(**batch.inputs(), use_cache=False).logits[batch.targets_BT] for t in teachers]
    logits_KNV = torch.stack([logits_NV[:, :NUM_TOKENS] for logits_NV in payloads])
    hidden_NH, _ = module.positions(batch)
    routes = module.routes(batch, hidden_NH)
    assert routes is not None
    weights_KN = routes.log_weights_KN.exp()
    assert weights_KN.std(1).min() > 0.01, "positions differ in their weights"
    probs_KN = logits_KNV.softmax(-1)[:, torch.arange(len(labels_N)), labels_N]
    nll = -(weights_KN * probs_KN).sum(0).log().mean()
    entropy = torch.special.entr(weights_KN).sum(0).mean()
    target = mix(logits_KNV, weights_KN.detach(), schedule_values.temperature, "probabilities")
    head: Any = module.student.get_output_embeddings()
    logits_NV = hidden_NH @ head.weight.T
    soft = (
        ForwardKL()(logits_NV, target, schedule_values.temperature).mean()
        * schedule_values.temperature**2
    )
    hard = cross_entropy(logits_NV, labels_N)
    expected = 0.5 * soft + 0.5 * hard + nll - 0.5 * 4 * 0.3 * entropy
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    wanted = gradients(module, expected)
    for name, gradient in gradients(module, found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5)
        assert not name.startswith("router.") or wanted[name].norm() > 1e-4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that was trained on the texts, one that is uniform, and one with random weights."""
    root = tmp_path_factory.mktemp("language-attention")
    language_experiment(root)
    intervals = {"epochs": 6, "batch_size": 4, "eval_every": 99}
    tuned = replace(job_of(root, "tuning", trainer=intervals), teacher_setup=None)
    fit(tuned)
    load_best(tuned).student.save_pretrained(root / "good")
    write_tokenizer(root / "good")
    uniform: Any = llama(0)
    with torch.no_grad():
        uniform.lm_head.weight.mul_(0.05)  # exactly equal logits are refused as damaged
    uniform.save_pretrained(root / "uniform")
    write_tokenizer(root / "uniform")
    write_llama(root / "random", seed=5)
    return root


def under(root: Path) -> dict[str, Any]:
    teachers = [{"name": n, "path": str(root / n), "num_cpus": 0.1} for n in TEACHERS]
    kd = {"temperature": 2.0, "alpha": 0.9}
    aggregation = {"type": "attention", "per": "sample"}
    return {"teachers": teachers, "trainer": PACE, "kd": kd, "aggregation": aggregation}


def job_under(root: Path, folder: str, **changes: Any) -> Job:
    return job_of(root, folder, **{**under(root), **changes})


@pytest.fixture(scope="module")
def of_mean(root: Path) -> float:
    """Perplexity of the student under the mean of the three."""
    job = job_under(root, "mean", aggregation={"type": "mean", "mix": "probabilities"})
    fit(job)
    return compared(job, load_best(job)).student.total.perplexity


@pytest.mark.parametrize("per", ["token", "sample"])
def test_the_good_teacher_wins_and_the_student_gains(root: Path, of_mean: float, per: str) -> None:
    job = job_under(root, f"attention-{per}", aggregation={"type": "attention", "per": per})
    fit(job)
    found = compared(job, load_best(job))
    assert found.routing is not None
    metrics = found.routing.metrics()
    for domain in DOMAINS:
        assert metrics[f"router.load.good.{domain}"] >= 0.8
    assert found.student.total.perplexity <= of_mean


def test_weights_are_of_tokens_by_default(root: Path) -> None:
    """Within one sequence they differ; per sample they do not."""
    for per, differ in ((None, True), ("sample", False)):
        module = build_module(job_of(root, f"weights-{per}", **attention(per=per)))
        assert isinstance(module, TokenModule) and module.router is not None
        for param in module.router.parameters():
            torch.nn.init.normal_(param)
        hidden_NH = torch.randn(5, module.student.config.hidden_size)
        log_weights_KN = module.aggregation.log_weights(  # type: ignore[union-attr]
            module.router, hidden_NH, torch.tensor([1, 1, 1, 2, 2])
        )
        assert (log_weights_KN[0, :3].std() > 1e-3) == differ
        assert not torch.allclose(log_weights_KN[:, 0], log_weights_KN[:, 3], atol=1e-3)


def test_a_run_reports_and_exports_its_weights(root: Path) -> None:
    """As of classifiers (test_attention_runs.py): by domain, and readable again."""
    job = replace(job_under(root, "reported"), num_steps=8)
    fit(job)
    plan = check(parse(language_experiment(root, output=str(root / "new"), **under(root))))
    run, interrupt = RunFolder(root / "reported"), StopOnSignal(lambda: None)
    outcome = evaluate(plan, run, Chained(job), [], None, interrupt, lambda message: None)
    found = compared(job, load_best(job))
    assert found.routing is not None
    weights = found.routing.metrics()
    assert {f"router.load.good.{domain}" for domain in DOMAINS} < weights.keys()
    assert {n: outcome.metrics[n] for n in weights} == pytest.approx(weights)
    assert "| films |" in (outcome.report / "weights.md").read_text()
    assert (outcome.report / "weights.png").stat().st_size > 10_000

    saved = read_weights(outcome.report / "aggregation")
    assert saved.teachers == TEACHERS and saved.aggregation.type == "attention"
    module = load_best(job)
    batch, _ = first_step(job, module)
    with torch.no_grad():
        hidden_NH, _ = module.positions(batch)
        sequences_N = sequences_at(batch)
        means_SH = [hidden_NH[sequences_N == s].mean(0) for s in sequences_N.unique()]
        routes = module.routes(batch, hidden_NH)
    firsts = [int((sequences_N == s).nonzero()[0]) for s in sequences_N.unique()]
    assert routes is not None
    torch.testing.assert_close(
        saved.weights(torch.stack(means_SH)), routes.log_weights_KN.exp()[:, firsts]
    )


def test_a_chain_reports_the_weights_of_its_first_link(root: Path) -> None:
    """Those of the teachers; its student has one teacher, and no weights."""
    job = replace(job_under(root, "link"), name="link 1", num_steps=2)
    assert job.teacher_setup is not None
    one = replace(
        job.teacher_setup, teachers=job.teacher_setup.teachers[:1], aggregation=UniformMean()
    )
    student = replace(job_under(root, "last"), num_steps=2, teacher_setup=one)
    fit(job)
    fit(student)
    link = Link(job, Decision("link 1", 1.0, None, True, "kept"))
    plan = check(parse(language_experiment(root, output=str(root / "chain"), **under(root))))
    run, interrupt = RunFolder(root / "chain"), StopOnSignal(lambda: None)
    chained = Chained(student, (link,))
    outcome = evaluate(plan, run, chained, [], None, interrupt, lambda message: None)
    assert {f"router.load.{name}" for name in TEACHERS} < outcome.metrics.keys()
    saved = read_weights(outcome.report / "aggregation")
    assert saved.teachers == TEACHERS and saved.aggregation.type == "attention"


def test_the_teachers_of_a_first_link_are_measured_on_validation(root: Path) -> None:
    """Their perplexity, by which the link is kept or dropped; never on test rows."""
    job = replace(job_under(root, "measured"), num_steps=1)
    assert job.teacher_setup is not None
    one = replace(
        job.teacher_setup, teachers=job.teacher_setup.teachers[:1], aggregation=UniformMean()
    )
    job = replace(job, teacher_setup=one)
    fit(job)
    plan = check(parse(language_experiment(root, output=str(root / "measure"), **under(root))))
    found = value_of_teachers(plan, job, lambda: False)
    good, blocks = AutoModelForCausalLM.from_pretrained(root / "good"), plan.rows
    assert blocks is not None
    perplexities = []
    for split in ("validation", "test"):
        batches = Batches(blocks, blocks.rows(split), len(blocks.rows(split)), 0, shuffle=False)
        (batch,) = batches.at(0)
        with torch.no_grad():
            logits_BTV = good(**batch.inputs(), use_cache=False).logits
        logits_NV = logits_BTV[batch.targets_BT][:, :NUM_TOKENS]
        perplexities.append(float(cross_entropy(logits_NV, labels_at(batch)).exp()))
    assert found == pytest.approx(perplexities[0], rel=1e-4)
    assert perplexities[0] != pytest.approx(perplexities[1], rel=1e-3)
