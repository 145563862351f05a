"""How large a language-model student is: its exact parameters and the exact size of its file.

A student without weights to start from is a LlamaForCausalLM whose head is its embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from distill.config import SCALES, Student
from distill.errors import ConfigError
from distill.models.sizes import MAX_HIDDEN, Dimensions, ladder, safetensors_bytes


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


def solve_language(student: Student, vocab_size: int) -> LanguageDimensions:
    """The dimensions of a student built from ``scale``, ``size_mb`` or dimensions; tiny by default.

    ``size_mb`` takes the largest that fits on the ladder of :func:`distill.models.sizes.solve`,
    the tied embeddings counted once, as the file holds them. Heads: the largest divisor of hidden
    not above hidden / 32 that leaves them an even width (positions turn pairs of numbers).
    kv_heads: heads. ffn: 8/3 · hidden, up to a multiple of 8, Llama's proportion (its layer has
    three matrices where BERT's has two). Raises ConfigError when not even the first rung fits.
    """

    def dimensions(layers: int, hidden: int) -> LanguageDimensions:
        heads = student.heads or _default_heads(hidden)
        numbers = {
            "layers": layers,
            "hidden": hidden,
            "heads": heads,
            "kv_heads": student.kv_heads or heads,
            "ffn": student.ffn or 8 * ceil(hidden / 3),
        }
        shapes = language_shapes(**numbers, vocab_size=vocab_size)
        return LanguageDimensions(
            **numbers,
            num_params=language_params(**numbers, vocab_size=vocab_size),
            size_mb=safetensors_bytes(shapes) / 1e6,
        )

    if student.size_mb is None:
        layers, hidden = SCALES[student.scale or "tiny"]
        layers, hidden = student.layers or layers, student.hidden or hidden
        _check_heads(student, hidden)
        return dimensions(layers, hidden)

    if student.hidden is not None:
        _check_heads(student, student.hidden)
    rungs = [dimensions(*rung) for rung in ladder(student) if _are_even(student, rung[1])]
    if not rungs:
        raise ConfigError(
            f"student.heads {student.heads} and student.kv_heads {student.kv_heads} suit no hidden "
            f"size up to {MAX_HIDDEN}: use fewer"
        )
    # Not a bisection: where the heads become more the keys and values become narrower.
    fitting = [rung for rung in rungs if rung.size_mb <= student.size_mb]
    if fitting:
        return max(fitting, key=lambda rung: rung.size_mb)
    smallest = min(rungs, key=lambda rung: rung.size_mb)
    raise ConfigError(
        f"student.size_mb {student.size_mb:g} is too small: with a vocabulary of {vocab_size} "
        f"tokens the smallest student takes {smallest.size_mb:.3f} MB; raise it, or retrain the "
        "tokenizer to fewer tokens with student.vocab_size"
    )


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
