"""Ray Tune around :func:`distill.driver.sweep.trial.run_trial`: searchers, schedulers, listener."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from distill.config import Trainer
from distill.config.search import ASHA, NSGA2, TPE, MedianStopping, Search
from distill.config.search_space import (
    Choice,
    Domain,
    Grid,
    LogUniform,
    Quantised,
    Space,
    Value,
    belongs,
    fitted,
)
from distill.driver.sweep.trial import Sweep, run_trial
from distill.errors import DistillError
from distill.search.ledger import MEMBER, LedgerEntry
from distill.search.plan import WAITING_CPUS
from distill.search.reporter import Metrics, Reporter
from distill.training.job import Job
from distill.training.loop import Report

MAX_EVALUATIONS = 10_000
"""Where successive halving sees an end; more rungs than are ever reached do no harm."""
KEPT = 4
"""Checkpoints of each member of a population. Another member copies one while its owner trains on:
of two, it would be deleted meanwhile."""


class SweepCallbacks(Protocol):
    """The driver, while trials run."""

    def ended(self, entry: LedgerEntry) -> None: ...
    def should_stop(self) -> bool: ...


@dataclass(frozen=True)
class TrialResources:
    """How many trials run at once, and what each holds."""

    max_concurrent: int
    trainer: Trainer

    @property
    def is_nested(self) -> bool:
        """Whether a trial starts a worker group of its own."""
        return self.trainer.num_workers > 1


def tune_trials(
    sweep: Sweep,
    search: Search,
    room: TrialResources,
    first: list[dict[str, Value]],
    seed: int,
    listener: SweepCallbacks,
) -> None:
    """Run trials until ``search.total_trials`` were proposed, or the listener requests a stop.

    ``first`` is proposed before anything new. Trials already in the ledger are proposed again and
    answer from there, so that searcher and scheduler know of them. A failed trial stops no other.
    """
    # Our callback writes what is kept, and the driver's own handler receives Ctrl-C.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one prints at verbosity 0 too
    # eval.retention is known at a trial's end alone.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures reach the listener
    space = {key: _tune_domain(domain) for key, domain in search.space.items()}
    known = [e.values for e in sweep.ledger.entries() if belongs(e.values, search.space)]
    searcher = _searcher(search, space, known + [v for v in first if v not in known], seed)
    callback: Any = _callback(sweep, listener)
    num_samples = 1 if search.uses_grid else search.total_trials  # a grid has its own number
    tuner = tune.Tuner(
        _trainable(sweep, room),
        param_space=space if searcher is None else None,
        tune_config=tune.TuneConfig(
            search_alg=searcher or _variants(first, seed, room.max_concurrent),
            scheduler=_scheduler(search, space),
            num_samples=num_samples,
            max_concurrent_trials=room.max_concurrent if searcher is not None else None,
            reuse_actors=not room.is_nested,
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=str((sweep.folder / "ray").absolute()),
            callbacks=[callback],
            stop=callback.stopper(),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT) if sweep.exchanges else None,
            verbose=0,
        ),
    )
    tuner.fit()


def _trainable(sweep: Sweep, room: TrialResources) -> Any:
    from ray import tune

    trainer = room.trainer
    bundle = {"CPU": trainer.num_cpus_per_worker}
    if trainer.num_gpus_per_worker:
        bundle["GPU"] = trainer.num_gpus_per_worker
    if room.is_nested:
        bundle = {"CPU": WAITING_CPUS}
    labels: Any = {"bundle_label_selector": [trainer.node_labels]} if trainer.node_labels else {}
    resources = tune.PlacementGroupFactory([bundle], **labels)
    return tune.with_resources(
        tune.with_parameters(_trial, sweep=sweep, trainer=trainer if room.is_nested else None),
        resources,
    )


def _trial(config: dict[str, Any], sweep: Sweep, trainer: Trainer | None) -> None:
    """What Ray Tune runs, in an actor that outlives the trial."""
    from ray import tune

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    def report(metrics: Metrics, folder: Path | None) -> None:
        checkpoint = None if folder is None else tune.Checkpoint.from_directory(str(folder))
        tune.report(dict(metrics), checkpoint=checkpoint)

    values = _values(sweep, config, str(tune.get_context().get_trial_id()))
    taken = tune.get_checkpoint()
    if taken is None or not sweep.exchanges:
        run_trial(sweep, values, report, None if trainer is None else partial(_group, trainer))
        return
    with taken.as_directory() as folder:
        run_trial(sweep, values, report, start_from=Path(folder))


def _values(sweep: Sweep, config: Mapping[str, Any], trial_id: str) -> dict[str, Value]:
    """What identifies a trial: in a population its number, which an exchange leaves it."""
    if not sweep.exchanges:
        return dict(config)
    return {**config, MEMBER: int(trial_id.rpartition("_")[2])}


def _group(trainer: Trainer, job: Job, report: Report) -> None:
    """The fit of a student with several ranks: a worker group inside the trial."""
    from distill.cluster.group import run_group

    assert isinstance(report, Reporter)
    run_group(job, trainer, Path(job.folder) / "ray", report.costs)


# ---- searchers and schedulers ------------------------------------------------------------------


def _tune_domain(domain: Domain) -> Any:
    from ray import tune

    if isinstance(domain, Grid):
        return tune.grid_search(list(domain.values))
    if isinstance(domain, Choice):
        return tune.choice(list(domain.values))
    low: Any = domain.low
    high: Any = domain.high
    if isinstance(domain, Quantised):
        step: Any = domain.step
        return (
            tune.qrandint(low, high, step) if domain.is_integer else tune.quniform(low, high, step)
        )
    if isinstance(domain, LogUniform):
        return tune.lograndint(low, high + 1) if domain.is_integer else tune.loguniform(low, high)
    return tune.randint(low, high + 1) if domain.is_integer else tune.uniform(low, high)


def _variants(first: list[dict[str, Value]], seed: int, max_concurrent: int) -> Any:
    from ray.tune.search.basic_variant import BasicVariantGenerator

    # It draws the same sequence for the same seed, so what is in the ledger comes up by itself.
    return BasicVariantGenerator(
        points_to_evaluate=first or None, random_state=seed, max_concurrent=max_concurrent
    )


def _searcher(
    search: Search, space: Mapping[str, Any], first: list[dict[str, Value]], seed: int
) -> Any:
    """Optuna's, through Ray Tune; None for the samplers that are Ray Tune's own."""
    sampling = search.sampling
    if not isinstance(sampling, TPE | NSGA2):
        return None
    goals = search.ordered_goals
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    class Searcher(OptunaSearch):
        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            """A trial that lacks a goal (it was stopped, and retention is known at the end) counts
            as pruned. Optuna refuses one goal among several, and it would be running for ever."""
            found = [(result or {}).get(goal.metric, math.nan) for goal in goals]
            is_known = all(map(math.isfinite, found))
            super().on_trial_complete(trial_id, result if is_known else None, error)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(sampling, TPE):
        sampler: Any = optuna.samplers.TPESampler(n_startup_trials=sampling.num_startup, seed=seed)
    else:
        sampler = optuna.samplers.NSGAIISampler(population_size=sampling.population, seed=seed)
    return Searcher(
        space=OptunaSearch.convert_search_space(dict(space)),
        # Lists even for one: it would look for a single goal in every evaluation.
        metric=[goal.metric for goal in goals],
        mode=[goal.mode for goal in goals],
        points_to_evaluate=first or None,
        sampler=sampler,
    )


def _scheduler(search: Search, space: Mapping[str, Any]) -> Any:
    """By the first goal, counting evaluations; None trains every trial to its end."""
    from ray.tune import schedulers

    scheduler = search.scheduler
    if scheduler is None:
        return None
    quality = search.ordered_goals[0]
    common: Any = {"metric": quality.metric, "mode": quality.mode}
    common["time_attr"] = "training_iteration"
    if isinstance(scheduler, ASHA):
        return schedulers.ASHAScheduler(
            **common,
            max_t=MAX_EVALUATIONS,  # a trial ends by itself
            grace_period=scheduler.grace,
            reduction_factor=scheduler.reduction,
        )
    if isinstance(scheduler, MedianStopping):
        return schedulers.MedianStoppingRule(
            **common,
            grace_period=scheduler.grace,
            min_samples_required=scheduler.min_trials,
        )
    return schedulers.PopulationBasedTraining(
        **common,
        perturbation_interval=scheduler.interval,
        quantile_fraction=scheduler.quantile,
        resample_probability=scheduler.resample,
        hyperparam_mutations={
            key: list(domain.values) if isinstance(domain, Choice) else space[key]
            for key, domain in search.space.items()
        },
        custom_explore_fn=partial(_inside, search.space),
        log_config=False,
    )


def _inside(space: Space, config: dict[str, Any]) -> dict[str, Any]:
    """What an exploration multiplied, back in its domain."""
    return {key: fitted(value, space[key]) for key, value in config.items()}


# ---- listening ---------------------------------------------------------------------------------


def _callback(sweep: Sweep, listener: SweepCallbacks) -> Any:
    """A Ray Tune callback that keeps the ledger; built here, because its base is Ray's.

    The tuner pickles its settings with its own state, which nobody reads here: these two stay
    in this process.
    """
    from ray.tune import Callback, Stopper
    from ray.tune.stopper import NoopStopper

    ledger = sweep.ledger

    def values_of(trial: Any) -> dict[str, Value]:
        return _values(sweep, trial.config, trial.trial_id)

    class Keeper(Callback):
        def __init__(self) -> None:
            self._running: set[str] = set()

        def __deepcopy__(self, memo: Any) -> Keeper:
            return self

        def __reduce__(self) -> tuple[Any, ...]:
            return Callback, ()

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self._running.add(trial.trial_id)
            if not listener.should_stop():  # then it ends at once, and leaves no trace
                ledger.begin(values_of(trial))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self._running.discard(trial.trial_id)
            entry = ledger.find(values_of(trial))
            if entry is None or (not entry.is_over and listener.should_stop()):
                return
            if not entry.is_over:  # the scheduler ended it
                last = {k: v for k, v in trial.last_result.items() if "." in k or k == "step"}
                entry = ledger.write(entry, "stopped", {k: float(v) for k, v in last.items()})
            listener.ended(entry)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self._running.discard(trial.trial_id)
            entry = ledger.find(values_of(trial)) or ledger.begin(values_of(trial))
            if not entry.is_over:  # it may have failed after its result was written
                reason = reason_of_failure(_error_of(trial))
                entry = ledger.write(entry, "failed", {}, reason)
            listener.ended(entry)

        def stopper(self) -> Stopper:
            running, is_stop_requested = self._running, listener.should_stop

            class WhenStopped(Stopper):
                def __deepcopy__(self, memo: Any) -> WhenStopped:
                    return self

                def __reduce__(self) -> tuple[Any, ...]:
                    return NoopStopper, ()

                def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
                    return False

                def stop_all(self) -> bool:
                    # Trials see the stop file themselves, and write their checkpoints first.
                    return is_stop_requested() and not running

            return WhenStopped()

    return Keeper()


def _error_of(trial: Any) -> BaseException | None:
    """What Ray Tune has just written next to the trial, in this process."""
    from ray import cloudpickle

    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return None
    with open(path, "rb") as file:
        return cloudpickle.load(file)


def reason_of_failure(error: BaseException | None) -> str:
    """One line: the message of the first error of ours among the causes, else of the innermost."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        cause = getattr(error, "cause", None)
        # Ray raises its error as one of the cause's class too, whose message is a traceback.
        if isinstance(error, DistillError) and not isinstance(cause, DistillError):
            return str(error)
        error = cause or error.__cause__ or error.__context__
    if not seen:
        return "lost without a message"
    last = seen[-1]
    lines = str(last).strip().splitlines() or [""]
    return f"{type(last).__name__}: {lines[-1]}"
