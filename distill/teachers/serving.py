"""Which teachers share a process, and the engines of those that do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from distill.config import Serving
from distill.models.vocabulary import SharedTokens
from distill.teachers.engine import Model, TeacherEngine
from distill.teachers.shared import SharedBase


class Placed(Protocol):
    """A teacher, as far as it matters for who is served with it."""

    @property
    def folder(self) -> str | Path | Model: ...
    @property
    def adapter(self) -> str | None:
        """The folder of an adapter on the model in ``folder``; None: that model itself."""
        ...

    @property
    def serving(self) -> Serving: ...


class Servable(Placed, Protocol):
    """What must be known of a teacher to serve it."""

    @property
    def name(self) -> str: ...
    @property
    def num_labels(self) -> int: ...
    @property
    def is_language_model(self) -> bool: ...
    @property
    def shared(self) -> SharedTokens | None:
        """Of a language model: the columns that it shares with the student; None: all."""
        ...


Teacher = TypeVar("Teacher", bound=Placed)


def groups(teachers: Sequence[Teacher]) -> list[list[Teacher]]:
    """Adapters on one base that ask for the same process, together; whoever else, alone."""
    found: list[list[Teacher]] = []
    for teacher in teachers:
        own = next((group for group in found if _share(group[0], teacher)), None)
        if own is None:
            found.append([teacher])
        else:
            own.append(teacher)
    return found


def _share(one: Placed, other: Placed) -> bool:
    return are_on_one_base(one, other) and one.serving.process == other.serving.process


def are_on_one_base(one: Placed, other: Placed) -> bool:
    """Whether both are adapters of the same model, however they are served."""
    if one.adapter is None or other.adapter is None:
        return False
    assert isinstance(one.folder, str | Path) and isinstance(other.folder, str | Path)
    return Path(one.folder).resolve() == Path(other.folder).resolve()


def engines(
    teachers: Sequence[Servable], num_threads: int | None = None
) -> Mapping[str, TeacherEngine]:
    """By name; adapters that can share a base do. ``num_threads``: as of TeacherEngine.

    Raises ModelError for unusable folders.
    """
    found: dict[str, TeacherEngine] = {}
    for group in groups(teachers):
        first = group[0]
        serving = first.serving
        device = "cuda" if serving.num_gpus > 0 else "cpu"
        models = [first.folder]
        adapters = [teacher.adapter for teacher in group if teacher.adapter is not None]
        if adapters:
            assert isinstance(first.folder, str | Path)
            models = SharedBase(
                first.folder,
                adapters,
                device=device,
                dtype=serving.dtype,
                allow_pickle=serving.allow_pickle,
            ).adapted
        for teacher, model in zip(group, models, strict=True):
            own = teacher.serving
            found[teacher.name] = TeacherEngine(
                model,
                num_labels=teacher.num_labels,
                device=device,
                dtype=own.dtype,
                wire=own.wire,
                max_batch_tokens=own.max_batch_tokens,
                allow_pickle=own.allow_pickle,
                num_threads=num_threads,
                is_language_model=teacher.is_language_model,
                moe=own.moe,
                shared=teacher.shared,
                kv_cache_mb=own.kv_cache_mb,
            )
    return found


def told(teachers: Sequence[Servable]) -> str:
    """``teacher 'a'``, or ``teachers 'a', 'b'``."""
    names = ", ".join(repr(teacher.name) for teacher in teachers)
    return f"teachers {names}" if len(teachers) > 1 else f"teacher {names}"
