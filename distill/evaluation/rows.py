"""One row for each model of a comparison: its metrics on the test split, by their stable names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from distill.metrics import IN_DOMAIN, OUT_OF_DOMAIN, TaskMetrics, measured_by

Role = Literal["expert", "mix", "baseline", "link", "student"]

_OWN = {metric.rpartition(".")[2]: metric for metric in (IN_DOMAIN, OUT_OF_DOMAIN)}
_OWN_BEFORE = dict(zip(("home", "abroad"), _OWN.values(), strict=True))
"""The same, as versions before 0.2 wrote them."""
_AS_DOMAIN = " (domain)"
"""Follows, in the metrics of an expert, the name of a domain that is one of these four."""


class _Value:
    """A metric of a row under a short name."""

    def __init__(self, metric: str) -> None:
        self.metric = metric

    def __get__(self, row: Row, owner: type[Row]) -> float | None:
        return row.value(self.metric)


@dataclass(frozen=True)
class Row:
    """One model as measured on the test split."""

    name: str
    role: Role
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Those that were measured, in the order of the task; the accuracy (perplexity) of each domain
    too."""
    note: str = ""

    params = _Value("student.params")
    size_mb = _Value("student.size_mb")
    latency_ms = _Value("student.latency_ms")
    accuracy = _Value("test.accuracy")
    f1 = _Value("test.f1")
    in_domain = _Value(IN_DOMAIN)
    out_of_domain = _Value(OUT_OF_DOMAIN)
    retention = _Value("test.retention")
    compression = _Value("compression")
    perplexity = _Value("test.perplexity")
    agreement = _Value("fidelity.token_agreement")
    jsd = _Value("fidelity.jsd")
    exact_match = _Value("test.exact_match")
    rouge_l = _Value("test.rouge_l")
    tokens_per_s = _Value("student.tokens_per_s")
    peak_memory_mb = _Value("student.peak_memory_mb")

    def __post_init__(self) -> None:
        first = [n for n in measured_by(self.metrics).test if self.value(n) is not None]
        names = dict.fromkeys((*first, *self.metrics))
        object.__setattr__(self, "metrics", {name: self.metrics[name] for name in names})

    def having(self, metrics: Mapping[str, float | None]) -> Self:
        """With further metrics; those that are None are not known."""
        return replace(self, metrics={**self.metrics, **measured(metrics)})

    def value(self, metric: str) -> float | None:
        """None where it was not measured."""
        # A domain of this name is no part of the data that an expert was trained on.
        if metric in _OWN.values() and self.role != "expert":
            return None
        return self.metrics.get(metric)

    @property
    def per_domain(self) -> dict[str, float]:
        """Accuracy in each domain; of language models perplexity."""
        prefix = f"{measured_by(self.metrics).per_domain}."
        found = {k.removeprefix(prefix): v for k, v in self.metrics.items() if k.startswith(prefix)}
        if self.role != "expert":
            return found
        own = (*_OWN, *_OWN_BEFORE)
        of_domains = {d: v for d, v in found.items() if d not in own}
        return {
            d.removesuffix(_AS_DOMAIN) if d.removesuffix(_AS_DOMAIN) in own else d: value
            for d, value in of_domains.items()
        }


def measured(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Those that are known."""
    return {name: value for name, value in metrics.items() if value is not None}


def in_domains(prefix: str, role: Role, per_domain: Mapping[str, float]) -> dict[str, float]:
    """A metric in each domain, by its stable name; ``prefix``: ``test.accuracy.``."""
    own = (*_OWN, *_OWN_BEFORE) if role == "expert" else ()
    return {f"{prefix}{d}{_AS_DOMAIN if d in own else ''}": v for d, v in per_domain.items()}


def row_of(name: str, role: Role, metrics: Mapping[str, float]) -> Row:
    """A model from all that was logged of it, also by versions before 0.2."""
    measures: TaskMetrics = measured_by(metrics)
    prefix = f"{measures.per_domain}."
    kept = {n: v for n, v in metrics.items() if n in measures.test or n.startswith(prefix)}
    if role == "expert":
        for before, now in _OWN_BEFORE.items():
            value = kept.pop(f"{prefix}{before}", None)
            if value is not None:
                kept.setdefault(now, value)
    return Row(name, role, kept)
