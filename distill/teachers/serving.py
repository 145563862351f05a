"""The engines of the teachers that a process serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill.teachers.engine import TeacherEngine
from distill.teachers.served import ServedTeacher, groups
from distill.teachers.shared import SharedBase


def engines(
    teachers: Sequence[ServedTeacher], num_threads: int | None = None
) -> Mapping[str, TeacherEngine]:
    """By name; adapters that can share a base do. ``num_threads``: as of TeacherEngine.

    Raises ModelError for unusable folders.
    """
    found: dict[str, TeacherEngine] = {}
    for group in groups(teachers):
        first = group[0]
        serving = first.serving
        device = "cuda" if serving.num_gpus > 0 else "cpu"
        models: Sequence[Any] = [first.folder if first.model is None else first.model]
        adapters = [teacher.adapter for teacher in group if teacher.adapter is not None]
        if adapters:
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
                num_labels=teacher.width,
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
