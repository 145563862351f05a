"""Whether keys and variants fit the task: they declare it, and one check reads the declarations.

A key declares it by :class:`~distill.variant.Only` in its annotation, a variant by ``tasks``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, RootModel

from distill.errors import ConfigError
from distill.variant import Only, Variant

MODELS = {"classification": "classifiers", "language_model": "language models"}
"""What a task trains, for messages."""


def check_fits(section: BaseModel, task: str, ignored: Collection[str] = ()) -> None:
    """Raise ConfigError for the first key or variant that applies only to other tasks.

    ``section``: the whole experiment; ``ignored``: keys that the command does not read.
    """
    for key, message in misfits(section, task):
        if key not in ignored:
            raise ConfigError(message)


def misfits(section: BaseModel, task: str, path: str = "") -> Iterator[tuple[str, str]]:
    """Each key that applies only to other tasks, and the message about it. ``path``: of the
    section; a key that has its default is not looked at."""
    type(section).model_rebuild()  # of a class whose module defines a type below it
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        key = path if isinstance(section, RootModel) else f"{path}.{name}".removeprefix(".")
        for only in field.metadata:
            if isinstance(only, Only) and only.task != task and _is_refused(only, value, field):
                yield key, _message(key, value, (only.task,), task, only.way_out)
        for inner, below in _sections(key, value):
            if isinstance(below, Variant) and not fits(below.tasks, task):
                names = [
                    one.model_fields["type"].default
                    for one in variants_of(field.annotation)
                    if fits(one.tasks, task)
                ]
                yield inner, _message(f"{inner}.type", below.type, below.tasks, task, _use(names))
            yield from misfits(below, task, inner)


def fits(tasks: Sequence[str], task: str) -> bool:
    """Whether what declares ``tasks`` can be used with ``task``; (): with every one."""
    return not tasks or task in tasks


def models_of(tasks: Sequence[str]) -> str:
    """``classifiers``, ``language models``; of a task without such a word ``task <name>``."""
    return " and ".join(MODELS.get(task, f"task {task}") for task in tasks)


def variants_of(annotation: Any) -> list[type[Variant]]:
    """The classes of a family, from the annotation of a key."""
    if inspect.isclass(annotation) and issubclass(annotation, Variant):
        return [annotation]
    if inspect.isclass(annotation) and issubclass(annotation, RootModel):
        return variants_of(annotation.model_fields["root"].annotation)
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        arguments = arguments[:1]
    return list(dict.fromkeys(found for one in arguments for found in variants_of(one)))


def _is_refused(only: Only, value: object, field: Any) -> bool:
    if only.values:
        return value in only.values
    return value != field.get_default(call_default_factory=True)


def _sections(key: str, value: object) -> Iterator[tuple[str, BaseModel]]:
    """The sections that a value holds, by key: entries of a list by their names, if they have
    them."""
    if isinstance(value, BaseModel):
        yield key, value
    elif isinstance(value, tuple):
        for index, one in enumerate(value):
            if isinstance(one, BaseModel):
                yield f"{key}.{getattr(one, 'name', index)}", one
    elif isinstance(value, dict):
        for name, one in value.items():
            if isinstance(one, BaseModel):
                yield f"{key}.{name}", one


def _message(key: str, value: object, tasks: Sequence[str], task: str, way_out: str) -> str:
    return f"{key}{_shown(value)} applies only to {models_of(tasks)}, task is {task}: {way_out}"


def _shown(value: object) -> str:
    """As in YAML, with a space before it; nothing of a section without keys."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, str):
        return f" {value}"
    return f" {json.dumps(value, ensure_ascii=False)}" if value != {} else ""


def _use(names: Sequence[str]) -> str:
    """``use a, b or c``."""
    *others, last = names
    return f"use {', '.join(others)} or {last}" if others else f"use {last}"
