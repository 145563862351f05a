"""Hybrid models (Qwen3.5) unpacked: a row padded on the right is the row alone.

Batches of language models come without a mask; what is behind a row's end could only reach it
through a state that runs backwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3_5TextConfig

from distill.data.batches import Batches
from distill.records import ScheduleValues
from distill.training.fit import build_module
from distill.training.token_module import TokenModule
from tests.toys_language import NUM_TOKENS, write_texts, write_tokenizer
from tests.training.test_language_fit import job_of


def write_hybrid(folder: Path, seed: int) -> Path:
    config = Qwen3_5TextConfig(
        vocab_size=NUM_TOKENS,
        hidden_size=32,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=48,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.2,
        eos_token_id=0,
        pad_token_id=None,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return write_tokenizer(folder)


def kl_of(root: Path, batch_size: int) -> tuple[float, torch.Tensor]:
    """The mean KL of all train rows from their teachers, and its gradient."""
    columns = {"domain": "domain", "split": "split"}
    data: dict[str, Any] = {"path": str(root / "texts.parquet"), "columns": columns}
    data |= {"max_length": 24, "cache_dir": str(root / "data-cache"), "packing": False}
    changes = {"data": data, "student": {"path": str(root / "student")}}
    job = job_of(root, f"by-{batch_size}", **changes, trainer={"batch_size": batch_size})
    assert job.teacher_setup is not None
    module = build_module(job).train()
    assert isinstance(module, TokenModule)
    rows: Any = job.data.open()
    batches = Batches(rows, rows.rows("train"), batch_size, seed=0, shuffle=False)
    lengths = rows.lengths(rows.rows("train"))
    assert lengths.min() < lengths.max()
    total, count = torch.zeros(()), 0
    with job.teacher_setup.open(job.data, "test") as stream:
        module.take_heads(stream.heads(), "cpu")
        for step in stream.feed(batches, 0, batches.steps_per_epoch):
            for batch, answers in step.parts:
                total = (
                    total + module(batch, answers, ScheduleValues(1.0, 1.0)).loss * batch.num_valid
                )
                count += batch.num_valid
    mean = total / count
    mean.backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    return float(mean.detach()), gradient


def test_a_rows_divergence_is_that_of_the_row_alone(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.parquet", num_rows=48)
    for seed, name in enumerate(("films", "meals", "student")):
        write_hybrid(tmp_path / name, seed)
    alone, gradient_alone = kl_of(tmp_path, 1)
    padded, gradient = kl_of(tmp_path, 7)
    assert alone > 0.1
    assert padded == pytest.approx(alone, rel=1e-5)
    torch.testing.assert_close(gradient, gradient_alone, rtol=1e-4, atol=1e-6)
