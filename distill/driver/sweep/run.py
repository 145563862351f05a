"""``distill sweep``: one pass of the teachers, trials that read their outputs from the cache, the
frontier."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

import numpy as np

from distill.cluster.placement import admits
from distill.cluster.ray_tasks import RayLauncher
from distill.config import Experiment
from distill.config.search import Search
from distill.driver.checks.check import search_of
from distill.driver.context import Driver, Work
from distill.driver.finished import Result, keep
from distill.driver.pipeline import (
    driver,
    finished_before,
    opened,
    record_inputs,
    report_losses,
)
from distill.driver.run_jobs import jobs_of, own_job
from distill.driver.serve import serve_teachers
from distill.driver.stages import task_stages
from distill.driver.sweep.outcome import SweepOutcome, champion_of
from distill.driver.sweep.proposals import warm_start
from distill.driver.sweep.tested import tested, timed_alone
from distill.driver.sweep.trial import Sweep
from distill.driver.sweep.tuner import TrialResources, tune_trials
from distill.driver.task_stages import TaskStages
from distill.errors import TrainingError
from distill.evaluation.rows import Row
from distill.experts.partition import Parts
from distill.report.frontier import write_frontier
from distill.report.names import label, shown, shown_value
from distill.report.progress import Progress, duration
from distill.search.ledger import Ledger, LedgerEntry, searched
from distill.search.plan import concurrency, raw_of
from distill.search.trials import frontier
from distill.search.values import with_values
from distill.teachers.client import CacheOnlyClient
from distill.teachers.setup import TeacherSetup
from distill.training.job import Data, Job
from distill.wording import counted

SPLITS = ("train", "transfer", "validation", "test")


def sweep(experiment: Experiment, progress: Progress) -> SweepOutcome:
    """From a configuration with a ``search`` section to the frontier of its students."""
    started = time.perf_counter()
    with opened(experiment, progress, "sweep") as work:
        search = search_of(work.plan)
        if (outcome := _finished_before(work, search)) is not None:
            return outcome
        with driver(work) as d, TaskStages(d, RayLauncher()) as tasks:
            outcome, outputs = _sweep(d, tasks, search)
            metrics = outcome.metrics | outputs.metrics | d.memory.metrics()
            metrics["time.total_s"] = time.perf_counter() - started
            d.tracker.metrics(metrics, 0)
            outcome = replace(outcome, metrics=metrics, open_command=d.tracker.open_command)
        result = Result(outcome.rows, outcome.metrics, outcome.open_command)
        keep(work.run, work.plan, "sweep", result)
        return outcome


def _sweep(d: Driver, tasks: TaskStages, search: Search) -> tuple[SweepOutcome, TeacherPass]:
    experiment = d.experiment
    record_inputs(d)
    _record_search(d, search)
    student = own_job(d)
    report_losses(d, student)
    jobs = jobs_of(d, student)
    tasks.run(task_stages(d.plan, jobs))
    outputs = _query_once(d, jobs.teachers, student.data, jobs.parts)
    compared = d.plan.task.comparison(
        d.plan, student.data, outputs.teacher_setup, d.interrupt.is_set
    )
    rows = compared.related([*outputs.rows, *compared.baselines(list(jobs.baselines))])
    trials = Sweep(
        raw=raw_of(experiment),
        folder=d.run.root,
        corpus=d.plan.corpus.folder,
        tokenizer=d.plan.tokenizer,
        teacher_setup=outputs.teacher_setup,
        teacher_params=outputs.teacher_params,
        stop=d.run.stop,
        exchanges=search.is_population,
    )
    first = warm_start(d, tasks.run_fits, search, trials) if search.warm_start else []
    watch = TrialReporter(d, search, trials)
    room = TrialResources(_at_once(experiment, search), experiment.trainer)
    tune_trials(trials, search, room, first, experiment.seed, watch)
    d.interrupt.check()
    return _conclude(d, search, trials, rows), outputs


def _finished_before(work: Work, search: Search) -> SweepOutcome | None:
    """The result of a sweep that has nothing left to do: a failed trial would be tried again."""
    entries = Ledger(work.run.root / "trials").entries()
    if not entries or not all(entry.is_over for entry in entries):
        return None
    result = finished_before(work, "sweep")
    if result is None:
        return None
    trials = [entry.trial() for entry in entries]
    best = frontier(trials, search.ordered_goals)
    return SweepOutcome(
        trials,
        best,
        champion_of(best, search),
        result.rows,
        result.metrics,
        work.run.report,
        result.open_command,
        _title(work),
    )


def _title(work: Work) -> str:
    return work.experiment.tracking.experiment or work.run.root.name


def _record_search(d: Driver, search: Search) -> None:
    goals = [{"metric": goal.metric, "mode": goal.mode} for goal in search.ordered_goals]
    d.tracker.tags(
        {
            "distill.kind": "sweep",
            "distill.goals": json.dumps(goals),
            "distill.searched": json.dumps(list(search.space)),
            "distill.output": d.run.root,
        }
    )


# ---- teachers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TeacherPass:
    """What the one pass of the teachers leaves."""

    teacher_setup: TeacherSetup | None
    rows: list[Row]
    teacher_params: float | None
    metrics: dict[str, float]


def _query_once(d: Driver, experts: list[Job], data: Data, parts: Parts | None) -> TeacherPass:
    """Serve the teachers, fill the cache with all that any trial could need, stop them."""
    with serve_teachers(d, experts) as teacher_setup:
        if teacher_setup is None:
            return TeacherPass(None, [], None, {})
        metrics = _fill(d, teacher_setup, data)
        d.memory.count(metrics)
        d.progress.say("evaluating the teachers on the test split")
        rows = d.plan.task.comparison(
            d.plan, data, teacher_setup, d.interrupt.is_set, parts
        ).teachers()
        sizes = [row.params for row in rows if row.role == "expert"]
        known = [params for params in sizes if params is not None]
        # Objects with predict_proba have no weights to count.
        params = max(known) if known == sizes else None
    # From here on a query is an error.
    cache_only = CacheOnlyClient(tuple(s.name for s in teacher_setup.served))
    return TeacherPass(replace(teacher_setup, client=cache_only), rows, params, metrics)


def _fill(d: Driver, teacher_setup: TeacherSetup, data: Data) -> dict[str, float]:
    """Every row of every split, through the routes that trials will take; returns metrics."""
    routed = _routed(d.experiment, teacher_setup)
    total, done = d.plan.rows.num_rows, 0
    at_once, size = d.plan.task.rows_at_once(d.experiment)
    with routed.open(data, "sweep") as stream:
        stream.timings()
        stream.heads()
        for start in range(0, total, at_once):
            d.interrupt.check()
            block = np.arange(start, min(start + at_once, total))
            stream.fill(block, size)
            done += len(block)
            d.progress.update("querying the teachers", done, total)
        timings = stream.timings()
    served = [spec.name for spec in teacher_setup.served]
    metrics = {f"teacher.{n}.{m}": timings[f"teacher.{n}.{m}"] for n in served for m in COUNTED}
    computed = {n: timings[f"teacher.{n}.rows"] for n in served}
    known = {n: computed[n] + timings[f"teacher.{n}.cached_rows"] for n in served}
    # 1: every row was computed once; 0: a resumed sweep, or a shared cache, had them all.
    metrics["teacher.passes"] = max(computed[n] / known[n] for n in served if known[n])
    return metrics


COUNTED = ("rows", "cached_rows", "compute_s", "requests", "retries")


def _routed(experiment: Experiment, teacher_setup: TeacherSetup) -> TeacherSetup:
    """All teachers for all rows, where trials may differ in their routing."""
    search = experiment.search
    is_searched = search is not None and any(k.startswith("aggregation") for k in search.space)
    if not is_searched:
        return teacher_setup
    return replace(teacher_setup, aggregation=teacher_setup.aggregation.querying_all())


def _at_once(experiment: Experiment, search: Search) -> int:
    """As many trials as the nodes for students have room for; of many at once a searcher learns
    little."""
    import ray

    labels = experiment.trainer.node_labels
    nodes = [node for node in ray.nodes() if node["Alive"] and admits(labels, node["Labels"])]
    have = {
        kind: sum(node["Resources"].get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")
    }
    return concurrency(experiment, search, have)


# ---- trials ------------------------------------------------------------------------------------


class TrialReporter:
    """What happens as trials end: a line, a bar, a run in MLflow."""

    def __init__(self, d: Driver, search: Search, trials: Sweep) -> None:
        self._d = d
        self._search = search
        self._sweep = trials
        self._recorded: set[str] = set()
        self._done = 0
        d.progress.update("trials", 0, search.total_trials)

    def ended(self, entry: LedgerEntry) -> None:
        self._done += 1
        self._d.progress.update("trials", self._done, self._search.total_trials)
        self._d.progress.say(_line(entry, self._search))
        if entry.name not in self._recorded:
            self._recorded.add(entry.name)
            record_trial(self._d, self._sweep, entry)

    def should_stop(self) -> bool:
        return self._d.interrupt.is_set()


def _line(entry: LedgerEntry, search: Search) -> str:
    values = " ".join(f"{k.rpartition('.')[2]}={shown_value(v)}" for k, v in entry.values.items())
    if entry.status == "failed":
        return f"{entry.name} {values}: failed: {entry.reason}"
    reached = [
        f"{label(goal.metric)} {shown(goal.metric, entry.metrics[goal.metric])}"
        for goal in search.ordered_goals
        if goal.metric in entry.metrics
    ]
    seconds = entry.metrics.get("time.total_s")
    took = f", {duration(seconds)}" if seconds is not None else ", stopped early"
    return f"{entry.name} {values}: {', '.join(reached)}{took}"


def record_trial(
    d: Driver,
    sweep: Sweep,
    entry: LedgerEntry,
    is_frontier: bool = False,
    with_history: bool = True,
) -> None:
    """The trial as a child run; once more at the end of the sweep, without its curves."""
    trial = entry.trial()
    tags = {
        "distill.kind": "trial",
        "distill.status": trial.status,
        "distill.student": trial.student,
        "distill.reason": trial.reason,
        "distill.frontier": str(is_frontier).lower(),
        "role": "trial",
    }
    metrics = {k: v for k, v in trial.metrics.items() if k != "step"}
    task, corpus, teacher_setup = d.plan.task, d.plan.corpus, sweep.teacher_setup
    if (key := task.memory_key(corpus, teacher_setup)) is not None:
        tags["distill.task"] = key
        if trial.status == "finished":
            student = with_values(sweep.raw, searched(trial.values)).student
            params = sweep.teacher_params
            metrics |= task.meta_features(corpus, teacher_setup, student, metrics, params)
    dimensions = {f"student.{key}": size for key, size in (entry.dimensions or {}).items()}
    step = max((int(line["step"]) for line in trial.history), default=0)
    d.tracker.child(
        trial.name,
        dimensions | trial.values,
        metrics,
        tags,
        trial.history if with_history else (),
        step,
        "FAILED" if trial.status == "failed" else "FINISHED",
    )


# ---- the end -----------------------------------------------------------------------------------


def _conclude(d: Driver, search: Search, sweep: Sweep, rows: list[Row]) -> SweepOutcome:
    """Test the frontier, write the report, register the champion."""
    entries = [entry for entry in sweep.ledger.entries() if entry.status != "running"]
    if not any(entry.status == "finished" for entry in entries):
        reasons = [f"{entry.name}: {entry.reason}" for entry in entries if entry.reason]
        reason = f", {reasons[0]}" if reasons else ""
        raise TrainingError(f"none of {counted(len(entries), 'trial')} finished{reason}")
    goals = search.ordered_goals
    d.progress.say("measuring the students' latency on one CPU thread")
    entries = [timed_alone(d, sweep, e) if e.status == "finished" else e for e in entries]
    chosen = {trial.name for trial in frontier([e.trial() for e in entries], goals)}
    num_students = counted(len(chosen), "student")
    d.progress.say(f"evaluating the {num_students} of the frontier on the test split")
    entries = [tested(d, sweep, e) if e.name in chosen else e for e in entries]
    for entry in entries:
        record_trial(d, sweep, entry, entry.name in chosen, with_history=False)
    trials = [entry.trial() for entry in entries]
    best = frontier(trials, goals)
    teacher = next((t.metrics.get("eval.teacher_accuracy") for t in best), None)
    d.progress.say("writing the report and recording the results in MLflow")
    write_frontier(d.run.report, trials, goals, list(search.space), rows, teacher)
    for row in rows:
        d.tracker.child(row.name, {"role": row.role}, row.metrics, {"role": row.role})
    d.tracker.artifact(d.run.report, "report")
    counts = {status: sum(t.status == status for t in trials) for status in STATUSES}
    metrics = {f"sweep.{status}": float(n) for status, n in counts.items()}
    metrics |= {"sweep.trials": float(len(trials)), "sweep.frontier": float(len(best))}
    champion = champion_of(best, search)
    if champion is None:
        limit = search.champion.max_mb
        d.progress.say(f"no student is within search.champion.max_mb {limit}: none is registered")
    elif d.experiment.tracking.log_model:
        name = search.champion.name or d.experiment.tracking.experiment or d.run.root.name
        d.tracker.register(champion.name, champion.student, name, search.champion.alias)
        d.tracker.tags({"distill.champion": champion.name})
    return SweepOutcome(trials, best, champion, rows, metrics, d.run.report, title=_title(d))


STATUSES = ("finished", "stopped", "failed")
