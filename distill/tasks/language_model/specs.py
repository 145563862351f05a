"""How any process finds a language model and its rows again; see classification/specs.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from transformers import PreTrainedModel

from distill.config import Cut, Lora
from distill.config import Student as StudentConfig
from distill.config.tasks import task_named
from distill.data.alignment import for_teacher
from distill.data.blocks import Blocks, build_blocks
from distill.data.chat_template import ChatFormat, ChatTemplate
from distill.data.corpus import Corpus
from distill.models.freeze import train_top_layers
from distill.models.language import load_language_model
from distill.models.language_sizes import solve_language
from distill.models.language_student import build_language_student, with_lora
from distill.models.load import load_tokenizer
from distill.models.shape import fixed
from distill.models.sizes import Dimensions
from distill.models.tokenizer import num_ids
from distill.models.vocabulary import same_tokenizer
from distill.training.job import Folder, InFolders

if TYPE_CHECKING:
    from distill.tasks.language_model import LanguageModel


@dataclass(frozen=True)
class LanguageStudentSpec(InFolders):
    """A language model that is to be a student."""

    student: StudentConfig
    tokenizer: str
    max_length: int
    gradient_checkpointing: bool = False
    label_names: tuple[str, ...] = ()
    is_adapter = False
    folders: ClassVar[Mapping[str, Folder]] = {"tokenizer": "tokenizer"}

    def build(self, seed: int) -> PreTrainedModel:
        return build_language_student(
            self.student, self.tokenizer, self.max_length, seed, self.gradient_checkpointing
        )

    def in_folder(self, folder: Path) -> Self:
        return replace(self, student=fixed(self.student, folder, self._solved))

    def _solved(self, by_first_rule: bool) -> Dimensions:
        return solve_language(self.student, num_ids(load_tokenizer(self.tokenizer)), by_first_rule)


@dataclass(frozen=True)
class LanguageExpertSpec(InFolders):
    """A language model that is tuned to one domain, whole or in part."""

    base: str
    lora: Lora | None = None
    train_layers: int | None = None
    label_names: tuple[str, ...] = ()
    folders: ClassVar[Mapping[str, Folder]] = {"base": "model"}

    @property
    def is_adapter(self) -> bool:
        return self.lora is not None

    def build(self, seed: int) -> PreTrainedModel:
        model = load_language_model(self.base)
        if self.lora is not None:
            return with_lora(model, self.lora, seed)
        train_top_layers(model, self.train_layers)
        return model

    def in_folder(self, folder: Path) -> Self:
        return self


@dataclass(frozen=True)
class BlocksSpec(InFolders):
    """The packed rows of a language model."""

    corpus: str
    tokenizer: str
    max_length: int
    cut: Cut = "head"
    packing: bool = True
    max_unlearnable: float = 0.01
    template: ChatTemplate = ChatTemplate()  # noqa: RUF009 (immutable)
    """Of chats."""
    reading = None
    folders: ClassVar[Mapping[str, Folder]] = {"corpus": "corpus", "tokenizer": "tokenizer"}

    def fingerprints(self) -> dict[str, str | None]:
        """What a template made of chats is in that of the blocks. ``reading`` was a field in 0.1,
        always None: a key still has it."""
        return {"blocks": self.rows.fingerprint, "reading": self.reading}

    @property
    def task(self) -> LanguageModel:
        return task_named("language_model")

    @property
    def rows(self) -> Blocks:
        """In the student's tokens."""
        return self.open()

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
        if tokenizer is None or same_tokenizer(self.tokenizer, tokenizer):
            return own
        return for_teacher(own, tokenizer)

    @property
    def num_ids(self) -> int:
        """Tokens of the vocabulary."""
        return num_ids(load_tokenizer(self.tokenizer))
