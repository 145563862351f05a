"""How any process finds a model and its rows again: by their folders, from a configuration.

The same spec and seed give the same bits on every rank, so specs travel instead of models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from transformers import PreTrainedModel

from distill.config import Cut, Lora
from distill.config import Student as StudentConfig
from distill.data.alignment import for_teacher
from distill.data.blocks import Blocks, build_blocks
from distill.data.chat_template import ChatFormat, ChatTemplate
from distill.data.corpus import Corpus
from distill.data.inputs import Inputs, open_inputs
from distill.models.features import FeatureSpace
from distill.models.freeze import train_top_layers
from distill.models.language import load_language_model
from distill.models.language_sizes import solve_language
from distill.models.language_student import build_language_student, with_lora
from distill.models.load import load_base_for_classification, load_tokenizer
from distill.models.reading import Reading
from distill.models.shape import fixed
from distill.models.sizes import Dimensions, FeatureDimensions, solve, solve_features
from distill.models.student import build_feature_student, build_student
from distill.models.tokenizer import num_ids
from distill.models.vocabulary import speak_alike


class ModelSpec(Protocol):
    """How to build the model on any rank: the same spec and seed give the same bits."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """() of a language model."""
        ...

    def build(self, seed: int) -> PreTrainedModel: ...

    def in_folder(self, folder: Path) -> ModelSpec:
        """The spec with what the fit in ``folder`` was started with; see models/shape.py."""
        ...


@dataclass(frozen=True)
class EncoderSpec:
    """An expert or router: an encoder folder with a new head."""

    base: str
    label_names: tuple[str, ...]
    layers: int | None = None
    train_layers: int | None = None

    def build(self, seed: int) -> PreTrainedModel:
        model = load_base_for_classification(self.base, self.label_names, seed, layers=self.layers)
        train_top_layers(model, self.train_layers)
        return model

    def in_folder(self, folder: Path) -> Self:
        return self


@dataclass(frozen=True)
class StudentSpec:
    """With ``features``, a student of features: tokenizer and max_length do not matter then."""

    student: StudentConfig
    tokenizer: str
    label_names: tuple[str, ...]
    max_length: int
    features: FeatureSpace | None = None

    def build(self, seed: int) -> PreTrainedModel:
        if self.features is not None:
            return build_feature_student(self.student, self.features, self.label_names, seed)
        return build_student(self.student, self.tokenizer, self.label_names, self.max_length, seed)

    def in_folder(self, folder: Path) -> Self:
        return replace(self, student=fixed(self.student, folder, self._solved))

    def _solved(self, by_first_rule: bool) -> Dimensions | FeatureDimensions:
        num_labels = len(self.label_names)
        if self.features is not None:
            return solve_features(self.student, self.features, num_labels, by_first_rule)
        num_tokens = len(load_tokenizer(self.tokenizer))
        return solve(self.student, num_tokens, num_labels, self.max_length, by_first_rule)


@dataclass(frozen=True)
class DataSpec:
    """Rows as the model takes them, found again in any process by their folders.

    Of a corpus of features, which has no tokenizer, ``tokenizer`` is empty.
    """

    corpus: str
    tokenizer: str
    max_length: int
    cut: Cut = "head"
    chat: ClassVar[None] = None

    def open(self, tokenizer: str | None = None) -> Inputs:
        """As the model takes them, or another of its own ``tokenizer`` (a teacher's folder)."""
        own = self.tokenizer if tokenizer is None else tokenizer
        return open_inputs(Corpus(Path(self.corpus)), own, self.max_length, self.cut)

    @property
    def reading(self) -> Reading | None:
        """What an exported model should remember of it; None for features."""
        corpus = Corpus(Path(self.corpus))
        if corpus.features is not None:
            return None
        return Reading(self.max_length, self.cut, corpus.is_pair)


@dataclass(frozen=True)
class LanguageStudentSpec:
    """A language model that is to be a student."""

    student: StudentConfig
    tokenizer: str
    max_length: int
    gradient_checkpointing: bool = False
    label_names: tuple[str, ...] = ()

    def build(self, seed: int) -> PreTrainedModel:
        return build_language_student(
            self.student, self.tokenizer, self.max_length, seed, self.gradient_checkpointing
        )

    def in_folder(self, folder: Path) -> Self:
        return replace(self, student=fixed(self.student, folder, self._solved))

    def _solved(self, by_first_rule: bool) -> Dimensions:
        return solve_language(self.student, num_ids(load_tokenizer(self.tokenizer)), by_first_rule)


@dataclass(frozen=True)
class LanguageExpertSpec:
    """A language model that is tuned to one domain, whole or in part."""

    base: str
    lora: Lora | None = None
    train_layers: int | None = None
    label_names: tuple[str, ...] = ()

    def build(self, seed: int) -> PreTrainedModel:
        model = load_language_model(self.base)
        if self.lora is not None:
            return with_lora(model, self.lora, seed)
        train_top_layers(model, self.train_layers)
        return model

    def in_folder(self, folder: Path) -> Self:
        return self


@dataclass(frozen=True)
class BlocksSpec:
    """The packed rows of a language model."""

    corpus: str
    tokenizer: str
    max_length: int
    cut: Cut = "head"
    packing: bool = True
    max_unlearnable: float = 0.01
    reading: Reading | None = None
    template: ChatTemplate = ChatTemplate()  # noqa: RUF009 (immutable)
    """Of chats."""

    @property
    def chat(self) -> ChatFormat | None:
        """What an exported model should remember of how it was shown chats."""
        blocks: Blocks = self.open()
        return ChatFormat(self.template, blocks.turn_ends) if blocks.kind == "messages" else None

    def open(self, tokenizer: str | None = None) -> Any:
        """Blocks, or, in another tokenizer, the same texts with the positions that both share."""
        corpus = Corpus(Path(self.corpus))
        own = build_blocks(
            corpus,
            self.tokenizer,
            self.max_length,
            self.cut,
            self.packing,
            self.max_unlearnable,
            self.template,
        )
        if tokenizer is None or speak_alike(self.tokenizer, tokenizer):
            return own
        return for_teacher(own, tokenizer)

    @property
    def num_ids(self) -> int:
        """Tokens of the vocabulary."""
        return num_ids(load_tokenizer(self.tokenizer))


Data = DataSpec | BlocksSpec
