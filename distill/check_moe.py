"""Whether mixture-of-experts teachers can be asked as the configuration says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from distill.config import Experiment, Serving
from distill.errors import ConfigError
from distill.moe.gates import GateInfo
from distill.moe.settings import KnowledgeAugmentation, MoE, OwnRouting, StudentAwareRouter
from distill.plan import Line
from distill.sampling import StudentText


def check_moe(experiment: Experiment, key: str, moe: MoE, gates: GateInfo | None) -> None:
    """Raise ConfigError for what this teacher's layers do not have, and for gates that could never
    learn."""
    moe.check(key, None if gates is None else gates.num_experts)
    if not isinstance(moe, StudentAwareRouter):
        return
    sampling = experiment.sampling
    if not isinstance(sampling, StudentText):
        raise ConfigError(
            f"{key}.moe.type sar trains the gates on what the student writes, and sampling.type is "
            f"{sampling.type}: let the student write, or set moe.type: all"
        )
    if sampling.staleness > 0:
        raise ConfigError(
            f"{key}.moe.type sar trains the gates on a step's text before the teachers are asked "
            f"about it, and with sampling.staleness {sampling.staleness} they are asked steps "
            "ahead: set sampling.staleness: 0, or moe.type: all"
        )
    if experiment.kd.alpha == 0:
        raise ConfigError(
            f"{key}.moe.type sar trains the gates on what teacher and student differ in, and with "
            "kd.alpha 0 nobody is asked: raise kd.alpha, or set moe.type: all"
        )
    if experiment.objective.crosses_tokenizers:
        raise ConfigError(
            f"{key}.moe.type sar compares teacher and student token by token, and objective.type "
            f"{experiment.objective.type} is for other tokenizers: use reverse_kl, or moe.type: all"
        )


def check_moe_of_classifiers(served: Mapping[str, Serving]) -> None:
    for key, serving in served.items():
        if not isinstance(serving.moe, OwnRouting):
            raise ConfigError(
                f"{key}.moe.type {serving.moe.type} is of language models, task is classification: "
                "remove moe"
            )


def check_passes(experiment: Experiment) -> None:
    """Several answers about a position are compared with the student one by one."""
    mix = experiment.aggregation.mix
    for key, moe in _moes(experiment):
        if isinstance(moe, KnowledgeAugmentation) and mix != "divergences":
            raise ConfigError(
                f"aggregation.mix {mix!r} mixes answers before the student is compared with them, "
                f"and {key}.moe.type ka takes the mean of the divergences of its passes: set "
                "aggregation.mix: divergences"
            )


def check_kept(experiment: Experiment) -> None:
    """A sweep asks every teacher once, and keeps the answers."""
    for key, moe in _moes(experiment):
        if moe.changes:
            raise ConfigError(
                f"{key}.moe.type {moe.type} answers otherwise at each step, and the trials of a "
                "sweep share answers that are kept: set moe.type to own or all, or run distill "
                "train"
            )


def _moes(experiment: Experiment) -> Iterator[tuple[str, MoE]]:
    for teacher in experiment.teachers:
        yield f"teachers.{teacher.name}", teacher.moe
    if experiment.experts is not None:
        yield "experts.serving", experiment.experts.serving.moe


def gate_line(name: str, moe: MoE, gates: GateInfo) -> Line:
    return Line(f"mixture {name}", moe.told(gates.own, gates.num_experts), moe.type)
