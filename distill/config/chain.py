"""A progressive chain: students from the teachers' size down to the student's, each distilled from
the one before. Sizes, and when the chain ends.

HPM-KD (arXiv 2512.09886; details from the authors' draft). With L links, i = 1 … L:

    |θ_i| = |θ_T| · r^{i/L},  r = |θ_S| / |θ_T|

Link L is the student; links 1 … L−1 are intermediate students. The section ``chain``, and pure
functions of numbers.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.config.student import Student
from distill.variant import Section

Stop = Literal["loss", "gain"]
_NAME = re.compile(r"link \d+")


class Chain(Section):
    """A progressive chain: intermediate students between teachers and student, each distilled from
    the one before (HPM-KD)."""

    links: Literal["auto"] | Annotated[int, Field(ge=1, le=32)] = "auto"
    """L, the number of links; the student is the last one. ``auto``: ceil(log2(parameters of the
    largest teacher / parameters of the student)), or one more than ``students`` if these are
    given. 1: no intermediate link. Link i has |θ_T| · (|θ_S| / |θ_T|)^(i/L) parameters."""
    stop: Stop = "loss"
    """When the chain ends early; the link that ends it is dropped, and the student is distilled
    from the last link that is kept. By the metric that selects weights (``trainer.select_by``), on
    validation. ``loss`` [ours]: a link is worse than the one before (link 1: than the aggregated
    teachers) by more than ``epsilon``. ``gain`` (HPM-KD): a link after the first is not better
    than the one before by at least ``epsilon``; as links become smaller, nearly always link 2."""
    epsilon: float = Field(default=0.01, ge=0, lt=1)
    """Relative change of the metric, for ``stop``."""
    students: tuple[Student, ...] = ()
    """The intermediate links by hand, from large to small; they read with the student's tokenizer.
    (): built by size, or from more layers of ``student.init_from``."""

    @model_validator(mode="after")
    def _one_student_a_link(self) -> Chain:
        if self.students and self.links != "auto" and len(self.students) != self.links - 1:
            raise ValueError(
                f"chain.links {self.links} counts the student, so chain.students must have "
                f"{self.links - 1} sections, one for each intermediate link; it has "
                f"{len(self.students)}"
            )
        for index, student in enumerate(self.students):
            for key in ("tokenizer", "vocab_size"):
                if (value := getattr(student, key)) is not None:
                    raise ValueError(
                        f"chain.students.{index}.{key} {value}: the links of a chain read with the "
                        f"student's tokenizer: set student.{key}, and remove this key"
                    )
        return self


def link_name(link: int) -> str:
    """Of an intermediate link, from 1: its name in the table, in MLflow and as a teacher."""
    return f"link {link}"


def is_link_name(name: str) -> bool:
    return _NAME.fullmatch(name.strip().casefold()) is not None


def num_links(teacher: float, student: float) -> int:
    """``links: auto`` [ours]: ⌈log₂(|θ_T| / |θ_S|)⌉, at least 1: no link has less than half the
    parameters of the one before. Both in parameters."""
    links = 1
    while student * 2**links < teacher:
        links += 1
    return links


def link_sizes(teacher: float, student: float, links: int) -> tuple[float, ...]:
    """Parameters of links 1 … ``links``; the last one is ``student``."""
    ratio = student / teacher
    return (*(teacher * ratio ** (i / links) for i in range(1, links)), float(student))


def link_layers(teacher: int, student: int, links: int) -> tuple[int, ...]:
    """Layers of links 1 … ``links``, on the same geometric scale, rounded; the last: ``student``.

    A teacher of no known number of layers (0) counts as one with the student's.
    """
    sizes = link_sizes(teacher or student, student, links)
    return tuple(max(1, round(size)) for size in sizes)


def relative_change(before: float, after: float, prefers_low: bool = False) -> float:
    """(after − before) / before of a metric on validation, negated where low values are good
    (perplexity): positive means better."""
    change = (after - before) / before if before else float(after > before)
    return -change if prefers_low else change


def is_dropped(stop: Stop, epsilon: float, link: int, change: float) -> bool:
    """Whether the chain ends at intermediate link ``link`` (from 1), which is then dropped.

    ``change``: :func:`relative_change` from the link before, for link 1 from the teachers'
    aggregate. ``loss`` [ours]: change < −ε. ``gain``, the draft's: link > 1 and change < ε; links
    become smaller, so this chain nearly always ends at link 2.
    """
    if stop == "gain":
        return link > 1 and change < epsilon
    return change < -epsilon
