"""Typed records: what travels between the parts, and between processes.

A row is what a data set numbers and a cache keeps: of a classifier one text, of a language model
one block of packed sequences. A position is what one distribution is about: a row of a classifier,
a token to be predicted of a language model.

Shape suffixes: B rows, T tokens, D features of a row, V classes or vocabulary, K teachers,
H hidden, P all positions of some rows in their order, N any block of positions, X a payload.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from distill.errors import TeacherError

if TYPE_CHECKING:
    import torch
else:
    from distill.lazy_torch import torch

MAX_NLL = 700.0
"""exp of more is infinite."""

UNLABELLED = -100
"""Label of a row that has none (the transfer split); ignored by the cross-entropy."""


INPUTS = {
    "input_ids_BT": "input_ids",
    "attention_mask_BT": "attention_mask",
    "position_ids_BT": "position_ids",
    "token_type_ids_BT": "token_type_ids",
    "features_BD": "features",
    "texts_B": "texts",
}
"""What rows are shown as, and the keyword of a model's forward that takes it.

A reader's block of rows, a batch and a request have fields of these names: tokens (of pair tasks
with types; of language models with positions, which restart at each packed sequence, instead of
a mask), or features, or texts; the others are None or absent.
"""


def fields_of(rows: Any) -> dict[str, Any]:
    """Those of INPUTS that a block of rows has, by field."""
    found = {name: getattr(rows, name, None) for name in INPUTS}
    return {name: values for name, values in found.items() if values is not None}


def keywords_of(rows: Any) -> dict[str, Any]:
    """Those of INPUTS that a block of rows has, by the forward's keyword."""
    return {INPUTS[name]: values for name, values in fields_of(rows).items()}


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank, already padded, with the counts of the *global* batch.

    Losses divide by the global counts, so sums over micro-batches and ranks give global means.
    A rank that has no rows left in the last step of an epoch gets one filler row, ``valid`` False.
    """

    rows_B: np.ndarray  # int64: row ids, unique over all splits of one data set
    labels_B: torch.Tensor  # int64, UNLABELLED where there is none
    domains_B: torch.Tensor  # int64, -1 where there is none
    valid_B: torch.Tensor  # bool
    num_valid: int  # valid positions of the whole global batch
    num_labelled: int  # labelled valid positions of the whole global batch
    input_ids_BT: torch.Tensor | None = None  # int64
    attention_mask_BT: torch.Tensor | None = None  # int64, 0 on padding
    token_type_ids_BT: torch.Tensor | None = None  # int64, pair tasks
    features_BD: torch.Tensor | None = None  # float32, raw: instead of tokens
    position_ids_BT: torch.Tensor | None = None  # int64, of language models
    num_sequences: int = 0
    """Of language models: rows of the whole global batch that have positions."""
    targets_BT: torch.Tensor | None = None
    """bool, of language models: whether token t + 1 is to be predicted from token t. All False in a
    filler row. These are the batch's positions, row by row."""

    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model's forward."""
        return keywords_of(self)

    def to(self, device: torch.device | str) -> Batch:
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **tensors)


@dataclass(frozen=True)
class RoutingInputs:
    """What is known of rows before their teachers are queried: enough to choose the teachers."""

    names: tuple[str, ...]  # the teachers, in the order of K
    domain_teacher_B: torch.Tensor  # int64: the teacher named like the row's domain, -1 without one
    router_logits_BK: torch.Tensor | None = None  # float32, raw; None without a router


Answer = TypeVar("Answer")


class RequestFor(Generic[Answer]):
    """What a teacher is sent, of any kind: see distill/teachers/requests.py.

    Idempotent: the same request always has the same answer, so that it may be sent again.
    """

    takes_turn: ClassVar[bool] = True
    """Whether something is computed for it: one such request at a time, in order of arrival."""

    @property
    def label(self) -> str:
        """For messages: which request."""
        raise NotImplementedError

    def check(self, answer: Answer, width: int) -> None:
        """Raise TeacherAnswerError unless the answer is this request's, and whole. ``width``:
        columns of the teacher's outputs."""

    def not_served(self, teacher: str) -> str:
        """The message where only the cache is served."""
        return f"teacher {teacher!r} is queried for new text, but it is no longer served"


class AnswerStats(NamedTuple):
    """Of a sample of the positions that a language model answered; sums add up."""

    num_positions: int
    nll_sum: float
    """In nats, of the tokens that follow."""
    outside_sum: float
    """Probability of tokens that it does not share with the student."""

    def __add__(  # pyright: ignore[reportIncompatibleMethodOverride] (not tuple's)
        self, other: AnswerStats
    ) -> AnswerStats:
        return AnswerStats(
            self.num_positions + other.num_positions,
            self.nll_sum + other.nll_sum,
            self.outside_sum + other.outside_sum,
        )

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll_sum / self.num_positions, MAX_NLL))

    @property
    def mass_outside(self) -> float:
        return self.outside_sum / self.num_positions


@dataclass(frozen=True)
class TeacherOutput:
    """One teacher's raw answer (temperature 1, no softmax), as encoded by its wire."""

    request_id: str
    rows_B: np.ndarray  # int64, equal to the request's
    payload: np.ndarray  # [P, X], the rows' positions in order; see distill/wires. Of M
    # passes [P, M · X], one after the other
    wire: str  # the codec that wrote the payload, e.g. "dense/float32"
    compute_s: float = 0.0  # seconds inside the teacher's forward
    num_clamped: int = 0  # probabilities raised to the smallest that has a logarithm here
    usage: ExpertUsage | None = None  # of mixtures of experts
    stats: AnswerStats | None = None  # of language models


class DeviceOutput(NamedTuple):
    """A teacher's response whose payload is where it was computed."""

    about: TeacherOutput
    """All but the payload."""
    payload_PX: torch.Tensor
    """In the bits of as_array (distill/wires/base.py), and at least one row: what has none
    some transports do not carry."""
    num_positions: int
    """Rows of it that count."""


@dataclass(frozen=True)
class TeacherAnswers:
    """All teachers' outputs for one batch. A teacher that was not queried has zeros and False."""

    logits_KBV: torch.Tensor  # float32, raw
    queried_KB: torch.Tensor  # bool
    router_logits_BK: torch.Tensor | None = None  # float32, raw; None without a router

    def to(self, device: torch.device | str) -> TeacherAnswers:
        router = self.router_logits_BK
        return TeacherAnswers(
            self.logits_KBV.to(device),
            self.queried_KB.to(device),
            None if router is None else router.to(device),
        )


@dataclass(frozen=True)
class TokenAnswers:
    """The outputs of all teachers for a language model's batch, still encoded as they were sent.

    Nothing here is [N, V]: the loss decodes a block of positions at a time.
    """

    payloads: tuple[torch.Tensor, ...]  # of each teacher [P_k, X]: the positions it answered
    queried_KP: torch.Tensor  # bool: which of the batch's positions those are

    def to(self, device: torch.device | str) -> TokenAnswers:
        moved = tuple(payload.to(device) for payload in self.payloads)
        return TokenAnswers(moved, self.queried_KP.to(device))


@dataclass(frozen=True)
class Head:
    """A language model's output layer: logits = hidden · weightᵀ + bias."""

    weight_VH: torch.Tensor
    bias_V: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Head:
        bias_V = None if self.bias_V is None else self.bias_V.to(device)
        return Head(self.weight_VH.to(device), bias_V)

    def equals(self, other: Head) -> bool:
        """Bitwise equality."""
        if self.bias_V is None or other.bias_V is None:
            are_equal = self.bias_V is other.bias_V
        else:
            are_equal = torch.equal(self.bias_V, other.bias_V)
        is_same_dtype = self.weight_VH.dtype == other.weight_VH.dtype
        return are_equal and is_same_dtype and torch.equal(self.weight_VH, other.weight_VH)


Answers = TeacherAnswers | TokenAnswers


@dataclass(frozen=True)
class Target:
    """The one soft target that an objective sees, at the temperature of the step."""

    logp_NV: torch.Tensor  # float32, log-probabilities: log_softmax(z_T / T), or log of a mixture
    weights_KN: torch.Tensor  # float32, weight of each teacher in each row; columns sum to 1
    labels_N: torch.Tensor | None = None
    """int64, UNLABELLED where there is none: classes, or next tokens. None: no row has one."""


class Mean(NamedTuple):
    """A metric on its way to becoming a mean: sums and counts add over micro-batches and ranks."""

    sum: torch.Tensor
    count: torch.Tensor  # pyright: ignore[reportIncompatibleMethodOverride] (not tuple.count)


class LossOutput(NamedTuple):
    """What the trainable module returns. ``loss``: this micro-batch's share of the global mean."""

    loss: torch.Tensor  # scalar
    logits_BV: torch.Tensor | None  # float32, the student's; None: never whole (language models)
    metrics: dict[str, Mean]
    teacher_logp_BV: torch.Tensor | None = None  # the aggregate at T = 1, in evaluation only
    weights_KB: torch.Tensor | None = None  # of the teachers in it, in evaluation only


@dataclass(frozen=True)
class ScheduleValues:
    """The schedule values of one step."""

    temperature: float = 1.0
    alpha: float = 1.0
    lr: float = 0.0


@dataclass
class Cursor:
    """Progress of a fit: all that a resumed one needs apart from the engine's own state."""

    step: int = 0  # optimizer steps done
    best_step: int = -1
    best_value: float = float("-inf")
    history: list[dict[str, float]] = field(default_factory=list)  # one row an evaluation
    losses: list[list[float]] = field(default_factory=list)
    """Of schedules that read losses: [step, mean cross-entropy] of each finished log interval."""
    open_loss: list[list[float]] = field(default_factory=list)
    """Of the same, in a checkpoint within an interval: [sum, count] of each rank so far."""


@dataclass(frozen=True)
class Step:
    """One optimizer step of one rank: its micro-batches, each with the teachers' outputs."""

    step: int
    parts: list[tuple[Batch, Answers | None]]


@dataclass(frozen=True)
class Line:
    """One row of the plan's table."""

    part: str
    what: str
    size: str = ""


@dataclass(frozen=True)
class GateState:
    """W_g (with a bias, if there is one) and W_n of every layer, in their order."""

    version: int
    """0: as the model's folder has them. Whoever trains them counts."""
    values: np.ndarray  # float32 [G]
    shapes: str  # fingerprint of the gates that the values are of

    def check(self, shapes: str, num_values: int) -> None:
        """Raise TeacherError unless it is a state of these gates."""
        if self.shapes != shapes or self.values.shape != (num_values,):
            raise TeacherError(
                f"a gate of another shape: version {self.version} has {self.values.size} values of "
                f"the gates {self.shapes}, this teacher's gates are {shapes} with {num_values}: "
                "train gates and ask them at one and the same model"
            )


@dataclass(frozen=True)
class GateGradient:
    """A request's share of the gradient of L_R; shares add over micro-batches and ranks.

    L_R = (Σ ``kl_sum`` + Σ ``balance_sum``) / Σ ``num_positions``; likewise its gradient.
    """

    request_id: str
    values: np.ndarray  # float32 [G]
    num_positions: int
    kl_sum: float  # nats: Σ over positions of KL(p_T ‖ p_S)
    balance_sum: float  # Σ over forwards of positions · β · mean over layers of CV²(importance)
    compute_s: float = 0.0


@dataclass(frozen=True)
class ExpertUsage:
    """Who was asked, over the positions of an answer and its passes; adds up.

    L layers with a gate, E experts of a layer.
    """

    METRICS: ClassVar = ("silent_mass_rate", "busiest_expert_rate", "idlest_expert_rate")

    num_tokens: int
    silent_mass_L: np.ndarray  # float64: Σ over tokens of 1 − Σ of softmax(H) over the own top-k
    tokens_LE: np.ndarray  # int64: tokens that an expert was asked about

    def __add__(self, other: ExpertUsage) -> ExpertUsage:
        return ExpertUsage(
            self.num_tokens + other.num_tokens,
            self.silent_mass_L + other.silent_mass_L,
            self.tokens_LE + other.tokens_LE,
        )

    def metrics(self) -> dict[str, float]:
        """``silent_mass_rate``: mean mass of the experts that the model's own k leaves out;
        ``busiest_expert_rate``, ``idlest_expert_rate``: the largest and smallest share of tokens
        that an expert of any layer received."""
        shares_LE = self.tokens_LE / max(1, self.num_tokens)
        return {
            "silent_mass_rate": float(self.silent_mass_L.mean()) / max(1, self.num_tokens),
            "busiest_expert_rate": float(shares_LE.max()),
            "idlest_expert_rate": float(shares_LE.min()),
        }
