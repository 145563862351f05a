"""CPUs, GPUs and weights of teachers and student at once, compared with this machine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar

import torch

from distill.aggregation import Routed
from distill.config import Cluster, Experiment, Experts, Serving
from distill.errors import ConfigError
from distill.records import Line
from distill.tasks import task_of
from distill.tasks.checks.placement import placed
from distill.teachers.served import are_on_one_base, groups
from distill.teachers.transports import TRANSPORTS
from distill.wires import WireFormat

S = TypeVar("S", bound=Serving)
MIN_SHARE = 0.1
"""The least that ``num_cpus: auto`` reserves, in CPUs."""


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
    """Served by one process: they differ in ``wire`` and ``moe`` at most."""
    count: int
    """Number of such processes, each with the teachers' ``replicas``."""
    num_params: int | None
    """Of all of them together, of one replica each; 0: an object with predict_proba; None: not
    known."""
    num_updates: int = 0
    """The same of their adapters, which are float32 whatever the base is."""

    @property
    def serving(self) -> Serving:
        return self.teachers[0]

    @property
    def num_replicas(self) -> int:
        return self.serving.replicas * self.count

    @property
    def cpus(self) -> float:
        return self.num_replicas * self.serving.cpus

    def line(self, wire_of: Callable[[Serving], WireFormat]) -> Line:
        wires = {wire_of(teacher).name for teacher in self.teachers}
        num = self.serving.replicas
        replicas = "1 replica" if num == 1 else f"{num} replicas"
        each = " each" if self.count > 1 else ""
        what = f"{self.what}{replicas}{each}, {' and '.join(sorted(wires))} wire"
        mb = f"{self.memory_mb:,.0f}" if self.memory_mb >= 10 else f"{self.memory_mb:.2g}"
        weights = f"{mb} MB of weights" if self.num_params else "predict_proba"
        return Line(self.name, what, weights if self.num_params is not None else "")

    @property
    def memory_mb(self) -> float:
        width = 4 if self.serving.dtype == "float32" else 2
        return ((self.num_params or 0) * width + self.num_updates * 4) * self.serving.replicas / 1e6


@dataclass(frozen=True)
class Resources:
    """What teachers and student reserve at once."""

    experiment: Experiment
    """The one that was checked, with a number for every ``num_cpus: auto``."""
    num_cpus: float
    num_gpus: float
    lines: tuple[Line, ...]


def check_resources(
    experiment: Experiment,
    num_teachers: int,
    infos: Mapping[str, Sized],
    base: Sized | None,
    adapters: Mapping[str, int] | None = None,
    expert_updates: int | None = None,
) -> Resources:
    """CPUs and GPUs of teachers and student together, compared with this machine.

    ``adapters``: parameters of those teachers that are one; ``expert_updates``: of each expert that
    is trained as one. Raises ConfigError for more than the machine has.
    """
    trainer, cluster = experiment.trainer, experiment.cluster
    rank_cpus = trainer.num_workers * trainer.num_cpus_per_worker

    def served(given: Experiment) -> list[_Processes]:
        return [*_served(given, num_teachers, infos, base, adapters or {}, expert_updates)]

    note, autos = "", [one for one in served(experiment) if one.serving.num_cpus == "auto"]
    if autos and cluster.address is None:
        numbers = sum(one.cpus for one in served(experiment) if one not in autos)
        num_replicas = sum(one.num_replicas for one in autos)
        share = shared_cpus(machine_cpus(cluster) - rank_cpus - numbers, num_replicas)
        experiment = with_cpus(experiment, share)
        note = f"num_cpus auto is {share:g} for each teacher replica"
    elif autos:
        note = "num_cpus auto is 1 for each teacher replica on a cluster"
    lines, cpus, gpus = [], rank_cpus, trainer.num_workers * trainer.num_gpus_per_worker
    for one in served(experiment):
        cpus += one.cpus
        gpus += one.num_replicas * one.serving.num_gpus
        lines.append(one.line(task_of(experiment).wire_of))
    engine = trainer.engine
    if engine == "deepspeed":
        engine += f" ZeRO-{trainer.zero_stage}"
    ranks = "1 rank" if trainer.num_workers == 1 else f"{trainer.num_workers} ranks"
    lines.append(Line("trainer", f"{engine}, {ranks}", trainer.dtype))
    lines.append(Line("resources", f"{cpus:g} CPUs, {gpus:g} GPUs in total", note))
    if cluster.address is None:
        have_cpus, have_gpus = machine_cpus(cluster), torch.cuda.device_count()
        refuse_shortage("CPUs", cpus, have_cpus)
        refuse_shortage("GPUs", gpus, have_gpus)
        if experiment.experts:
            refuse_shortage("CPUs", experiment.experts.num_cpus, have_cpus)
            refuse_shortage("GPUs", experiment.experts.num_gpus, have_gpus)
    return Resources(experiment, cpus, gpus, tuple(lines))


def machine_cpus(cluster: Cluster) -> float:
    """Of a local cluster, which has a whole number of them."""
    return max(1, int(cluster.num_cpus or os.cpu_count() or 1))


def shared_cpus(left: float, num_replicas: int) -> float:
    """Of ``left`` CPUs for each of the replicas: between MIN_SHARE and 1, in hundredths; 0 where
    that does not fit, so that they use the CPUs of the student's ranks."""
    share = min(1.0, math.floor(left / num_replicas * 100 + 1e-6) / 100)
    return share if share >= MIN_SHARE else 0.0


def with_cpus(experiment: Experiment, share: float) -> Experiment:
    """The experiment with this number for every ``num_cpus: auto`` of a teacher."""

    def resolved(serving: S) -> S:
        return serving.model_copy(update={"num_cpus": share} if serving.num_cpus == "auto" else {})

    changes: dict[str, Any] = {"teachers": tuple(resolved(t) for t in experiment.teachers)}
    if (experts := experiment.experts) is not None:
        inner: dict[str, Any] = {"serving": resolved(experts.serving)}
        if experts.router is not None:
            router = experts.router
            inner["router"] = router.model_copy(update={"serving": resolved(router.serving)})
        changes["experts"] = experts.model_copy(update=inner)
    return experiment.model_copy(update=changes)


def _served(
    experiment: Experiment,
    num_teachers: int,
    infos: Mapping[str, Sized],
    base: Sized | None,
    adapters: Mapping[str, int],
    expert_updates: int | None,
) -> Iterator[_Processes]:
    experts, aggregation = experiment.experts, experiment.aggregation
    ready = aggregation.router if isinstance(aggregation, Routed) else None
    if experts and base:
        yield from _experts(experts, num_teachers, base, expert_updates)
        if aggregation.needs_router():
            serving = experts.router.serving if experts.router else experts.serving
            yield _Processes("router", "", [serving], 1, None if ready else base.num_params)
    yield from _teachers(experiment, infos, adapters)
    if ready and experiment.teachers:  # served like the first teacher: see driver/pipeline.py
        first = experiment.teachers[0]
        serving = Serving(num_cpus=first.num_cpus, node_labels=first.node_labels)
        yield _Processes("router", "", [serving], 1, None)


def check_transport(experiment: Experiment) -> None:
    """Raise ConfigError for a transport that this machine lacks."""
    transport = TRANSPORTS[experiment.stream.transport]
    if not experiment.has_teachers:
        return
    served: dict[str, Serving] = {f"teachers.{t.name}": t for t in experiment.teachers}
    if experiment.experts is not None:
        served["experts.serving"] = experiment.experts.serving
        if experiment.experts.router is not None:
            served["experts.router.serving"] = experiment.experts.router.serving
    for key, serving in served.items():
        if serving.batch_requests and not transport.joins_requests:
            raise ConfigError(
                f"{key}.batch_requests: true cannot be used with stream.transport "
                f"{transport.name}, which "
                "takes one request at a time: set it to false, or use object_store"
            )
    package = transport.package
    if package is not None and find_spec(package) is None:
        raise ConfigError(
            f"stream.transport {transport.name} needs the package {package}, which is not "
            f"installed here: pip install {package} (on every node), or use object_store"
        )


def _experts(experts: Experts, num: int, base: Sized, num_updates: int | None) -> list[_Processes]:
    name, serving = f"{num} experts", [experts.serving]
    if num_updates is None:
        return [_Processes(name, "", serving, num, base.num_params * num)]
    what = f"{num} adapters on one base, "
    return [_Processes(name, what, serving, 1, base.num_params, num_updates * num)]


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


def refuse_shortage(kind: str, required: float, available: float) -> None:
    if required > available + 1e-9:
        key = "num_cpus" if kind == "CPUs" else "num_gpus"
        shown = f"{required:g} {kind.removesuffix('s') if required == 1 else kind}"
        if kind == "GPUs" and not available:
            way_out = (
                "leave num_gpus and trainer.num_gpus_per_worker out to use CPUs, or give "
                "cluster.address"
            )
        else:
            way_out = (
                f"lower replicas, {key} (fractions are allowed) or trainer.num_workers, or give "
                "cluster.address"
            )
        raise ConfigError(
            f"teachers and student need {shown} at once, this machine has {available:g}: {way_out}"
        )
