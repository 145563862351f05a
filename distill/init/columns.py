"""Which columns of a table are what: by their names, else by their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distill.data.split_names import KEYWORDS
from distill.errors import DataError
from distill.init.models import Model
from distill.init.rows import MAX_DOMAINS, Table, is_label, split_names

if TYPE_CHECKING:
    from distill.init.choices import Choices

PROSE = 20
"""Mean characters above which a column holds texts rather than names."""


def take_split(found: Choices, table: Table) -> None:
    """The column of splits, unless the names of files assign the rows."""
    if any(file.split is not None for file in table.files):
        found.split_source = "files"
        return
    for name in table.usual("split", ("text",)):
        values = {value.casefold() for value in table.columns[name].values}
        if values & set(KEYWORDS["train"]):
            found.columns["split"] = name
            found.split_source = "column"
            return


def take_document(found: Choices, table: Table) -> None:
    """Chats, else prompts with completions, else texts."""
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
    take_text(found, table)


def take_label(found: Choices, table: Table, models: Sequence[Model]) -> None:
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


def take_input(found: Choices, table: Table, models: Sequence[Model]) -> None:
    """Features, or a text with its pair."""
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
    take_text(found, table)
    pairs = table.usual("text_pair", ("text",), _taken(found))
    if pairs:
        found.columns["text_pair"] = pairs[0]


def take_text(found: Choices, table: Table) -> None:
    """Raises DataError for data without a column of texts."""
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


def take_domain(found: Choices, table: Table, models: Sequence[str]) -> None:
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


def check_domain(found: Choices) -> None:
    """Not a column with one value, or with too many."""
    num = len(found.contents.domains.keys() - {None})
    if "domain" in found.columns and not 1 < num <= MAX_DOMAINS:
        name = found.columns.pop("domain")
        found.notes["domain"] = f"domain: {name} has {num} values, too many for domains"


def take_split_names(found: Choices, table: Table) -> None:
    """Only of a column that has all three splits and no row without one."""
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


def note_others(found: Choices) -> None:
    """Of the columns that are used for nothing else."""
    used = {name for value in found.columns.values() for name in np.atleast_1d(value).tolist()}
    for key, names in found.others.items():
        if left := [name for name in names if name not in used]:
            found.notes.setdefault(key, f"{key} could also be {', '.join(left[:8])}")


def _taken(found: Choices) -> list[str | None]:
    return [v for v in found.columns.values() if isinstance(v, str)]


def _values(table: Table, name: str) -> set[str]:
    return {value.strip().casefold() for value in table.columns[name].values}


def _is_prose(table: Table, names: Sequence[str]) -> bool:
    return any(table.columns[name].num_chars > PROSE for name in names)


def _is_id(name: str) -> bool:
    return name.casefold() in ("id", "index", "idx", "row", "__index_level_0__", "unnamed: 0")


def _is_features(found: Choices, name: str) -> bool:
    features = found.columns.get("features", ())
    return name in features if isinstance(features, list) else False
