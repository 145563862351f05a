"""Classifiers of samples as they are in a file: one model, or an ensemble of several.

The model itself is queried through a TeacherClient, so it may be in this process or on Ray.

Shape suffixes: B samples, T tokens, C classes, K experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch

from distill.aggregation import Aggregation
from distill.config import Cut
from distill.data.encode import encode, padded
from distill.data.tokens import pad_id
from distill.evaluation.samples import Sample
from distill.models.tokenizer import load_fast_tokenizer
from distill.records import RoutingInputs, TeacherAnswers
from distill.teachers.client import TeacherClient
from distill.teachers.requests import TeacherRequest
from distill.wires import decode_dense

BLOCK = 64
"""Samples in one request."""


class Classifier(Protocol):
    """Logits of any samples; of the same ones always the same numbers, up to rounding."""

    @property
    def name(self) -> str: ...
    @property
    def label_names(self) -> tuple[str, ...]: ...
    def logits(self, samples: Sequence[Sample]) -> np.ndarray:
        """Float32 [B, C], in the order of the samples."""
        ...


def probs_of(classifier: Classifier, samples: Sequence[Sample]) -> np.ndarray:
    """Float64 [B, C] at temperature 1."""
    logits_BC = classifier.logits(samples).astype(np.float64)
    odds_BC = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
    return odds_BC / odds_BC.sum(1, keepdims=True)


Encode = Callable[[Sequence[Sample]], dict[str, Any]]
"""Samples as fields of a TeacherRequest."""


class TokenEncoder:
    """Samples in one model's tokens, truncated to its length by its rule; counts the truncated."""

    def __init__(self, folder: str, max_length: int, cut: Cut = "head") -> None:
        self.max_length = max_length
        self.cut: Cut = cut
        self._tokenizer = load_fast_tokenizer(folder)

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        texts = [(sample.text, sample.pair) for sample in samples]
        ids, types, _ = encode(self._tokenizer, texts, self.max_length, self.cut)
        return padded(ids, types, pad_id(self._tokenizer))._asdict()

    def num_cut(self, samples: Sequence[Sample]) -> int:
        """How many of them lose tokens; block by block: all rows' tokens need not fit in memory."""
        texts = [(sample.text, sample.pair) for sample in samples]
        blocks = (texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK))
        return sum(
            encode(self._tokenizer, block, self.max_length, self.cut).num_truncated
            for block in blocks
        )


def encode_texts(samples: Sequence[Sample]) -> dict[str, Any]:
    """For objects that read text themselves."""
    texts_B = np.empty(len(samples), object)
    texts_B[:] = [s.text if s.pair is None else f"{s.text}\n{s.pair}" for s in samples]
    return {"texts_B": texts_B}


def encode_features(samples: Sequence[Sample]) -> dict[str, Any]:
    return {"features_BD": np.stack([sample.features_D for sample in samples])}  # type: ignore[arg-type]


class ServedClassifier:
    """One model behind a client."""

    def __init__(
        self,
        name: str,
        label_names: tuple[str, ...],
        client: TeacherClient,
        encode: Encode,
        num_parallel: int = 1,
        columns: Sequence[int] | None = None,
    ) -> None:
        """``columns``: the model's output of each of ``label_names``; None: in this order."""
        self.name = name
        self.label_names = label_names
        self._client, self._encode = client, encode
        self._columns = None if columns is None else list(columns)
        self._threads = ThreadPoolExecutor(num_parallel, thread_name_prefix=f"query-{name}")

    def logits(self, samples: Sequence[Sample]) -> np.ndarray:
        logits_BC = np.empty((len(samples), len(self.label_names)), np.float32)
        # Like lengths share a block: padding is most of the work otherwise.
        order = np.argsort([len(s.text) + len(s.pair or "") for s in samples], kind="stable")
        blocks = [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]
        answers = self._threads.map(lambda block: self._query([samples[i] for i in block]), blocks)
        for block, answer_BC in zip(blocks, answers, strict=True):
            logits_BC[block] = answer_BC
        return logits_BC

    def _query(self, samples: Sequence[Sample]) -> np.ndarray:
        rows_B = np.array([sample.row for sample in samples], np.int64)
        request = TeacherRequest(f"{self.name}/{rows_B[0]}", rows_B, **self._encode(samples))
        output = self._client.call(self.name, request)
        request.check(output, len(self.label_names))
        logits_BC = decode_dense(output.payload, output.wire).numpy()
        return logits_BC if self._columns is None else logits_BC[:, self._columns]


class ExpertEnsemble:
    """Experts under an aggregation without trained weights; queries only those that it needs."""

    def __init__(
        self,
        name: str,
        experts: Mapping[str, Classifier],
        aggregation: Aggregation,
        router: Classifier | None = None,
    ) -> None:
        """``experts`` by name, in the order of the router's classes."""
        assert experts
        self.name = name
        self.experts, self.router = dict(experts), router
        self.label_names = next(iter(experts.values())).label_names
        self._aggregation = aggregation

    def logits(self, samples: Sequence[Sample]) -> np.ndarray:
        """Log-probabilities of the ensemble at T = 1."""
        num, names = len(samples), tuple(self.experts)
        router_BK = None
        if self.router is not None:
            router_BK = torch.from_numpy(self.router.logits(samples))
        indices = {name: k for k, name in enumerate(names)}
        domain_teacher_B = torch.tensor([indices.get(sample.domain, -1) for sample in samples])
        queried_KB = self._aggregation.choose(RoutingInputs(names, domain_teacher_B, router_BK))
        logits_KBC = torch.zeros(len(names), num, len(self.label_names))
        for k, expert in enumerate(self.experts.values()):
            queried = torch.nonzero(queried_KB[k])[:, 0]
            if len(queried):
                own_BC = expert.logits([samples[i] for i in queried.tolist()])
                logits_KBC[k, queried] = torch.from_numpy(own_BC)
        answers = TeacherAnswers(logits_KBC, queried_KB, router_BK)
        weights_KB = self._aggregation.weigh(answers, None, None).weights_KB
        return self._aggregation.target(answers, weights_KB, 1.0).logp_NV.numpy()
