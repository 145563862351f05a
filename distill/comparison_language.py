"""Language models on the test split: every teacher, their aggregate, and each student beside it.

Shape suffixes: B rows (blocks) of a batch, P its positions, n those of a chunk, K teachers, V the
vocabulary, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.aggregation import Aggregation
from distill.data.batches import Batches
from distill.data.blocks import Blocks
from distill.errors import Interrupted
from distill.evaluation.language import TokenScores, score_chunk
from distill.fit import Data, Guidance, TeacherSpec
from distill.models.decoder import head_of
from distill.models.plain_head import described, has_plain_head
from distill.objectives.fused import Chunk
from distill.objectives.tokens import Reader
from distill.records import RoutingInputs, TeacherAnswers, TokenAnswers
from distill.teachers.stream import TeacherStream
from distill.teachers.wires import DenseWire, HiddenWire
from distill.token_module import TokenModule

BATCH = 4
"""Blocks asked about together."""


@dataclass
class Scores:
    """One model's, by domain."""

    by_domain: dict[int, TokenScores] = field(default_factory=dict)  # -1: of no domain

    def add(self, domain: int, scores: TokenScores) -> None:
        known = self.by_domain.get(domain)
        self.by_domain[domain] = scores if known is None else known + scores

    @property
    def total(self) -> TokenScores:
        first, *others = self.by_domain.values()
        for scores in others:
            first = first + scores
        return first

    def perplexities(self, domain_names: Sequence[str]) -> dict[str, float]:
        found = sorted(self.by_domain.items())
        return {domain_names[d]: scores.perplexity for d, scores in found if d >= 0}


@dataclass(frozen=True)
class Teachers:
    """Whom the test split is shown to: all teachers, in wires that bring their logits back."""

    guidance: Guidance

    @classmethod
    def of(cls, guidance: Guidance) -> Teachers:
        exact = tuple(_in_exact_wire(teacher) for teacher in guidance.teachers)
        everyone = guidance.aggregation.asking_all()
        return cls(replace(guidance, teachers=exact, aggregation=everyone))

    def open(self, data: Data) -> TeacherStream:
        return self.guidance.open(data, "driver-test", 0)


def _in_exact_wire(teacher: TeacherSpec) -> TeacherSpec:
    """The same teacher with answers from which its logits come back: small ones where they are."""
    if teacher.serving.wire.is_exact:
        return teacher
    is_plain = has_plain_head(described(teacher.folder))
    wire = HiddenWire(dtype=teacher.serving.dtype) if is_plain else DenseWire(dtype="float32")
    serving = teacher.serving.model_copy(update={"wire": wire})
    return replace(teacher, serving=serving, key=replace(teacher.key, wire=wire.name))


def score(module: TokenModule, blocks: Blocks, is_asked_to_stop: Callable[[], bool]) -> Scores:
    """A student on the test split, nobody beside it."""
    scores = Scores()
    with torch.inference_mode():
        for batch in _batches(blocks, is_asked_to_stop):
            hidden_PH, labels_P = module.positions(batch)
            for domain, _, chunk in _chunks(module, blocks, batch, num_models=1):
                logits_nV = _logits(module, hidden_PH[chunk])
                scores.add(domain, score_chunk(logits_nV, labels_P[chunk], None))
    return scores


@dataclass
class Compared:
    student: Scores
    teachers: dict[str, Scores]
    aggregate: Scores


def compare(
    module: TokenModule,
    blocks: Blocks,
    teachers: Teachers,
    stream: TeacherStream,
    aggregation: Aggregation,
    is_asked_to_stop: Callable[[], bool],
) -> Compared:
    """A student on the test split beside its teachers and their aggregate, at temperature 1."""
    names = [t.name for t in teachers.guidance.teachers]
    heads = stream.heads()
    readers = [
        Reader(t.serving.wire, heads.get(t.name), t.num_labels) for t in teachers.guidance.teachers
    ]
    found = Compared(Scores(), {name: Scores() for name in names}, Scores())
    batches = Batches(blocks, blocks.rows("test"), BATCH, seed=0, shuffle=False)
    with torch.inference_mode():
        for step in stream.feed(batches, 0, batches.steps_per_epoch):
            _obey(is_asked_to_stop)
            for batch, answers in step.parts:
                assert isinstance(answers, TokenAnswers)
                hidden_PH, labels_P = module.positions(batch)
                homes_B = torch.from_numpy(blocks.homes_of(batch.rows_B, names))
                chosen_KB = aggregation.choose(RoutingInputs(tuple(names), homes_B))
                for domain, b, chunk in _chunks(module, blocks, batch, 1 + len(readers)):
                    labels_n = labels_P[chunk]
                    said_KnV = torch.stack(
                        [
                            reader.logits(payload[chunk], slice(0, module.num_tokens))
                            for reader, payload in zip(readers, answers.payloads, strict=True)
                        ]
                    )
                    for name, said_nV in zip(names, said_KnV, strict=True):
                        found.teachers[name].add(domain, score_chunk(said_nV, labels_n, None))
                    asked_Kn = chosen_KB[:, b : b + 1].expand(-1, len(labels_n))
                    logp_nV = _aggregate(aggregation, TeacherAnswers(said_KnV, asked_Kn))
                    found.aggregate.add(domain, score_chunk(logp_nV, labels_n, None))
                    logits_nV = _logits(module, hidden_PH[chunk])
                    found.student.add(domain, score_chunk(logits_nV, labels_n, logp_nV))
    return found


def _aggregate(aggregation: Aggregation, answers: TeacherAnswers) -> Tensor:
    """Log-probabilities [n, V]."""
    weights_Kn = aggregation.weigh(answers, None, None).weights_KB
    return aggregation.target(answers, weights_Kn, 1.0).logp_NV


def _logits(module: TokenModule, hidden_nH: Tensor) -> Tensor:
    head: Any = head_of(module.student)
    return head(hidden_nH)[:, : module.num_tokens].float()


def _batches(blocks: Blocks, is_asked_to_stop: Callable[[], bool]) -> Iterator[Any]:
    batches = Batches(blocks, blocks.rows("test"), BATCH, seed=0, shuffle=False)
    for step in range(batches.steps_per_epoch):
        _obey(is_asked_to_stop)
        yield from batches.at(step)


def _chunks(
    module: TokenModule, blocks: Blocks, batch: Any, num_models: int
) -> Iterator[tuple[int, int, slice]]:
    """The domain of a row, its place in the batch, and some of its positions."""
    size = Chunk.within(module.loss_chunk_mb, module.num_tokens, num_models - 1).rows
    stops = np.cumsum(blocks.num_targets(batch.rows_B)).tolist()
    domains = blocks.domains_of(batch.rows_B).tolist()
    for b, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        for first in range(start, stop, size):
            yield domains[b], b, slice(first, min(first + size, stop))


def _obey(is_asked_to_stop: Callable[[], bool]) -> None:
    if is_asked_to_stop():
        raise Interrupted("stopped during the evaluation; the student's training is kept")
