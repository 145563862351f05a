"""Past MLflow runs as experiences of the configuration memory (search/configuration_memory.py)."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill.config.search import Goal
from distill.config.values import masked
from distill.errors import UnreachableError
from distill.search.configuration_memory import ABSENT, KEYS, Experience
from distill.search.meta import PREFIX, completed
from distill.tracking.sender import PARENT
from distill.tracking.store import import_mlflow, reason_of, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TASK = "distill.task"
"""Tag: what makes the qualities of two runs comparable. Runs without it are no experiences."""
KIND = "distill.kind"
STATUS = "distill.status"
QUALITY = Goal("eval.accuracy", "max")
PAGE = 1000
logger = logging.getLogger(__name__)


def experiences(
    uri: str, keys: Sequence[str] = KEYS, goal: Goal = QUALITY, page: int = PAGE
) -> list[Experience]:
    """Of every active experiment of a store, in no particular order; creates nothing.

    An experience is a finished run (a train run, or a sweep's trial that was not stopped early)
    with the tag ``distill.task``, ``meta.*`` metrics, ``goal``, and a value of every key: its own
    parameter, else its own metric, else its parent's parameter (a trial logs what is searched).
    Only ``chain.epsilon`` may be missing: few runs have a chain. A run with anything else missing
    or not finite is left out, and counted in the log. Meta-features that an older version did not
    record are missing in the experience, or computed where they follow from others.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return []
    try:
        client = import_mlflow().MlflowClient(uri)
        runs = list(_finished(client, page))
        above = {run.data.tags[PARENT] for run in runs if PARENT in run.data.tags}
        parents = {run_id: _params_of(client, run_id) for run_id in sorted(above)}
    except Exception as error:
        raise UnreachableError(
            f"tracking.uri {masked(uri)}: past runs cannot be read: {reason_of(error)}. Correct "
            "tracking.uri, or set search.warm_start to false"
        ) from None
    found, refused = [], Counter[str]()
    for run in runs:
        if run.data.tags.get(STATUS, "finished") != "finished":
            refused["not finished"] += 1
            continue
        if run.data.tags.get(KIND, "train") not in ("train", "trial"):
            continue  # a sweep's parent has no student itself
        experience = _experience(run, parents.get(run.data.tags.get(PARENT, ""), {}), keys, goal)
        if isinstance(experience, str):
            refused[experience] += 1
        else:
            found.append(experience)
    left_out = "".join(f"; {num} left out: {why}" for why, num in sorted(refused.items()))
    logger.info("configuration memory: %d past runs%s", len(found), left_out)
    return found


def _finished(client: MlflowClient, page: int) -> Iterator[Run]:
    """Finished runs that name their task, in all active experiments."""
    named = f"attributes.status = 'FINISHED' and tags.`{TASK}` LIKE '%'"
    ids = [e.experiment_id for e in _pages(client.search_experiments, max_results=page)]
    if ids:
        yield from _pages(client.search_runs, ids, named, max_results=page)


def _pages(search: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
    token = None
    while True:
        found = search(*args, page_token=token, **kwargs)
        yield from found
        token = found.token
        if not token:
            return


def _experience(
    run: Run, parent: Mapping[str, str], keys: Sequence[str], goal: Goal
) -> Experience | str:
    """The run as an experience, or what it lacks."""
    data = run.data
    meta = {name: value for name, value in data.metrics.items() if name.startswith(PREFIX)}
    if not meta or not all(map(math.isfinite, meta.values())):
        return "without meta-features, or one is not finite"
    quality = -goal.cost(data.metrics)
    if not math.isfinite(quality):
        return f"without a finite {goal.metric}"
    values = {}
    for key in keys:
        logged = data.params.get(key, data.metrics.get(key))
        value = _number(parent.get(key) if logged is None else logged)
        if value is None and key in ABSENT:
            continue
        if value is None:
            return f"without a finite {key}"
        values[key] = value
    return Experience(data.tags[TASK], completed(meta), values, quality)


def _number(logged: str | float | None) -> float | None:
    try:
        value = float(logged) if logged is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _params_of(client: MlflowClient, run_id: str) -> Mapping[str, str]:
    """Parameters of a run; empty where it was deleted permanently."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).data.params
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
