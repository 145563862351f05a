"""What columns are usually called, by the key of ``data.columns`` that they belong to.

``distill init`` recognises columns by these names, and a message about a missing column proposes
one of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

USUAL: dict[str, tuple[str, ...]] = {
    "text": (
        "text",
        "sentence",
        "review",
        "content",
        "body",
        "code",
        "func",
        "function",
        "source_code",
        "snippet",
        "document",
        "comment",
        "message",
        "post",
        "tweet",
        "utterance",
        "question",
        "query",
        "description",
        "summary",
        "headline",
        "title",
        "input",
        "sentence1",
        "premise",
        "text_a",
        "code1",
    ),
    "label": (
        "label",
        "labels",
        "target",
        "targets",
        "class",
        "category",
        "sentiment",
        "stars",
        "rating",
        "score",
        "intent",
        "topic",
        "tag",
        "y",
        "is_toxic",
        "toxic",
        "is_spam",
        "spam",
        "vulnerable",
        "verdict",
        "answer",
        "outcome",
    ),
    "domain": (
        "domain",
        "source",
        "category",
        "subset",
        "corpus",
        "dataset",
        "genre",
        "product_category",
        "language",
        "lang",
        "cwe",
        "topic",
        "channel",
    ),
    "split": ("split", "partition", "fold", "set", "subset"),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "text_b", "code2", "passage"),
    "messages": ("messages", "conversations", "conversation", "chat", "dialog", "dialogue"),
    "tools": ("tools", "functions"),
    "prompt": ("prompt", "instruction", "question", "query", "input"),
    "completion": ("completion", "response", "answer", "output", "chosen"),
    "features": ("features", "pixels", "image", "embedding", "x"),
}
"""Names in the order in which they are preferred."""


def usual(key: str, columns: Iterable[str]) -> str | None:
    """The column that is most usually ``key``, upper and lower case aside; None where none is."""
    folded = {name.casefold(): name for name in reversed(list(columns))}
    return next((folded[name] for name in USUAL.get(key, ()) if name in folded), None)


def proposals(missing: Mapping[str, str], columns: Sequence[str]) -> str:
    """``; did you mean data.columns.text=review data.columns.label=stars?``, or "".

    ``missing``: names that are not among ``columns``, each with the key that configures it. A
    column with a similar name is proposed, else one that is usual for the key, each of them once.
    """
    left = list(columns)
    found = []
    for name, key in missing.items():
        folded = {column.casefold(): column for column in reversed(left)}
        close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.75)
        column = folded[close[0]] if close else usual(key.rpartition(".")[2], left)
        if column is not None:
            left.remove(column)
            found.append(f"{key}={column}")
    return f"; did you mean {' '.join(found)}?" if found else ""
