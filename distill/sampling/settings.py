"""Where the text comes from that the student learns on: a config class is its method.

Shape suffixes: B rows.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from distill.variant import Section, Variant


class Decoding(Section):
    """How the next token is drawn from a model's logits."""

    temperature: float = Field(default=1.0, ge=0)
    """0: always the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together have this probability; 1: among all."""


class DatasetSampling(Variant):
    """Batches are rows of the data set: supervised distillation."""

    type: Literal["dataset"] = "dataset"
    writes: ClassVar[bool] = False


class Written(Variant):
    """What all that is written has in common. Prompts are those of the data set."""

    writes: ClassVar[bool] = True
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Tokens after a prompt, the end token included; null: as many as ``data.max_length`` leaves.
    What has not ended by then is cut, trained on and counted."""


class TeacherText(Written):
    """Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947): the teacher's own text.

    With ``kd.alpha: 0`` it is SeqKD: the cross-entropy of that text, and the teacher is asked for
    nothing more; above it, the teacher's distributions on it too. A row's text is written once and
    kept in memory.
    """

    type: Literal["teacher"] = "teacher"
    teacher: str | None = None
    """Whose text; null: the only teacher's, or with ``aggregation.type`` oracle that of the teacher
    of each row's domain."""
    decoding: Decoding = Decoding(temperature=0)
    """[ours] greedy; Kim & Rush take beam search."""


class StudentText(Written):
    """What all that the student writes has in common."""

    staleness: int = Field(default=0, ge=0)
    """Updates of the student between a text and the step that trains on it. The teachers are asked
    as soon as it is written: above 0 they answer while the student trains on the steps between. The
    first steps' text is of the student as it started."""


class OnPolicy(StudentText):
    """The student's own text (Agarwal et al. 2024, arXiv 2306.13649)."""

    type: Literal["on_policy"] = "on_policy"
    decoding: Decoding = Decoding()


class Mixed(StudentText):
    """GKD's mixture (arXiv 2306.13649): each step is all the student's text, or all the data's."""

    type: Literal["mixed"] = "mixed"
    student_share: float = Field(default=0.5, ge=0, le=1)
    """λ: how likely a step is one of the student's text. 0.5 with forward KL is ImitKD's."""
    decoding: Decoding = Decoding()


class Speculative(StudentText):
    """Speculative knowledge distillation (Xu et al. 2024, arXiv 2410.11325): interleaved sampling.

    The student drafts; a draft that the teacher would not rank among its first ``top_k`` is
    replaced by a token of the teacher's, and what was drafted after it is dropped. ``top_k`` 1 is
    led by the teacher; as many as there are tokens is on-policy. [ours, where the authors' code
    differs: the token tested is the one kept, and ranks are those of the raw logits.]
    """

    type: Literal["skd"] = "skd"
    teacher: str | None = None
    """Who judges the drafts; null: the only teacher, or with ``aggregation.type`` oracle the one of
    each row's domain."""
    drafts: int = Field(default=5, ge=1)
    """γ: tokens drafted before the teacher is asked."""
    top_k: int = Field(default=25, ge=1)
    """K: a draft is kept if fewer than this many tokens are likelier for the teacher."""
    top_k_end: int | None = Field(default=None, ge=1)
    """K at the last step, reached linearly from ``top_k``; null: K stays."""
    nucleus: float | None = Field(default=None, gt=0, le=1)
    """Instead of K: a draft is kept if the tokens likelier for the teacher have together less than
    this probability."""
    decoding: Decoding = Decoding(temperature=0.5, top_p=0.5)
    """Of the student's drafts."""
    teacher_decoding: Decoding = Decoding(temperature=0.2, top_p=0.5)
    """Of the teacher's replacements."""

    def top_k_at(self, progress: float) -> int:
        """``progress`` from 0 at the first step to 1 at the last."""
        end = self.top_k if self.top_k_end is None else self.top_k_end
        return round(self.top_k + (end - self.top_k) * progress)


Sampling = Annotated[
    DatasetSampling | TeacherText | OnPolicy | Mixed | Speculative, Field(discriminator="type")
]
