"""Language models on the test split: every teacher, their aggregate, and each student.

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
from transformers import PreTrainedModel

from distill.aggregation import Aggregation, TrainedWeights
from distill.config.moe import OwnRouting
from distill.data.batches import Batches
from distill.data.blocks import Blocks
from distill.errors import Interrupted
from distill.evaluation.efficiency import Efficiency, measure_on_cpu
from distill.evaluation.language import TokenScores, score_chunk
from distill.evaluation.routing import MeanWeights
from distill.models.decoder import head_of
from distill.models.language_student import merged
from distill.models.plain_head import described, has_plain_head
from distill.records import RoutingInputs, TeacherAnswers, TokenAnswers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.teachers.stream import TeacherStream
from distill.training.fused import Chunk
from distill.training.job import Data
from distill.training.token_loss import Reader
from distill.training.token_module import TokenModule, labels_at
from distill.wires import DenseWire, HiddenWire

BATCH = 4
"""Blocks of one request."""
LATENCY_TOKENS = 128
"""Tokens of the forward that is timed: a whole block of a large model takes seconds."""


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
class ExactTeachers:
    """All teachers, in wires from which their logits can be computed."""

    teacher_setup: TeacherSetup

    @classmethod
    def of(cls, teacher_setup: TeacherSetup) -> ExactTeachers:
        exact = tuple(_in_exact_wire(teacher) for teacher in teacher_setup.teachers)
        aggregation = teacher_setup.aggregation.querying_all()
        return cls(replace(teacher_setup, teachers=exact, aggregation=aggregation))

    @property
    def num_tokens(self) -> int:
        """Shared with the student: one vocabulary, else they would not be compared."""
        return self.teacher_setup.teachers[0].width

    def open(self, data: Data) -> TeacherStream:
        return self.teacher_setup.open(data, "driver-test")


def _in_exact_wire(teacher: ServedTeacher) -> ServedTeacher:
    """The same teacher with outputs from which its logits can be computed, small where they can be.

    One whose outputs change from step to step is queried with its own routing.
    """
    if teacher.serving.moe.changes:
        serving = teacher.serving.model_copy(update={"moe": OwnRouting()})
        teacher = replace(teacher, serving=serving, key=replace(teacher.key, moe="own"))
    if teacher.serving.wire.is_exact:
        return teacher
    is_plain = has_plain_head(described(teacher.folder))
    wire = HiddenWire(dtype=teacher.serving.dtype) if is_plain else DenseWire(dtype="float32")
    serving = teacher.serving.model_copy(update={"wire": wire})
    return replace(teacher, serving=serving, key=replace(teacher.key, wire=wire.name))


def score(module: TokenModule, blocks: Blocks, should_stop: Callable[[], bool]) -> Scores:
    """A student on the test split, alone."""
    scores = Scores()
    with torch.inference_mode():
        for batch in _batches(blocks, should_stop):
            hidden_PH, labels_P = module.positions(batch)
            size = _chunk_size(module.loss_chunk_mb, module.num_tokens, num_models=1)
            for domain, _, chunk in _chunks(size, blocks, batch):
                logits_nV = _logits(module, hidden_PH[chunk])
                scores.add(domain, score_chunk(logits_nV, labels_P[chunk], None))
    return scores


@dataclass
class Compared:
    student: Scores
    """Empty where only teachers were compared."""
    teachers: dict[str, Scores]
    aggregate: Scores
    """Empty where trained weights do not exist: without a student, or of a baseline."""
    routing: MeanWeights | None = None
    """The trained weights of the teachers."""


def compare(
    module: TokenModule | None,
    blocks: Blocks,
    teachers: ExactTeachers,
    stream: TeacherStream,
    aggregation: Aggregation,
    should_stop: Callable[[], bool],
    chunk_mb: float,
    routed_by: TokenModule | None = None,
    split: str = "test",
) -> Compared:
    """A student, its teachers and their aggregate on a split, at temperature 1.

    Without a ``module`` teachers and aggregate alone. ``chunk_mb``: logits at once, of all models.
    ``routed_by``: whose trained weights the teachers have, by default the module's own. Weights per
    sample depend on the text that the aggregate is evaluated on.
    """
    names = [t.name for t in teachers.teacher_setup.teachers]
    heads = stream.heads()
    readers = [
        Reader(t.serving.wire, heads.get(t.name), t.width) for t in teachers.teacher_setup.teachers
    ]
    found = Compared(Scores(), {name: Scores() for name in names}, Scores())
    mixing = _Mixing(aggregation, blocks, names, routed_by or module)
    found.routing = mixing.routing
    num_tokens = teachers.num_tokens
    size = _chunk_size(chunk_mb, num_tokens, 1 + len(readers))
    batches = Batches(blocks, blocks.rows(split), BATCH, seed=0, shuffle=False)
    with torch.inference_mode():
        for step in stream.feed(batches, 0, batches.steps_per_epoch):
            _check_stop(should_stop)
            for batch, answers in step.parts:
                assert isinstance(answers, TokenAnswers)
                labels_P = labels_at(batch)
                hidden_PH = None if module is None else module.positions(batch)[0]
                mixing.use_batch(batch, None if mixing.module is not module else hidden_PH)
                for domain, b, chunk in _chunks(size, blocks, batch):
                    labels_n = labels_P[chunk]
                    logits_KnV = torch.stack(
                        [
                            reader.logits(payload[chunk], slice(0, num_tokens))
                            for reader, payload in zip(readers, answers.payloads, strict=True)
                        ]
                    )
                    for name, teacher_nV in zip(names, logits_KnV, strict=True):
                        found.teachers[name].add(domain, score_chunk(teacher_nV, labels_n, None))
                    logp_nV = mixing.logp(logits_KnV, b, chunk)
                    if logp_nV is not None:
                        found.aggregate.add(domain, score_chunk(logp_nV, labels_n, None))
                    if module is not None and hidden_PH is not None:
                        logits_nV = _logits(module, hidden_PH[chunk])[:, :num_tokens]
                        found.student.add(domain, score_chunk(logits_nV, labels_n, logp_nV))
    return found


class _Mixing:
    """The teachers' aggregate, batch after batch."""

    def __init__(
        self,
        aggregation: Aggregation,
        blocks: Blocks,
        names: Sequence[str],
        module: TokenModule | None,
    ) -> None:
        """``module``: has the network that makes the weights, if they are trained."""
        self.module = module
        self._aggregation, self._blocks, self._names = aggregation, blocks, tuple(names)
        self._is_trained = isinstance(aggregation, TrainedWeights)
        self.routing: MeanWeights | None = None
        if self._is_trained and module is not None and module.router is not None:
            self.routing = MeanWeights(self._names, blocks.domain_names)
        self._weights_KP: Tensor | None = None

    def use_batch(self, batch: Any, hidden_PH: Tensor | None) -> None:
        """``hidden_PH``: of ``module``, where they are known already."""
        domain_teacher_B = torch.from_numpy(
            self._blocks.domain_teachers_of(batch.rows_B, self._names)
        )
        self._chosen_KB = self._aggregation.choose(RoutingInputs(self._names, domain_teacher_B))
        if self.routing is None or self.module is None:
            return
        if hidden_PH is None:
            hidden_PH = self.module.positions(batch)[0]
        routes = self.module.routes(batch, hidden_PH)
        assert routes is not None
        self._weights_KP = routes.log_weights_KN.exp()
        domains_P = batch.domains_B[batch.targets_BT.nonzero()[:, 0]]
        self.routing.add(self._weights_KP, routes.domain_teacher_N, domains_P)

    def logp(self, logits_KnV: Tensor, b: int, chunk: slice) -> Tensor | None:
        """Log-probabilities [n, V] at positions of row b; None without the trained weights."""
        queried_Kn = self._chosen_KB[:, b : b + 1].expand(-1, logits_KnV.shape[1])
        answers = TeacherAnswers(logits_KnV, queried_Kn)
        if self._weights_KP is not None:
            weights_Kn = self._weights_KP[:, chunk]
        elif self._is_trained:
            return None
        else:
            weights_Kn = self._aggregation.weigh(answers, None, None).weights_KB
        return self._aggregation.target(answers, weights_Kn, 1.0).logp_NV


def _logits(module: TokenModule, hidden_nH: Tensor) -> Tensor:
    head: Any = head_of(module.student)
    return head(hidden_nH)[:, : module.num_tokens].float()


def _batches(blocks: Blocks, should_stop: Callable[[], bool]) -> Iterator[Any]:
    batches = Batches(blocks, blocks.rows("test"), BATCH, seed=0, shuffle=False)
    for step in range(batches.steps_per_epoch):
        _check_stop(should_stop)
        yield from batches.at(step)


def cost_of(model: PreTrainedModel, seq_length: int) -> Efficiency:
    """On one CPU thread; with low-rank updates as it will be exported."""
    return measure_on_cpu(merged(model), min(LATENCY_TOKENS, seq_length))


def _chunk_size(chunk_mb: float, num_tokens: int, num_models: int) -> int:
    """Positions whose logits, of all models, fit."""
    return Chunk.within(chunk_mb, num_tokens, num_models - 1).rows


def _chunks(size: int, blocks: Blocks, batch: Any) -> Iterator[tuple[int, int, slice]]:
    """The domain of a row, its place in the batch, and some of its positions."""
    stops = np.cumsum(blocks.num_targets(batch.rows_B)).tolist()
    domains = blocks.domains_of(batch.rows_B).tolist()
    for b, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        for first in range(start, stop, size):
            yield domains[b], b, slice(first, min(first + size, stop))


def _check_stop(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted("stopped during the evaluation; the trained student is kept")
