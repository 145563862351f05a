"""The first trial of a sweep by what past runs suggest; see distill/driver/warm_start.py."""

from __future__ import annotations

from pathlib import Path

from distill.config.search import Search
from distill.config.search_space import Value, fitted, middle
from distill.driver.context import Driver
from distill.driver.sweep.trial import Sweep
from distill.driver.warm_start import (
    RunFits,
    brief_of,
    decide,
    keep,
    kept,
    meta_before,
    quality,
    values_of,
)
from distill.search.configuration_memory import KEYS
from distill.search.ledger import LedgerEntry
from distill.search.refine import OWN, Values
from distill.search.values import with_values
from distill.training.job import Job


def warm_start(d: Driver, run: RunFits, search: Search, sweep: Sweep) -> list[dict[str, Value]]:
    """Values to try before the sampler's own: the best of the brief runs; none without past runs.

    Decided once: a resumed sweep finds the decision in ``warm_start.json``.
    """
    if (record := kept(d)) is not None:
        return record["first"]
    flat = _values_of(d, search)
    own = {key: float(flat[key]) for key in KEYS if key in search.space}

    def brief(name: str, values: Values) -> Job:
        entry = LedgerEntry(Path(sweep.folder) / "brief" / name, flat | values, "running", {})
        return brief_of(sweep.job(entry), d.run.brief, name, values)

    def placed(values: Values) -> Values:
        return {key: float(fitted(value, search.space[key])) for key, value in values.items()}

    def meta() -> dict[str, float]:
        student = with_values(sweep.raw, flat).student
        return meta_before(d, brief(OWN, own), student, sweep.teacher_params)

    def measure(name: str, values: Values) -> float:
        return quality(d, brief(name, values), run)

    decision = decide(d, own, search.ordered_goals[0], meta, measure, placed)
    first: list[dict[str, Value]] = []
    if decision.choice is None:
        d.progress.say(decision.why)
    else:
        chosen = {key: fitted(v, search.space[key]) for key, v in decision.values.items()}
        first = [flat | chosen]
        d.progress.say(f"{decision.why}; the first trial uses it")
    keep(d, decision.record() | {"first": first})
    return first


def _values_of(d: Driver, search: Search) -> dict[str, Value]:
    """The experiment's own values of the searched keys; the middle of what it leaves open."""
    own = values_of(d.experiment, search.space)
    return {
        key: fitted(own[key], domain) if key in own else middle(domain)
        for key, domain in search.space.items()
    }
