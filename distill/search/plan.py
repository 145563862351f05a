"""What can be known of a sweep before it starts: every searched key, end and size, and the room."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distill.config import Experiment
from distill.config.search import Goal, Search
from distill.config.search_space import Value
from distill.errors import ConfigError, DataError, InputError
from distill.metrics import METRICS, fits, of_task, of_trials
from distill.run_folder import OPERATIONAL
from distill.search.configuration_memory import KEYS
from distill.search.values import with_values

COMPARED = ("eval.retention", "eval.teacher_accuracy", "compression")
"""Goals that need teachers."""
MAX_CORNERS = 512
"""More corners than this are not all tried: then each key's own ends."""
WAITING_CPUS = 0.01
"""Of a trial that has a worker group, in addition to what the group holds."""
FIXED = ("task", "data", "experts", "teachers", "chain", "warm_start", *OPERATIONAL)
"""Sections and keys that a sweep cannot search: they decide what the teachers say, or say where
and how to run."""


def raw_of(experiment: Experiment) -> dict[str, Any]:
    """The experiment as its file gives it, without the search: defaults stay open to change."""
    return experiment.model_dump(mode="json", exclude_unset=True, exclude={"search"})


def plan_search(
    experiment: Experiment, goal: Goal, check_trial: Callable[[Experiment], object]
) -> list[tuple[str, str, str]]:
    """Part, plan and size, for the plan's table.

    ``goal``: the quality of the task, for a search that names no goals. ``check_trial`` raises
    InputError for a student that cannot be built, or an aggregation that cannot serve the teachers.
    Raises ConfigError for what no trial could be: a key, an end of a range, a size, the room.
    """
    search = experiment.search
    if search is None:
        raise ConfigError(
            "the configuration has no section search: set the keys to vary in search.space, such "
            "as kd.temperature: {type: grid, values: [1, 2, 4]}"
        )
    search = search.resolved(goal)
    if experiment.has_teachers and experiment.cache.type != "arrow":
        raise ConfigError(
            f"cache.type {experiment.cache.type} keeps no outputs from one trial to the next, but "
            "a sweep queries its teachers only once: use arrow"
        )
    _check_goals(experiment, search)
    if search.warm_start and search.uses_grid:
        raise ConfigError(
            "search.warm_start proposes values of its own, and a grid has none to add: remove "
            "warm_start, or use another sampler"
        )
    if search.warm_start and not set(KEYS) & set(search.space):
        raise ConfigError(
            f"search.warm_start proposes {', '.join(KEYS)}, and search.space has none of them: add "
            "one, or remove warm_start"
        )
    raw = raw_of(experiment)
    _refuse_fixed(search)
    _refuse_nested(search)
    for values, key in _corners(search):
        _check_corner(raw, values, key, experiment, check_trial)
    at_once = None
    if experiment.cluster.address is None:
        import torch

        cpus = experiment.cluster.num_cpus or os.cpu_count() or 1
        have = {"CPU": float(cpus), "GPU": float(torch.cuda.device_count())}
        at_once = concurrency(experiment, search, have)
    return list(_lines(search, at_once))


def _check_goals(experiment: Experiment, search: Search) -> None:
    """Goals that no trial would ever log, and a name that MLflow would refuse at the end."""
    goals = [goal.metric for goal in search.ordered_goals]
    foreign = [goal for goal in goals if not fits(goal, experiment.task)]
    if foreign:
        kinds = " and ".join(f"{of_task(task).model}s" for task in METRICS[foreign[0]].tasks)
        usable = ", ".join(name for name in of_trials() if fits(name, experiment.task))
        raise ConfigError(
            f"search.goals: {foreign[0]} applies only to {kinds}, task is {experiment.task}: use "
            f"{usable}"
        )
    compared = [goal for goal in goals if goal in COMPARED]
    if compared and not experiment.has_teachers:
        raise ConfigError(
            f"search.goals: {compared[0]} compares with teachers, and there are none: remove it, "
            "or give teachers"
        )
    name = search.champion.name or experiment.tracking.experiment or ""
    if set(name) & set("/:"):
        raise ConfigError(
            f"search.champion.name {name!r} cannot name a registered model: use one without / and :"
        )


def _refuse_fixed(search: Search) -> None:
    for key in search.space:
        fixed = next((f for f in FIXED if key == f or key.startswith(f"{f}.")), None)
        if fixed is not None:
            raise ConfigError(
                f"search.space.{key} cannot be searched: {fixed} is the same for all trials, which "
                "share data, teachers and teacher outputs; run another sweep for another value"
            )


def _refuse_nested(search: Search) -> None:
    for key in search.space:
        inner = next((other for other in search.space if other.startswith(f"{key}.")), None)
        if inner is not None:
            raise ConfigError(
                f"search.space.{inner} lies within search.space.{key}, which sets the whole "
                "section: remove one of the two"
            )


def _corners(search: Search) -> Iterator[tuple[dict[str, Value], str]]:
    """Values at the ends of the domains, and the key that a message should name."""
    ends = {key: domain.ends for key, domain in search.space.items()}
    start = {key: values[0] for key, values in ends.items()}
    for key, values in ends.items():  # one key at a time: these name the culprit best
        for value in values:
            yield {key: value}, key
    if math.prod(len(values) for values in ends.values()) <= MAX_CORNERS:
        for values in itertools.product(*ends.values()):
            yield dict(zip(ends, values, strict=True)), ", ".join(ends)
        return
    for key, values in ends.items():
        for value in values:
            yield start | {key: value}, key


def _check_corner(
    raw: dict[str, Any],
    values: dict[str, Value],
    key: str,
    experiment: Experiment,
    check_trial: Callable[[Experiment], object],
) -> None:
    try:
        changed = with_values(raw, values)
        check_trial(changed)
    except (ConfigError, DataError) as error:
        if len(values) > 1 or len(experiment.search.space if experiment.search else ()) == 1:
            raise ConfigError(f"search.space: {error}") from None
        if _is_own_fault(error, key):
            raise ConfigError(f"search.space.{key}: {error}") from None
        return  # the keys may only go together: the corners of all of them tell
    for name, value in values.items():
        _refuse_word_for_number(changed, name, value)
    if changed.aggregation.needs_router() and not experiment.aggregation.needs_router():
        raise ConfigError(
            f"search.space.{key}: aggregation.type {changed.aggregation.type} needs a router: make "
            "it the configuration's own aggregation, so that the router is trained and used"
        )


def _refuse_word_for_number(changed: Experiment, key: str, value: Value) -> None:
    """A number in quotes would do for the experiment, and be a word among the trials' values."""
    node: Any = changed
    for part in key.split("."):
        node = getattr(node, part, None)
    if isinstance(value, str) and isinstance(node, int | float):
        raise ConfigError(
            f"search.space.{key}: {value!r} is text, but {key} must be a number: remove the quotes"
        )


def _is_own_fault(error: InputError, key: str) -> bool:
    """Whether the message is about this key alone: unknown, or out of its own range."""
    return "unknown key" in str(error) or f": {key}:" in str(error)


def concurrency(experiment: Experiment, search: Search, have: Mapping[str, float]) -> int:
    """Trials at once: as asked, or as many as the CPUs and GPUs of ``have`` are enough for.

    Raises ConfigError for more than fit.
    """
    trainer = experiment.trainer
    per_worker = {"CPU": trainer.num_cpus_per_worker, "GPU": trainer.num_gpus_per_worker}
    waits = {"CPU": WAITING_CPUS if trainer.num_workers > 1 else 0.0, "GPU": 0.0}
    fitting = min(
        int(have.get(kind, 0.0) / (trainer.num_workers * each + waits[kind]) + 1e-9)
        for kind, each in per_worker.items()
        if each > 0
    )
    if (search.max_concurrent or 1) > fitting:
        raise ConfigError(
            f"search.max_concurrent is {search.max_concurrent or 1}, and {fitting} trials of "
            f"{trainer.num_workers} × ({per_worker['CPU']:g} CPUs, {per_worker['GPU']:g} GPUs) fit "
            f"into {have.get('CPU', 0.0):g} CPUs and {have.get('GPU', 0.0):g} GPUs: lower it, "
            "lower trainer.num_cpus_per_worker, or give cluster.address"
        )
    return min(search.max_concurrent or fitting, search.total_trials)


def _lines(search: Search, max_concurrent: int | None) -> Iterator[tuple[str, str, str]]:
    scheduler = "to the end" if search.scheduler is None else search.scheduler.type
    at_once = f"{max_concurrent} in parallel" if max_concurrent else "as many in parallel as fit"
    yield (
        "search",
        f"{search.sampling.type}, {scheduler}, {at_once}",
        f"{search.total_trials} trials",
    )
    for key, domain in search.space.items():
        shown = domain.model_dump(exclude={"type"})
        text = ", ".join(f"{name} {value}" for name, value in shown.items())
        if values := shown.get("values"):
            text = ", ".join(str(value) for value in values)
        yield f"search {key}", text, domain.type
    goals = ", ".join(f"{goal.mode} {goal.metric}" for goal in search.ordered_goals)
    yield "search goals", goals, ""
