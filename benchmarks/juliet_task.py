"""The task of juliet_trust.py: rows of the Juliet file, a tokenizer, and its teachers.

The experts are TF-IDF with logistic regression: no encoder of code is in a package registry, and at
this size and budget they are better than any transformer trained from nothing.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from distill.aggregation import Aggregation, OracleDomain, Routed, Single, UniformMean
from distill.config import Cache, Data, Serving, Stream
from distill.data.corpus import Corpus, build_corpus
from distill.teachers.backends import open_backends
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.probability import file_fingerprint
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.wires import DenseWire

DOMAINS = ("input", "integer", "lifetime", "memory")
ROWS = {"train": 750, "valid": 100, "test": 250}
"""Of each domain; of the domain left out, twice as many test rows."""
FEW = 0.05
"""Share of the training rows that keep their label in the setting ``few``."""
MAX_LENGTH = 128
VOCAB_SIZE = 4000
"""At most: the rows hold about 1,850 different words and pieces."""
POOLED, ROUTER = "pooled", "router"


@dataclass(frozen=True)
class Cell:
    """One setting under one seed."""

    setting: str
    """full: all labels. few: 5 % of them. away: one domain is in the test alone."""
    seed: int
    work: Path = field(compare=False)

    @property
    def folder(self) -> Path:
        return self.work / f"{self.setting}-{self.seed}"

    @property
    def left_out(self) -> str | None:
        return DOMAINS[self.seed % len(DOMAINS)] if self.setting == "away" else None

    @property
    def domains(self) -> tuple[str, ...]:
        """That have experts."""
        return tuple(name for name in DOMAINS if name != self.left_out)


def make_corpus(cell: Cell, data: str) -> Corpus:
    """The rows of one cell as a corpus; template-disjoint as the file's own splits are."""
    frame: Any = pq.read_table(data).to_pandas()
    parts = []
    for split, num in ROWS.items():
        own = frame[frame.split == split]
        if cell.left_out is not None:
            is_away = own.domain == cell.left_out
            own, num = (own[is_away], 2 * num) if split == "test" else (own[~is_away], num)
        drawn = own.groupby("domain").sample(num, random_state=cell.seed)
        parts.append(drawn.assign(split={"valid": "validation"}.get(split, split)))
    rows = pd.concat(parts)
    if cell.setting == "few":
        train = rows[rows.split == "train"]
        labelled = train.groupby("domain").sample(frac=FEW, random_state=cell.seed).index
        is_unlabelled = (rows.split == "train") & ~rows.index.isin(labelled)
        rows.loc[is_unlabelled, "split"] = "transfer"
    cell.folder.mkdir(parents=True, exist_ok=True)
    path = cell.folder / "rows.parquet"
    rows.to_parquet(path, index=False)
    columns = {"text": "code", "label": "label", "domain": "domain", "split": "split"}
    configured = {
        "path": str(path),
        "columns": columns,
        "max_length": MAX_LENGTH,
        "cache_dir": str(cell.folder / "data"),
    }
    return build_corpus(Data.model_validate(configured), cell.seed)


def make_tokenizer(corpus: Corpus, folder: Path) -> str:
    """Byte-pair encoding inside words and signs, trained on train and transfer; no spaces."""
    if not (folder / "tokenizer.json").exists():
        tokenizer: Any = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(r"\s+"), "removed"),
                pre_tokenizers.Split(Regex(r"\w+|[^\s\w]"), "isolated"),
            ]
        )
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        trainer = trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE, special_tokens=special, show_progress=False
        )
        texts = [text for split in ("train", "transfer") for text, _ in corpus.texts(split)]
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, **{f"{key}_token": name for key, name in names.items()}
        )
        fast.save_pretrained(folder)
    return str(folder)


def tfidf() -> Any:
    """As the baseline ``tfidf`` of distill."""
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return make_pipeline(vectors, LogisticRegression(C=10.0, max_iter=1000))


def make_teachers(cell: Cell, corpus: Corpus) -> dict[str, Path]:
    """Pickles by name: one model over all labelled rows, an expert a domain, the router."""
    rows = corpus.rows("train")
    texts = [text for text, _ in corpus.texts_of(rows)]
    labels = np.array(corpus.label_names)[corpus.labels_of(rows)]
    domain_teachers = np.array(corpus.domain_names)[corpus.domains_of(rows)]
    folder = cell.folder / "teachers"
    folder.mkdir(exist_ok=True)
    wanted: dict[str, tuple[np.ndarray, np.ndarray]] = {
        POOLED: (np.full(len(rows), True), labels),
        ROUTER: (np.full(len(rows), True), domain_teachers),
    }
    wanted |= {name: (domain_teachers == name, labels) for name in cell.domains}
    paths = {name: folder / f"{name}.pkl" for name in wanted}
    for name, (is_own, target) in wanted.items():
        if not paths[name].exists():
            own = np.flatnonzero(is_own)
            model = tfidf().fit([texts[i] for i in own], target[own])
            partial = paths[name].with_suffix(".partial")
            partial.write_bytes(pickle.dumps(model))
            partial.rename(paths[name])
    return paths


MIXTURES: dict[str, Aggregation] = {
    "uniform mean": UniformMean(),
    "MoEKD routed, k = 2": Routed(k=2),
    "oracle domain": OracleDomain(),
}
TEACHING: dict[str, Aggregation | None] = {
    "no KD": None,
    "single-teacher KD": Single(teacher=POOLED),
    "uniform multi-teacher KD": UniformMean(),
    "MoEKD": Routed(k=2),
}


def guidance_of(
    cell: Cell, corpus: Corpus, paths: dict[str, Path], aggregation: Aggregation
) -> TeacherSetup:
    """All teachers in this process; answers are cached for the cell's other students."""

    def spec(name: str) -> ServedTeacher:
        wire = DenseWire().name
        key = TeacherKey(file_fingerprint(paths[name]), corpus.fingerprint, "none", wire, 0)
        num_labels = len(cell.domains) if name == ROUTER else 2
        return ServedTeacher(name, str(paths[name]), Serving(allow_pickle=True), num_labels, key)

    is_single = isinstance(aggregation, Single)
    names = (POOLED,) if is_single else cell.domains
    return TeacherSetup(
        client=LocalTeachers(open_backends([spec(name) for name in paths])),
        teachers=tuple(spec(name) for name in names),
        router=spec(ROUTER) if aggregation.needs_router() else None,
        aggregation=aggregation,
        stream=Stream(),
        cache=Cache(),
        cache_folder=str(cell.folder / "cache"),
    )
