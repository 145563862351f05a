"""How any process finds a classifier and its rows again: by their folders, from a configuration.

The same spec and seed give the same bits on every rank, so specs travel instead of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from transformers import PreTrainedModel

from distill.config import Cut
from distill.config import Student as StudentConfig
from distill.config.tasks import task_named
from distill.data.corpus import Corpus
from distill.data.inputs import Inputs, open_inputs
from distill.models.features import FeatureSpace
from distill.models.freeze import train_top_layers
from distill.models.load import load_base_for_classification, load_tokenizer
from distill.models.reading import Reading
from distill.models.shape import fixed
from distill.models.sizes import Dimensions, FeatureDimensions, solve, solve_features
from distill.models.student import build_feature_student, build_student
from distill.training.job import Folder, InFolders

if TYPE_CHECKING:
    from distill.tasks.classification import Classification


@dataclass(frozen=True)
class EncoderSpec(InFolders):
    """An expert or router: an encoder folder with a new head."""

    base: str
    label_names: tuple[str, ...]
    layers: int | None = None
    train_layers: int | None = None

    @property
    def is_adapter(self) -> bool:
        return False

    folders: ClassVar[Mapping[str, Folder]] = {"base": "model"}

    def build(self, seed: int) -> PreTrainedModel:
        model = load_base_for_classification(self.base, self.label_names, seed, layers=self.layers)
        train_top_layers(model, self.train_layers)
        return model

    def in_folder(self, folder: Path) -> Self:
        return self


@dataclass(frozen=True)
class StudentSpec(InFolders):
    """With ``features``, a student of features: tokenizer and max_length do not matter then."""

    student: StudentConfig
    tokenizer: str
    label_names: tuple[str, ...]
    max_length: int
    features: FeatureSpace | None = None

    @property
    def is_adapter(self) -> bool:
        return False

    folders: ClassVar[Mapping[str, Folder]] = {"tokenizer": "tokenizer"}

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
class DataSpec(InFolders):
    """Rows as the model takes them, found again in any process by their folders.

    Of a corpus of features, which has no tokenizer, ``tokenizer`` is empty.
    """

    corpus: str
    tokenizer: str
    max_length: int
    cut: Cut = "head"

    @property
    def chat(self) -> None:
        return None

    folders: ClassVar[Mapping[str, Folder]] = {"corpus": "corpus", "tokenizer": "tokenizer"}

    @property
    def task(self) -> Classification:
        return task_named("classification")

    @property
    def rows(self) -> Corpus:
        return Corpus(Path(self.corpus))

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
