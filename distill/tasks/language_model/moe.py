"""Checks of ``moe``: which experts of mixture-of-experts teachers run."""

from __future__ import annotations

from distill.config import Experiment
from distill.config.moe import KnowledgeAugmentation, MoE, StudentAwareRouter
from distill.errors import ConfigError
from distill.models.expert_gates import GateInfo
from distill.records import Line
from distill.sampling import StudentText
from distill.tasks.checks.moe import moes


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


def check_passes(experiment: Experiment) -> None:
    """Raise for teachers with several forwards a position whose answers would be averaged."""
    mix = experiment.aggregation.mix
    for key, moe in moes(experiment):
        if isinstance(moe, KnowledgeAugmentation) and mix != "divergences":
            raise ConfigError(
                f"aggregation.mix {mix!r} averages outputs before the student is compared with "
                f"them, and {key}.moe.type ka averages the divergences of several forwards: set "
                "aggregation.mix: divergences"
            )


def gate_line(name: str, moe: MoE, gates: GateInfo) -> Line:
    return Line(f"experts of {name}", moe.describe(gates.own, gates.num_experts), moe.type)
