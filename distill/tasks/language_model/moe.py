"""Checks of ``moe``: which experts of mixture-of-experts teachers run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from distill.config import Experiment, Serving
from distill.config.moe import KnowledgeAugmentation, MoE, OwnRouting, StudentAwareRouter
from distill.errors import ConfigError
from distill.models.expert_gates import GateInfo
from distill.records import Line
from distill.sampling import StudentText


def check_moe(experiment: Experiment, key: str, moe: MoE, gates: GateInfo | None) -> None:
    """Raise ConfigError for settings that this teacher's layers do not support, and for gates that
    could not be trained."""
    moe.check(key, None if gates is None else gates.num_experts)
    if not isinstance(moe, StudentAwareRouter):
        return
    sampling = experiment.sampling
    if not isinstance(sampling, StudentText):
        raise ConfigError(
            f"{key}.moe.type sar trains the gates on text that the student generates, and "
            f"sampling.type is {sampling.type}: set sampling.type: on_policy, or moe.type: all"
        )
    if sampling.staleness > 0:
        raise ConfigError(
            f"{key}.moe.type sar trains the gates on a step's text before the teachers compute it, "
            f"but with sampling.staleness {sampling.staleness} they compute it steps ahead: set "
            "sampling.staleness: 0, or moe.type: all"
        )
    if experiment.kd.alpha == 0:
        raise ConfigError(
            f"{key}.moe.type sar trains the gates on the difference of teacher and student, and "
            "with "
            "kd.alpha 0 no teacher is queried: raise kd.alpha, or set moe.type: all"
        )
    if experiment.objective.crosses_tokenizers:
        raise ConfigError(
            f"{key}.moe.type sar compares teacher and student token by token, and objective.type "
            f"{experiment.objective.type} is for different tokenizers: use reverse_kl, or "
            "moe.type: all"
        )


def check_moe_of_classifiers(served: Mapping[str, Serving]) -> None:
    for key, serving in served.items():
        if not isinstance(serving.moe, OwnRouting):
            raise ConfigError(
                f"{key}.moe.type {serving.moe.type} applies only to language models, task is "
                "classification: remove moe"
            )


def check_passes(experiment: Experiment) -> None:
    """Raise for teachers with several forwards a position whose answers would be averaged."""
    mix = experiment.aggregation.mix
    for key, moe in _moes(experiment):
        if isinstance(moe, KnowledgeAugmentation) and mix != "divergences":
            raise ConfigError(
                f"aggregation.mix {mix!r} averages outputs before the student is compared with "
                f"them, and {key}.moe.type ka averages the divergences of several forwards: set "
                "aggregation.mix: divergences"
            )


def check_kept(experiment: Experiment) -> None:
    """Raise for teachers whose answers change: a sweep queries each once and caches the answers."""
    for key, moe in _moes(experiment):
        if moe.changes:
            raise ConfigError(
                f"{key}.moe.type {moe.type} gives different outputs at each step, but the trials "
                "of a sweep share cached outputs: set moe.type to own or all, or run distill "
                "train"
            )


def _moes(experiment: Experiment) -> Iterator[tuple[str, MoE]]:
    for teacher in experiment.teachers:
        yield f"teachers.{teacher.name}", teacher.moe
    if experiment.experts is not None:
        yield "experts.serving", experiment.experts.serving.moe


def gate_line(name: str, moe: MoE, gates: GateInfo) -> Line:
    return Line(f"experts of {name}", moe.told(gates.own, gates.num_experts), moe.type)
