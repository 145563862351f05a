"""One teacher, or the router, as it is served: the record that client, stream and cache share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.config import Serving
from distill.config.moe import MoE
from distill.models.vocabulary import SharedTokens
from distill.teachers.cache import NO_KEY, TeacherKey
from distill.wires import WireFormat

Model = Callable[..., Any]
"""Takes ``input_ids``, ``attention_mask`` and, for pairs, ``token_type_ids`` (int64 [B, T]), or
``features`` (float32 [B, D]), or ``texts`` (B strings); returns logits [B, V], bare or as
``.logits``, perhaps with a ``.num_clamped``. A language model is a transformers model."""


@dataclass(frozen=True)
class ServedTeacher:
    """One served teacher, or the router."""

    name: str
    folder: str
    """A model folder, or the pickle of an object with predict_proba."""
    serving: Serving
    width: int = 0
    """Columns of its outputs: classes or, of a language model, tokens that it shares with the
    student. 0: not known, before its folder was read."""
    key: TeacherKey = NO_KEY
    """All that determines its outputs."""
    backend: str = "classifier"
    """What computes its outputs: a name in BACKENDS of teachers/backends/__init__.py."""
    adapter: str | None = None
    """Folder of an adapter on the model in ``folder``."""
    columns: tuple[int, ...] | None = None
    """Of a classifier: its output of each class; None: they have the same order."""
    shared: SharedTokens | None = None
    """Of a language model that is shown the student's tokens; None: its own."""
    model: Model | None = None
    """The model or object itself, which is then not read from ``folder`` (tests, simulated
    teachers)."""

    @property
    def tokenizer(self) -> str | None:
        """Folder of the tokenizer whose tokens it is shown; None: the student's."""
        return None if self.shared else self.folder

    @property
    def positions(self) -> Literal["rows", "tokens"]:
        """What one distribution of its outputs is about."""
        from distill.teachers.backends import backend_class  # which imports this module

        return backend_class(self.backend).positions

    @property
    def are_outputs_fixed(self) -> bool:
        """Whether a row's output is the same at each step: only then it is cached."""
        return self.key != NO_KEY and not self.moe.changes

    @property
    def wire(self) -> WireFormat:
        return self.serving.wire

    @property
    def moe(self) -> MoE:
        return self.serving.moe


def groups(teachers: Sequence[ServedTeacher]) -> list[list[ServedTeacher]]:
    """Adapters on one base that ask for the same process, together; whoever else, alone."""
    found: list[list[ServedTeacher]] = []
    for teacher in teachers:
        own = next((group for group in found if _share(group[0], teacher)), None)
        if own is None:
            found.append([teacher])
        else:
            own.append(teacher)
    return found


def _share(one: ServedTeacher, other: ServedTeacher) -> bool:
    return are_on_one_base(one, other) and one.serving.process == other.serving.process


def are_on_one_base(one: ServedTeacher, other: ServedTeacher) -> bool:
    """Whether both are adapters of the same model, however they are served."""
    if one.adapter is None or other.adapter is None:
        return False
    return Path(one.folder).resolve() == Path(other.folder).resolve()


def named(teachers: Sequence[ServedTeacher]) -> str:
    """``teacher 'a'``, or ``teachers 'a', 'b'``."""
    names = ", ".join(repr(teacher.name) for teacher in teachers)
    return f"teachers {names}" if len(teachers) > 1 else f"teacher {names}"
