"""Checks of ``moe`` that need no model folder."""

from __future__ import annotations

from collections.abc import Iterator

from distill.config import Experiment
from distill.config.moe import MoE
from distill.errors import ConfigError


def check_kept(experiment: Experiment) -> None:
    """Raise for teachers whose answers change: a sweep queries each once and caches the answers."""
    for key, moe in moes(experiment):
        if moe.changes:
            raise ConfigError(
                f"{key}.moe.type {moe.type} gives different outputs at each step, but the trials "
                "of a sweep share cached outputs: set moe.type to own or all, or run distill "
                "train"
            )


def moes(experiment: Experiment) -> Iterator[tuple[str, MoE]]:
    """Of the teachers, by key."""
    for teacher in experiment.teachers:
        yield f"teachers.{teacher.name}", teacher.moe
    if experiment.experts is not None:
        yield "experts.serving", experiment.experts.serving.moe
