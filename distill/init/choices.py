"""What ``distill init`` decides from the rows and the models, and what it leaves open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill.data.chat_tokens import ChatTokens
from distill.data.chats import as_chat, canonical_chat
from distill.errors import DataError, ModelError
from distill.init.columns import (
    check_domain,
    note_others,
    take_domain,
    take_split,
    take_split_names,
)
from distill.init.models import Model
from distill.init.rows import DataCounts, Table, read_contents
from distill.init.tasks import TaskProposal, proposal_for

SHARE = 95
"""Percent of the rows that fit into data.max_length."""
SHARE_WITH_ANSWER = 99
"""The same of prompts and chats, which are truncated and would lose their answer."""
ORDER = (
    *("text", "text_pair", "prompt", "completion", "messages", "tools", "features"),
    *("label", "domain", "split"),
)
PER_MESSAGE = 8  # assumed tokens around a message, where there is no chat template
MAX_RENDERED = 1000  # chats whose tokens are counted


@dataclass
class Choices:
    task: TaskProposal
    columns: dict[str, Any] = field(default_factory=dict)
    contents: DataCounts = field(default_factory=DataCounts)
    splits: dict[str, str] = field(default_factory=dict)
    """Names of the splits that are not called as data.splits has them."""
    split_source: str = "cut"
    """column, files, or cut: where the splits come from."""
    max_length: int | None = None
    others: dict[str, list[str]] = field(default_factory=dict)
    """By key: other columns that it could be."""
    notes: dict[str, str] = field(default_factory=dict)
    """By key: the comment above it."""
    open_points: list[str] = field(default_factory=list)
    """Keys that a person has to fill in."""
    guesses: list[str] = field(default_factory=list)
    """Keys that have a value which a person has to check."""

    @property
    def train_share(self) -> float:
        named = [value for value, split in self.splits.items() if split == "train"] or ["train"]
        total = sum(self.contents.splits.values())
        counted = sum(self.contents.splits[name] for name in named)
        return counted / total if total else 0.8

    @property
    def num_train(self) -> float:
        """Estimated training rows, of a language model blocks."""
        return self.task.num_train(self.contents.num_rows * self.train_share, self.contents)


def choose(table: Table, models: Sequence[Model]) -> Choices:
    """Raises DataError for data in which neither texts, chats nor features are found."""
    found = Choices(proposal_for(table, models))
    take_split(found, table)
    found.task.take_columns(found, table, models)
    take_domain(found, table, [model.name for model in models])
    columns = found.columns
    texts = [columns[k] for k in ("text", "text_pair", "prompt", "completion") if columns.get(k)]
    found.contents = read_contents(
        table,
        texts,
        columns.get("label"),
        columns.get("domain"),
        columns.get("split"),
        [columns[k] for k in ("messages", "tools") if columns.get(k)],
    )
    check_domain(found)
    take_split_names(found, table)
    note_others(found)
    found.columns = {key: columns[key] for key in ORDER if key in columns}
    return found


def take_length(found: Choices, models: Sequence[Model], tokenizer: Any) -> None:
    """``max_length`` from the tokens of the sampled rows, limited by the models."""
    lengths = _lengths(found, tokenizer)
    if not lengths:
        return
    is_answered = "prompt" in found.columns or "messages" in found.columns
    share = SHARE_WITH_ANSWER if is_answered else SHARE
    longest = int(np.percentile(lengths, share)) + 1
    longest = max(16, -(-longest // 8) * 8)
    limits = [found.task.longest]
    limits += [m.max_positions for m in models if m.max_positions is not None]
    found.max_length = max(4, min(longest, *limits))
    fitting = sum(length <= found.max_length for length in lengths) / len(lengths)
    limited = "; the models have no more positions" if found.max_length in limits[1:] else ""
    found.notes["max_length"] = (
        f"holds {fitting:.0%} of {len(lengths):,} sampled rows whole (tokens: median "
        f"{int(np.median(lengths))}, longest {max(lengths)}){limited}"
    )


def student_of(found: Choices, models: Sequence[Model], tokenizer: Any) -> dict[str, Any]:
    """The section student: small against the largest model, and certain to be buildable."""
    if "features" in found.columns:
        return {"layers": 2, "hidden": 64}
    return found.task.student(found, max(models, key=lambda m: m.num_params), tokenizer)


def batch_size(num_rows: float, largest: int) -> int:
    """A power of two, of which an epoch has about ten; ``num_rows`` is an estimate."""
    size = largest
    while size > 1 and size * 10 > num_rows:
        size //= 2
    return size


def _lengths(found: Choices, tokenizer: Any) -> list[int]:
    """Tokens of the sampled rows; of chats as the template renders them, if there is one."""
    rows = [row for row, _ in found.contents.texts]
    if not rows:
        return []
    if "messages" in found.columns:
        chats = [
            (json.loads(row[0]), json.loads(row[1]) if row[1:] and row[1] else None)
            for row in rows
            if row[0].startswith("[")
        ]
        return _chat_lengths(chats, tokenizer)
    if "prompt" in found.columns and tokenizer.chat_template:  # data.prompt_as_chat
        return _chat_lengths([(json.loads(as_chat(*row[-2:])), None) for row in rows], tokenizer)
    return _count(tokenizer, ["\n".join(row) for row in rows])


def _chat_lengths(chats: list[tuple[list[Any], Any]], tokenizer: Any) -> list[int]:
    chats = chats[:: -(-len(chats) // MAX_RENDERED)] if chats else []
    try:
        template = ChatTokens(tokenizer) if tokenizer.chat_template else None
    except ModelError:  # ``distill check`` reports it
        template = None
    lengths = []
    for number, (chat, tools) in enumerate(chats):
        try:
            if template is None:
                raise DataError("no template")
            checked = json.loads(canonical_chat(json.dumps(chat), f"chat {number}"))
            lengths.append(max(len(ids) for ids, _ in template.of(checked, number, tools)))
        except (DataError, ModelError):
            flat = "\n".join(_content(message) for message in chat)
            lengths += [n + PER_MESSAGE * len(chat) for n in _count(tokenizer, [flat])]
    return lengths


def _content(message: dict[str, Any]) -> str:
    content = message.get("content", message.get("value"))
    if isinstance(content, str) and not message.get("tool_calls"):
        return content
    return json.dumps(message)


def _count(tokenizer: Any, texts: list[str]) -> list[int]:
    if not texts:
        return []
    return [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
