"""What ``distill init`` decides from the rows and the models, and what it leaves open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill.config import Student
from distill.data.chat_tokens import ChatTokens
from distill.data.chats import as_chat, canonical_chat
from distill.data.split_names import KEYWORDS
from distill.errors import ConfigError, DataError, ModelError
from distill.init.models import Model, task_of
from distill.init.rows import (
    MAX_DOMAINS,
    Contents,
    Table,
    is_label,
    read_contents,
    split_names,
)

SHARE = 95
"""Percent of the rows that fit into data.max_length."""
SHARE_WITH_ANSWER = 99
"""The same of prompts and chats, which are truncated and would lose their answer."""
LONGEST = {"classification": 512, "language_model": 1024}
PROSE = 20
"""Mean characters above which a column holds texts rather than names."""
ORDER = (
    *("text", "text_pair", "prompt", "completion", "messages", "tools", "features"),
    *("label", "domain", "split"),
)
PER_MESSAGE = 8  # assumed tokens around a message, where there is no chat template
MAX_RENDERED = 1000  # chats whose tokens are counted
COMPRESSIONS = (10, 8, 6, 4, 3, 2, 1.5)
RETRAINED = 8000
"""student.vocab_size where the teachers' tokenizer has more than twice as many tokens."""


@dataclass
class Choices:
    task: str
    columns: dict[str, Any] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)
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


def choose(table: Table, models: Sequence[Model]) -> Choices:
    """Raises DataError for data in which neither texts, chats nor features are found."""
    found = Choices(_task(table, models))
    is_language_model = found.task == "language_model"
    _take_split(found, table)
    if is_language_model:
        _take_document(found, table)
    else:
        _take_label(found, table, models)
        _take_input(found, table, models)
    _take_domain(found, table, [model.name for model in models])
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
    _check_domain(found)
    _take_split_names(found, table)
    _note_others(found)
    found.columns = {key: columns[key] for key in ORDER if key in columns}
    return found


def take_length(found: Choices, models: Sequence[Model], tokenizer: Any) -> None:
    """``max_length`` from the tokens of the sampled rows, limited by the models."""
    lengths = _lengths(found, tokenizer)
    if not lengths:
        return
    is_answered = "prompt" in found.columns or "messages" in found.columns
    share = SHARE_WITH_ANSWER if is_answered else SHARE
    wanted = int(np.percentile(lengths, share)) + 1
    wanted = max(16, -(-wanted // 8) * 8)
    limits = [LONGEST[found.task]]
    limits += [m.max_positions for m in models if m.max_positions is not None]
    found.max_length = max(4, min(wanted, *limits))
    fitting = sum(length <= found.max_length for length in lengths) / len(lengths)
    limited = "; the models have no more positions" if found.max_length in limits[1:] else ""
    found.notes["max_length"] = (
        f"holds {fitting:.0%} of {len(lengths):,} sampled rows whole (tokens: median "
        f"{int(np.median(lengths))}, longest {max(lengths)}){limited}"
    )


def student_of(found: Choices, models: Sequence[Model], tokenizer: Any) -> dict[str, Any]:
    """The section student: small against the largest model, and certain to be buildable."""
    largest = max(models, key=lambda m: m.num_params)
    if "features" in found.columns:
        return {"layers": 2, "hidden": 64}
    if found.task == "language_model":
        if largest.num_layers < 2:
            return {"scale": "tiny"}
        keep = {"path": largest.folder, "layers": largest.num_layers // 2, "keep": "even"}
        return {"init_from": keep}
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


def batch_size(num_rows: float, largest: int) -> int:
    """A power of two, of which an epoch has about ten; ``num_rows`` is an estimate."""
    size = largest
    while size > 1 and size * 10 > num_rows:
        size //= 2
    return size


def num_train(found: Choices) -> float:
    """Estimated training rows, of a language model blocks."""
    rows = found.contents.num_rows * found.train_share
    if found.task == "classification":
        return max(rows - found.contents.num_unlabelled, 0)
    return rows * 0.25  # a quarter of a block each


def _task(table: Table, models: Sequence[Model]) -> str:
    if models:
        return task_of(models[0])
    has_chats = bool(table.usual("messages", ("chat",)))
    has_label = any(is_label(table.columns[n]) for n in table.usual("label", ("text", "number")))
    has_answers = bool(table.usual("prompt", ("text",)) and table.usual("completion", ("text",)))
    is_classified = has_label and not has_chats and not has_answers
    is_document = has_chats or has_answers or bool(table.usual("text", ("text",)))
    return "language_model" if is_document and not is_classified else "classification"


def _take_split(found: Choices, table: Table) -> None:
    if any(file.split is not None for file in table.files):
        found.split_source = "files"
        return
    for name in table.usual("split", ("text",)):
        values = {value.casefold() for value in table.columns[name].values}
        if values & set(KEYWORDS["train"]):
            found.columns["split"] = name
            found.split_source = "column"
            return


def _taken(found: Choices) -> list[str | None]:
    return [v for v in found.columns.values() if isinstance(v, str)]


def _take_document(found: Choices, table: Table) -> None:
    chats = table.usual("messages", ("chat",)) or table.of_kind("chat")
    if chats:
        found.columns["messages"] = chats[0]
        if tools := [n for n in table.columns if n.casefold() in ("tools", "functions")]:
            found.columns["tools"] = tools[0]
        found.others["messages"] = chats[1:]
        return
    prompts = table.usual("prompt", ("text",), _taken(found))
    completions = [n for n in table.usual("completion", ("text",)) if n not in prompts[:1]]
    if prompts and completions:
        found.columns |= {"prompt": prompts[0], "completion": completions[0]}
        found.others["prompt"] = prompts[1:]
        return
    _take_text(found, table)


def _take_text(found: Choices, table: Table) -> None:
    texts = table.usual("text", ("text",), _taken(found))
    others = [n for n in table.of_kind("text") if n not in (*texts, *_taken(found))]
    others.sort(key=lambda name: -table.columns[name].num_chars)
    if not texts and not others:
        raise DataError(
            f"data.path: no column with texts, chats or numbers is found in "
            f"{table.files[0].uri}: {table.shown}"
        )
    found.columns["text"] = (texts or others)[0]
    found.others["text"] = [
        *texts,
        *(name for name in others if table.columns[name].num_chars > PROSE),
    ]


def _take_label(found: Choices, table: Table, models: Sequence[Model]) -> None:
    """The column whose values are the models' labels, else one that is usually called so."""
    labels = table.usual("label", ("text", "number"), _taken(found))
    named = set().union(*({n.casefold() for n in model.label_names} for model in models))
    matching = [
        name
        for name in (*labels, *table.of_kind("text", "number"))
        if name not in _taken(found) and _values(table, name) <= named
    ]
    labels = [name for name in dict.fromkeys(matching + labels) if is_label(table.columns[name])]
    if labels:
        found.columns["label"] = labels[0]
        found.others["label"] = labels[1:]
        return
    found.open_points.append("data.columns.label")
    found.notes["label"] = (
        "FILL IN: no column with labels was found (strings or whole numbers, named like label, "
        f"target, class, stars); {table.shown}"
    )


def _values(table: Table, name: str) -> set[str]:
    return {value.strip().casefold() for value in table.columns[name].values}


def _take_input(found: Choices, table: Table, models: Sequence[Model]) -> None:
    reads_features = any(model.num_features for model in models)
    texts = table.usual("text", ("text",), _taken(found))
    long = [n for n in table.of_kind("text") if n not in _taken(found)]
    lists = table.usual("features", ("numbers",)) or table.of_kind("numbers")
    numbers = [n for n in table.of_kind("number") if n not in _taken(found) and not _is_id(n)]
    is_table = bool(lists) or (len(numbers) > 1 and not _is_prose(table, long))
    if reads_features or (not texts and is_table):
        if not lists and not numbers:
            raise DataError(
                f"data.path: the models read numbers, but {table.files[0].uri} has no column of "
                f"numbers: {table.shown}"
            )
        found.columns["features"] = lists[0] if lists else numbers
        if not lists:
            found.notes["features"] = "all columns of numbers; remove those that are not features"
        return
    _take_text(found, table)
    pairs = table.usual("text_pair", ("text",), _taken(found))
    if pairs:
        found.columns["text_pair"] = pairs[0]


def _is_prose(table: Table, names: Sequence[str]) -> bool:
    return any(table.columns[name].num_chars > PROSE for name in names)


def _is_id(name: str) -> bool:
    return name.casefold() in ("id", "index", "idx", "row", "__index_level_0__", "unnamed: 0")


def _take_domain(found: Choices, table: Table, models: Sequence[str]) -> None:
    """A column with a usual name, or one that has the models' names as values."""
    named = [
        name
        for name in table.of_kind("text")
        if name not in _taken(found) and set(models) & set(table.columns[name].values)
    ]
    for name in [*table.usual("domain", ("text", "number"), _taken(found)), *named]:
        if 1 < len(table.columns[name].values) <= MAX_DOMAINS and not _is_features(found, name):
            found.columns["domain"] = name
            return


def _is_features(found: Choices, name: str) -> bool:
    features = found.columns.get("features", ())
    return name in features if isinstance(features, list) else False


def _check_domain(found: Choices) -> None:
    num = len(found.contents.domains.keys() - {None})
    if "domain" in found.columns and not 1 < num <= MAX_DOMAINS:
        name = found.columns.pop("domain")
        found.notes["domain"] = f"domain: {name} has {num} values, too many for domains"


def _take_split_names(found: Choices, table: Table) -> None:
    if found.split_source != "column":
        return
    values = [value for value in found.contents.splits if value is not None]
    named = split_names(values)
    is_complete = named is not None and {"train", "validation", "test"} <= set(named.values())
    if named is not None and is_complete and None not in found.contents.splits:
        found.splits = {value: split for value, split in named.items() if value != split}
        return
    name = found.columns.pop("split")
    found.split_source = "cut"
    found.notes["split"] = (
        f"the column {name!r} has the values {', '.join(map(repr, values[:6]))}, but train, "
        "validation and test are needed: the splits are chosen by a hash instead. To use the "
        f"column, give it a value for each of the three, set split: {name}, and set data.splits if "
        "the values have other names"
    )


def _note_others(found: Choices) -> None:
    """Of the columns that are used for nothing else."""
    used = {name for value in found.columns.values() for name in np.atleast_1d(value).tolist()}
    for key, names in found.others.items():
        if left := [name for name in names if name not in used]:
            found.notes.setdefault(key, f"{key} could also be {', '.join(left[:8])}")


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
