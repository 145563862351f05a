"""What teachers and student hold at once, against this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

import torch

from distill.config import Experiment, Serving
from distill.errors import ConfigError
from distill.plan import Line


class Sized(Protocol):
    """A folder of weights."""

    @property
    def num_params(self) -> int: ...


def check_resources(
    experiment: Experiment, num_teachers: int, infos: Mapping[str, Sized], base: Sized | None
) -> tuple[float, float, list[Line]]:
    """CPUs and GPUs of teachers and student together, against this machine."""
    trainer = experiment.trainer
    served: list[tuple[str, Serving, int]] = []
    if experiment.experts and base:
        served.append(
            (f"{num_teachers} experts", experiment.experts.serving, base.num_params * num_teachers)
        )
        if experiment.aggregation.needs_router() and experiment.experts.router:
            served.append(("router", experiment.experts.router.serving, base.num_params))
    served += [(t.name, t, infos[t.name].num_params) for t in experiment.teachers]
    lines, cpus, gpus = [], 0.0, 0.0
    for name, serving, params in served:
        count = num_teachers if name.endswith(" experts") else 1
        cpus += serving.replicas * serving.num_cpus * count
        gpus += serving.replicas * serving.num_gpus * count
        width = 4 if serving.dtype == "float32" else 2
        memory = params * width * serving.replicas / 1e6
        wire = serving.wire.resolved(experiment.is_language_model, serving.dtype)
        what = f"{serving.replicas} replica(s) each, {wire.name} wire"
        weights = f"{memory:,.0f} MB of weights" if params else "predict_proba"
        lines.append(Line(name, what, weights))
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


def _refuse_shortage(kind: str, wanted: float, available: float) -> None:
    if wanted > available + 1e-9:
        key = "num_cpus" if kind == "CPUs" else "num_gpus"
        raise ConfigError(
            f"teachers and student need {wanted:g} {kind} at once, this machine has {available:g}: "
            f"lower replicas, {key} (fractions are allowed) or trainer.num_workers, or give "
            "cluster.address"
        )
