"""The stages of a run before it starts, with estimated seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from distill.cluster.estimates import Room, Scheduled, Training
from distill.config import Experiment
from distill.driver.checks.operations import RunOperations
from distill.driver.checks.rate import device_of
from distill.experts.router import ROUTER
from distill.tasks.plan import Plan


def planned_stages(
    plan: Plan, work: RunOperations, speed: float, whole: Room
) -> tuple[list[Scheduled], int]:
    """Of the run: experts, router, baselines, links of a chain and the student, with their
    teachers. And how many of the baselines are trained at once while teachers and student run.

    ``speed``: floating-point operations a second of one CPU thread, or of the GPU.
    """
    experiment, trainer = plan.experiment, plan.experiment.trainer
    cores, is_gpu = whole.num_cpus, device_of(experiment) == "cuda"

    def seconds(training: Training, num_cpus: float) -> float:
        return training.seconds(speed if is_gpu else speed * min(cores, max(1, int(num_cpus))))

    stages = _expert_stages(experiment, work, seconds)
    room, meanwhile = room_left(plan, whole), list[Scheduled]()
    waits_for = [stage.name for stage in stages]
    for name, training in work.baselines.items():
        cpus = trainer.num_cpus_per_worker
        stage = Scheduled(name, seconds(training, cpus), (), cpus, trainer.num_gpus_per_worker)
        stages.append(stage)
        if not room.holds([stage]):
            waits_for.append(name)
            continue
        stages[-1] = stage = replace(stage, is_background=True)
        if room.holds([*meanwhile, stage]):
            meanwhile.append(stage)
    threads = trainer.num_workers * max(1, int(trainer.num_cpus_per_worker))
    ranks = trainer.num_workers if is_gpu else min(cores, threads)
    teachers = work.teachers
    # One after the other; each is the only teacher of the next one.
    for name, training in [*work.links.items(), ("student", work.student)]:
        alone = training.seconds(speed * ranks)
        together = (training.operations + sum(teachers)) / (speed * max(cores, ranks))
        longest = max([alone, together, *(ops / speed for ops in teachers)])
        stages.append(Scheduled(name, longest, tuple(waits_for), min(cores, plan.num_cpus)))
        waits_for, teachers = [name], [work.link_outputs.get(name, 0.0)]
    return stages, len(meanwhile)


def _expert_stages(
    experiment: Experiment, work: RunOperations, seconds: Callable[[Training, float], float]
) -> list[Scheduled]:
    experts = experiment.experts
    if experts is None:
        return []
    stages: list[Scheduled] = []
    needs_losses = experts.router is not None and experts.router.targets == "lowest_loss"
    for name, training in work.experts.items():
        is_last = name == ROUTER and needs_losses
        after = tuple(stage.name for stage in stages) if is_last else ()
        took = seconds(training, experts.num_cpus)
        stages.append(Scheduled(name, took, after, experts.num_cpus, experts.num_gpus))
    return stages


def room_left(plan: Plan, whole: Room) -> Room:
    """What teachers and student leave of ``whole`` to baselines that are trained meanwhile.

    Nothing on a cluster that is joined: on one of its nodes a baseline could take the CPUs that a
    teacher needs.
    """
    if plan.experiment.cluster.address is not None:
        return Room(0, 0, 0)
    return Room(
        whole.num_cpus - plan.num_cpus,
        whole.num_gpus - plan.num_gpus,
        whole.max_stages - 1,
    )
