"""What computes a teacher's outputs, by name: see contract.py for the contract."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

import torch

from distill.teachers.served import ServedTeacher, groups

if TYPE_CHECKING:
    from distill.teachers.backends.contract import TeacherBackend

BACKENDS = {
    "classifier": "distill.teachers.backends.classifier_backend:ClassifierBackend",
    "language_model": "distill.teachers.backends.language_model_backend:LanguageModelBackend",
}
"""The class of each name that ``ServedTeacher.backend`` may have."""


def backend_class(name: str) -> type[TeacherBackend]:
    module, _, attribute = BACKENDS[name].partition(":")
    return cast("type[TeacherBackend]", getattr(import_module(module), attribute))


def open_backends(
    teachers: Sequence[ServedTeacher], num_threads: int | None = None
) -> dict[str, TeacherBackend]:
    """By name; adapters that can share a base do. ``num_threads`` sets the threads of the whole
    process; None leaves them.

    Raises ModelError for unusable folders.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    found: dict[str, TeacherBackend] = {}
    for group in groups(teachers):
        backends = backend_class(group[0].backend).open(group)
        found |= {t.name: backend for t, backend in zip(group, backends, strict=True)}
    return found


def open_backend(teacher: ServedTeacher, num_threads: int | None = None) -> TeacherBackend:
    """Of one teacher, alone."""
    return open_backends([teacher], num_threads)[teacher.name]
