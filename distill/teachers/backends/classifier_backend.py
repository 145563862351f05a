"""Classifiers as teachers: transformers folders, torch modules, and objects with predict_proba.

Shape suffixes: B rows, V classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill.config.moe import MoE
from distill.errors import TeacherAnswerError
from distill.models.load import load_classifier
from distill.models.weights import weights_fingerprint
from distill.teachers.backends.forwards import ForwardBackend, ForwardRows
from distill.teachers.probability import (
    ProbabilityModel,
    file_fingerprint,
    is_pickle,
    load_pickled,
)
from distill.teachers.requests import TeacherRequest
from distill.teachers.served import Model, ServedTeacher
from distill.wires import WireFormat


class ClassifierBackend(ForwardBackend):
    """A transformers folder, or a callable that returns logits [B, V]."""

    def __init__(self, teacher: ServedTeacher) -> None:
        super().__init__(teacher)
        self._model = self._loaded()

    @classmethod
    def open(cls, group: Sequence[ServedTeacher]) -> Sequence[ClassifierBackend]:
        return [
            PredictProbaBackend(t) if _has_predict_proba(t) else ClassifierBackend(t) for t in group
        ]

    @classmethod
    def fingerprint(
        cls, teacher: ServedTeacher, of_weights: Callable[[str], str] = weights_fingerprint
    ) -> str:
        folder = teacher.folder
        return file_fingerprint(folder) if is_pickle(folder) else of_weights(folder)

    def _loaded(self) -> Model:
        given: Any = self.teacher.model
        if given is None:
            serving = self.teacher.serving
            given = load_classifier(
                self.teacher.folder, allow_pickle=serving.allow_pickle, dtype=serving.dtype
            )
        return given.eval().to(self.device) if isinstance(given, nn.Module) else given

    def move(self, device: torch.device) -> None:
        if isinstance(self._model, nn.Module):  # others are not on a device
            self._model.to(device)

    def outputs(
        self, block: ForwardRows, request: TeacherRequest, wire: WireFormat, moe: MoE
    ) -> Iterator[tuple[Tensor, None]]:
        inputs, width = block.inputs, self.teacher.width
        output = self._model(**inputs)
        logits_BV = getattr(output, "logits", output).float()
        self.found.num_clamped += getattr(output, "num_clamped", 0)
        expected = (len(next(iter(inputs.values()))), width)
        if tuple(logits_BV.shape) != expected:
            raise TeacherAnswerError(
                f"request {request.request_id}: the teacher's logits have shape "
                f"{list(logits_BV.shape)}, expected {list(expected)}: give a teacher with "
                f"{width} classes"
            )
        yield logits_BV[None], None
        self.num_forwards += 1


class PredictProbaBackend(ClassifierBackend):
    """An object with ``predict_proba``, or the pickle of one."""

    def _loaded(self) -> Model:
        teacher = self.teacher
        given = teacher.model
        if given is None:
            given = load_pickled(teacher.folder, teacher.serving.allow_pickle)
        return ProbabilityModel(given)


def _has_predict_proba(teacher: ServedTeacher) -> bool:
    model: Any = teacher.model
    if model is None:
        return is_pickle(teacher.folder)
    return hasattr(model, "predict_proba") and not isinstance(model, nn.Module)
