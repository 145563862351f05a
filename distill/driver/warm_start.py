"""Warm start: values that past runs suggest, tried against the configuration's own in brief runs.

HPM-KD, arXiv 2512.09886, components 1 and 6. The proposal is made in
search/configuration_memory.py, compared and refined in search/refine.py; past runs are read in
tracking/past_runs.py. This module decides, keeps
the decision, and applies it to ``distill train``; driver/sweep/proposals.py applies it to a sweep.

<output>/warm_start.json   the decision and its reasons; a resumed run reads it
<output>/brief/<name>/     the brief runs, until the decision
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from distill.config import Experiment, Student
from distill.config.search import Goal
from distill.config.search_space import Value
from distill.driver.context import Command, Driver
from distill.errors import ConfigError
from distill.records import Line
from distill.search.configuration_memory import KEYS, ConfigurationMemory, ConfigurationProposal
from distill.search.refine import BRIEF, OWN, Choice, Values, choose
from distill.teachers.setup import TeacherSetup
from distill.tracking.past_runs import experiences
from distill.training.fit import build_module, is_done
from distill.training.job import Job
from distill.wording import counted

FILE = "warm_start.json"
RunFits = Callable[[Sequence[Job]], None]
"""Runs fits to their end; raises Interrupted. See ``TaskStages.run_fits``."""


def check_warm_start(experiment: Experiment) -> None:
    """Raise ConfigError for a run that the memory of past runs cannot serve."""
    if not experiment.warm_start:
        return
    schedule = experiment.kd.schedule
    fixed = [key for key in ("low", "high") if getattr(schedule, key, None) is not None]
    if fixed:
        raise ConfigError(
            f"warm_start true chooses kd.temperature, but kd.schedule.{fixed[0]} is fixed at "
            f"{getattr(schedule, fixed[0]):g}: set it to null, or remove warm_start"
        )
    if not experiment.has_teachers:
        raise ConfigError(
            "warm_start true proposes values for a distillation, and there are no teachers: give "
            "teachers or experts, or remove it"
        )


def reads_past_runs(experiment: Experiment, command: Command) -> bool:
    """Whether a new run decides by past runs, so that it cannot start without MLflow."""
    if command == "sweep":
        return experiment.search is not None and experiment.search.warm_start
    return experiment.warm_start


def warm_start_lines(experiment: Experiment) -> list[Line]:
    """Of the plan."""
    if not experiment.warm_start:
        return []
    keys = ", ".join(numbers_of(experiment))
    return [Line("warm start", keys, "from past runs; up to 10 brief runs")]


def undecided(experiment: Experiment) -> tuple[str, ...]:
    """Keys whose values are known only after the warm start."""
    return tuple(numbers_of(experiment)) if experiment.warm_start else ()


def values_of(experiment: Experiment, keys: Iterable[str]) -> dict[str, Value]:
    """The experiment's own values of these keys; sections and keys that it does not have are left
    out."""
    dumped = experiment.model_dump(mode="json")
    found: dict[str, Value] = {}
    for key in keys:
        node: object = dumped
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        if isinstance(node, bool | int | float | str):
            found[key] = node
    return found


def numbers_of(experiment: Experiment) -> Values:
    """Its values of the keys that the memory proposes; ``chain.epsilon`` only with a chain."""
    return {key: float(value) for key, value in values_of(experiment, KEYS).items()}


def with_numbers(experiment: Experiment, values: Mapping[str, float]) -> Experiment:
    """The experiment with these values of keys that it has."""
    for key, value in values.items():
        section, name = key.split(".")
        changed = getattr(experiment, section).model_copy(update={name: value})
        experiment = experiment.model_copy(update={section: changed})
    return experiment


@dataclass(frozen=True)
class ChosenValues:
    """What past runs propose, and which values the brief runs chose."""

    own: Values
    """The configuration's."""
    proposal: ConfigurationProposal
    mean: Values
    """The mean of all past tasks: what a memory without meta-features would propose."""
    choice: Choice | None
    """None: no past run proposes anything."""

    @property
    def values(self) -> Values:
        return self.own if self.choice is None else self.choice.best.values

    @property
    def why(self) -> str:
        return self.proposal.why if self.choice is None else self.choice.why

    def record(self) -> dict[str, Any]:
        """As JSON."""
        choice = self.choice
        return {
            "values": self.values,
            "chosen": OWN if choice is None else choice.best.name,
            "configuration": self.own,
            "proposed": self.proposal.values,
            "model": self.proposal.model,
            "why": self.proposal.why,
            "neighbours": [asdict(neighbour) for neighbour in self.proposal.neighbours],
            "mean_of_all": self.mean,
            "brief": None if choice is None else choice.why,
            "runs": [] if choice is None else [_finite(asdict(run)) for run in choice.runs],
        }


def _finite(run: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: the quality of a failed run is null."""
    return run | {"quality": run["quality"] if math.isfinite(run["quality"]) else None}


def decide(
    d: Driver,
    own: Values,
    goal: Goal,
    meta: Callable[[], dict[str, float]],
    measure: Callable[[str, Values], float],
    placed: Callable[[Values], Values] = lambda values: values,
) -> ChosenValues:
    """Propose from past runs, and compare and refine in brief runs.

    ``own``: the configuration's values, whose keys are proposed. ``goal``: the quality of past
    runs. ``meta``: the task's features; computed only if there are past runs. ``measure`` and
    ``placed``: see :func:`~distill.search.refine.choose`.
    """
    memory = ConfigurationMemory(experiences(d.tracker.uri, list(own), goal))
    num_tasks = counted(len(memory.tasks), "task")
    d.progress.say(f"configuration memory: {counted(len(memory.runs), 'past run')} of {num_tasks}")
    proposal = memory.propose(meta() if memory.tasks else {}, own, d.experiment.seed)
    mean = memory.mean(own)
    if proposal.model == "defaults":
        return ChosenValues(own, proposal, mean, None)
    d.progress.say(f"configuration memory proposes {shown(proposal.values)}: {proposal.why}")
    d.progress.say(f"the mean of all past tasks ({num_tasks}) is {shown(mean)}")
    return ChosenValues(own, proposal, mean, choose(proposal.values, own, measure, placed))


def shown(values: Mapping[str, Value]) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
    )


def kept(d: Driver) -> dict[str, Any] | None:
    """The decision of an earlier start of this run."""
    path = d.run.root / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def keep(d: Driver, record: Mapping[str, Any]) -> None:
    """Atomic; the brief runs are deleted, and MLflow gets the decision."""
    path = d.run.root / FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(partial, path)
    shutil.rmtree(d.run.brief, ignore_errors=True)
    why = record["brief"] or record["why"]
    d.tracker.tags({"distill.warm_start": f"{record['chosen']}: {shown(record['values'])}; {why}"})
    d.tracker.artifact(path)


class BriefJob(Job):
    """A brief fit. One that fails, as with a learning rate too high, only has no quality."""

    @property
    def may_fail(self) -> bool:
        return True


def brief_of(job: Job, folder: Path, name: str, values: Values) -> Job:
    """A quarter of the job's steps, in one process, in a folder of these values."""
    trainer = job.trainer
    micro = trainer.micro_batch_size
    if micro is None and trainer.num_workers > 1:
        micro = math.ceil(trainer.batch_size / trainer.num_workers)
    update = {"engine": "torch", "num_workers": 1, "micro_batch_size": micro}
    # Another proposal, from a store that has changed since, must not find this one's result.
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    brief = replace(
        job,
        name=f"brief-{name}",
        folder=str(folder / f"{name}-{digest}"),
        num_steps=max(1, round(BRIEF * job.total_steps)),
        trainer=trainer.model_copy(update=update),
    )
    return BriefJob(**{field.name: getattr(brief, field.name) for field in fields(brief)})


def quality(d: Driver, job: Job, run: RunFits) -> float:
    """The best validation metric; −inf: the fit failed."""
    run([job])
    if not is_done(job):
        why = (Path(job.folder) / "failed.txt").read_text("utf-8")
        d.progress.say(f"{job.name} failed: {why}")
        return -math.inf
    done = json.loads((Path(job.folder) / "done.json").read_text(encoding="utf-8"))
    return float(done["best"])


def meta_before(
    d: Driver, job: Job, student: Student, teacher_params: float | None
) -> dict[str, float]:
    """``meta.*`` of a run before its student is trained."""
    module = build_module(job).eval()
    metrics = {"student.params": float(sum(p.numel() for p in module.student.parameters()))}
    if job.teacher_setup is not None:
        found = d.plan.task.teachers_on_validation(d.plan, job, module, d.interrupt.is_set)
        assert found is not None
        metrics["eval.teacher_accuracy"] = found["eval.accuracy"]
    task, corpus = d.plan.task, d.plan.corpus
    return task.meta_features(corpus, job.teacher_setup, student, metrics, teacher_params)


def warm_started(
    d: Driver, student: Job, serve: Callable[[], TeacherSetup | None], run: RunFits
) -> tuple[Driver, Job]:
    """The driver of the experiment with the chosen values, and the student's job with its optimizer
    settings; without ``warm_start`` both as they are.

    ``serve`` has the teachers of the brief fits, which ``run`` runs; a run that was decided before
    calls neither.
    """
    if not d.experiment.warm_start:
        return d, student
    record = kept(d)
    if record is None:
        teacher_setup = serve()
        assert teacher_setup is not None, "check_warm_start refuses an experiment without teachers"
        record = _decided(d, student, teacher_setup, run).record()
        keep(d, record)
    d.progress.say(f"warm start: the student trains with {shown(record['values'])}")
    experiment = with_numbers(d.experiment, record["values"])
    # Later runs read these; the configuration's own values were not recorded.
    d.tracker.params(numbers_of(experiment))
    started = replace(d, plan=replace(d.plan, experiment=experiment))
    return started, replace(student, optimizer=experiment.optimizer)


def _decided(d: Driver, student: Job, teacher_setup: TeacherSetup, run: RunFits) -> ChosenValues:
    own = numbers_of(d.experiment)

    def brief(name: str, values: Values) -> Job:
        experiment = with_numbers(d.experiment, values)
        job = replace(
            student,
            teacher_setup=teacher_setup,
            objective=experiment.objective,
            kd=experiment.kd,
            optimizer=experiment.optimizer,
        )
        return brief_of(job, d.run.brief, name, values)

    def meta() -> dict[str, float]:
        params = d.plan.task.largest_teacher(teacher_setup)
        return meta_before(d, brief(OWN, own), d.experiment.student, params)

    def measure(name: str, values: Values) -> float:
        return quality(d, brief(name, values), run)

    decision = decide(d, own, Goal(student.selection.metric, "max"), meta, measure)
    if decision.choice is None:
        d.progress.say(f"{decision.why}: the configuration's own values are used")
    else:
        d.progress.say(decision.why)
    return decision
