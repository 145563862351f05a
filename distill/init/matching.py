"""The ``labels`` of a teacher whose labels are not those of the data: found by its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from distill.errors import InputError
from distill.init.models import Model
from distill.models.labels import Classes, Outputs, columns_of

NUM_ROWS = 128
LEAST = 0.6
"""Share of the rows that must agree with a map before it is written."""


class LabelMap(NamedTuple):
    labels: dict[str, str]
    """Of the teacher's label the data's."""
    agreement: float | None
    """Share of the rows looked at whose label the teacher gives under this map; None where no map
    was found: ``labels`` then has both in sorted order, for a person to correct."""


def label_map(
    model: Model,
    names: Sequence[str],
    rows: Sequence[tuple[tuple[str, ...], str | None]],
    max_length: int,
) -> LabelMap | None:
    """None where the labels match by name, or are the numbers that the data has."""
    if model.kind != "classifier" or not model.label_names or not names:
        return None
    try:
        columns_of(Outputs(model.path, model.label_names), Classes("the data", tuple(names)))
        return None
    except InputError:
        pass
    if len(model.label_names) != len(names):  # ``distill check`` says so
        return None
    guess = dict(zip(model.label_names, names, strict=True))
    labelled = [(texts, label) for texts, label in rows if label is not None][:NUM_ROWS]
    if model.num_features or not labelled:
        return LabelMap(guess, None)
    answers = _answers(model, [texts for texts, _ in labelled], max_length)
    pairs = Counter(zip(answers, (label for _, label in labelled), strict=True))
    found: dict[str, str] = {}
    for (own, label), _ in pairs.most_common():
        if own not in found and label not in found.values():
            found[own] = label
    agreement = sum(pairs[own, label] for own, label in found.items()) / len(labelled)
    if len(found) < len(names) or agreement < LEAST:
        return LabelMap(guess, None)
    return LabelMap({own: found[own] for own in model.label_names}, agreement)


def _answers(model: Model, texts: Sequence[tuple[str, ...]], max_length: int) -> list[str]:
    """The teacher's label of each row."""
    from distill.models.load import load_classifier
    from distill.models.tokenizer import load_tokenizer

    classifier = load_classifier(model.path)
    tokenizer: Any = load_tokenizer(model.path)
    answers: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(texts), 16):
            part = [list(column) for column in zip(*texts[start : start + 16], strict=True)]
            inputs = tokenizer(
                *part, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
            )
            logits_BV = classifier(**inputs).logits
            answers += [model.label_names[i] for i in logits_BV.argmax(1).tolist()]
    return answers
