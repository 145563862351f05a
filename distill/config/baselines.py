"""The section ``baselines``: models that the student is compared with."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from distill.config.student import Student
from distill.config.training import Optimizer
from distill.variant import Name, Variant


class LabelsOnly(Variant):
    """A student that is trained only on the labelled rows, with the same loop, for the same number
    of steps."""

    type: Literal["labels_only"] = "labels_only"
    name: Name
    """Name in tables and metrics."""
    student: Student | None = None
    """Its model; null: the same as the distilled student."""
    optimizer: Optimizer | None = None
    """Its AdamW; null: that of the distilled student."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the labelled rows; null: as many steps as the distilled student."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows of one optimizer step; null: that of the distilled student."""


class TfidfBaseline(Variant):
    """TF-IDF (word 1–2-grams) and logistic regression on the labelled rows."""

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    type: Literal["tfidf"] = "tfidf"
    name: Name = "tf-idf"
    """Name in tables and metrics."""


Baseline = Annotated[LabelsOnly | TfidfBaseline, Field(discriminator="type")]
