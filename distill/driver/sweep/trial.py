"""One trial, in whatever process it is started: train, assess, export, and tell the tuner.

Knows no Ray: ``report`` is ``ray.tune.report`` in a sweep, and may be any function.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.aggregation import TrainedWeights
from distill.aggregation.saved import save_weights
from distill.config import Experiment
from distill.config.search_space import Value
from distill.data.corpus import Corpus
from distill.data.rows import published
from distill.errors import Interrupted
from distill.export.folder import ModelCard, export
from distill.metrics import COSTS
from distill.models.language_student import merged
from distill.search.ledger import Ledger, LedgerEntry, identity_of, searched
from distill.search.reporter import Metrics, Reporter, TunerReport, _reported
from distill.search.values import with_values
from distill.tasks import task_of
from distill.tasks.base import Task
from distill.tasks.jobs import student_job, write_tokenizer
from distill.teachers.setup import TeacherSetup
from distill.training.checkpoints import newest
from distill.training.fit import build_module, fit, load_best
from distill.training.job import Job
from distill.training.loop import Report

RunFit = Callable[[Job, Report], None]
DIMENSIONS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ffn": "intermediate_size",
}
"""Keys of ``student`` and what a model's configuration calls them."""


@dataclass(frozen=True)
class Sweep:
    """What all trials share; pickles into their processes."""

    raw: dict[str, Any]
    """The experiment as the file gives it: what is not set there can be searched."""
    folder: Path
    corpus: Path
    tokenizer: str
    """Folder of the tokenizer that students start from."""
    teacher_setup: TeacherSetup | None
    """The teachers' outputs: all in the cache, so that no trial queries a teacher."""
    teacher_params: float | None
    """Of the largest teacher."""
    stop: Path
    exchanges: bool = False
    """Whether trials are members of a population that take over each other's weights."""

    @property
    def task(self) -> Task:
        return task_of(with_values(self.raw, {}))

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "trials")

    def job(self, entry: LedgerEntry) -> Job:
        """The fit of one trial."""
        experiment = with_values(self.raw, searched(entry.values))
        corpus = Corpus(self.corpus)
        tokenizer = self._tokenizer(experiment, corpus)
        job = student_job(experiment, corpus, tokenizer, entry.fit, self.stop)
        teacher_setup = self.teacher_setup
        if teacher_setup is not None:
            teacher_setup = replace(teacher_setup, aggregation=experiment.aggregation)
        if self.exchanges:
            every = job.trainer.eval_every or job.steps_per_epoch
            trainer = job.trainer.model_copy(update={"checkpoint_every": every})
            job = replace(job, trainer=trainer)
        return replace(
            job,
            name=entry.name,
            teacher_setup=teacher_setup,
            objective=experiment.objective if teacher_setup else None,
            kd=experiment.kd if teacher_setup else None,
        )

    def _tokenizer(self, experiment: Experiment, corpus: Corpus) -> str:
        """One for each way of making it; several trials may need the same one at once."""
        student = experiment.student
        start = student.init_from.path if student.init_from else None
        made_of = json.dumps([student.tokenizer, student.vocab_size, student.path, start])
        name = hashlib.sha256(made_of.encode()).hexdigest()[:12]
        folder = self.folder / "tokenizers" / name
        if not folder.is_dir():
            with published(folder) as building:
                default = student.init_from.path if student.init_from else self.tokenizer
                write_tokenizer(student, default, corpus, building)
        return str(folder)


def run_trial(
    sweep: Sweep,
    values: Mapping[str, Value],
    report: TunerReport,
    run_fit: RunFit | None = None,
    start_from: Path | None = None,
) -> None:
    """Train the student of ``values`` to its end; a trial that is over only tells again.

    ``start_from``: what another member of the population reported with its metrics. Raises what
    training raised; an interrupted trial returns, and stays ``running`` in the ledger.
    """
    if sweep.stop.exists():
        return
    with _turn(sweep, values) as entry:
        if entry.is_over:
            _report_again(entry, report)
        else:
            _train(sweep, entry, report, run_fit or _in_this_process, start_from)


@contextmanager
def _turn(sweep: Sweep, values: Mapping[str, Value]) -> Iterator[LedgerEntry]:
    """The entry of these values, alone: who proposes them again meanwhile waits for the outcome."""
    entry = sweep.ledger.find(values)
    assert entry is not None, f"the driver begins trials; {identity_of(values)} is none of them"
    if sweep.exchanges:  # a member in a new folder does not wait for the end of the old one
        yield entry
        return
    with (entry.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield sweep.ledger.find(values) or entry


def _train(
    sweep: Sweep, entry: LedgerEntry, report: TunerReport, run_fit: RunFit, start_from: Path | None
) -> None:
    ledger = sweep.ledger
    started = time.perf_counter()
    if start_from is not None:
        shutil.copytree(start_from, entry.fit, dirs_exist_ok=True)
    job = sweep.job(entry)
    costs = _costs(sweep, job)
    for row in _evaluations(entry) if start_from is None else []:
        if row["step"] <= _resumes_at(entry):
            report(costs | _reported(row), None)  # an interrupted sweep's; later ones come again
    reporter = Reporter(report, costs, entry.fit if sweep.exchanges else None)
    try:
        run_fit(job, reporter)
    except Interrupted:
        return
    metrics = costs | assess(sweep.task, job, entry)
    metrics["time.total_s"] = time.perf_counter() - started
    card = _card(sweep, entry, metrics)
    module = load_best(job)
    model = merged(module.student)
    export(model, job.data.tokenizer, entry.student, card, job.data.reading, job.data.chat)
    if job.teacher_setup is not None and isinstance(job.aggregation, TrainedWeights):
        names = [t.name for t in job.teacher_setup.teachers]
        save_weights(entry.folder / "aggregation", job.aggregation, names, module.router)
    ledger.write(entry, "finished", metrics, dimensions=_dimensions(job))
    shutil.rmtree(entry.fit / "checkpoints", ignore_errors=True)
    for left in entry.folder.glob("fit-*"):  # a population's: what was given up for another's
        if left != entry.fit:
            shutil.rmtree(left, ignore_errors=True)
    report(metrics, None)


def assess(task: Task, job: Job, entry: LedgerEntry) -> Metrics:
    """Validation metrics of the exported weights, and what the task compares them with."""
    best = max(_evaluations(entry), key=job.selection.score)
    metrics = {name: best[name] for name in sorted(job.task.metrics) if name in best}
    if job.kd is not None and job.teacher_setup is not None:
        metrics |= {"kd.temperature": job.kd.temperature, "kd.alpha": job.kd.alpha}
    return metrics | task.trial_metrics(job, metrics)


def _in_this_process(job: Job, report: Report) -> None:
    fit(job, report=report)


def _resumes_at(entry: LedgerEntry) -> int:
    """The step of the checkpoint that a fit will go on from."""
    checkpoint = newest(entry.fit / "checkpoints")
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def _report_again(entry: LedgerEntry, report: TunerReport) -> None:
    """What a finished trial reported when it trained, for the searcher of a resumed sweep."""
    costs = {name: value for name, value in entry.metrics.items() if name in COSTS}
    for row in _evaluations(entry):
        report(costs | _reported(row), None)
    if entry.status == "finished":
        report(dict(entry.metrics), None)


def _evaluations(entry: LedgerEntry) -> list[dict[str, float]]:
    """One row an evaluation, in order."""
    return [
        {"step": line["step"], **line["metrics"]}
        for line in entry.history()
        if any(name.startswith("eval.") for name in line["metrics"])
    ]


def _costs(sweep: Sweep, job: Job) -> Metrics:
    """What is known of a student before it trains."""
    cost = sweep.task.cost(build_module(job).student, job.data.max_length)
    costs = {
        "student.params": float(cost.params),
        "student.size_mb": cost.size_mb,
        "student.latency_ms": cost.latency_ms,
        "student.gflops": cost.gflops,
    }
    if sweep.teacher_params is not None:
        costs["compression"] = sweep.teacher_params / cost.params
    return costs


def _dimensions(job: Job) -> dict[str, int]:
    config: Any = build_module(job).student.config
    return {key: getattr(config, name) for key, name in DIMENSIONS.items() if hasattr(config, name)}


def _card(sweep: Sweep, entry: LedgerEntry, metrics: Metrics) -> ModelCard:
    experiment = with_values(sweep.raw, searched(entry.values))
    teacher_setup = sweep.teacher_setup
    return ModelCard(
        name=f"{experiment.tracking.experiment or 'sweep'} {entry.name}",
        teachers=tuple(t.name for t in teacher_setup.teachers) if teacher_setup else (),
        aggregation=experiment.aggregation.type,
        objective=experiment.objective.type,
        temperature=experiment.kd.temperature,
        schedule=experiment.kd.schedule.text(experiment.kd.temperature),
        alpha=experiment.kd.alpha,
        data_fingerprint=Corpus(sweep.corpus).fingerprint,
        metrics=metrics,
    )
