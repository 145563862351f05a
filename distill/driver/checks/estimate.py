"""How many steps a run takes, about how long, and about how much memory: what ``distill check``
prints of it. Nothing is trained for this.

Operations (operations.py) are divided by the rate of a product of matrices of the student's width,
measured here for a fifth of a second on one thread (or on the GPU that trains). Everything else is
left out (attention over long texts, normalisation, writing files), and small models spend more on
it than on products. Hence a range: from the operations alone to SLACK times as long, and what it
takes to start Ray, the workers and the tracker.

Stages (planned.py): experts, router and baselines are trained in the order that
distill/cluster/estimates.py describes; the duration is that of its simulation on this
machine's CPUs. The critical path is the longest
chain of stages that wait for each other: more CPUs do not make a run shorter than it.

Memory: see process_memory.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from distill.cluster.estimates import Room, critical_path, makespan
from distill.config import Experiment
from distill.driver.checks.operations import RunOperations
from distill.driver.checks.planned import planned_stages, room_left
from distill.driver.checks.process_memory import machine_mb, rank_mb, weights_mb
from distill.driver.checks.rate import device_of, measured_rate
from distill.driver.checks.resources import machine_cpus
from distill.records import Line
from distill.sampling import Generated
from distill.tasks.checks.sizes import ModelSize
from distill.tasks.plan import Plan

SLACK = 4.0
"""A run takes up to so many times what its products take."""
START_S = (10.0, 60.0)


@dataclass(frozen=True)
class Estimate:
    """Of ``distill train`` with this plan."""

    num_steps: int
    steps_per_epoch: int
    student: ModelSize
    operations: float
    """Floating-point operations of experts, teachers, student and baselines together."""
    seconds: tuple[float, float] | None
    """From, to; None where it cannot be known here: ``why``."""
    why: str
    memory_mb: float
    """Of all processes at once, on all machines together."""
    rank_mb: float
    critical: tuple[tuple[str, float], ...] = ()
    """Name and seconds of each stage of the critical path, as ``seconds`` without the start."""
    serial_s: float = 0.0
    """Of all stages one after the other."""
    parallel_s: float = 0.0
    """Of all stages on the CPUs of this machine."""
    num_cpus: float = 1.0
    """Of this machine, or of ``cluster.num_cpus``."""

    @property
    def lines(self) -> list[Line]:
        """Rows of the plan's table."""
        epochs = f"{self.steps_per_epoch:,} per epoch"
        took = self.why
        if self.seconds is not None:
            took = f"about {_range(*self.seconds)}"
        gb = f"about {_gb(self.memory_mb)} in total"
        mine = machine_mb()
        here = f"this machine has {_gb(mine)}; " if mine else ""
        num_trained, num_params = self.student.num_trained, self.student.num_params
        share = f"{num_trained / num_params:.2%} of the student's {num_params:,}"
        if num_trained == num_params:
            share = "all of the student's"
        return [
            Line("steps", f"{self.num_steps:,} optimizer steps", epochs),
            Line("trained", f"{num_trained:,} parameters", share),
            Line("duration", took, f"{self.operations:.1e} floating-point operations"),
            *self._path_lines(),
            Line("memory", gb, f"{here}student {_gb(self.rank_mb)} per rank"),
        ]

    def _path_lines(self) -> list[Line]:
        """Nothing where the student is all that is trained."""
        if len(self.critical) < 2 and self.serial_s == self.parallel_s:
            return []
        path = " → ".join(f"{name} {_upto(seconds)}" for name, seconds in self.critical)
        cpus = "1 CPU" if self.num_cpus == 1 else f"{self.num_cpus:g} CPUs"
        together = f"on {cpus} {_upto(self.parallel_s)}"
        return [Line("critical path", path, f"all stages {_upto(self.serial_s)}; {together}")]

    def as_json(self) -> dict[str, object]:
        low, high = self.seconds or (None, None)
        return {
            "num_steps": self.num_steps,
            "steps_per_epoch": self.steps_per_epoch,
            "num_params": self.student.num_params,
            "num_trained_params": self.student.num_trained,
            "floating_point_operations": self.operations,
            "min_seconds": low,
            "max_seconds": high,
            "memory_mb": self.memory_mb,
            "critical_path": [
                {"stage": name, "min_seconds": seconds} for name, seconds in self.critical
            ],
            "min_serial_seconds": self.serial_s if self.critical else None,
            "min_parallel_seconds": self.parallel_s if self.critical else None,
        }


def estimate(plan: Plan, rate: float | None = None) -> Estimate:
    """``rate``: floating-point operations a second of one CPU thread (or one GPU); None: measured
    here, for a fifth of a second."""
    experiment, trainer = plan.experiment, plan.experiment.trainer
    tokens = plan.task.tokens_of_a_row(plan)
    work = RunOperations(plan, tokens)
    own, teacher_ops = work.student, work.teachers
    others = [*work.experts.values(), *work.baselines.values(), *work.links.values()]
    operations = own.operations + sum(one.operations for one in others)
    operations += sum(teacher_ops) + sum(work.link_outputs.values())
    student = plan.task.student_size(plan, experiment.student)
    why = _why_not(experiment)
    one_rank_mb = rank_mb(plan, student, tokens)
    found = Estimate(
        own.num_steps,
        work.steps_per_epoch,
        student,
        operations,
        None,
        why,
        trainer.num_workers * one_rank_mb + weights_mb(plan),
        one_rank_mb,
    )
    if why:
        return found
    micro = trainer.micro_batch_size or math.ceil(trainer.batch_size / trainer.num_workers)
    speed = rate or measured_rate(round(micro * tokens), student.hidden, device_of(experiment))
    cores = machine_cpus(experiment.cluster)
    whole = Room(cores, max_stages=experiment.cluster.max_tasks or math.inf)
    planned, num_meanwhile = planned_stages(plan, work, speed, whole)
    together = makespan(planned, whole, room_left(plan, whole))
    return replace(
        found,
        memory_mb=found.memory_mb + num_meanwhile * one_rank_mb,
        seconds=(START_S[0] + together, START_S[1] + together * SLACK),
        critical=tuple((stage.name, stage.seconds) for stage in critical_path(planned)),
        serial_s=sum(stage.seconds for stage in planned),
        parallel_s=together,
        num_cpus=cores,
    )


def _why_not(experiment: Experiment) -> str:
    if isinstance(experiment.sampling, Generated):
        return f"not estimated: sampling.type {experiment.sampling.type} generates text"
    if experiment.cluster.address is not None:
        return "not estimated: it runs on a cluster"
    return ""


def _range(low: float, high: float) -> str:
    """``2 to 8 min``: two figures at most, for it is no more exact."""
    for unit, seconds in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if high >= 2 * seconds or unit == "s":
            return f"{_short(low / seconds)} to {_short(high / seconds)} {unit}"
    raise AssertionError


def _upto(seconds: float) -> str:
    """The range of an estimate, from its operations alone to SLACK times as long."""
    return _range(seconds, SLACK * seconds)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{max(value, 0.1):.2g}"


def _gb(mb: float) -> str:
    return f"{mb / 1e3:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"
