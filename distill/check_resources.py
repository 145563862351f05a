"""What teachers and student hold at once, against this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import torch

from distill.config import Experiment, Experts, Serving
from distill.errors import ConfigError
from distill.plan import Line
from distill.teachers.serving import are_on_one_base, groups


class Sized(Protocol):
    """A folder of weights."""

    @property
    def num_params(self) -> int: ...


@dataclass(frozen=True)
class _Processes:
    """One row of the plan: processes of one kind."""

    name: str
    what: str
    teachers: list[Serving]
    """Served there: of one process, so that they differ in their wires at most."""
    count: int
    """As many, of each as many replicas as the teachers say."""
    num_params: int
    """Of all of them together, of one replica each."""
    num_updates: int = 0
    """The same of their adapters, which are float32 whatever the base is."""

    @property
    def serving(self) -> Serving:
        return self.teachers[0]

    @property
    def memory_mb(self) -> float:
        width = 4 if self.serving.dtype == "float32" else 2
        return (self.num_params * width + self.num_updates * 4) * self.serving.replicas / 1e6


def check_resources(
    experiment: Experiment,
    num_teachers: int,
    infos: Mapping[str, Sized],
    base: Sized | None,
    adapters: Mapping[str, int] | None = None,
    expert_updates: int | None = None,
) -> tuple[float, float, list[Line]]:
    """CPUs and GPUs of teachers and student together, against this machine.

    ``adapters``: parameters of those teachers that are one; ``expert_updates``: of each expert that
    is trained as one.
    """
    trainer = experiment.trainer
    served: list[_Processes] = []
    if experiment.experts and base:
        served += _experts(experiment.experts, num_teachers, base, expert_updates)
        if experiment.aggregation.needs_router() and experiment.experts.router:
            router = experiment.experts.router.serving
            served.append(_Processes("router", "", [router], 1, base.num_params))
    served += _teachers(experiment, infos, adapters or {})
    lines, cpus, gpus = [], 0.0, 0.0
    for one in served:
        serving = one.serving
        cpus += serving.replicas * serving.num_cpus * one.count
        gpus += serving.replicas * serving.num_gpus * one.count
        wires = {t.wire.resolved(experiment.is_language_model, t.dtype).name for t in one.teachers}
        named = " and ".join(sorted(wires))
        what = f"{one.what}{serving.replicas} replica(s) each, {named} wire"
        weights = f"{one.memory_mb:,.0f} MB of weights" if one.num_params else "predict_proba"
        lines.append(Line(one.name, what, weights))
    cpus += trainer.num_workers * trainer.num_cpus_per_worker
    gpus += trainer.num_workers * trainer.num_gpus_per_worker
    engine = trainer.engine
    if engine == "deepspeed":
        engine += f" ZeRO-{trainer.zero_stage}"
    lines.append(Line("trainer", f"{engine}, {trainer.num_workers} rank(s)", trainer.dtype))
    lines.append(Line("resources", f"{cpus:g} CPUs, {gpus:g} GPUs at once"))
    if experiment.cluster.address is None:
        have_cpus = experiment.cluster.num_cpus or os.cpu_count() or 1
        have_gpus = torch.cuda.device_count()
        _refuse_shortage("CPUs", cpus, have_cpus)
        _refuse_shortage("GPUs", gpus, have_gpus)
        if experiment.experts:
            _refuse_shortage("CPUs", experiment.experts.num_cpus, have_cpus)
            _refuse_shortage("GPUs", experiment.experts.num_gpus, have_gpus)
    return cpus, gpus, lines


def check_transport(experiment: Experiment) -> None:
    """Raise ConfigError for a transport that this machine lacks."""
    if experiment.stream.transport != "nixl" or not experiment.has_teachers:
        return
    if find_spec("nixl") is None:
        raise ConfigError(
            "stream.transport nixl needs the package nixl, which is not installed here: "
            "pip install nixl (on every node), or take object_store"
        )


def _experts(experts: Experts, num: int, base: Sized, num_updates: int | None) -> list[_Processes]:
    name, serving = f"{num} experts", [experts.serving]
    if num_updates is None:
        return [_Processes(name, "", serving, num, base.num_params * num)]
    what = f"{num} adapters on one base, "
    return [_Processes(name, what, serving, 1, base.num_params, num_updates * num)]


class PlacedTeacher(NamedTuple):
    """As distill/teachers/serving.py looks at it."""

    name: str
    folder: str
    adapter: str | None
    serving: Serving


def placed(experiment: Experiment) -> list[PlacedTeacher]:
    """Those that ``teachers`` names."""
    return [PlacedTeacher(t.name, t.path, t.adapter, t) for t in experiment.teachers]


def _teachers(
    experiment: Experiment, infos: Mapping[str, Sized], adapters: Mapping[str, int]
) -> Iterator[_Processes]:
    """One for each that is served alone, and one for those that share a base."""
    together = groups(placed(experiment))
    for group in together:
        first = group[0]
        what = f"{len(group)} adapters on one base, " if len(group) > 1 else ""
        apart = [o for o in together if o is not group and are_on_one_base(o[0], first)]
        if apart:
            others = ", ".join(teacher.name for other in apart for teacher in other)
            own = first.serving.process
            keys = {k for o in apart for k, v in o[0].serving.process.items() if v != own[k]}
            what += f"apart from {others} on the same base (other {', '.join(sorted(keys))}), "
        yield _Processes(
            ", ".join(teacher.name for teacher in group),
            what,
            [teacher.serving for teacher in group],
            1,
            infos[first.name].num_params,
            sum(adapters.get(teacher.name, 0) for teacher in group),
        )


def _refuse_shortage(kind: str, wanted: float, available: float) -> None:
    if wanted > available + 1e-9:
        key = "num_cpus" if kind == "CPUs" else "num_gpus"
        raise ConfigError(
            f"teachers and student need {wanted:g} {kind} at once, this machine has {available:g}: "
            f"lower replicas, {key} (fractions are allowed) or trainer.num_workers, or give "
            "cluster.address"
        )
