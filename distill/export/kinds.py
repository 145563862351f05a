"""The kinds of models that a student's folder may hold, and what differs between them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from distill.config import Columns
from distill.data.source import File
from distill.export.classifier import ClassifierStudent
from distill.export.language_model import LanguageModelStudent
from distill.export.locate import Located
from distill.export.request import (
    Answered,
    ColumnOptions,
    ExportProgress,
    PredictionRequest,
    PredictionSource,
)
from distill.models.load import read_config

LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Ends of the class names that config.json has of language models."""


class StudentKind(Protocol):
    """What ``distill predict`` and ``distill export`` do with one kind of model."""

    task: ClassVar[str]
    """That such models are trained for: see config/tasks.py."""
    text_column: ClassVar[str]
    """The column option of :class:`ColumnOptions` that a list of strings fills."""

    def columns(self, student: Located, named: ColumnOptions, file: File) -> Columns:
        """Those that ``named`` gives, else the run's, else the usual names.

        Raises ConfigError for an option that this kind does not read, DataError for a file without
        the columns.
        """
        ...

    def predict(
        self,
        student: Located,
        source: PredictionSource,
        request: PredictionRequest,
        progress: ExportProgress,
    ) -> Answered:
        """New columns with a value for each row. Raises DataError for a row without content."""
        ...

    def check_onnx(self, student: Located) -> None:
        """Raises ModelError for a kind that has no ONNX export."""
        ...


def kind_of(folder: Path) -> StudentKind:
    """By the class of the model in config.json."""
    saved_as = getattr(read_config(folder), "architectures", None) or [""]
    is_causal = saved_as[0].endswith(LANGUAGE_MODELS)
    return LanguageModelStudent() if is_causal else ClassifierStudent()
