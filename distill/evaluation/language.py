"""How well a language model predicts, position by position, and how close it is to its teachers.

Sums and counts add over chunks, batches, ranks and domains; means do not. Nothing here needs the
logits of more than one chunk of positions.

Shape suffixes: N positions of a chunk, V vocabulary, S the sums of TokenScores.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


@dataclass(frozen=True)
class TokenScores:
    """Sums over positions with a label, and over positions with teacher outputs."""

    num_labelled: float = 0.0
    nll: float = 0.0  # nats: the sum of -log p(label)
    num_correct: float = 0.0  # the likeliest token is the label
    num_answered: float = 0.0  # positions with a teacher
    num_agreeing: float = 0.0  # student's and teachers' likeliest tokens are the same
    jsd_sum: float = 0.0  # nats

    def __add__(self, other: TokenScores) -> TokenScores:
        return TokenScores(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @classmethod
    def of(cls, sums_S: Tensor) -> TokenScores:
        """From what :meth:`sums` gave, added over ranks."""
        return cls(*sums_S.tolist())

    def sums(self) -> Tensor:
        """float64[S], to be added over ranks."""
        return torch.tensor(astuple(self), dtype=torch.float64)

    @property
    def perplexity(self) -> float:
        """exp(mean nll); infinite where a double does not hold it."""
        assert self.num_labelled > 0, "perplexity of no positions"
        mean = self.nll / self.num_labelled
        return math.exp(mean) if mean < 709 else math.inf

    @property
    def accuracy(self) -> float:
        """Of the next token."""
        assert self.num_labelled > 0, "accuracy of no positions"
        return self.num_correct / self.num_labelled

    @property
    def agreement(self) -> float | None:
        """None without teachers."""
        return self.num_agreeing / self.num_answered if self.num_answered else None

    @property
    def jsd(self) -> float | None:
        """Mean, in nats: between 0 and log 2. None without teachers."""
        return self.jsd_sum / self.num_answered if self.num_answered else None


def score_chunk(
    student_logits_NV: Tensor, labels_N: Tensor, teacher_logp_NV: Tensor | None = None
) -> TokenScores:
    """Of a chunk of positions.

    A negative label (UNLABELLED) is none. ``teacher_logp_NV``: the teachers' aggregate at T = 1.
    It may have fewer columns than the student, whose others are then padding: they count in the
    perplexity, as in any use of the model, and are left out of the comparison.
    """
    logp_NV = log_softmax(student_logits_NV.float(), dim=-1)
    is_labelled_N = labels_N >= 0
    nll_N = -logp_NV.gather(1, labels_N.clamp(min=0).unsqueeze(1)).squeeze(1)
    is_correct_N = logp_NV.argmax(1) == labels_N
    zeros_N = torch.zeros_like(nll_N)
    columns = [is_labelled_N, torch.where(is_labelled_N, nll_N, zeros_N), is_correct_N]
    if teacher_logp_NV is None:
        columns += [zeros_N, zeros_N, zeros_N]
    else:
        V = teacher_logp_NV.shape[1]
        assert logp_NV.shape[1] >= V, "teachers know tokens that the student has no column for"
        shared_NV = log_softmax(logp_NV[:, :V], dim=-1) if logp_NV.shape[1] > V else logp_NV
        agrees_N = shared_NV.argmax(1) == teacher_logp_NV.argmax(1)
        columns += [zeros_N + 1, agrees_N, jsd(shared_NV, teacher_logp_NV.float())]
    return TokenScores.of(torch.stack([column.double().sum() for column in columns]))


def jsd(logp_NV: Tensor, logq_NV: Tensor) -> Tensor:
    """[N], nats: ½·KL(p ‖ m) + ½·KL(q ‖ m), m = (p + q) / 2. Lin 1991."""
    logm_NV = torch.logaddexp(logp_NV, logq_NV) - math.log(2)

    def to_middle(log_NV: Tensor) -> Tensor:
        # 0 · log 0 = 0: a token that cannot be has log-probability -inf.
        terms_NV = log_NV.exp() * (log_NV - logm_NV)
        return torch.where(log_NV == -math.inf, 0.0, terms_NV).sum(1)

    # Of equal distributions rounding can leave a hair below 0.
    return (0.5 * (to_middle(logp_NV) + to_middle(logq_NV))).clamp(min=0)
