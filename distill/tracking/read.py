"""An experiment read from MLflow: its newest sweep, or its trainings, as trials and rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from distill.config import Tracking
from distill.config.search import Goal, default_goals
from distill.config.values import masked, written_name
from distill.errors import RecordError
from distill.evaluation.majority import below_majority
from distill.evaluation.rows import AS_DOMAIN, IN_DOMAIN, IN_DOMAIN_BEFORE, MAJORITY, Role, Row
from distill.search.trials import Status, Trial, Value
from distill.tracking.find import PARENT, all_runs, connect, find_experiment
from distill.tracking.store import resolve_uri

SHAPE = ("student.layers", "student.hidden", "student.heads", "student.ffn")
CURVES = ("eval.accuracy", "eval.f1", "eval.perplexity", "loss", "kd.loss", "ce.loss")
"""Metrics whose history is read; others are known by their last value."""
ROLES = ("expert", "mix", "baseline", "link")
NOT_COMPARED = ("output", "tracking.", "cluster.", "stream.", "cache.", "data.cache_dir")
"""Parameters in which two trainings may differ without being different students."""


@dataclass(frozen=True)
class Dataset:
    context: str
    """train, transfer, validation or test."""
    name: str
    digest: str
    num_rows: int | None = None


@dataclass(frozen=True)
class Record:
    """An experiment's newest sweep, or its single trainings, as logged to MLflow."""

    is_sweep: bool
    is_partial: bool
    """The sweep was still running, or its driver had stopped, when this was read."""
    run_id: str
    started: str
    goals: tuple[Goal, ...]
    searched: tuple[str, ...]
    """Of trainings: the keys in which they differ."""
    trials: list[Trial]
    shapes: dict[str, dict[str, Value]] = field(default_factory=dict)
    """Trial → its student's dimensions, as far as they were not searched."""
    rows: list[Row] = field(default_factory=list)
    """Experts, ensembles and baselines on the test split."""
    params: dict[str, str] = field(default_factory=dict)
    """The base configuration, flattened."""
    totals: dict[str, float] = field(default_factory=dict)
    """Metrics of the parent: ``sweep.trials``, ``teacher.passes``, ``time.total_s``."""
    environment: dict[str, str] = field(default_factory=dict)
    datasets: list[Dataset] = field(default_factory=list)
    num_running: int = 0
    """Trials without an end: not among ``trials``."""
    notes: list[str] = field(default_factory=list)
    """Why the comparison may be unfair or incomplete."""
    experiment: str = ""
    uri: str = ""
    """Of the store, masked."""

    @property
    def teacher_accuracy(self) -> float | None:
        known = [t.metrics["eval.teacher_accuracy"] for t in self.trials if _has_teacher(t)]
        return max(known, default=None)

    def below_majority(self, trial: Trial) -> str:
        """ "" for a student that is better than the most frequent class; else what it is below.

        Measured on the test split, on validation where the trial was not tested. "" also where
        MLflow has no share of the most frequent class: runs before 0.2, language models.
        """
        for split, metric in (("test", MAJORITY), ("eval", f"{MAJORITY}.validation")):
            accuracy = trial.metrics.get(f"{split}.accuracy")
            share = trial.metrics.get(metric, self.totals.get(metric))
            if accuracy is not None and share is not None:
                return below_majority(accuracy, share)
        return ""


def read_experiment(
    uri: str | None, name: str, allow_partial: bool = False, with_history: bool = True
) -> Record:
    """``uri``: None for $MLFLOW_TRACKING_URI, else SQLite in the working folder.

    Raises RecordError where the experiment does not exist, has no runs or no finished trial, or
    still runs (unless ``allow_partial``), and UnreachableError where MLflow is not reachable.
    """
    resolved = resolve_uri(Tracking(uri=uri))
    client = connect(resolved)
    experiment = find_experiment(client, resolved, name)
    runs = all_runs(client, experiment.experiment_id)
    parents = [run for run in runs if PARENT not in run.data.tags]
    if not parents:
        raise RecordError(
            f"experiment {name} has no runs: run distill train or distill sweep first"
        )
    sweep = next((r for r in parents if r.data.tags.get("distill.kind") == "sweep"), None)
    if sweep is not None:
        record = _read_sweep(client, sweep, runs, with_history)
    else:
        record = _read_trainings(client, parents, runs, with_history)
    record = replace(record, experiment=name, uri=masked(resolved))
    _refuse_unfinished(record, allow_partial)
    return record


def _refuse_unfinished(record: Record, allow_partial: bool) -> None:
    counts = dict.fromkeys(("finished", "stopped", "failed"), 0)
    for trial in record.trials:
        counts[trial.status] += 1
    there = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if record.num_running:
        there += f", {record.num_running} not finished"
    there = there.removeprefix(", ") or "no trial has finished"
    what = "sweep" if record.is_sweep else "training"
    if record.is_partial and not allow_partial:
        raise RecordError(
            f"the {what} of experiment {record.experiment} is not finished ({there}): wait for it, "
            "resume it if its driver stopped, or add --partial to report the trials so far"
        )
    if not counts["finished"]:
        reason = next((f"; first reason: {t.reason}" for t in record.trials if t.reason), "")
        raise RecordError(f"experiment {record.experiment} has no finished trial ({there}){reason}")


def _read_sweep(client: Any, sweep: Any, runs: list[Any], with_history: bool) -> Record:
    tags = sweep.data.tags
    searched = tuple(json.loads(tags.get("distill.searched", "[]")))
    goals = tuple(Goal(**goal) for goal in json.loads(tags.get("distill.goals", "[]")))
    children = _children(sweep, runs)
    trials, shapes, num_running = [], {}, 0
    for run in sorted(children, key=lambda r: r.info.run_name):
        if run.data.tags.get("distill.kind") != "trial":
            continue
        status = _status(run)
        if status is None:
            num_running += 1
            continue
        params = _params_of(run)
        values = {k: value_of(params[k]) for k in searched if k in params}
        trials.append(_trial(client, run, run.info.run_name, status, values, with_history))
        shape = {k: v for k, v in run.data.params.items() if k.startswith("student.")}
        shapes[run.info.run_name] = {k: value_of(v) for k, v in shape.items() if k not in values}
    return Record(
        is_sweep=True,
        is_partial=sweep.info.status in ("RUNNING", "SCHEDULED"),
        run_id=sweep.info.run_id,
        started=_time(sweep),
        goals=goals or _goals_of(trials),
        searched=searched,
        trials=trials,
        shapes=shapes,
        rows=_rows(children),
        params=_base_of(sweep),
        totals=_metrics_of(sweep),
        environment=_environment(tags),
        datasets=_datasets(sweep),
        num_running=num_running,
        notes=_endings(sweep),
    )


def _base_of(run: Any) -> dict[str, str]:
    """Parameters as first logged, under their original names."""
    return {written_name(k, run.data.tags): v for k, v in run.data.params.items()}


def _params_of(run: Any) -> dict[str, str]:
    """Parameters as last logged: MLflow never changes one, so changes are in tags."""
    changed = {
        key.removeprefix("resumed."): value
        for key, value in run.data.tags.items()
        if key.startswith("resumed.")
    }
    return {**run.data.params, **changed}


def _read_trainings(client: Any, parents: list[Any], runs: list[Any], with_history: bool) -> Record:
    """Every training is a point. Rows and the record are those of the newest run."""
    newest = parents[0]
    ended: list[tuple[Any, Status]] = []
    for run in reversed(parents):
        status = _status(run)
        if status is not None:
            ended.append((run, status))
    searched = _differing([run for run, status in ended if status == "finished"])
    names = _distinct_names([run for run, _ in ended])
    trials, shapes = [], {}
    for (run, status), name in zip(ended, names, strict=True):
        values = {k: value_of(run.data.params[k]) for k in searched if k in run.data.params}
        trials.append(_trial(client, run, name, status, values, with_history))
        shape = {k: run.data.params.get(k, "null") for k in SHAPE}
        shapes[name] = {k: value_of(v) for k, v in shape.items() if v != "null"}
    rows: dict[tuple[str, str], Row] = {}
    for parent in parents:
        for row in _rows(_children(parent, runs)):
            rows.setdefault((row.role, row.name), row)
    tests = {d.digest for run, _ in ended for d in _datasets(run) if d.context == "test"}
    notes = ["the runs were tested on different data: their metrics are not comparable"]
    return Record(
        is_sweep=False,
        is_partial=not ended,
        run_id=newest.info.run_id,
        started=_time(newest),
        goals=_goals_of(trials),
        searched=searched,
        trials=trials,
        shapes=shapes,
        rows=list(rows.values()),
        params=_base_of(newest),
        environment=_environment(newest.data.tags),
        datasets=_datasets(newest),
        num_running=len(parents) - len(ended),
        notes=notes if len(tests) > 1 else [],
    )


def _goals_of(trials: list[Trial]) -> tuple[Goal, ...]:
    """For runs that set none."""
    has_perplexity = any("eval.perplexity" in trial.metrics for trial in trials)
    quality = Goal("eval.perplexity", "min") if has_perplexity else Goal("eval.accuracy", "max")
    return default_goals(quality)


def _endings(sweep: Any) -> list[str]:
    if sweep.info.status not in ("KILLED", "FAILED"):
        return []
    why = sweep.data.tags.get("distill.ended", "").strip()
    return ["the sweep ended early" + (f": {masked(why)}" if why else "")]


def _children(parent: Any, runs: list[Any]) -> list[Any]:
    return [run for run in runs if run.data.tags.get(PARENT) == parent.info.run_id]


def _status(run: Any) -> Status | None:
    """None: the run has not ended."""
    logged = run.data.tags.get("distill.status")
    for status in get_args(Status):
        if logged == status:
            return status
    if run.info.status == "FINISHED":
        return "finished"
    return None if run.info.status in ("RUNNING", "SCHEDULED") else "failed"


def _trial(
    client: Any,
    run: Any,
    name: str,
    status: Status,
    values: dict[str, Value],
    with_history: bool,
) -> Trial:
    tags = run.data.tags
    reason = tags.get("distill.reason") or tags.get("distill.ended") or "no reason was recorded"
    return Trial(
        name=name,
        status=status,
        values=values,
        metrics=_metrics_of(run),
        reason=reason if status == "failed" else "",
        student=tags.get("distill.student") or _student_of(run),
        history=_history(client, run) if with_history else [],
    )


def _student_of(run: Any) -> str:
    """The export of a training, below the run folder that its configuration names."""
    output = run.data.params.get("output")
    return str(Path(output) / "student") if output and output != "null" else ""


def _history(client: Any, run: Any) -> list[dict[str, Any]]:
    """Lines as in metrics.jsonl, by step. The final value, recorded last, is not part of it."""
    lines: dict[int, dict[str, float]] = {}
    for name in CURVES:
        if name in run.data.metrics:
            points = client.get_metric_history(run.info.run_id, name)
            for point in sorted(points, key=lambda p: p.timestamp):
                lines.setdefault(point.step, {}).setdefault(name, point.value)
    return [{"step": step, "metrics": metrics} for step, metrics in sorted(lines.items())]


def _rows(children: Iterable[Any]) -> list[Row]:
    rows = [_row(run) for run in children if run.data.tags.get("role") in ROLES]
    return sorted(rows, key=lambda row: (ROLES.index(row.role), row.name))


def _row(run: Any) -> Row:
    return row_of(run.info.run_name, run.data.tags["role"], _metrics_of(run))


def _metrics_of(run: Any) -> dict[str, float]:
    """Last values, under their original names."""
    return {written_name(k, run.data.tags): v for k, v in run.data.metrics.items()}


def row_of(name: str, role: Role, metrics: Mapping[str, float]) -> Row:
    """A model on the test split, from its stable names."""
    domains = domains_of(metrics)
    is_expert = role == "expert"
    own = {d: domains.pop(d, None) for d in (*IN_DOMAIN, *IN_DOMAIN_BEFORE)} if is_expert else {}
    domains |= {d: domains.pop(d + AS_DOMAIN) for d in own if d + AS_DOMAIN in domains}
    in_domain, out_of_domain = (
        own.get(name) if own.get(name) is not None else own.get(before)
        for name, before in zip(IN_DOMAIN, IN_DOMAIN_BEFORE, strict=True)
    )
    return Row(
        name=name,
        role=role,
        params=metrics.get("student.params"),
        size_mb=metrics.get("student.size_mb"),
        latency_ms=metrics.get("student.latency_ms"),
        accuracy=metrics.get("test.accuracy"),
        f1=metrics.get("test.f1"),
        in_domain=in_domain,
        out_of_domain=out_of_domain,
        per_domain=domains,
        retention=metrics.get("test.retention"),
        compression=metrics.get("compression"),
        perplexity=metrics.get("test.perplexity"),
        agreement=metrics.get("fidelity.token_agreement"),
        jsd=metrics.get("fidelity.jsd"),
        exact_match=metrics.get("test.exact_match"),
        rouge_l=metrics.get("test.rouge_l"),
        tokens_per_s=metrics.get("student.tokens_per_s"),
    )


def domains_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """``test.accuracy.<domain>``, of language models ``test.perplexity.<domain>``, by domain."""
    prefix = "test.perplexity." if "test.perplexity" in metrics else "test.accuracy."
    return {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}


def value_of(text: str) -> Value:
    """A parameter with its type; MLflow stores strings."""
    if text in ("true", "false", "True", "False"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _differing(runs: list[Any]) -> tuple[str, ...]:
    keys = dict.fromkeys(key for run in runs for key in run.data.params)
    return tuple(
        key
        for key in keys
        if not key.startswith(NOT_COMPARED) and len({run.data.params.get(key) for run in runs}) > 1
    )


def _distinct_names(runs: list[Any]) -> list[str]:
    seen: dict[str, int] = {}
    names = []
    for run in runs:
        name = run.info.run_name
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _environment(tags: Mapping[str, str]) -> dict[str, str]:
    names = {
        "mlflow.source.git.commit": "git commit",
        "mlflow.source.name": "started as",
        "mlflow.user": "user",
        "distill.output": "run folder",
        "distill.ended": "ended",
    }
    known = {shown: masked(tags[tag]) for tag, shown in names.items() if tags.get(tag)}
    prefixes = ("version.", "distill.version", "environment.")
    return known | {k: masked(v) for k, v in sorted(tags.items()) if k.startswith(prefixes)}


def _datasets(run: Any) -> list[Dataset]:
    found = []
    for given in run.inputs.dataset_inputs if run.inputs else []:
        contexts = [tag.value for tag in given.tags if tag.key == "mlflow.data.context"]
        profile: dict[str, Any] = {}
        with contextlib.suppress(ValueError, TypeError):
            profile = json.loads(given.dataset.profile)
        digest = str(profile.get("fingerprint") or given.dataset.digest)
        context = contexts[0] if contexts else ""
        found.append(Dataset(context, given.dataset.name, digest, profile.get("num_rows")))
    return found


def _time(run: Any) -> str:
    return datetime.fromtimestamp(run.info.start_time / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _has_teacher(trial: Trial) -> bool:
    return trial.status == "finished" and "eval.teacher_accuracy" in trial.metrics
