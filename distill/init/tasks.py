"""The parts of a proposed configuration that depend on the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from distill.config import Student
from distill.errors import ConfigError
from distill.init.columns import take_document, take_input, take_label
from distill.init.models import TASK_OF, Model
from distill.init.rows import DataCounts, Table, is_label

if TYPE_CHECKING:
    from distill.init.choices import Choices

COMPRESSIONS = (10, 8, 6, 4, 3, 2, 1.5)
RETRAINED = 8000
"""student.vocab_size where the teachers' tokenizer has more than twice as many tokens."""


class TaskProposal(Protocol):
    """The parts of a configuration that one task decides."""

    name: ClassVar[str]
    """``task`` in the configuration."""
    head: ClassVar[tuple[str, ...]]
    """Lines before the first section."""
    longest: ClassVar[int]
    """``data.max_length`` at most."""
    batch_size: ClassVar[int]
    """``trainer.batch_size`` at most."""
    can_cluster: ClassVar[bool]
    """Whether experts are proposed for rows without domains."""
    base: ClassVar[str]
    """What ``experts.base`` is, in words."""
    aggregations: ClassVar[str]
    """Types that a comment names besides the mean."""

    def take_columns(self, found: Choices, table: Table, models: Sequence[Model]) -> None:
        """Labels and inputs. Raises DataError for a table without inputs."""
        ...

    def num_train(self, rows: float, contents: DataCounts) -> float:
        """Rows of an epoch, of which ``rows`` are in the train split."""
        ...

    def data(self, contents: DataCounts) -> list[str]:
        """Lines of the section data."""
        ...

    def student(self, found: Choices, largest: Model, tokenizer: Any) -> dict[str, Any]:
        """The section student, of a tokenizer: small against the largest model."""
        ...

    def optimizer(self, models: Sequence[Model]) -> list[str]:
        """Lines of the section optimizer."""
        ...

    def baselines(self) -> list[str]:
        """Lines of the section baselines."""
        ...


class ClassificationProposal:
    """Texts, pairs or features with labels."""

    name: ClassVar[str] = "classification"
    head: ClassVar[tuple[str, ...]] = ()
    longest: ClassVar[int] = 512
    batch_size: ClassVar[int] = 32
    can_cluster: ClassVar[bool] = True
    base: ClassVar[str] = "an encoder"
    aggregations: ClassVar[str] = "weights, uncertainty, attention, …"

    def take_columns(self, found: Choices, table: Table, models: Sequence[Model]) -> None:
        take_label(found, table, models)
        take_input(found, table, models)

    def num_train(self, rows: float, contents: DataCounts) -> float:
        return max(rows - contents.num_unlabelled, 0)

    def data(self, contents: DataCounts) -> list[str]:
        if not contents.num_empty:
            return []
        return [f"  on_empty_text: drop  # {contents.num_empty:,} rows have an empty text"]

    def student(self, found: Choices, largest: Model, tokenizer: Any) -> dict[str, Any]:
        from distill.models.sizes import solve
        from distill.models.tokenizer import is_retrainable

        vocab_size, extra = len(tokenizer), {}
        if vocab_size > 2 * RETRAINED and is_retrainable(tokenizer):
            vocab_size = RETRAINED
            extra = {"vocab_size": vocab_size}
        num_labels = max(len(found.contents.label_names), 2)
        for factor in COMPRESSIONS:
            size_mb = float(f"{largest.num_params * 4e-6 / factor:.2g}")
            try:
                solve(Student(size_mb=size_mb), vocab_size, num_labels, found.max_length or 128)
            except (ConfigError, ValueError):
                continue
            return {"size_mb": size_mb} | extra
        return {"scale": "tiny"} | extra

    def optimizer(self, models: Sequence[Model]) -> list[str]:
        return []

    def baselines(self) -> list[str]:
        return [
            "",
            "# Baseline: a student of the same size, trained without teachers.",
            "baselines:",
            "  - {type: labels_only, name: without-teachers}",
        ]


class LanguageModelProposal:
    """Texts, prompts with completions, or chats."""

    name: ClassVar[str] = "language_model"
    head: ClassVar[tuple[str, ...]] = ("task: language_model",)
    longest: ClassVar[int] = 1024
    batch_size: ClassVar[int] = 8
    can_cluster: ClassVar[bool] = False
    base: ClassVar[str] = "a causal language model"
    aggregations: ClassVar[str] = "weights, oracle, uncertainty, learned, …"

    def take_columns(self, found: Choices, table: Table, models: Sequence[Model]) -> None:
        take_document(found, table)

    def num_train(self, rows: float, contents: DataCounts) -> float:
        return rows * 0.25  # blocks: a quarter of one each

    def data(self, contents: DataCounts) -> list[str]:
        return []

    def student(self, found: Choices, largest: Model, tokenizer: Any) -> dict[str, Any]:
        if largest.num_layers < 2:
            return {"scale": "tiny"}
        keep = {"path": largest.folder, "layers": largest.num_layers // 2, "keep": "even"}
        return {"init_from": keep}

    def optimizer(self, models: Sequence[Model]) -> list[str]:
        has_layers = bool(models) and models[0].num_layers > 1
        return ["optimizer: {lr: 2.0e-4}"] if has_layers else []

    def baselines(self) -> list[str]:
        return []


PROPOSALS: dict[str, TaskProposal] = {
    each.name: each for each in (ClassificationProposal(), LanguageModelProposal())
}


def proposal_for(table: Table, models: Sequence[Model]) -> TaskProposal:
    """By the models, else by the columns."""
    if models:
        return PROPOSALS[TASK_OF[models[0].kind]]
    has_chats = bool(table.usual("messages", ("chat",)))
    has_label = any(is_label(table.columns[n]) for n in table.usual("label", ("text", "number")))
    has_answers = bool(table.usual("prompt", ("text",)) and table.usual("completion", ("text",)))
    is_classified = has_label and not has_chats and not has_answers
    is_document = has_chats or has_answers or bool(table.usual("text", ("text",)))
    return (
        LanguageModelProposal() if is_document and not is_classified else ClassificationProposal()
    )
