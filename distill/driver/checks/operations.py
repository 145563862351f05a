"""Floating-point operations of everything that a run computes.

A forward takes 2 · P floating-point operations a token, training 6 · P (4 · P where low-rank
updates alone are trained, 2 · P for layers below those that are trained), P being the parameters
that multiply: without the embeddings, which are looked up.
"""

from __future__ import annotations

import math

from distill.aggregation import Routed
from distill.cluster.estimates import Training
from distill.config import Experiment, LabelsOnly
from distill.config.chain import link_name
from distill.experts.router import ROUTER
from distill.tasks.checks.sizes import ModelSize
from distill.tasks.plan import Plan
from distill.training.job import Job


class RunOperations:
    """Operations of everything that a run computes, by name."""

    def __init__(self, plan: Plan, tokens: float) -> None:
        experiment, trainer = plan.experiment, plan.experiment.trainer
        train, transfer = plan.rows.rows("train"), plan.rows.rows("transfer")
        num_rows = len(train) + (len(transfer) if experiment.has_teachers else 0)
        self.steps_per_epoch = math.ceil(num_rows / trainer.batch_size)
        num_validation = len(plan.rows.rows("validation"))
        num_steps = math.ceil(trainer.epochs * self.steps_per_epoch)
        eval_every = trainer.eval_every or self.steps_per_epoch

        def training(model: ModelSize, batch_size: int, num_steps: int, every: int) -> Training:
            return Training(
                model.num_active,
                tokens,
                batch_size,
                num_steps,
                num_validation,
                every,
                model.per_parameter,
            )

        own = plan.task.student_size(plan, experiment.student)
        self.student = training(own, trainer.batch_size, num_steps, eval_every)
        self.baselines: dict[str, Training] = {}
        for baseline in experiment.baselines:
            if not isinstance(baseline, LabelsOnly):
                continue
            model = plan.task.student_size(plan, baseline.student or experiment.student)
            batch_size = baseline.batch_size or trainer.batch_size
            num_labelled = num_rows if plan.rows.is_self_labelled else len(train)
            per_epoch = math.ceil(num_labelled / batch_size)
            steps = num_steps if baseline.epochs is None else math.ceil(baseline.epochs * per_epoch)
            every = trainer.eval_every or per_epoch
            self.baselines[baseline.name] = training(model, batch_size, steps, every)
        answered = num_rows + num_validation + len(plan.rows.rows("test"))
        self.teachers = [2.0 * active * tokens * answered for active in _active(plan)]
        # Each is trained as the student is.
        self.links = {
            link_name(i): training(
                plan.task.student_size(plan, link), trainer.batch_size, num_steps, eval_every
            )
            for i, link in enumerate(plan.links, 1)
        }
        self.link_outputs = {
            n: 2.0 * t.num_active * tokens * answered for n, t in self.links.items()
        }
        self.experts = _experts(plan, tokens, num_validation)


def _experts(plan: Plan, tokens: float, num_validation: int) -> dict[str, Training]:
    """The experts, and the router where the run trains one."""
    experiment, experts = plan.experiment, plan.experiment.experts
    if experts is None:
        return {}
    found: dict[str, Training] = {}
    base = plan.task.folder_size(experts.base)
    per_parameter = 4.0 if experts.lora else base.per_parameter(experts.train_layers)
    for name, num_rows in _rows_of_experts(plan).items():
        per_epoch = math.ceil(num_rows / experts.batch_size)
        found[name] = Training(
            base.num_active,
            tokens,
            experts.batch_size,
            math.ceil(experts.epochs * per_epoch),
            num_validation // max(1, len(plan.teacher_names)),
            per_epoch,
            per_parameter,
        )
    if _has_router(experiment):
        router = experts.router
        assert router is not None
        per_epoch = math.ceil(len(plan.rows.rows("train")) / router.batch_size)
        base = base.first(router.layers)
        found[ROUTER] = Training(
            base.num_active,
            tokens,
            router.batch_size,
            math.ceil(router.epochs * per_epoch),
            num_validation,
            per_epoch,
            base.per_parameter(router.train_layers),
        )
    return found


def _has_router(experiment: Experiment) -> bool:
    """Whether the run trains one."""
    experts, aggregation = experiment.experts, experiment.aggregation
    has_one = isinstance(aggregation, Routed) and aggregation.router is not None
    return bool(experts and experts.router and aggregation.needs_router() and not has_one)


def _rows_of_experts(plan: Plan) -> dict[str, int]:
    """Training rows of each; equal shares where the parts are found at the start of the run."""
    train, names = plan.rows.rows("train"), plan.teacher_names
    if set(names) == set(plan.rows.domain_names):
        found = plan.rows.domains_of(train)
        return {n: int((found == k).sum()) for k, n in enumerate(plan.rows.domain_names)}
    return dict.fromkeys(names, math.ceil(len(train) / max(1, len(names))))


def _active(plan: Plan) -> list[int]:
    """Parameters that multiply, of each teacher; 0 of objects with predict_proba."""
    experiment, size_of = plan.experiment, plan.task.folder_size
    if experiment.experts is not None:
        return [size_of(experiment.experts.base).num_active] * len(plan.teacher_names)
    return [size_of(t.path, t.allow_pickle).num_active for t in experiment.teachers]


def operations_of_rank(plan: Plan, job: Job) -> float:
    """Floating-point operations of one forward and backward of a rank, of a student or a link."""
    trainer = job.trainer
    num_active, per_parameter = plan.task.spec_size(plan, job.model, plan.task.folder_size)
    rows = trainer.micro_batch_size or trainer.batch_size / trainer.num_workers
    return per_parameter * num_active * plan.task.tokens_of_a_row(plan) * rows
