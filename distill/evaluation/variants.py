"""The same rows under each transformation; rows that cannot be transformed are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distill.errors import DataError
from distill.evaluation.samples import Sample
from distill.evaluation.settings import Evaluation, Kind
from distill.transform import Code, transformed
from distill.transform.features import noise
from distill.transform.text import TEXT_TRANSFORMATIONS

if TYPE_CHECKING:
    from distill.evaluation.assess import EvaluationTask


@dataclass(frozen=True, eq=False)
class Changed:
    """What one transformation changed."""

    places: np.ndarray
    """int64: positions in the task's samples."""
    samples: Sequence[Sample]
    """As transformed."""


class Variants(dict[str, Changed]):
    """By transformation, those that changed at least one row."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []


def pick(num: int, num_picked: int, seed: int) -> np.ndarray:
    """int64: all of 0 … num − 1, or a seeded sample of ``num_picked``, in order."""
    if num_picked >= num:
        return np.arange(num)
    return np.sort(np.random.default_rng(seed).choice(num, num_picked, replace=False))


def make_variants(
    task: EvaluationTask, places: np.ndarray, names: Sequence[str], settings: Evaluation
) -> Variants:
    """Each transformation of each row; a source that does not parse stays as it is.

    Both texts of a pair are transformed. Raises DataError above ``transform.max_unparsed``.
    """
    variants = Variants()
    kind, samples = task.kind, task.samples
    if kind is None:
        if names:
            variants["noise"] = Changed(places, _noisy(task, places, settings))
        return variants
    if kind != "text" and (names or settings.attack.methods):
        places = _parsed(samples, places, kind, settings, variants)
    for name in names:
        pairs = [
            (i, changed) for i in places if (changed := _change(samples[i], kind, name, settings))
        ]
        if pairs:
            kept, changed = zip(*pairs, strict=True)
            variants[name] = Changed(np.array(kept, np.int64), changed)
        else:
            variants.notes.append(f"transformation {name} applies to none of the rows")
    return variants


def _parsed(
    samples: Sequence[Sample], places: np.ndarray, kind: Kind, settings: Evaluation, into: Variants
) -> np.ndarray:
    """The places whose source parses; the others are counted, or too many."""

    def is_valid(sample: Sample) -> bool:
        texts = [sample.text] if sample.pair is None else [sample.text, sample.pair]
        return all(Code.parse(text, kind).is_valid for text in texts)

    kept = np.array([i for i in places if is_valid(samples[i])], np.int64)
    unparsed = len(places) - len(kept)
    share, limit = unparsed / len(places), settings.transform.max_unparsed
    if share > limit:
        raise DataError(
            f"{unparsed} of {len(places)} sources ({share:.0%}) do not parse as {kind}, more than "
            f"transform.max_unparsed {limit:g} allows: set their language with --language, or "
            "raise the limit"
        )
    if unparsed:
        into.notes.append(
            f"{unparsed} of {len(places)} sources do not parse as {kind}: they are not transformed"
        )
    return kept


def _change(sample: Sample, kind: Kind, name: str, settings: Evaluation) -> Sample | None:
    """None where the transformation does not apply."""
    text = _changed_text(sample.text, kind, name, f"{settings.seed}/{sample.row}/first")
    if sample.pair is None:
        return None if text is None else sample.with_text(text)
    pair = _changed_text(sample.pair, kind, name, f"{settings.seed}/{sample.row}/second")
    if text is None and pair is None:
        return None
    return sample.with_texts(text or sample.text, pair or sample.pair)


def _changed_text(text: str, kind: Kind, name: str, seed: str) -> str | None:
    import random

    rng = random.Random(f"{seed}/{name}")
    if kind == "text":
        changed = TEXT_TRANSFORMATIONS[name](text, rng)
        return None if changed == text else changed
    return transformed(text, kind, name, rng.randrange(2**31))


def _noisy(task: EvaluationTask, places: np.ndarray, settings: Evaluation) -> list[Sample]:
    assert task.sd_D is not None
    features_RD = np.stack([task.samples[i].features_D for i in places])  # type: ignore[arg-type]
    rng = np.random.default_rng(settings.seed)
    noisy_RD = noise(features_RD, task.sd_D, settings.transform.noise, rng)
    return [
        task.samples[i].with_features(row_D.astype(np.float32))
        for i, row_D in zip(places, noisy_RD, strict=True)
    ]
