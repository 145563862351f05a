"""How large a language-model student is: its exact parameters and the exact size of its file.

A student without weights to start from is a LlamaForCausalLM whose head is its embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor

from distill.config import SCALES, Student
from distill.errors import ConfigError
from distill.models.capped import STEPS, Family, Shape, largest_within
from distill.models.sizes import (
    MAX_HIDDEN,
    Dimensions,
    ladder,
    next_mb,
    safetensors_bytes,
    too_small,
)


@dataclass(frozen=True)
class LanguageDimensions(Dimensions):
    kv_heads: int


def language_params(
    *, layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocab_size: int
) -> int:
    """Parameters of a LlamaForCausalLM with tied embeddings, without biases.

    With V vocabulary, H hidden, F ffn, L layers, A heads, G heads of keys and values:
    V·H  +  L·(2H² + 2H·(H/A)·G + 3HF + 2H)  +  H
    """
    h = hidden
    attention = 2 * h * h + 2 * h * (h // heads) * kv_heads
    return vocab_size * h + layers * (attention + 3 * h * ffn + 2 * h) + h


def solve_language(
    student: Student, vocab_size: int, by_first_rule: bool = False
) -> LanguageDimensions:
    """The dimensions of a student built from ``scale``, ``size_mb`` or dimensions; tiny by default.

    ``size_mb`` is a cap, as in :func:`distill.models.sizes.solve`, the tied embeddings counted
    once, as the file holds them. Heads: the largest divisor of hidden not above hidden / 32 that
    leaves them an even width (positions turn pairs of numbers). kv_heads: heads. ffn: 8/3 · hidden,
    up to a multiple of 8, Llama's proportion (its layer has three matrices where BERT's has two).
    Raises ConfigError when not even the smallest shape fits. ``by_first_rule``: as there.
    """

    def numbers(shape: Shape) -> dict[str, int]:
        heads = student.heads or _default_heads(shape.hidden)
        return {
            "layers": shape.layers,
            "hidden": shape.hidden,
            "heads": heads,
            "kv_heads": student.kv_heads or heads,
            "ffn": shape.ffn,
            "vocab_size": vocab_size,
        }

    def size_of(shape: Shape) -> int:
        return safetensors_bytes(language_shapes(**numbers(shape)))

    def count_params(shape: Shape) -> int:
        return language_params(**numbers(shape))

    def dimensions(shape: Shape) -> LanguageDimensions:
        found = {name: n for name, n in numbers(shape).items() if name != "vocab_size"}
        size_mb = size_of(shape) / 1e6
        return LanguageDimensions(**found, num_params=count_params(shape), size_mb=size_mb)

    def default(layers: int, hidden: int) -> Shape:
        return Shape(layers, hidden, student.ffn or _default_ffn(hidden))

    if student.size_mb is None:
        layers, hidden = SCALES[student.scale or "tiny"]
        layers, hidden = student.layers or layers, student.hidden or hidden
        _check_heads(student, hidden)
        return dimensions(default(layers, hidden))

    if student.hidden is not None:
        _check_heads(student, student.hidden)

    def rungs(step: int) -> list[tuple[int, int]]:
        return [rung for rung in ladder(student, step) if _are_even(student, rung[1])]

    coarse = rungs(STEPS[0])
    if not coarse:
        raise ConfigError(
            f"student.heads {student.heads} and student.kv_heads {student.kv_heads} suit no hidden "
            f"size up to {MAX_HIDDEN}: use fewer"
        )
    if by_first_rule:
        # Not a bisection: where the heads become more the keys and values become narrower.
        sizes = [dimensions(default(*rung)) for rung in coarse]
        fitting = [one for one in sizes if one.size_mb <= student.size_mb]
        if fitting:
            return max(fitting, key=lambda one: one.size_mb)
    else:
        family = Family(rungs, _default_ffn, student.ffn, count_params, size_of)
        cap = floor(student.size_mb * 1e6 + 1e-6)
        if (shape := largest_within(family, cap)) is not None:
            found = dimensions(shape)
            return replace(found, next_mb=next_mb(family, found.size_mb, cap))
    raise too_small(student, vocab_size, min(size_of(default(*rung)) for rung in coarse) / 1e6)


def _default_ffn(hidden: int) -> int:
    return 8 * ceil(hidden / 3)


def language_shapes(
    *, layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocab_size: int
) -> dict[str, tuple[int, ...]]:
    """Every tensor of the student's file; their names are in its header."""
    h, kv = hidden, hidden // heads * kv_heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab_size, h),
        "model.norm.weight": (h,),
    }
    for index in range(layers):
        layer = f"model.layers.{index}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (h, h),
            f"{layer}.self_attn.k_proj.weight": (kv, h),
            f"{layer}.self_attn.v_proj.weight": (kv, h),
            f"{layer}.self_attn.o_proj.weight": (h, h),
            f"{layer}.mlp.gate_proj.weight": (ffn, h),
            f"{layer}.mlp.up_proj.weight": (ffn, h),
            f"{layer}.mlp.down_proj.weight": (h, ffn),
            f"{layer}.input_layernorm.weight": (h,),
            f"{layer}.post_attention_layernorm.weight": (h,),
        }
    return shapes


def _default_heads(hidden: int) -> int:
    """0 for an odd width, which has none."""
    counts = range(max(1, hidden // 32), 0, -1)
    return next((heads for heads in counts if hidden % (2 * heads) == 0), 0)


def _are_even(student: Student, hidden: int) -> bool:
    heads = student.heads or _default_heads(hidden)
    return heads > 0 and hidden % (2 * heads) == 0 and heads % (student.kv_heads or heads) == 0


def _check_heads(student: Student, hidden: int) -> None:
    heads = student.heads or _default_heads(hidden)
    if heads == 0 or hidden % (2 * heads):
        raise ConfigError(
            f"student.heads {heads or 1} must divide the hidden size, {hidden}, into heads of an "
            f"even width: change student.heads or student.hidden"
        )
    if student.kv_heads is not None and heads % student.kv_heads:
        raise ConfigError(
            f"student.kv_heads {student.kv_heads} must divide student.heads, {heads}: use "
            "a divisor of it"
        )
