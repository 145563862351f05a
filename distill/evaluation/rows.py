"""One row for each model of a comparison.

Accuracies, F1, retention, agreement, exact match and ROUGE-L are fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["expert", "mix", "baseline", "link", "student"]


CLASSIFIERS_ONLY = ("f1", "in_domain", "out_of_domain", "retention")


LANGUAGE_ONLY = (
    "perplexity",
    "agreement",
    "jsd",
    "exact_match",
    "rouge_l",
    "tokens_per_s",
    "peak_memory_mb",
)
"""Fields of a row that the files of the other kind of table leave out."""


IN_DOMAIN = ("in_domain", "out_of_domain")
"""Fields, and ends of the metrics, of an expert's accuracy in its own domain and in the others."""


IN_DOMAIN_BEFORE = ("home", "abroad")
"""The same, as versions before 0.2 wrote them."""


AS_DOMAIN = " (domain)"
"""Follows, in the metrics of an expert, the name of a domain that is one of these four."""


MAJORITY = "data.majority_rate"
"""Metric: share of the most frequent class of the test split; ``.validation``: of that split."""


@dataclass(frozen=True)
class Row:
    """One model as measured on the test split."""

    name: str
    role: Role
    params: float | None = None
    size_mb: float | None = None
    """10⁶ bytes of the exported weights."""
    latency_ms: float | None = None
    """One text on one CPU thread."""
    accuracy: float | None = None
    """Of language models: of the next token."""
    f1: float | None = None
    per_domain: dict[str, float] = field(default_factory=dict)
    """Accuracy in each domain; of language models perplexity."""
    in_domain: float | None = None
    """Accuracy in the domain that an expert was trained on."""
    out_of_domain: float | None = None
    """Accuracy in all the other domains."""
    retention: float | None = None
    """Accuracy as a fraction of the aggregated teachers'."""
    compression: float | None = None
    """Parameters of the teachers over this model's."""
    note: str = ""
    perplexity: float | None = None
    """exp of the mean cross-entropy of a token, in nats. Only language models have it, and the
    fields below."""
    agreement: float | None = None
    """Share of positions where the most probable token is that of the teachers."""
    jsd: float | None = None
    """Mean Jensen-Shannon divergence from the teachers, in nats."""
    exact_match: float | None = None
    rouge_l: float | None = None
    tokens_per_s: float | None = None
    """Generated on one CPU thread, one text at a time."""
    peak_memory_mb: float | None = None
    """10⁶ bytes of weights and live tensors while it generates."""

    @property
    def is_language(self) -> bool:
        return self.perplexity is not None

    def metrics(self) -> dict[str, float | None]:
        """Under the stable names, as in MLflow."""
        if self.is_language:
            return self._language_metrics()
        metrics: dict[str, float | None] = {
            "student.params": self.params,
            "student.size_mb": self.size_mb,
            "student.latency_ms": self.latency_ms,
            "test.accuracy": self.accuracy,
            "test.f1": self.f1,
            "test.retention": self.retention,
            "compression": self.compression,
            "test.accuracy.in_domain": self.in_domain,
            "test.accuracy.out_of_domain": self.out_of_domain,
        }
        return metrics | self._in_domains("test.accuracy")

    def _in_domains(self, metric: str) -> dict[str, float]:
        taken = (*IN_DOMAIN, *IN_DOMAIN_BEFORE) if self.role == "expert" else ()
        return {
            f"{metric}.{d}{AS_DOMAIN if d in taken else ''}": value
            for d, value in self.per_domain.items()
        }

    def _language_metrics(self) -> dict[str, float | None]:
        metrics: dict[str, float | None] = {
            "student.params": self.params,
            "student.size_mb": self.size_mb,
            "student.latency_ms": self.latency_ms,
            "student.tokens_per_s": self.tokens_per_s,
            "student.peak_memory_mb": self.peak_memory_mb,
            "test.perplexity": self.perplexity,
            "test.accuracy": self.accuracy,
            "test.exact_match": self.exact_match,
            "test.rouge_l": self.rouge_l,
            "fidelity.token_agreement": self.agreement,
            "fidelity.jsd": self.jsd,
            "compression": self.compression,
        }
        return metrics | self._in_domains("test.perplexity")
