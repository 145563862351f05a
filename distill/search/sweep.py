"""``distill sweep``: teachers asked once, trials that read their answers, the frontier."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill.check import search_of
from distill.comparison import fit_row, relative, row_name, row_of, teacher_rows, tfidf_row
from distill.config import Experiment, TfidfBaseline
from distill.data.corpus import Corpus
from distill.errors import TrainingError
from distill.evaluation.efficiency import measure_on_cpu
from distill.evaluation.predict import predict
from distill.evaluation.split import Split
from distill.experts.partition import Parts
from distill.fit import Data, Guidance, load_best
from distill.models.load import load_classifier
from distill.pipeline import (
    Driver,
    driver,
    jobs_of_baselines,
    jobs_of_experts,
    own_job,
    record_inputs,
    report_losses,
    run_experts,
    serve_teachers,
)
from distill.placement import admits
from distill.report.frontier import write_frontier
from distill.report.progress import Progress, duration
from distill.report.table import Row, count, percent, three_digits
from distill.search.ledger import Entry
from distill.search.plan import concurrency, raw_of
from distill.search.settings import Search
from distill.search.trial import Sweep
from distill.search.trials import Trial, frontier
from distill.search.tuner import Room, tune_trials
from distill.search.warm import warm_start
from distill.task import meta_of, task_of
from distill.teachers.client import SilentTeachers

if TYPE_CHECKING:
    from rich.table import Table

BLOCK = 2048
"""Rows that the cache is filled with between two looks at the progress."""
SPLITS = ("train", "transfer", "validation", "test")


@dataclass(frozen=True)
class SweepOutcome:
    """What the sweep came to."""

    trials: list[Trial]
    best: list[Trial]
    """The frontier, smallest first."""
    champion: Trial | None
    rows: list[Row]
    """Experts, mixtures and baselines on the test split."""
    metrics: dict[str, float]
    report: Path
    open_command: str = ""
    title: str = ""

    def table(self) -> Table:
        """The frontier, for the terminal: searched values, validation, test, and the costs."""
        from rich import box
        from rich.table import Table

        table = Table(
            title=f"{self.title}: frontier, {len(self.best)} of {len(self.trials)} trials",
            box=box.SIMPLE_HEAD,
            title_justify="left",
        )
        keys = list(dict.fromkeys(key for trial in self.best for key in trial.values))
        for name in ("trial", *(key.removeprefix("student.") for key in keys), *SHOWN):
            table.add_column(name, justify="left" if name == "trial" else "right")
        for trial in self.best:
            is_champion = trial is self.champion
            values = [_short(trial.values.get(key, "")) for key in keys]
            metrics = [show(trial.metrics.get(name)) for name, show in SHOWN.values()]
            mark = "★ " if is_champion else ""
            style = "bold green" if is_champion else None
            table.add_row(f"{mark}{trial.name}", *values, *metrics, style=style)
        return table

    def as_json(self) -> dict[str, object]:
        told = [{"name": t.name, "values": t.values, "metrics": t.metrics} for t in self.best]
        champion = self.champion.student if self.champion else None
        return {
            **self.metrics,
            "frontier": told,
            "student": champion,
            "report": str(self.report),
        }


SHOWN = {
    "eval acc.": ("eval.accuracy", percent),
    "retention": ("eval.retention", percent),
    "test acc.": ("test.accuracy", percent),
    "params": ("student.params", count),
    "MB": ("student.size_mb", three_digits),
    "CPU ms": ("student.latency_ms", three_digits),
}
"""Columns of the table: a stable metric name, and how it is written."""


def sweep(experiment: Experiment, progress: Progress) -> SweepOutcome:
    """From a configuration with a ``search`` section to the frontier of its students."""
    started = time.perf_counter()
    with driver(experiment, progress, "sweep") as d:
        search = search_of(d.plan)
        record_inputs(d)
        _record_search(d, search)
        student = own_job(d)
        report_losses(d, student)
        experts, parts = jobs_of_experts(d)
        baselines = jobs_of_baselines(d, student)
        experts = run_experts(d, experts, parts, baselines)
        asked = _ask_once(d, experts, student.data, parts)
        rows = _compared(d, asked.rows, _baseline_rows(d, baselines))
        trials = Sweep(
            raw=raw_of(experiment),
            folder=d.run.root,
            corpus=d.plan.corpus.folder,
            tokenizer=d.plan.tokenizer,
            guidance=asked.guidance,
            teacher_params=asked.teacher_params,
            stop=d.run.stop,
            exchanges=search.is_population,
        )
        first = warm_start(d, search, trials) if search.warm_start else []
        watch = Watch(d, search, trials)
        tune_trials(
            trials,
            search,
            Room(_at_once(experiment, search), experiment.trainer),
            first,
            experiment.seed,
            watch,
        )
        d.interrupt.check()
        outcome = _conclude(d, search, trials, rows)
        metrics = outcome.metrics | asked.metrics
        metrics["time.total_s"] = time.perf_counter() - started
        d.tracker.metrics(metrics, 0)
        title = experiment.tracking.experiment or d.run.root.name
        return replace(outcome, metrics=metrics, open_command=d.tracker.open_command, title=title)


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
class Asked:
    """What the one pass of the teachers left behind."""

    guidance: Guidance | None
    rows: list[Row]
    teacher_params: float | None
    metrics: dict[str, float]


def _ask_once(d: Driver, experts: list, data: Data, parts: Parts | None) -> Asked:
    """Serve the teachers, fill the cache with all that any trial could need, let them go."""
    test = Split(d.plan.corpus, "test")
    with serve_teachers(d, experts) as guidance:
        if guidance is None:
            return Asked(None, [], None, {})
        metrics = _fill(d, guidance, data)
        d.progress.say("evaluating the teachers on the test split")
        rows = teacher_rows(d.plan, data, guidance, parts, test, d.interrupt).rows
        sizes = [row.params for row in rows if row.role == "expert"]
        known = [params for params in sizes if params is not None]
        # Objects with predict_proba have no weights to count.
        params = max(known) if known == sizes else None
    # From here on whoever asks finds an error, not a teacher.
    silent = SilentTeachers(tuple(s.name for s in guidance.served))
    return Asked(replace(guidance, client=silent), rows, params, metrics)


def _fill(d: Driver, guidance: Guidance, data: Data) -> dict[str, float]:
    """Every row of every split, through the routes that trials will take; what it took."""
    corpus = d.plan.corpus
    asks = _whom(d.experiment, guidance)
    num_classes = len(corpus.label_names)
    total, done = corpus.num_rows, 0
    with asks.open(data, "sweep", num_classes) as stream:
        stream.timings()
        for start in range(0, total, BLOCK):
            d.interrupt.check()
            block = np.arange(start, min(start + BLOCK, total))
            stream.fill(block)
            done += len(block)
            d.progress.update("asking the teachers, once", done, total)
        told = stream.timings()
    served = [spec.name for spec in guidance.served]
    metrics = {f"teacher.{n}.{m}": told[f"teacher.{n}.{m}"] for n in served for m in COUNTED}
    asked = {n: told[f"teacher.{n}.rows"] for n in served}
    known = {n: told[f"teacher.{n}.rows"] + told[f"teacher.{n}.cached_rows"] for n in served}
    # 1: every row was computed once; 0: a resumed sweep, or a shared cache, knew them all.
    metrics["teacher.passes"] = max(asked[n] / known[n] for n in served if known[n])
    return metrics


COUNTED = ("rows", "cached_rows", "compute_s", "requests", "retries")


def _whom(experiment: Experiment, guidance: Guidance) -> Guidance:
    """All teachers for all rows, where trials may differ in whom they ask."""
    search = experiment.search
    is_searched = search is not None and any(k.startswith("aggregation") for k in search.space)
    if not is_searched:
        return guidance
    return replace(guidance, aggregation=guidance.aggregation.asking_all())


def _compared(d: Driver, teachers: list[Row], baselines: list[Row]) -> list[Row]:
    """Baselines beside the mixture that the trials learn from, where that needs no training."""
    own = row_name(d.experiment.aggregation)
    target = next((row for row in teachers if row.name == own), None)
    return relative([*teachers, *baselines], target)


def _baseline_rows(d: Driver, baselines: list) -> list[Row]:
    test = Split(d.plan.corpus, "test")
    rows = [fit_row(job, test, "baseline", d.interrupt) for job in baselines]
    for baseline in d.experiment.baselines:
        if isinstance(baseline, TfidfBaseline):
            rows.append(tfidf_row(baseline.name, d.plan, test))
    return rows


def _at_once(experiment: Experiment, search: Search) -> int:
    """As many trials as the nodes for students have room for; a crowd teaches a searcher little."""
    import ray

    labels = experiment.trainer.node_labels
    nodes = [node for node in ray.nodes() if node["Alive"] and admits(labels, node["Labels"])]
    have = {
        kind: sum(node["Resources"].get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")
    }
    return concurrency(experiment, search, have)


# ---- trials ------------------------------------------------------------------------------------


class Watch:
    """Hears of trials as they end: a line, a bar, a run in MLflow."""

    def __init__(self, d: Driver, search: Search, trials: Sweep) -> None:
        self._d = d
        self._search = search
        self._sweep = trials
        self._recorded: set[str] = set()
        self._done = 0
        d.progress.update("trials", 0, search.total_trials)

    def ended(self, entry: Entry) -> None:
        self._done += 1
        self._d.progress.update("trials", self._done, self._search.total_trials)
        self._d.progress.say(_line(entry, self._search))
        if entry.name not in self._recorded:
            self._recorded.add(entry.name)
            record_trial(self._d, self._sweep, entry)

    def is_asked_to_stop(self) -> bool:
        return self._d.interrupt.is_set()


def _line(entry: Entry, search: Search) -> str:
    values = " ".join(f"{k.rpartition('.')[2]}={_short(v)}" for k, v in entry.values.items())
    if entry.status == "failed":
        return f"{entry.name} {values}: failed: {entry.reason}"
    told = [
        f"{goal.metric} {_short(entry.metrics[goal.metric])}"
        for goal in search.ordered_goals
        if goal.metric in entry.metrics
    ]
    seconds = entry.metrics.get("time.total_s")
    took = f", {duration(seconds)}" if seconds is not None else ", stopped early"
    return f"{entry.name} {values}: {', '.join(told)}{took}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def record_trial(
    d: Driver, sweep: Sweep, entry: Entry, is_frontier: bool = False, with_history: bool = True
) -> None:
    """The trial as a child run; once more at the end of the sweep, without its curves."""
    trial = entry.trial()
    tags = {
        "distill.kind": "trial",
        "distill.status": trial.status,
        "distill.student": trial.student,
        "distill.reason": trial.reason,
        "distill.frontier": str(is_frontier).lower(),
        "distill.task": task_of(d.plan.corpus, sweep.guidance),
        "role": "trial",
    }
    metrics = {k: v for k, v in trial.metrics.items() if k != "step"}
    if trial.status == "finished":
        metrics |= meta_of(d.plan.corpus, metrics, sweep.teacher_params)
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
    """Test what is on the frontier, write it down, register the champion."""
    entries = [entry for entry in sweep.ledger.entries() if entry.status != "running"]
    if not any(entry.status == "finished" for entry in entries):
        reasons = [f"{entry.name}: {entry.reason}" for entry in entries if entry.reason]
        told = f", {reasons[0]}" if reasons else ""
        raise TrainingError(f"none of {len(entries)} trials finished{told}")
    goals = search.ordered_goals
    entries = [_timed_alone(d, sweep, e) if e.status == "finished" else e for e in entries]
    chosen = {trial.name for trial in frontier([e.trial() for e in entries], goals)}
    d.progress.say(f"testing the {len(chosen)} students of the frontier")
    entries = [_tested(d, sweep, e) if e.name in chosen else e for e in entries]
    for entry in entries:
        record_trial(d, sweep, entry, entry.name in chosen, with_history=False)
    trials = [entry.trial() for entry in entries]
    best = frontier(trials, goals)
    teacher = next((t.metrics.get("eval.teacher_accuracy") for t in best), None)
    write_frontier(d.run.report, trials, goals, list(search.space), rows, teacher)
    for row in rows:
        d.tracker.child(row.name, {"role": row.role}, row.metrics(), {"role": row.role})
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
    return SweepOutcome(trials, best, champion, rows, metrics, d.run.report)


STATUSES = ("finished", "stopped", "failed")


def _timed_alone(d: Driver, sweep: Sweep, entry: Entry) -> Entry:
    """The entry with the latency of its student while no trial shares the cores."""
    d.interrupt.check()
    cost = measure_on_cpu(load_classifier(entry.student), d.experiment.data.max_length)
    metrics = entry.metrics | {"student.latency_ms": cost.latency_ms}
    return sweep.ledger.write(entry, entry.status, metrics)


def _tested(d: Driver, sweep: Sweep, entry: Entry) -> Entry:
    """The entry with ``test.*``: measured once, for a student that is kept."""
    if "test.accuracy" in entry.metrics:
        return entry
    job = sweep.job(entry)
    test = Split(Corpus(sweep.corpus), "test")
    batches, module = test.batches(job.data.open()), load_best(job)
    if job.guidance is None:
        seen = predict(module, batches, is_asked_to_stop=d.interrupt.is_set)
    else:
        with job.guidance.open(job.data, "sweep-test", test.num_classes) as stream:
            seen = predict(module, batches, stream, d.interrupt.is_set)
    row = row_of(test, entry.name, "student", seen.student_R)
    assert row.accuracy is not None and row.f1 is not None
    metrics = entry.metrics | {"test.accuracy": row.accuracy, "test.f1": row.f1}
    metrics |= {f"test.accuracy.{domain}": value for domain, value in row.per_domain.items()}
    if seen.teacher_R is not None and (teacher := test.accuracy(seen.teacher_R)):
        metrics |= {"test.teacher_accuracy": teacher, "test.retention": row.accuracy / teacher}
    return sweep.ledger.write(entry, entry.status, metrics)


def champion_of(best: Sequence[Trial], search: Search) -> Trial | None:
    """The best in the first goal among those that are small enough."""
    limit = search.champion.max_mb
    fitting = [t for t in best if limit is None or t.metrics["student.size_mb"] <= limit]
    quality = search.ordered_goals[0]
    return min(fitting, key=lambda trial: quality.cost(trial.metrics), default=None)
