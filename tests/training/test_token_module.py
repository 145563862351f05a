"""The module of language models: packing changes nothing, nor do lengths at the edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import cross_entropy

from distill.config import Data
from distill.data.batches import Batches
from distill.data.blocks import Blocks, build_blocks
from distill.data.content import DocumentContent
from distill.data.corpus import build_corpus
from distill.models.load import load_tokenizer
from distill.records import ScheduleValues
from distill.training.fit import build_module
from distill.training.token_module import TokenModule
from tests.toys_language import NUM_TOKENS, llama, write_llama, write_tokenizer
from tests.training.test_language_fit import job_of


def whole_loss(root: Path, is_packing: bool, batch_size: int) -> tuple[float, float, torch.Tensor]:
    """Blocks, loss and gradient of one student over all train rows, under two teachers."""
    columns = {"domain": "domain", "split": "split"}
    data = {"path": str(root / "texts.parquet"), "columns": columns, "max_length": 24}
    data |= {"cache_dir": str(root / "data-cache"), "packing": is_packing}
    mixture = {"type": "mean", "mix": "probabilities"}
    changes = {"aggregation": mixture, "trainer": {"batch_size": batch_size}, "data": data}
    job = job_of(root, f"packing-{is_packing}", **changes)
    assert job.teacher_setup is not None
    module = build_module(job).train()
    assert isinstance(module, TokenModule)
    rows = job.data.open()
    batches = Batches(rows, rows.rows("train"), batch_size, seed=0, shuffle=False)
    total, count = torch.zeros(()), 0
    with job.teacher_setup.open(job.data, "test") as stream:
        module.take_heads(stream.heads(), "cpu")
        for step in stream.feed(batches, 0, batches.steps_per_epoch):
            for batch, answers in step.parts:
                total = (
                    total + module(batch, answers, ScheduleValues(2.0, 0.5)).loss * batch.num_valid
                )
                count += batch.num_valid
    loss = total / count
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
    return len(rows.rows("train")), float(loss.detach()), gradient


def test_packed_is_unpacked_in_value_and_gradient(tmp_path: Path) -> None:
    packed_rows, packed, packed_gradient = whole_loss(tmp_path, True, 4)
    plain_rows, plain, plain_gradient = whole_loss(tmp_path, False, 7)
    assert packed_rows < 0.6 * plain_rows, "blocks hold several sequences"
    assert packed == pytest.approx(plain, rel=1e-5)
    torch.testing.assert_close(packed_gradient, plain_gradient, rtol=1e-4, atol=1e-6)


def blocks_of(tmp_path: Path, rows: list[dict[str, Any]], max_length: int) -> Blocks:
    for split in ("validation", "test"):
        rows = [*rows, {**rows[0], "split": split}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    columns = {"prompt": "prompt", "completion": "completion", "split": "split"}
    data = Data(path=str(tmp_path / "rows.parquet"), columns=columns, cache_dir=str(tmp_path))
    corpus = build_corpus(data, content=DocumentContent)
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    return build_blocks(corpus, tokenizer, max_length, max_unlearnable=1)


def ce_of(rows: Blocks, split: str = "train") -> tuple[float, int]:
    """The module's cross-entropy over a split, and its positions."""
    module = TokenModule(llama(5), NUM_TOKENS).eval()
    batches = Batches(rows, rows.rows(split), 8, seed=0, shuffle=False)
    total, count = 0.0, 0
    for step in range(batches.steps_per_epoch):
        for batch in batches.at(step):
            mean = module(batch, None, ScheduleValues()).metrics["ce.loss"]
            total, count = total + float(mean.sum), count + int(mean.count)
    return total, count


def by_hand(sequences: list[tuple[list[int], int]]) -> float:
    """Σ CE of each sequence alone, of the tokens from the given place on."""
    model, total = llama(5).requires_grad_(False), 0.0
    for ids, first in sequences:
        logits_TV = model(input_ids=torch.tensor([ids])).logits[0]
        total += float(
            cross_entropy(logits_TV[first - 1 : -1], torch.tensor(ids[first:]), reduction="sum")
        )
    return total


def test_completions_at_the_edges_are_learnt_whole_and_alone(tmp_path: Path) -> None:
    """A completion of one word, one that fills the length, an empty one, one that is cut."""
    words = {"the": "a", "fill": "was is very quite it", "cut": "really " * 20, "none": ""}
    rows = [{"prompt": "the", "completion": text, "split": "train"} for text in words.values()]
    blocks = blocks_of(tmp_path, rows, max_length=7)
    ids = load_tokenizer(tmp_path / "tokenizer").get_vocab()
    the, eos = ids["the"], 0
    full = [the, *(ids[w] for w in words["fill"].split()), eos]
    assert len(full) == 7
    sequences = [([the, ids["a"], eos], 1), (full, 1), ([the] + [ids["really"]] * 6, 1)]
    total, count = ce_of(blocks)
    assert count == sum(len(s) - first for s, first in sequences)
    assert total == pytest.approx(by_hand(sequences), rel=1e-5)
    assert blocks.num_truncated == 1
    assert blocks.num_unlearnable == 1, "an empty completion is left out, and counted"


def test_a_teacher_that_is_the_student_costs_nothing_and_teaches_nothing(tmp_path: Path) -> None:
    folder = str(write_llama(tmp_path / "films", seed=1))
    alone = {"teachers": [{"name": "films", "path": folder}], "aggregation": {"type": "mean"}}
    job = job_of(tmp_path, student={"path": folder}, **alone)
    assert job.teacher_setup is not None
    module = build_module(job)
    assert isinstance(module, TokenModule)
    rows = job.data.open()
    batches = Batches(rows, rows.rows("train"), 4, seed=0)
    with job.teacher_setup.open(job.data, "test") as stream:
        module.take_heads(stream.heads(), "cpu")
        ((batch, answers),) = next(iter(stream.feed(batches, 0, 1))).parts
    loss = module(batch, answers, ScheduleValues(temperature=2.0, alpha=1.0)).loss
    loss.backward()
    assert abs(float(loss.detach())) < 1e-6
    assert max(float(p.grad.abs().max()) for p in module.parameters()) < 1e-6
