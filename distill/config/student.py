"""The section ``student``: its family, size and initial weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.variant import ModelPath, Only, Section


class InitFrom(Section):
    """Start from a model's embeddings and some of its layers."""

    path: ModelPath
    """Hugging Face folder of the model."""
    layers: int = Field(ge=1)
    """Number of its layers that are kept."""
    keep: Literal["first", "even"] = "first"
    """Which layers are kept (language models): ``first``, or ``even``: evenly spaced, including the
    first and the last. Encoders always keep the first."""


class Lora(Section):
    """Train only low-rank updates (LoRA, arXiv 2106.09685, with peft); the export merges them."""

    rank: int = Field(default=16, ge=1)
    """Rank of each update; a higher rank has more parameters."""
    alpha: float = Field(default=32.0, gt=0)
    """Updates are scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the inputs of each update."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an update; ``all-linear``: all but the head."""


SCALES: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
}
"""layers and hidden of the BERT miniatures, Turc et al. 2019 (arXiv 1908.08962)."""


class Student(Section):
    """The small model: one of ``path``, ``init_from``, ``scale``, ``size_mb``, or dimensions."""

    family: Literal["transformer", "mlp", "cnn"] | None = None
    """``transformer`` for text, ``mlp`` or ``cnn`` (with ``data.image``) for
    ``data.columns.features``; null: transformer for text, mlp for features."""
    path: ModelPath | None = None
    """Hugging Face folder of a model; training starts from its weights."""
    init_from: InitFrom | None = None
    """Start from some layers of a larger model, such as the teacher."""
    scale: Literal["tiny", "mini", "small", "medium", "base"] | None = None
    """Layers and hidden width by name: tiny 2 and 128, mini 4 and 256, small 4 and 512, medium 8
    and 512, base 12 and 768 (the BERT miniatures). null: set by one of the other keys; without any,
    tiny."""
    size_mb: float | None = Field(default=None, gt=0)
    """Maximum size of the exported safetensors file in MB (10⁶ bytes, float32); the dimensions are
    chosen to fit it."""
    layers: int | None = Field(default=None, ge=1)
    """Number of layers; null: by ``scale`` or ``size_mb``."""
    hidden: int | None = Field(default=None, ge=8)
    """Width of every layer, channels of a cnn; null: by ``scale`` or ``size_mb``."""
    heads: int | None = Field(default=None, ge=1)
    """Attention heads, a divisor of ``hidden``; null: hidden / 32, at least 1."""
    kv_heads: Annotated[int | None, Only("language_model")] = Field(default=None, ge=1)
    """Language models: heads of keys and values, a divisor of ``heads``; null: as many as
    ``heads``."""
    ffn: int | None = Field(default=None, ge=1)
    """Width of the feed-forward layers; null: 4 · hidden, for language models 8/3 · hidden, rounded
    up to a multiple of 8."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of encoders in training. The default for language models is none, or that of the
    initial model folder; a value that is set replaces it."""
    tokenizer: ModelPath | None = None
    """Folder of the student's tokenizer; null: that of the initial model, of the experts' base or
    of the first teacher that is a model folder."""
    vocab_size: Annotated[int | None, Only("classification")] = Field(default=None, ge=64)
    """Retrain the tokenizer to this many tokens on the text of train and transfer, for a smaller
    embedding table; null: keep the tokenizer."""
    lora: Annotated[Lora | None, Only("language_model")] = None
    """Language models with ``path`` or ``init_from``: train only low-rank updates (LoRA). null:
    train all parameters."""

    @model_validator(mode="after")
    def _one_size(self) -> Student:
        sized = {
            "student.path": self.path,
            "student.init_from": self.init_from,
            "student.scale": self.scale,
        }
        given = [key for key, value in sized.items() if value is not None]
        dims = [k for k in ("layers", "hidden", "heads", "ffn") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not both")
        if given and (dims or self.size_mb is not None):
            extra = [f"student.{d}" for d in dims] or ["student.size_mb"]
            raise ValueError(f"{given[0]} already fixes the size: remove {', '.join(extra)}")
        if self.size_mb is not None and self.hidden is not None and self.layers is not None:
            raise ValueError("student.size_mb solves for dimensions: remove student.hidden")
        if self.vocab_size is not None and (self.path or self.init_from):
            raise ValueError(
                f"student.vocab_size {self.vocab_size} would discard the embeddings of "
                f"{given[0]}: remove one of the two"
            )
        return self
