"""Tiny models, data and configurations of the golden runs: from fixed seeds, without distill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from mlflow import MlflowClient
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
)

DOMAINS = {"films": ("plot", "actor"), "meals": ("soup", "bread")}
GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "awful", "poor", "broken")
FILLERS = ("the", "a", "was", "is", "very", "quite", "it", "really")
WORDS = [*GOOD, *BAD, *FILLERS, *(word for things in DOMAINS.values() for word in things)]
SPLITS = ("train", "train", "train", "transfer", "validation", "test")
LABELS = ("no", "yes")
NUM_TOKENS = 2 + len(WORDS)
STORE = "mlflow.db"


def write_inputs(root: Path) -> None:
    """Data, teachers, tokenizers and an empty MLflow store, shared by all runs of both sides."""
    root.mkdir(parents=True)
    write_reviews(root / "reviews.parquet", 240)
    write_texts(root / "texts.parquet", 192)
    write_encoder(root / "encoder", BertModel, seed=0)
    for seed, name in enumerate(("one", "two"), start=1):
        write_encoder(root / name, BertForSequenceClassification, seed)
    write_llama(root / "films", seed=3)
    write_llama(root / "meals", seed=4, added=("<a>", "<b>"), vocab_size=NUM_TOKENS + 6)
    write_mixture(root / "mixture", seed=5)
    # Its tables take seconds, so that each run starts with a copy of it.
    MlflowClient(f"sqlite:///{root / STORE}").search_experiments()


def write_reviews(path: Path, num_rows: int) -> None:
    """Classification: one word of a sentence determines its label."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(num_rows):
        domain = tuple(DOMAINS)[i % 2]
        label = int(rng.integers(2))
        words = [*rng.choice(FILLERS, rng.integers(2, 7)), rng.choice(DOMAINS[domain])]
        words.insert(int(rng.integers(len(words))), rng.choice(GOOD if label else BAD))
        split = SPLITS[i // 2 % len(SPLITS)]
        row = {"text": " ".join(words), "label": LABELS[label], "domain": domain, "split": split}
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_texts(path: Path, num_rows: int) -> None:
    """Language models: sentences, also as a prompt with its completion."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(num_rows):
        domain = tuple(DOMAINS)[i % 2]
        words = [*rng.choice(FILLERS, rng.integers(1, 5)), *DOMAINS[domain], rng.choice(GOOD)]
        row = {"text": " ".join(words), "prompt": " ".join(words[:-1]), "completion": words[-1]}
        rows.append(row | {"domain": domain, "split": SPLITS[i // 2 % len(SPLITS)]})
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_encoder(folder: Path, kind: Callable[[BertConfig], Any], seed: int) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=24,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    kind(config).save_pretrained(folder)
    BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(folder)


def write_llama(folder: Path, seed: int, added: tuple[str, ...] = (), **changes: Any) -> None:
    config = LlamaConfig(**_decoder(intermediate_size=48, tie_word_embeddings=True, **changes))
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    if added:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(added))
        tokenizer.save_pretrained(folder)


def write_mixture(folder: Path, seed: int) -> None:
    config = MixtralConfig(
        **_decoder(intermediate_size=16, num_local_experts=4, num_experts_per_tok=2)
    )
    torch.manual_seed(seed)
    MixtralForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)


def _decoder(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": NUM_TOKENS,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": None,
        "initializer_range": 0.2,
        **changes,
    }


def write_tokenizer(folder: Path) -> None:
    """Whole words; the end token also pads."""
    words = ["<eos>", "<unk>", *WORDS]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)


# ---- configurations ----------------------------------------------------------------------------


def classification(inputs: Path) -> dict[str, Any]:
    """Two trained experts and a router, cached outputs, two baselines, DeepSpeed."""
    return {
        "data": _reviews(inputs),
        "experts": {
            "base": str(inputs / "encoder"),
            "epochs": 2,
            "batch_size": 8,
            "optimizer": {"lr": 2e-3},
            "router": {"epochs": 2, "optimizer": {"lr": 2e-3}, "serving": {"num_cpus": 0.1}},
            "serving": {"num_cpus": 0.1},
        },
        "aggregation": {"type": "routed", "k": 2},
        "kd": {"temperature": 2.0, "alpha": 0.7},
        "student": {"layers": 1, "hidden": 32, "heads": 2},
        "optimizer": {"lr": 5e-3},
        "trainer": _trainer(engine="deepspeed", zero_stage=1),
        "baselines": [{"type": "labels_only", "name": "no-teacher"}, {"type": "tfidf"}],
        "cluster": {"num_cpus": 2, "max_tasks": 1},
        "tracking": {"log_model": True},
    }


def sweep(inputs: Path) -> dict[str, Any]:
    """A grid of three temperatures under two ready teachers."""
    teachers = [_teacher(inputs, name) for name in ("one", "two")]
    return {
        "data": _reviews(inputs),
        "teachers": teachers,
        "aggregation": {"type": "uncertainty"},
        "objective": {"type": "jsd"},
        "kd": {"alpha": 0.7},
        "student": {"layers": 1, "hidden": 32, "heads": 2},
        "optimizer": {"lr": 5e-3},
        "trainer": _trainer(),
        "search": {
            "space": {"kd.temperature": {"type": "grid", "values": [1.0, 2.0, 4.0]}},
            "max_concurrent": 1,
        },
        "cluster": {"num_cpus": 2},
    }


def language(inputs: Path) -> dict[str, Any]:
    """Two teachers, one of them with other added tokens; the wires topk and hidden."""
    topk = {"type": "topk", "k": 8, "temperatures": [2.0]}
    return _language(
        inputs,
        teachers=[
            _teacher(inputs, "films", wire=topk),
            _teacher(inputs, "meals", wire={"type": "hidden"}),
        ],
        aggregation={"type": "oracle"},
        kd={"temperature": 2.0, "alpha": 0.5},
        trainer=_trainer(batch_size=2, epochs=3, checkpoint_every=1),
        cache={"path": "answers"},
    )


def skd(inputs: Path) -> dict[str, Any]:
    """The student drafts, the teacher verifies."""
    wire = {"type": "dense", "dtype": "float32"}
    return _language(
        inputs,
        generated=True,
        teachers=[_teacher(inputs, "films", wire=wire)],
        kd={"temperature": 1.0, "alpha": 1.0},
        sampling={"type": "skd", "drafts": 3, "top_k": 4, "max_new_tokens": 8},
    )


def sar(inputs: Path) -> dict[str, Any]:
    """A mixture of experts served twice: SAR and KA, on text of the student."""
    wire = {"type": "dense", "dtype": "float32"}
    moe = {"sar": {"type": "sar", "lr": 1e-3}, "ka": {"type": "ka", "explore": 0.3}}
    teachers = [_teacher(inputs, "mixture", wire=wire, moe=moe[n]) | {"name": n} for n in moe]
    return _language(
        inputs,
        generated=True,
        teachers=teachers,
        aggregation={"type": "mean", "mix": "divergences"},
        kd={"temperature": 1.0, "alpha": 1.0},
        sampling={"type": "on_policy", "max_new_tokens": 8},
    )


CONFIGS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "classification": classification,
    "language": language,
    "skd": skd,
    "sar": sar,
    "sweep": sweep,
}


def _teacher(inputs: Path, name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "path": str(inputs / name), "num_cpus": 0.1, **changes}


def _trainer(**changes: Any) -> dict[str, Any]:
    # A record of each step: records after a resume have the same steps as those of a whole run.
    return {"engine": "torch", "epochs": 2, "batch_size": 16, "log_every": 1, **changes}


def _reviews(inputs: Path) -> dict[str, Any]:
    columns = {"domain": "domain", "split": "split"}
    return {"path": str(inputs / "reviews.parquet"), "columns": columns, "max_length": 16}


def _language(inputs: Path, generated: bool = False, **changes: Any) -> dict[str, Any]:
    """``generated``: prompts, on whose completions of the student it is trained."""
    columns = {"domain": "domain", "split": "split", "prompt": "prompt", "completion": "completion"}
    data = {"path": str(inputs / "texts.parquet"), "columns": columns, "max_length": 24}
    return {
        "task": "language_model",
        "data": data | ({"packing": False} if generated else {}),
        "student": {"layers": 1, "hidden": 32, "heads": 2, "ffn": 48},
        "optimizer": {"lr": 1e-2},
        "trainer": _trainer(batch_size=8, epochs=1 if generated else 2),
        "generation": {"num_prompts": 8, "max_new_tokens": 4},
        "cluster": {"num_cpus": 2},
        **changes,
    }
