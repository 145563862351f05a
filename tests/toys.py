"""Tiny real models and data for tests: seconds, not minutes, and no download."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

from distill.data.batches import Batches
from distill.data.tokens import PaddedTokens
from distill.records import UNLABELLED, Step, TeacherAnswers

NUM_CLASSES = 3
VOCAB = 50


def tiny_bert(seed: int = 0, dropout: float = 0.0, hidden: int = 16) -> Any:
    """A two-layer BERT classifier of three classes."""
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=NUM_CLASSES,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(config)


class ToyTokens:
    """Rows of random tokens, 3 to 12 long; every fourth row has no label."""

    def __init__(self, num_rows: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._ids = [rng.integers(1, VOCAB, rng.integers(3, 13)) for _ in range(num_rows)]
        self._labels = rng.integers(0, NUM_CLASSES, num_rows)
        self._labels[::4] = UNLABELLED
        self.corpus = SimpleNamespace(
            labels_of=lambda rows: self._labels[np.asarray(rows)],
            domains_of=lambda rows: np.asarray(rows) % 2,
        )

    def lengths(self, rows: Any) -> np.ndarray:
        return np.array([len(self._ids[row]) for row in rows])

    def padded(self, rows: Any) -> PaddedTokens:
        longest = max(len(self._ids[row]) for row in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(self._ids[row])] = self._ids[row]
            mask[i, : len(self._ids[row])] = 1
        return PaddedTokens(ids, mask, None)


def toy_batches(
    num_rows: int = 50,
    batch_size: int = 12,
    rank: int = 0,
    world_size: int = 1,
    micro: int | None = None,
    shuffle: bool = True,
) -> Batches:
    """Steps of 12 rows of 50: the last step of an epoch has 2."""
    tokens: Any = ToyTokens(num_rows)
    return Batches(tokens, range(num_rows), batch_size, 0, rank, world_size, micro, shuffle)


class ToyTeachers:
    """A source of targets that computes two teachers in place, the second silent on odd rows."""

    def __init__(self, models: list[Any], all_teachers: bool = False) -> None:
        self._models = [model.eval() for model in models]
        self._everyone = all_teachers

    @torch.no_grad()
    def feed(self, batches: Any, start: int, stop: int, wait: Any = None) -> Any:
        for step in range(start, stop):
            parts = []
            for batch in batches.at(step):
                logits_KBV = torch.stack([m(**batch.inputs()).logits for m in self._models])
                queried_KB = torch.ones(logits_KBV.shape[:2], dtype=torch.bool)
                if not self._everyone:
                    queried_KB[1:] = torch.from_numpy(batch.rows_B % 2 == 0)
                logits_KBV = logits_KBV * queried_KB[..., None]
                parts.append((batch, TeacherAnswers(logits_KBV, queried_KB)))
            yield Step(step, parts)

    def timings(self) -> dict[str, float]:
        return {}

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def measured(student: str | Path, data: str | Path, **source: str) -> dict[str, float | None]:
    """What ``distill evaluate`` says of an exported student, without changes and attacks."""
    from distill.driver.evaluate.standalone import EvaluationSource, evaluate
    from distill.evaluation.evaluated import EvaluationRequest
    from distill.evaluation.settings import parse_settings
    from distill.report.progress import Progress

    plain = ["attack.methods=[]", "transform.names=[]", "intervals.num_draws=0"]
    request = EvaluationRequest(
        Path(student), EvaluationSource(str(data), **source), settings=parse_settings(plain)
    )
    return evaluate(request, Progress()).metrics


# ---- a toy data set and encoder on disk, for whole runs --------------------------------------

DOMAINS = ("films", "meals", "tools")
GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "awful", "poor", "broken")
FILLERS = ("the", "a", "was", "is", "very", "quite", "it", "really")
THINGS = {"films": ("plot", "actor"), "meals": ("soup", "bread"), "tools": ("saw", "drill")}
WORDS = [*GOOD, *BAD, *FILLERS, *(w for things in THINGS.values() for w in things)]


def write_data(path: Path, num_rows: int = 480) -> Path:
    """Sentences whose label is their one telling word."""
    rng = np.random.default_rng(0)
    splits = ["train", "train", "transfer", "transfer", "validation", "test"]
    rows = []
    for i in range(num_rows):
        domain = DOMAINS[i % 3]
        label = int(rng.integers(2))
        words = [*rng.choice(FILLERS, rng.integers(2, 7)), rng.choice(THINGS[domain])]
        words.insert(int(rng.integers(len(words))), rng.choice(GOOD if label else BAD))
        split = splits[(i // 3) % 6]
        name = ("no", "yes")[label]
        rows.append({"text": " ".join(words), "label": name, "domain": domain, "split": split})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_encoder(folder: Path, num_labels: int = 0, seed: int = 0) -> Path:
    """A two-layer BERT with a whole-word tokenizer; a classifier of no/yes if ``num_labels``."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    BertTokenizer(vocab={t: i for i, t in enumerate(tokens)}).save_pretrained(folder)
    names = ("no", "yes", "maybe")[:num_labels]
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=24,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if not names:
            BertModel(config).save_pretrained(folder)
            return folder
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_named(source: Path, folder: Path, names: list[Any] | None) -> None:
    """The same model under other names; None: without any, as save_pretrained leaves two."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    config.pop("label2id")
    config.pop("id2label")
    if names is not None:
        config["id2label"] = dict(enumerate(names))
    (folder / "config.json").write_text(json.dumps(config))


def write_turned(source: Path, folder: Path, names: list[str]) -> None:
    """The same model with the rows of its head, and their names, in the reverse order."""
    write_named(source, folder, names)
    weights = load_file(source / "model.safetensors")
    for key in ("classifier.weight", "classifier.bias"):
        weights[key] = weights[key].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def toy_experiment(root: Path, **changes: Any) -> dict[str, Any]:
    """The raw configuration of a run that takes seconds once Ray is up; data beside it."""
    if not (root / "data.parquet").exists():
        write_data(root / "data.parquet")
        write_encoder(root / "encoder")
    raw: dict[str, Any] = {
        "data": {
            "path": str(root / "data.parquet"),
            "columns": {"domain": "domain", "split": "split"},
            "max_length": 16,
            "cache_dir": str(root / "data-cache"),
        },
        "output": str(root / "run"),
        "experts": {
            "base": str(root / "encoder"),
            "epochs": 8,
            "batch_size": 8,
            "optimizer": {"lr": 2e-3},
            "router": {"epochs": 12, "optimizer": {"lr": 2e-3}, "serving": {"num_cpus": 0.1}},
            "serving": {"num_cpus": 0.1},
            "num_cpus": 1,
        },
        "aggregation": {"type": "routed", "k": 2},
        "kd": {"temperature": 2.0, "alpha": 0.7},
        "student": {"layers": 1, "hidden": 32, "heads": 2},
        "optimizer": {"lr": 5e-3},
        "trainer": {"epochs": 8, "batch_size": 16, "num_cpus_per_worker": 1},
        "baselines": [{"type": "labels_only", "name": "alone"}, {"type": "tfidf"}],
        "tracking": {
            "experiment": "toy",
            "uri": f"sqlite:///{root}/mlflow.db",
            "system_metrics": False,
        },
    }
    return {**raw, **changes}
