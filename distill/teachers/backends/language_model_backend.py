"""A language model as a teacher: outputs at its tokens, verification of drafts, text, and gates.

Shape suffixes: P positions, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from distill.config.moe import MoE, StudentAwareRouter
from distill.errors import TeacherAnswerError, TrainingError
from distill.models.adapter import adapter_fingerprint
from distill.models.decoder import base_of
from distill.models.weights import weights_fingerprint
from distill.records import ExpertUsage, GateGradient, GateState, Head, RequestFor
from distill.sampling.generation import write
from distill.sampling.records import DraftRequest, GeneratedText, GenerationRequest, VerifiedDrafts
from distill.teachers.backends.adapters import SharedBase
from distill.teachers.backends.contract import NO_TURN, Turn
from distill.teachers.backends.forwards import ForwardBackend, ForwardRows
from distill.teachers.backends.frozen_language_model import FrozenLanguageModel, as_float
from distill.teachers.requests import GateRequest, GateStateRequest, HeadRequest, TeacherRequest
from distill.teachers.served import ServedTeacher
from distill.wires import WireFormat


class LanguageModelBackend(ForwardBackend):
    """A transformers model, or the base with an adapter (:class:`AdapterBackend`)."""

    positions: ClassVar[Literal["rows", "tokens"]] = "tokens"

    def __init__(self, teacher: ServedTeacher) -> None:
        super().__init__(teacher)
        serving = teacher.serving
        with self.active():
            self.language_model = FrozenLanguageModel(
                self._given(),
                teacher.width,
                self.device,
                serving.dtype,
                serving.allow_pickle,
                serving.moe,
                teacher.shared,
                serving.kv_cache_mb * 1e6,
            )
        self.found = self.language_model.found
        if self.wire.takes == "hidden":
            self.language_model.check_linear()
        base_of(self.language_model.model).register_forward_hook(self._count)

    @classmethod
    def open(cls, group: Sequence[ServedTeacher]) -> Sequence[LanguageModelBackend]:
        adapters = [teacher.adapter for teacher in group if teacher.adapter is not None]
        if not adapters:
            return [cls(teacher) for teacher in group]
        first = group[0]
        base = SharedBase(
            first.folder,
            adapters,
            device="cuda" if first.serving.num_gpus > 0 else "cpu",
            dtype=first.serving.dtype,
            allow_pickle=first.serving.allow_pickle,
        )
        return [AdapterBackend(teacher, base, number) for number, teacher in enumerate(group)]

    @classmethod
    def fingerprint(
        cls, teacher: ServedTeacher, of_weights: Callable[[str], str] = weights_fingerprint
    ) -> str:
        weights = of_weights(teacher.folder)
        if teacher.adapter is None:
            return weights
        return f"{weights}-{adapter_fingerprint(teacher.adapter)}"

    @property
    def serves(self) -> Mapping[type[RequestFor[Any]], Callable[[Any, Turn], Any]]:
        return {
            TeacherRequest: self.answer,
            HeadRequest: self.head,
            DraftRequest: self.verify,
            GenerationRequest: self.write,
            GateStateRequest: self.gate,
            GateRequest: self.gate_gradient,
        }

    def outputs(
        self, block: ForwardRows, request: TeacherRequest, wire: WireFormat, moe: MoE
    ) -> Iterator[tuple[Tensor, ExpertUsage | None]]:
        return self.language_model.payloads(block, request, wire, moe)

    def head(self, request: HeadRequest, turn: Turn = NO_TURN) -> Head:
        """On the CPU, cut to its real tokens."""
        with turn:
            return self.language_model.head().to("cpu")

    @torch.inference_mode()
    def verify(self, request: DraftRequest, turn: Turn = NO_TURN) -> VerifiedDrafts:
        """Which drafts are accepted, and the token in place of the first rejected one."""
        model = self.language_model
        with turn, self._generating(request.request_id):
            return model.judging.verify(request)

    @torch.inference_mode()
    def write(self, request: GenerationRequest, turn: Turn = NO_TURN) -> GeneratedText:
        """How it continues each prompt."""
        model = self.language_model
        with turn, self._generating(request.request_id):
            started = time.perf_counter()
            found = write(
                model.model,
                self.teacher.width,
                [prompt.tolist() for prompt in request.prompts],
                request.limits,
                request.ends,
                request.seeds_B,
                request.decoding,
            )
        texts = tuple(np.array(text, np.int64) for text in found.texts)
        return GeneratedText(request.request_id, texts, time.perf_counter() - started)

    def gate(self, request: GateStateRequest, turn: Turn = NO_TURN) -> GateState:
        """A mixture's gates as its folder has them: version 0."""
        with turn, self.active():
            return self.language_model.first_gate()

    def gate_gradient(self, request: GateRequest, turn: Turn = NO_TURN) -> GateGradient:
        """A student-aware router's. Raises TeacherAnswerError where the student's logits do not
        fit."""
        about, width = request.request, self.teacher.width
        moe = about.moe or self.teacher.moe
        assert isinstance(moe, StudentAwareRouter), "only its gates are trained"
        shape, expected = request.student_PV.shape, (int(about.counts_B.sum()), width)
        if shape != expected:
            raise TeacherAnswerError(
                f"request {about.request_id}: the student's logits have shape {list(shape)}, "
                f"expected {list(expected)}"
            )
        with turn, self.active():
            started = time.perf_counter()
            shares, first = [], 0
            for block in self.blocks(about, moe):
                assert block.targets_BT is not None
                stop = first + int(block.targets_BT.sum())
                student_PV = as_float(request.student_PV[first:stop])
                shares.append(
                    self.language_model.gate_gradient(
                        block, about, moe, student_PV, request.temperature
                    )
                )
                first = stop
        return GateGradient(
            about.request_id,
            torch.stack([share.gradient_G for share in shares]).sum(0).numpy(),
            first,
            sum(share.kl_sum for share in shares),
            sum(share.balance_sum for share in shares),
            time.perf_counter() - started,
        )

    def move(self, device: torch.device) -> None:
        """Drops its key-value caches."""
        self.language_model.move(device)

    @property
    def is_reentrant(self) -> bool:
        """Whether a forward changes nothing, on the CPU."""
        return self.device.type == "cpu" and self.language_model.is_reentrant

    @contextmanager
    def _generating(self, request_id: str) -> Iterator[None]:
        """With the experts of its outputs; raises TeacherAnswerError for broken logits."""
        try:
            with self.active(), self.language_model.as_it_teaches(self.teacher.moe):
                yield
        except TrainingError as error:  # of a model that writes, which here is the teacher
            raise TeacherAnswerError(f"request {request_id}: {error}") from None

    def _given(self) -> Any:
        """The model, or its folder."""
        return self.teacher.folder if self.teacher.model is None else self.teacher.model

    def _count(self, *_: object) -> None:
        """After a forward of the decoder."""
        self.num_forwards += 1


class AdapterBackend(LanguageModelBackend):
    """A base with one of its adapters."""

    def __init__(self, teacher: ServedTeacher, base: SharedBase, number: int) -> None:
        self._base = base
        self._number = number
        super().__init__(teacher)

    def active(self) -> AbstractContextManager[None]:
        return self._base.using(self._number)

    @property
    def is_reentrant(self) -> bool:
        return False

    def _given(self) -> Any:
        return self._base.model
