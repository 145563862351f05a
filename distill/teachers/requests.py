"""What a teacher is sent. A kind of request is one class: it names the type of its answer, and how
an answer is checked. The backend that serves it has one method for it; see backends/contract.py.

Requests for new text are in distill/sampling/records.py.

Shape suffixes: B rows, T tokens, D features of a row, P positions, V columns of the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distill.config.moe import MoE
from distill.errors import TeacherAnswerError
from distill.records import (
    GateGradient,
    GateState,
    Head,
    RequestFor,
    TeacherOutput,
    keywords_of,
)
from distill.wires import DenseWire, WireFormat
from distill.wires.base import passes_of


@dataclass(frozen=True)
class TeacherRequest(RequestFor[TeacherOutput]):
    """A teacher's outputs for some rows, encoded by a wire."""

    request_id: str
    rows_B: np.ndarray  # int64
    input_ids_BT: np.ndarray | None = None  # int64, in the *teacher's* tokens
    attention_mask_BT: np.ndarray | None = None  # int64
    token_type_ids_BT: np.ndarray | None = None
    features_BD: np.ndarray | None = None  # float32, raw
    texts_B: np.ndarray | None = None  # objects (str), for teachers that read text themselves
    position_ids_BT: np.ndarray | None = None  # int64, of language models
    targets_BT: np.ndarray | None = None  # bool: the positions to answer about; None: one a row
    wire: WireFormat | None = None
    """The wire requested; None: the one the teacher is served with."""
    moe: MoE | None = None
    """Of a mixture of experts: which experts run; None: as the teacher is served."""
    seed: int = 0
    """Of what is drawn for this answer (distill/moe), with each row's id and a token's place."""
    gate: GateState | None = None
    """The gates to answer with; None: those of the teacher's folder."""

    @property
    def label(self) -> str:
        return f"request {self.request_id}"

    @property
    def num_passes(self) -> int:
        """Answers about each position."""
        return 1 if self.moe is None else self.moe.num_passes

    @property
    def counts_B(self) -> np.ndarray:
        """int64: positions of each row."""
        if self.targets_BT is None:
            return np.ones(len(self.rows_B), np.int64)
        return self.targets_BT.sum(1)

    @property
    def num_rows(self) -> int:
        return len(self.rows_B)

    @property
    def num_tokens(self) -> int:
        """Padded tokens of a row; 1 for features and texts."""
        return 1 if self.input_ids_BT is None else self.input_ids_BT.shape[1]

    def inputs(self) -> dict[str, np.ndarray]:
        """Keyword arguments of the teacher's forward."""
        return keywords_of(self)

    def check(self, answer: TeacherOutput, width: int) -> None:
        """Raise unless the output answers this request, all of it, in its wire."""
        label = f"the output for request {self.request_id}"
        if answer.request_id != self.request_id:
            raise TeacherAnswerError(f"{label} belongs to request {answer.request_id}")
        if not np.array_equal(answer.rows_B, self.rows_B):
            raise TeacherAnswerError(f"{label} is for different rows")
        wire = self.wire or DenseWire()
        if answer.wire != wire.name:
            raise TeacherAnswerError(f"{label} cannot be read: {answer.wire}, not {wire.name}")
        passes = passes_of(answer.payload, self.num_passes)
        if passes is None:
            raise TeacherAnswerError(
                f"{label} has shape {list(answer.payload.shape)}, which is not {self.num_passes} "
                "passes of one width"
            )
        for payload in passes:
            fault = wire.fault(payload, int(self.counts_B.sum()), width)
            if fault is not None:
                raise TeacherAnswerError(f"{label} {fault}")

    def not_served(self, teacher: str) -> str:
        return (
            f"the cache lacks {self.num_rows} outputs of teacher {teacher!r} (row "
            f"{self.rows_B[0]} first), and it is no longer served: the cache was changed while "
            "the sweep ran; run the sweep again, which requests the missing outputs"
        )


@dataclass(frozen=True)
class HeadRequest(RequestFor[Head]):
    """A language model's output layer."""

    takes_turn: ClassVar[bool] = False

    @property
    def label(self) -> str:
        return "a request for its output layer"

    def not_served(self, teacher: str) -> str:
        return (
            f"the cache lacks the output layer of teacher {teacher!r}, and it is no longer served: "
            "run the sweep again, which requests it"
        )


_GATES_CHANGE = (
    "teacher {!r} has gates that are trained, so its outputs change and cannot be cached for a "
    "sweep: set its moe.type to own or all"
)


@dataclass(frozen=True)
class GateStateRequest(RequestFor[GateState]):
    """A mixture of experts' gates as its folder has them: version 0."""

    @property
    def label(self) -> str:
        return "a request for its gates"

    def not_served(self, teacher: str) -> str:
        return _GATES_CHANGE.format(teacher)


@dataclass(frozen=True)
class GateRequest(RequestFor[GateGradient]):
    """How should the gates of a student-aware router change? See distill/moe/gradient.py."""

    request: TeacherRequest
    """What the student wrote, and (``gate``) where the gradient is taken; ``moe`` is of type sar,
    or None where the teacher is served so."""
    student_PV: np.ndarray
    """The student's logits at its positions, of the tokens that both share: float32, or bfloat16 in
    the bits of uint16."""
    temperature: float = 1.0

    @property
    def label(self) -> str:
        return f"request {self.request.request_id} for its gates' gradient"

    def check(self, answer: GateGradient, width: int) -> None:
        """Raise unless the gradient is this request's, whole and finite."""
        about = self.request
        label = f"the gate's gradient for request {about.request_id}"
        if answer.request_id != about.request_id:
            raise TeacherAnswerError(f"{label} belongs to request {answer.request_id}")
        if about.gate is not None and answer.values.shape != about.gate.values.shape:
            raise TeacherAnswerError(
                f"{label} has {answer.values.size} values, the gate has {about.gate.values.size}"
            )
        if answer.num_positions != int(about.counts_B.sum()):
            raise TeacherAnswerError(f"{label} is of {answer.num_positions} positions")
        if not np.isfinite(answer.values).all():
            raise TeacherAnswerError(
                f"{label} holds NaN or infinity: serve the teacher in float32, or lower moe.lr"
            )

    def not_served(self, teacher: str) -> str:
        return _GATES_CHANGE.format(teacher)
