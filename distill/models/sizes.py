"""How large a student is: its exact number of parameters and the exact size of its file.

A student without weights to start from is a BertForSequenceClassification; of features, a
FeatureClassifier.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import floor, prod
from typing import Literal

from distill.config import SCALES, Student
from distill.errors import ConfigError
from distill.models.capped import STEPS, USED, Family, Shape, largest_within, next_above
from distill.models.features import FeatureSpace, buffer_shapes, count, parameter_shapes

TYPE_VOCAB_SIZE = 2  # single texts and pairs
MAX_HIDDEN = 1024
MAX_FEATURE_HIDDEN = 4096


@dataclass(frozen=True)
class Dimensions:
    layers: int
    hidden: int
    heads: int
    ffn: int
    num_params: int
    size_mb: float  # MB = 10⁶ bytes of the exported float32 safetensors file, header included
    next_mb: float | None = field(default=None, kw_only=True)
    """Where under 95 % of a cap is used: the size of the nearest larger shape."""

    @property
    def unused(self) -> str:
        """For messages: the nearest larger shape, where little of a cap is used; else ""."""
        return _unused(self.next_mb)


def num_params(
    *, layers: int, hidden: int, ffn: int, vocab_size: int, num_labels: int, max_positions: int
) -> int:
    """Parameters of a BertForSequenceClassification. (The number of heads does not matter.)

    With V vocabulary, P positions, H hidden, F ffn, L layers, C classes:
    (V + P + 2)·H + 2H  +  L·(4(H² + H) + 2HF + F + H + 4H)  +  H² + H  +  C·H + C
    """
    h, f = hidden, ffn
    embeddings = (vocab_size + max_positions + TYPE_VOCAB_SIZE) * h + 2 * h
    layer = 4 * (h * h + h) + (h * f + f) + (f * h + h) + 2 * 2 * h
    pooler = h * h + h
    return embeddings + layers * layer + pooler + num_labels * (h + 1)


def safetensors_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of the safetensors file that holds these float32 tensors: 8 + header + 4 a number."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in sorted(shapes):
        stop = start + 4 * prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": (start, stop)}
        start = stop
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + (length + 7) // 8 * 8 + start  # the header is padded to a multiple of 8


def solve(
    student: Student,
    vocab_size: int,
    num_labels: int,
    max_positions: int,
    by_first_rule: bool = False,
) -> Dimensions:
    """The dimensions of a student built from ``scale``, ``size_mb`` or dimensions; tiny by default.

    ``size_mb`` is a cap: see capped.py for which shape of at most that size is taken. Layers are as
    given, else round(hidden / 64), at least 2 (BERT's own proportion), or, with hidden given, 1, 2,
    …, 48. Heads: the largest divisor of hidden not above hidden / 32, at least 1. ffn: as given,
    else 4 · hidden, from a quarter of that to four times that under a cap. Raises ConfigError when
    not even the smallest shape fits.

    ``by_first_rule``: ffn is 4 · hidden under a cap too, and hidden a multiple of 8, as in runs
    that were started before ffn filled the cap; see shape.py.
    """

    def shapes(layers: int, hidden: int, ffn: int) -> dict[str, tuple[int, ...]]:
        return _shapes(layers, hidden, ffn, vocab_size, num_labels, max_positions)

    def count_params(shape: Shape) -> int:
        return num_params(
            layers=shape.layers,
            hidden=shape.hidden,
            ffn=shape.ffn,
            vocab_size=vocab_size,
            num_labels=num_labels,
            max_positions=max_positions,
        )

    def dimensions(layers: int, hidden: int, ffn: int | None = None) -> Dimensions:
        ffn = ffn or student.ffn or 4 * hidden
        return Dimensions(
            layers=layers,
            hidden=hidden,
            heads=student.heads or _default_heads(hidden),
            ffn=ffn,
            num_params=count_params(Shape(layers, hidden, ffn)),
            size_mb=safetensors_bytes(shapes(layers, hidden, ffn)) / 1e6,
        )

    if student.size_mb is None:
        layers, hidden = SCALES[student.scale or "tiny"]
        layers, hidden = student.layers or layers, student.hidden or hidden
        _check_heads(student.heads, hidden)
        return dimensions(layers, hidden)

    if student.hidden is not None:
        _check_heads(student.heads, student.hidden)
    rungs = list(ladder(student))
    if not rungs:
        raise ConfigError(
            f"student.heads {student.heads} divides no hidden size up to {MAX_HIDDEN}: use fewer"
        )
    if by_first_rule:
        num = bisect_right(rungs, student.size_mb, key=lambda rung: dimensions(*rung).size_mb)
        if num:
            return dimensions(*rungs[num - 1])
    else:
        family = Family(
            rungs=lambda step: ladder(student, step),
            default_ffn=lambda hidden: 4 * hidden,
            fixed_ffn=student.ffn,
            num_params=count_params,
            size=lambda shape: safetensors_bytes(shapes(shape.layers, shape.hidden, shape.ffn)),
        )
        cap = floor(student.size_mb * 1e6 + 1e-6)
        if (shape := largest_within(family, cap)) is not None:
            found = dimensions(shape.layers, shape.hidden, shape.ffn)
            return replace(found, next_mb=next_mb(family, found.size_mb, cap))
    raise too_small(student, vocab_size, dimensions(*rungs[0]).size_mb)


def next_mb(family: Family, size_mb: float, cap: int) -> float | None:
    """Of the nearest larger shape, where under 95 % of the cap is used; else None."""
    if size_mb * 1e6 >= USED * cap:
        return None
    larger = next_above(family, cap)
    return None if larger is None else larger / 1e6


def too_small(student: Student, vocab_size: int, smallest_mb: float) -> ConfigError:
    """Of a cap below the smallest student of this vocabulary."""
    return ConfigError(
        f"student.size_mb {student.size_mb:g} is too small: with a vocabulary of {vocab_size} "
        f"tokens the smallest student takes {smallest_mb:.3f} MB; raise it, or retrain the "
        "tokenizer to fewer tokens with student.vocab_size"
    )


@dataclass(frozen=True)
class FeatureDimensions:
    family: Literal["mlp", "cnn"]
    layers: int
    hidden: int
    num_params: int
    size_mb: float  # as in Dimensions; the standardisation is in the file, and no parameter
    next_mb: float | None = None  # as in Dimensions

    @property
    def unused(self) -> str:
        """As of Dimensions."""
        return _unused(self.next_mb)


def _unused(next_mb: float | None) -> str:
    return "" if next_mb is None else f"; the next larger shape takes {next_mb:.3f} MB"


def _family_of_features(student: Student, space: FeatureSpace) -> Literal["mlp", "cnn"]:
    """Raises ConfigError for keys of students of text, and for a cnn without an image."""
    family = student.family or "mlp"
    if family == "transformer":
        raise ConfigError(
            "student.family is transformer, but the data is features: use mlp or cnn, or give "
            "data.columns.text"
        )
    for key in ("init_from", "scale", "heads", "ffn", "tokenizer", "vocab_size"):
        if getattr(student, key) is not None:
            raise ConfigError(
                f"student.{key} applies only to students that read text, but the data is features: "
                "remove it, and set student.layers and student.hidden, or student.size_mb"
            )
    if family == "cnn" and space.image is None:
        raise ConfigError(
            "student.family is cnn: set data.image to the shape of the image ({height: …, width: "
            "…, channels: …}), or use mlp"
        )
    return family


def solve_features(
    student: Student, space: FeatureSpace, num_labels: int, by_first_rule: bool = False
) -> FeatureDimensions:
    """The dimensions of a student of features; 2 layers of 32 by default.

    ``size_mb`` is a cap: it takes the largest hidden from 8 to 4096 that fits, in multiples of 8
    where these use 95 % of the cap, else of 4, 2 or 1; with layers as given, else 2. With hidden
    given it takes the most layers of 1, …, 8. Raises ConfigError for keys that only text students
    have, a cnn without ``data.image``, and when not even the smallest fits.

    ``by_first_rule``: multiples of 8 alone; see shape.py.
    """
    family = _family_of_features(student, space)
    num_inputs = space.image[2] if family == "cnn" and space.image else space.num

    def dimensions(layers: int, hidden: int) -> FeatureDimensions:
        shapes = parameter_shapes(
            family, layers=layers, hidden=hidden, num_inputs=num_inputs, num_labels=num_labels
        )
        size = safetensors_bytes(shapes | buffer_shapes(space.num))
        return FeatureDimensions(family, layers, hidden, count(shapes), size / 1e6)

    if student.size_mb is None:
        return dimensions(student.layers or 2, student.hidden or 32)
    found = smallest = None
    for step in STEPS[:1] if by_first_rule or student.hidden is not None else STEPS:
        if student.hidden is not None:
            rungs = [(layers, student.hidden) for layers in range(1, 9)]
        else:
            layers = student.layers or 2
            rungs = [(layers, hidden) for hidden in range(8, MAX_FEATURE_HIDDEN + 1, step)]
        smallest = dimensions(*rungs[0])
        num = bisect_right(rungs, student.size_mb, key=lambda rung: dimensions(*rung).size_mb)
        if not num:
            break
        larger = dimensions(*rungs[num]).size_mb if num < len(rungs) else None
        found = dimensions(*rungs[num - 1])
        if found.size_mb >= USED * student.size_mb or by_first_rule:
            return found
        found = replace(found, next_mb=larger)
    if found is not None:
        return found
    assert smallest is not None
    raise ConfigError(
        f"student.size_mb {student.size_mb:g} is too small: with {space.num} features the smallest "
        f"{family} takes {smallest.size_mb:.4f} MB: raise it, or lower student.layers or "
        "student.hidden"
    )


def ladder(student: Student, step: int = 8) -> Iterator[tuple[int, int]]:
    """(layers, hidden), from small to large, with hidden in multiples of ``step``."""
    if student.hidden is not None:
        yield from ((layers, student.hidden) for layers in range(1, 49))
        return
    for hidden in range(8, MAX_HIDDEN + 1, step):
        if student.heads is None or hidden % student.heads == 0:
            yield student.layers or max(2, round(hidden / 64)), hidden


def _default_heads(hidden: int) -> int:
    return next(heads for heads in range(max(1, hidden // 32), 0, -1) if hidden % heads == 0)


def _check_heads(heads: int | None, hidden: int) -> None:
    if heads is not None and hidden % heads:
        raise ConfigError(
            f"student.heads {heads} must divide the hidden size, {hidden}: use "
            f"{_default_heads(hidden)}, or change student.hidden"
        )


def _shapes(
    layers: int, hidden: int, ffn: int, vocab_size: int, num_labels: int, max_positions: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of a BertForSequenceClassification's file; their names are in its header."""
    h, f = hidden, ffn

    def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (h,), f"{name}.bias": (h,)}

    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (vocab_size, h),
        "bert.embeddings.position_embeddings.weight": (max_positions, h),
        "bert.embeddings.token_type_embeddings.weight": (TYPE_VOCAB_SIZE, h),
        **norm("bert.embeddings.LayerNorm"),
        **linear("bert.pooler.dense", h, h),
        **linear("classifier", h, num_labels),
    }
    for index in range(layers):
        layer = f"bert.encoder.layer.{index}"
        for part in ("query", "key", "value"):
            shapes |= linear(f"{layer}.attention.self.{part}", h, h)
        shapes |= linear(f"{layer}.attention.output.dense", h, h)
        shapes |= norm(f"{layer}.attention.output.LayerNorm")
        shapes |= linear(f"{layer}.intermediate.dense", h, f)
        shapes |= linear(f"{layer}.output.dense", f, h)
        shapes |= norm(f"{layer}.output.LayerNorm")
    return shapes
