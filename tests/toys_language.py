"""Tiny language models and texts on disk, for fits and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.toys import FILLERS, GOOD, THINGS, WORDS

DOMAINS = ("films", "meals")
SPLITS = ("train", "train", "train", "transfer", "validation", "test")
NUM_TOKENS = 2 + len(WORDS)


def write_texts(path: Path, num_rows: int = 240, **columns: Any) -> Path:
    """Sentences of two domains, each with its own things in an order of its own."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(num_rows):
        domain = DOMAINS[i % 2]
        words = [*rng.choice(FILLERS, rng.integers(1, 5)), *THINGS[domain], rng.choice(GOOD)]
        row = {"text": " ".join(words), "prompt": " ".join(words[:-1]), "completion": words[-1]}
        rows.append(row | {"domain": domain, "split": SPLITS[(i // 2) % len(SPLITS)]})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_tokenizer(folder: Path, extra: tuple[str, ...] = ()) -> Path:
    """Whole words; the end of text also pads."""
    words = ["<eos>", "<unk>", *WORDS, *extra]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def write_spelling(folder: Path) -> Path:
    """A model of another tokenizer: a token a letter."""
    letters = sorted({letter for word in WORDS for letter in word} | {" "})
    vocabulary = {token: i for i, token in enumerate(["<eos>", "<unk>", *letters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    llama(7, len(vocabulary), max_position_embeddings=256).save_pretrained(folder)
    return folder


def llama(seed: int, vocab_size: int = NUM_TOKENS, **changes: Any) -> LlamaForCausalLM:
    """Two layers with tied embeddings."""
    config = LlamaConfig(
        **{
            "vocab_size": vocab_size,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": 0,
            "initializer_range": 0.2,
            **changes,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def write_llama(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """``vocab_size`` above NUM_TOKENS: a padded vocabulary of the same tokens."""
    llama(seed, **changes).save_pretrained(folder)
    return write_tokenizer(folder)


def language_experiment(root: Path, **changes: Any) -> dict[str, Any]:
    """The raw configuration of a run that takes seconds once Ray is up; data beside it."""
    if not (root / "texts.parquet").exists():
        write_texts(root / "texts.parquet")
    if not (root / "meals").exists():
        write_llama(root / "films", seed=1)
        write_llama(root / "meals", seed=2, vocab_size=NUM_TOKENS + 6)
    raw: dict[str, Any] = {
        "task": "language_model",
        "data": {
            "path": str(root / "texts.parquet"),
            "columns": {"domain": "domain", "split": "split"},
            "max_length": 24,
            "cache_dir": str(root / "data-cache"),
        },
        "output": str(root / "run"),
        "teachers": [
            {"name": "films", "path": str(root / "films"), "num_cpus": 0.1},
            {"name": "meals", "path": str(root / "meals"), "num_cpus": 0.1},
        ],
        "aggregation": {"type": "oracle"},
        "kd": {"temperature": 1.0, "alpha": 0.5},
        "student": {"layers": 1, "hidden": 32, "heads": 2, "ffn": 48},
        "optimizer": {"lr": 1e-2},
        "trainer": {"epochs": 3, "batch_size": 8, "num_cpus_per_worker": 1},
        "tracking": {
            "experiment": "toy-language",
            "uri": f"sqlite:///{root}/mlflow.db",
            "system_metrics": False,
        },
    }
    return {**raw, **changes}
