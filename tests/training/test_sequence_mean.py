"""``kd.normalise: sequences``: (1/S) Σ_s (1/T_s) Σ_t of the loss at token t of sequence s.

Shape suffixes: B rows, T tokens, N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from distill.aggregation import UniformMean
from distill.config import Serving, parse
from distill.data.batches import Batches
from distill.errors import ConfigError
from distill.objectives import ForwardKL
from distill.records import Batch, ScheduleValues, TokenAnswers
from distill.run_folder import NEWER
from distill.sampling.rows import SampledRow, padded
from distill.teachers.served import ServedTeacher
from distill.training.fit import build_module
from distill.training.token_module import TokenModule
from distill.wires import DenseWire
from tests.driver.checks.test_check_sampling import experiment_of, lines_of
from tests.sampling.test_fits import sampled_job, steps_of
from tests.toys_language import NUM_TOKENS, language_experiment, llama

ROWS = [
    SampledRow([3, 4], [5]),
    SampledRow([6], [7, 8, 9, 10, 11, 3, 2, 5, 0]),
    SampledRow([2, 3, 4], [6, 7, 0]),
    SampledRow([9], [8, 1, 4, 4, 0]),
]
WIRE = DenseWire(dtype="float32")
TEMPERATURE, ALPHA = 2.0, 0.7


def batch_of(rows: Sequence[SampledRow]) -> Batch:
    """A micro-batch of the global batch ROWS."""
    block = padded(rows, pad_id=0)
    return Batch(
        rows_B=np.arange(len(rows)),
        labels_B=torch.full((len(rows),), -100),
        domains_B=torch.full((len(rows),), -1),
        valid_B=torch.ones(len(rows), dtype=torch.bool),
        num_valid=sum(len(row.text) for row in ROWS),
        num_labelled=0,
        num_sequences=len(ROWS),
        input_ids_BT=torch.from_numpy(block.input_ids_BT),
        position_ids_BT=torch.from_numpy(block.position_ids_BT),
        targets_BT=torch.from_numpy(block.targets_BT),
    )


def logits_of(model: Any, row: SampledRow) -> Tensor:
    """[T, V]: at the positions of one row, without any padding."""
    ids = torch.tensor([[*row.prompt, *row.text]])
    return model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1, :NUM_TOKENS]


def losses_of(student: Any, teacher: Any | None, row: SampledRow) -> Tensor:
    """[T]: α T² KL(p_T ‖ p_S) + (1 − α) CE of each token, or CE alone."""
    logits_TV = logits_of(student, row)
    ce_T = cross_entropy(logits_TV, torch.tensor(row.text), reduction="none")
    if teacher is None:
        return ce_T
    logp_S_TV = log_softmax(logits_TV / TEMPERATURE, 1)
    logp_T_TV = log_softmax(logits_of(teacher, row).detach() / TEMPERATURE, 1)
    kl_T = (logp_T_TV.exp() * (logp_T_TV - logp_S_TV)).sum(1)
    return ALPHA * TEMPERATURE**2 * kl_T + (1 - ALPHA) * ce_T


def found(
    normalise: Literal["tokens", "sequences"],
    has_teacher: bool = True,
    sizes: tuple[int, ...] = (4,),
    loss_chunk_mb: float = 256.0,
    mix: Literal["logits", "divergences"] = "logits",
) -> tuple[float, Tensor, float]:
    """The module's loss over micro-batches of these sizes, its gradient, and the mean kd.loss."""
    teacher, student = llama(2), llama(1)
    served = ServedTeacher("t", "", Serving(wire=WIRE), NUM_TOKENS)
    module = TokenModule(
        student,
        NUM_TOKENS,
        ForwardKL(),
        UniformMean(mix=mix),
        [served] if has_teacher else [],
        loss_chunk_mb,
        normalise=normalise,
    )
    total, kd, count, start = torch.zeros(()), 0.0, 0.0, 0
    for size in sizes:
        rows = ROWS[start : start + size]
        start += size
        answers = None
        if has_teacher:
            said_NV = torch.cat([logits_of(teacher, row) for row in rows]).detach()
            payload_NX = WIRE.encode(said_NV, np.arange(len(said_NV)))
            answers = TokenAnswers((payload_NX,), torch.ones(1, len(said_NV), dtype=torch.bool))
        output = module(batch_of(rows), answers, ScheduleValues(TEMPERATURE, ALPHA))
        total = total + output.loss
        if has_teacher:
            kd += float(output.metrics["kd.loss"].sum)
            count += float(output.metrics["kd.loss"].count)
    total.backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    return float(total.detach()), gradient, kd / max(1.0, count)


@pytest.mark.parametrize("has_teacher", [True, False])
def test_every_sequence_weighs_the_same(has_teacher: bool) -> None:
    student = llama(1)
    teacher = llama(2) if has_teacher else None
    losses = [losses_of(student, teacher, row) for row in ROWS]
    by_token = torch.cat(losses).mean()
    by_sequence = torch.stack([loss_T.mean() for loss_T in losses]).mean()
    assert abs(float((by_token - by_sequence).detach())) > 0.005, "the two means differ"
    assert found("tokens", has_teacher)[0] == pytest.approx(by_token.item(), rel=1e-5)
    loss, gradient, _ = found("sequences", has_teacher)
    assert loss == pytest.approx(by_sequence.item(), rel=1e-5)
    by_sequence.backward()
    expected = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


# The divergence from each teacher is computed with the vocabulary whole, 2 or 7 positions at once,
# which cuts sequences anywhere; that from the mixture of logits with the vocabulary in parts.
@pytest.mark.parametrize("sizes", [(4,), (1, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize(
    ("mix", "num_positions"), [("divergences", 2), ("divergences", 7), ("logits", 2)]
)
def test_micro_batches_and_chunks_change_nothing(
    sizes: tuple[int, ...], mix: Literal["logits", "divergences"], num_positions: int
) -> None:
    whole = found("sequences")
    budget_mb = num_positions * 2 * NUM_TOKENS * 4 / 1e6
    parts = found("sequences", sizes=sizes, loss_chunk_mb=budget_mb, mix=mix)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-4, atol=1e-6)
    assert parts[2] == pytest.approx(found("tokens")[2], rel=1e-5), "metrics are means over tokens"


def test_sequences_of_the_global_batch_are_counted(tmp_path: Path) -> None:
    job = sampled_job(tmp_path, "run", {"type": "on_policy"})
    rows = job.data.open()
    for world_size, micro in ((1, None), (2, 3)):
        parts = [
            part
            for rank in range(world_size)
            for part in Batches(rows, job.train_rows[:11], 7, 0, rank, world_size, micro).at(0)
        ]
        assert {part.num_sequences for part in parts} == {7}
        assert sum(int(part.valid_B.sum()) for part in parts) == 7


def test_a_fit_on_written_text_takes_the_mean_of_each_text(tmp_path: Path) -> None:
    job = sampled_job(tmp_path, "run", {"type": "on_policy"}, wire={"type": "dense"})
    assert job.kd is not None
    by_sequence = replace(job, kd=job.kd.model_copy(update={"normalise": "sequences"}))
    ((batch, answers), *_) = steps_of(by_sequence, num_steps=1)
    assert batch.num_sequences == len(batch.rows_B) == 8
    losses = {}
    for one in (job, by_sequence):
        module = build_module(one).eval()
        losses[one is job] = float(module(batch, answers, ScheduleValues(1.0, 1.0)).loss)
        assert len(set(batch.targets_BT.sum(1).tolist())) > 1
    ends_B = np.cumsum(batch.targets_BT.sum(1).numpy())
    module = build_module(job).eval()
    means = []
    for b, end in enumerate(ends_B):
        length = int(batch.targets_BT[b].sum())
        targets_BT = torch.zeros_like(batch.targets_BT)
        targets_BT[b] = batch.targets_BT[b]
        payloads = tuple(
            payload_NX[int(asked_N[: end - length].sum()) : int(asked_N[:end].sum())]
            for payload_NX, asked_N in zip(answers.payloads, answers.queried_KP, strict=True)
        )
        alone = TokenAnswers(payloads, answers.queried_KP[:, end - length : end])
        of_row = replace(batch, targets_BT=targets_BT, num_valid=length)
        means.append(float(module(of_row, alone, ScheduleValues(1.0, 1.0)).loss))
    assert losses[False] == pytest.approx(np.mean(means), rel=1e-5)
    assert losses[True] != pytest.approx(losses[False], rel=1e-3)


def test_it_is_refused_where_rows_are_no_sequences(tmp_path: Path) -> None:
    raw = language_experiment(tmp_path, kd={"normalise": "sequences"})
    with pytest.raises(ConfigError, match=r"kd\.normalise sequences .* set data\.packing: false"):
        parse(raw)
    raw["data"] |= {"packing": False}
    assert parse(raw).kd.normalise == "sequences"
    raw["task"] = "classification"
    with pytest.raises(ConfigError, match=r"kd\.normalise sequences .* remove kd\.normalise"):
        parse(raw)


def test_the_plan_names_it(tmp_path: Path) -> None:
    kd = {"temperature": 1.0, "alpha": 1.0}
    raw = experiment_of(tmp_path, {"type": "on_policy"}, kd=kd | {"normalise": "sequences"})
    assert lines_of(raw)["objective"][1] == "alpha 1, temperature 1, normalised by sequence"
    assert lines_of(raw | {"kd": kd})["objective"][1] == "alpha 1, temperature 1"


def test_older_runs_took_the_mean_over_tokens(tmp_path: Path) -> None:
    assert parse(language_experiment(tmp_path)).kd.normalise == NEWER["kd.normalise"] == "tokens"
