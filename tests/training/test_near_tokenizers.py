"""A student and a teacher whose tokenizers differ in added tokens alone, through every wire.

Shape suffixes: B rows, T tokens, N positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from distill.config import parse
from distill.config.moe import OwnRouting
from distill.config.sampling import Decoding
from distill.data.batches import Batches
from distill.driver.checks.check import check
from distill.errors import ConfigError, TeacherAnswerError
from distill.models.vocabulary import SharedTokens, shared_tokens
from distill.objectives.log_softmax import LEFT_OUT
from distill.records import ScheduleValues
from distill.sampling.generation import write
from distill.teachers.backends import open_backends
from distill.teachers.backends.frozen_language_model import SAMPLE, ForwardRows, FrozenLanguageModel
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.requests import TeacherRequest
from distill.training.fit import build_module, fit, load_best
from distill.training.job import Job
from distill.training.token_module import TokenModule
from distill.wires import DenseWire
from tests.sampling.test_fits import SKD, logged, sampled_job
from tests.toys_language import NUM_TOKENS, language_experiment, llama, write_tokenizer
from tests.toys_teachers import backend_of
from tests.training.test_language_fit import job_of

N = NUM_TOKENS
WIRES: list[dict[str, Any]] = [
    {"type": "dense", "dtype": "float32"},
    {"type": "hidden", "dtype": "float32"},
    {"type": "topk", "k": 99, "temperatures": [1.0]},
]


def model_of(seed: int) -> Any:
    """With room for four tokens more; it hardly ever means the first or the third of them."""
    model: Any = llama(seed, N + 4, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight *= 4
        model.lm_head.weight[[N, N + 2]] /= 40
    return model


def write_model(folder: Path, seed: int, *added: str) -> Path:
    write_tokenizer(folder)
    model_of(seed).save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(added))
    tokenizer.save_pretrained(folder)
    return folder


def experiment_of(root: Path, **changes: Any) -> dict[str, Any]:
    """A student with <a> and <b>, a teacher with <c>, <b> and <d>: the first id of three is left
    out, the second shared, the third outside."""
    if not (root / "s").exists():
        write_model(root / "s", 5, "<a>", "<b>")
        write_model(root / "t", 6, "<c>", "<b>", "<d>")
    changes = {
        "teachers": [{"name": "t", "path": str(root / "t"), "num_cpus": 0.1}],
        "student": {"path": str(root / "s")},
        "aggregation": {"type": "mean"},
        "kd": {"temperature": 1.0, "alpha": 1.0},
        **changes,
    }
    return language_experiment(root, **changes)


def sharing(job: Job, student: Path) -> Job:
    """As the pipeline serves it."""
    assert job.teacher_setup is not None
    shared = shared_tokens(student, {t.name: t.folder for t in job.teacher_setup.teachers})
    specs = tuple(
        replace(t, shared=shared[t.name], width=shared[t.name].width)
        for t in job.teacher_setup.teachers
    )
    teacher_setup = replace(
        job.teacher_setup, teachers=specs, client=LocalTeachers(open_backends(specs))
    )
    return replace(job, teacher_setup=teacher_setup)


def job_in(root: Path, wire: Any, folder: str = "run", **changes: Any) -> Job:
    raw = experiment_of(root, **changes)
    changes = {key: raw[key] for key in ("teachers", "student", "aggregation", "kd")} | changes
    return sharing(job_of(root, folder, wire, **changes), root / "s")


def test_what_the_pipeline_serves(tmp_path: Path) -> None:
    plan = check(parse(experiment_of(tmp_path)))
    assert plan.task.rows_for_teacher(plan, str(tmp_path / "t")) is plan.rows, (
        "the student's own blocks"
    )
    shared = shared_tokens(plan.tokenizer, {"t": tmp_path / "t"})
    assert shared == {"t": SharedTokens(N + 2, (N,), N + 3)}
    older = TeacherKey("w", "d", "t", "dense/float32", 24)
    assert older.fingerprint != replace(older, shared=shared["t"].name).fingerprint


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire["type"])
@pytest.mark.parametrize("chunk_mb", [256.0, 1e-4], ids=["whole", "columns"])
def test_the_loss_is_the_divergence_over_shared_columns(
    tmp_path: Path, wire: dict[str, Any], chunk_mb: float
) -> None:
    job = job_in(tmp_path, wire)
    job = replace(job, trainer=job.trainer.model_copy(update={"loss_chunk_mb": chunk_mb}))
    assert job.teacher_setup is not None
    module = build_module(job).train()
    assert isinstance(module, TokenModule)
    rows: Any = job.data.open()
    batches = Batches(rows, rows.rows("train"), 2, seed=0)
    with job.teacher_setup.open(job.data, "test") as stream:
        module.take_heads(stream.heads(), "cpu")
        ((batch, answers),) = next(stream.feed(batches, 0, 1)).parts
        text = stream.timings()
    loss = module(batch, answers, ScheduleValues(1.0, 1.0)).loss
    loss.backward()

    student, teacher = model_of(5), model_of(6)
    inputs = batch.inputs()
    student_NV, teacher_NV = (
        model(**inputs, use_cache=False).logits[batch.targets_BT][:, : N + 3]
        for model in (student, teacher)
    )
    columns = [*range(N), N + 1]
    expected = kl_div(
        student_NV[:, columns].log_softmax(1),
        teacher_NV[:, columns].log_softmax(1).detach(),
        reduction="batchmean",
        log_target=True,
    )
    expected.backward()
    tolerance = 2e-3 if wire["type"] == "topk" else 1e-5  # float16 of the logits kept
    torch.testing.assert_close(loss, expected, atol=tolerance, rtol=tolerance)
    ours, theirs = (m.get_parameter("lm_head.weight").grad for m in (module.student, student))
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    # Of a forward that is as short as the sample all positions are looked at.
    outside = teacher_NV.softmax(1)[:, [N, N + 2]].sum(1).mean()
    assert len(teacher_NV) <= SAMPLE
    assert text["teacher.t.mass_outside"] == pytest.approx(float(outside.detach()), rel=1e-4)
    assert batch.input_ids_BT is not None
    labels = batch.input_ids_BT.roll(-1, 1)[batch.targets_BT]
    perplexity = cross_entropy(teacher_NV, labels).exp()
    assert text["teacher.t.perplexity"] == pytest.approx(float(perplexity.detach()), rel=1e-4)


def test_a_fit_learns_and_its_student_writes_shared_tokens_alone(tmp_path: Path) -> None:
    job = job_in(tmp_path, WIRES[1], trainer={"epochs": 3, "batch_size": 8})
    history = [row["eval.perplexity"] for row in fit(job).history]
    assert history[-1] != history[0]
    module: Any = load_best(job)
    bias = torch.zeros(N + 4)
    bias[[N, N + 2]] = 50.0  # would be all that it writes
    module.student.get_output_embeddings().bias = torch.nn.Parameter(bias)
    found = write(
        module.student, module.num_tokens, [[2, 3]] * 8, [12] * 8, (), np.arange(8), Decoding()
    )
    assert not {N, N + 2, N + 3} & {token for text in found.texts for token in text}


def test_who_judges_puts_shared_tokens_in_place_of_drafts(tmp_path: Path) -> None:
    experiment_of(tmp_path)
    job = sampled_job(
        tmp_path,
        "skd",
        SKD | {"teacher": "t"},
        wire=WIRES[0],
        teachers=[{"name": "t", "path": str(tmp_path / "t"), "num_cpus": 0.1}],
        student={"path": str(tmp_path / "s")},
        aggregation={"type": "mean"},
    )
    job = sharing(job, tmp_path / "s")
    fit(job)
    assert all(np.isfinite(row["kd.loss"]) for row in logged(job))
    assert any(row["teacher.t.mass_outside"] > 0 for row in logged(job))


def test_rows_that_hold_a_token_of_two_meanings_are_refused(tmp_path: Path) -> None:
    raw = experiment_of(tmp_path)
    table = pq.read_table(tmp_path / "texts.parquet").to_pylist()
    table[0]["text"] += " <b>"
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "texts.parquet")
    check(parse(raw))
    table[-1]["text"] += " <a>"
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "texts.parquet")
    message = (
        rf"teachers.t: the rows contain '<a>', id {N} of the student's .* '<c>' to the teacher"
    )
    with pytest.raises(ConfigError, match=message):
        check(parse(raw))


def test_mass_outside_the_shared_tokens_stops_the_run(tmp_path: Path) -> None:
    job = job_in(tmp_path, WIRES[0])
    assert job.teacher_setup is not None
    (spec,) = job.teacher_setup.teachers
    engine = backend_of(
        llama(6, N + 4),  # of random embeddings: about a share of 2 in 27
        num_labels=spec.width,
        wire=spec.serving.wire,
        is_language_model=True,
        shared=spec.shared,
    )
    teacher_setup = replace(job.teacher_setup, client=LocalTeachers({"t": engine}))
    rows: Any = job.data.open()
    message = r"teacher 't' gives .*% of its probability .* more than 1%: use .*type: uld"
    with (
        teacher_setup.open(job.data, "much") as stream,
        pytest.raises(TeacherAnswerError, match=message),
    ):
        stream.fill(rows.rows("train"), batch_size=2)


def test_a_student_may_pad_with_a_token_that_its_teacher_has_no_embedding_of(
    tmp_path: Path,
) -> None:
    raw = experiment_of(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "s")
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tmp_path / "s")
    llama(6, N).save_pretrained(tmp_path / "t")
    write_tokenizer(tmp_path / "t")
    check(parse(raw))
    job = job_in(tmp_path, WIRES[0])
    assert job.teacher_setup is not None
    assert job.teacher_setup.shared == SharedTokens(N, (), N)
    rows: Any = job.data.open()
    assert rows.pad_id == N + 2
    with job.teacher_setup.open(job.data, "test") as stream:
        stream.fill(rows.rows("train"))


def test_mass_outside_is_measured_where_logits_are_capped(tmp_path: Path) -> None:
    """As Gemma 2 caps them: its logits of tokens that are left out are not what its head gives."""
    spec = job_in(tmp_path, WIRES[0]).teacher_setup.teachers[0]  # type: ignore[union-attr]
    assert spec.shared is not None and N in spec.shared.left_out
    config = Gemma2Config(
        vocab_size=N + 4,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=3.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = Gemma2ForCausalLM(config).eval()
    ids_BT = torch.arange(1, 9)[None]
    own_PV = model(input_ids=ids_BT).logits[0, :-1, : spec.shared.num_own].detach()
    answers = FrozenLanguageModel(
        model, spec.width, "cpu", "float32", False, OwnRouting(), spec.shared
    )
    inputs = {"input_ids": ids_BT, "position_ids": torch.arange(8)[None]}
    targets_BT = torch.arange(8)[None] < 7
    rows_B = np.array([0])
    request = TeacherRequest("r", rows_B, ids_BT.numpy(), targets_BT=targets_BT.numpy())
    block = ForwardRows(inputs, targets_BT, rows_B)
    ((logits_MPV, _),) = answers.payloads(block, request, DenseWire(dtype="float32"), OwnRouting())
    assert (logits_MPV[..., list(spec.shared.left_out)] == LEFT_OUT).all()
    outside = float(own_PV.softmax(-1)[:, list(spec.shared.outside)].sum(-1).mean())
    assert answers.found.stats is not None
    assert answers.found.stats.mass_outside == pytest.approx(outside, rel=1e-3) and outside > 0.05
    # What judges and writes still leaves them out.
    assert (model(input_ids=ids_BT).logits[..., spec.shared.left_out[0]] == -3.0).all()
