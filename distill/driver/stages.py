"""The stages of ``distill train`` as one graph: what needs what, and what is done.

    experts ─► losses ─► router ─┐
    experts ─────────────────────┴─► warm start ─► link 1 ─► … ─► student ─► evaluation
    baselines ──────────────────────────────────────────────────────────────────┘

Losses: of every expert on every row, where they decide the router's targets. A configuration has
some of these; the student and the evaluation are always there. Experts, losses, router and
baselines are tasks on Ray (task_stages.py); links and student are trained by worker groups while
their teachers are served (student_stages.py). What a stage leaves in the run folder resumes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal

from distill.cluster.ray_tasks import RayTask
from distill.config import LabelsOnly
from distill.config.chain import link_name
from distill.driver.chain_links import FILE, ChainRecord
from distill.driver.run_jobs import Jobs, trains_router
from distill.driver.warm_start import FILE as DECISION
from distill.experts.losses import losses_file, measure_losses
from distill.experts.router import ROUTER, router_targets
from distill.run_folder import RunFolder
from distill.tasks.plan import Plan
from distill.training.checkpoints import resumed_step
from distill.training.fit import fit_and_save, is_done, is_saved
from distill.training.job import Job

Kind = Literal[
    "expert", "losses", "router", "baseline", "warm start", "link", "student", "evaluation"
]


@dataclass(frozen=True)
class Stage:
    """What a run does once, for one model or for all of them."""

    name: str
    """Unique; of a task, Ray's name for it: ``<verb>:<model>``."""
    kind: Kind
    model: str
    """Whose fit it is; "" of the warm start and the evaluation."""
    needs: tuple[str, ...] = ()
    """Stages that must have ended before."""
    teachers: tuple[str, ...] = ()
    """The models that it queries. A link that is dropped is replaced by its own teachers."""
    job: Job | None = None
    """None: it fits nothing, or the graph was made of names alone."""
    work: Callable[[Job], None] = fit_and_save
    """Of a task."""
    has_ended: Callable[[Job], bool] = is_saved
    """Whether its results are in the run folder."""
    prepare: Callable[[Job], Job] | None = None
    """Completes the job by the results of stages that it needs."""

    @property
    def is_task(self) -> bool:
        """Whether it runs in one process, as a task of Ray."""
        return self.kind in ("expert", "losses", "router", "baseline")

    @property
    def is_done(self) -> bool:
        return self.job is not None and self.has_ended(self.job)

    @property
    def task(self) -> RayTask:
        assert self.job is not None
        verb = self.name.partition(":")[0]
        kind, prepare = self.kind, self.prepare
        return RayTask(self.job, self.work, verb, after=self.needs, kind=kind, prepare=prepare)


def stages_of(plan: Plan, jobs: Jobs | None = None) -> list[Stage]:
    """The graph of ``distill train``; each stage comes after those that it needs.

    Without ``jobs``, which take time to make, it has the same names.
    """
    tasks = task_stages(plan, jobs)
    found = jobs.by_name if jobs else {}
    needs = tuple(stage.name for stage in tasks if stage.kind != "baseline")
    baselines = tuple(stage.name for stage in tasks if stage.kind == "baseline")
    teachers = before = plan.teacher_names
    students: list[Stage] = []
    if plan.experiment.warm_start:
        students.append(_warm_start(plan, needs, found.get("student")))
        needs = ("warm start",)
    names: list[tuple[Kind, str]] = [("link", link_name(i + 1)) for i in range(len(plan.links))]
    for kind, name in [*names, ("student", "student")]:
        job = found.get(name)
        students.append(Stage(name, kind, name, needs, before, job, has_ended=is_done))
        needs = before = (name,)
    evaluation = Stage("evaluation", "evaluation", "", (*needs, *baselines), teachers)
    return [*tasks, *students, evaluation]


def task_stages(plan: Plan, jobs: Jobs | None = None) -> list[Stage]:
    """Experts, the router and what it needs, and baselines."""
    experiment = plan.experiment
    found = jobs.by_name if jobs else {}

    def fit(kind: Kind, name: str, needs: tuple[str, ...] = ()) -> Stage:
        return Stage(f"fit:{name}", kind, name, needs, job=found.get(name))

    names = plan.teacher_names if experiment.experts else ()
    experts, losses, routers = [fit("expert", name) for name in names], list[Stage](), list[Stage]()
    if trains_router(experiment):
        assert experiment.experts is not None and experiment.experts.router is not None
        router = fit("router", ROUTER)
        if experiment.experts.router.targets == "lowest_loss":
            losses = [_losses(expert, router.job) for expert in experts]
            router = replace(
                router,
                needs=tuple(stage.name for stage in [*experts, *losses]),
                prepare=partial(_with_targets, jobs) if jobs else None,
            )
        routers = [router]
    baselines = [b.name for b in experiment.baselines if isinstance(b, LabelsOnly)]
    own = [_baseline(plan, fit("baseline", name)) for name in baselines]
    return [*experts, *losses, *routers, *own]


def _warm_start(plan: Plan, needs: tuple[str, ...], student: Job | None) -> Stage:
    """Brief fits of the student, which choose its settings."""
    decision = RunFolder(plan.experiment.output).root / DECISION
    return Stage(
        "warm start",
        "warm start",
        "",
        needs,
        plan.teacher_names,
        student,
        has_ended=lambda job: decision.exists(),
    )


def _losses(expert: Stage, router: Job | None) -> Stage:
    """Measuring one expert's losses on every labelled row, once; a trained router needs none."""

    def has_ended(job: Job) -> bool:
        return losses_file(job).exists() or (router is not None and is_done(router))

    name, needs = f"losses:{expert.model}", (expert.name,)
    return replace(
        expert, name=name, kind="losses", needs=needs, work=measure_losses, has_ended=has_ended
    )


def _with_targets(jobs: Jobs, router: Job) -> Job:
    """The router's job with the expert of the lowest loss as the label of each row."""
    if is_done(router):
        return router
    assert jobs.parts is not None
    own = router_targets(jobs.parts, jobs.experts)
    return replace(router, train_labels=own["train"], validation_labels=own["validation"])


def _baseline(plan: Plan, stage: Stage) -> Stage:
    task = plan.task
    return replace(stage, work=task.fit_baseline, has_ended=task.is_baseline_done)


# ---- shown ----------------------------------------------------------------------------------

INDENT = "  "
TITLE = "stages, each with those that it needs below it:"
SIDE_BY_SIDE = {"expert": "experts", "baseline": "baselines"}
"""Kinds of which all stages with the same state are one line; the losses' belong to the router."""


def tree(stages: Sequence[Stage], width: int = 80) -> list[str]:
    """The graph as lines: below each stage, indented, those that it needs, with their state.
    Nothing where a student is trained and evaluated, and that is all."""
    if len(stages) <= 2:
        return []
    shown = [stage for stage in stages if stage.kind != "losses"]
    users: dict[str, str] = {}
    for stage in shown:
        users |= {name: stage.name for name in stage.needs if name not in users}
    lines = [TITLE]

    def add(user: str, depth: int) -> None:
        own = [stage for stage in shown if users.get(stage.name, "") == user]
        for stage in own:
            if stage.kind not in SIDE_BY_SIDE:
                lines.append(
                    _line(depth, stage.name.removeprefix("fit:"), [], state_of(stage), width)
                )
                add(stage.name, depth + 1)
        alike = [stage for stage in own if stage.kind in SIDE_BY_SIDE]
        for (kind, state), group in groupby(alike, key=lambda s: (s.kind, state_of(s))):
            lines.append(_line(depth, kind, [stage.model for stage in group], state, width))

    add("", 1)
    return lines


def _line(depth: int, kind: str, names: Sequence[str], state: str, width: int) -> str:
    """As many names as there is room for."""
    what = INDENT * depth + (f"{len(names)} {SIDE_BY_SIDE[kind]}" if len(names) > 1 else kind)
    end = f" ({state})" if state else ""
    if not names:
        return what + end
    for count in range(len(names), 1, -1):
        text = ", ".join([*names[:count], *(["…"] if count < len(names) else [])])
        if len(f"{what}: {text}{end}") <= width:
            return f"{what}: {text}{end}"
    return f"{what}: {names[0]}{', …' if len(names) > 1 else ''}{end}"


def state_of(stage: Stage) -> str:
    """``done``, of a link ``kept`` or ``dropped``, ``step 120``, or nothing where it has not
    started."""
    if stage.job is None:
        return ""
    folder = Path(stage.job.folder)
    if stage.is_done and stage.kind == "link":
        decided = {link.name: link.is_kept for link in ChainRecord.read(folder.parent / FILE).links}
        return {True: "kept", False: "dropped", None: "done"}[decided.get(stage.name)]
    if stage.is_done:
        return "done"
    step = resumed_step(folder)
    return f"step {step:,}" if step else ""
