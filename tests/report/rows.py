"""Rows of a comparison from figures in the order of the table."""

from __future__ import annotations

from collections.abc import Mapping

from distill.evaluation.rows import Role, Row, in_domains, measured
from distill.metrics import measured_by
from distill.report.table import FIELDS


def a_row(
    name: str,
    role: Role,
    params: float | None = None,
    size_mb: float | None = None,
    latency_ms: float | None = None,
    accuracy: float | None = None,
    f1: float | None = None,
    per_domain: Mapping[str, float] | None = None,
    in_domain: float | None = None,
    out_of_domain: float | None = None,
    note: str = "",
    **others: float | None,
) -> Row:
    """``others``: ``retention``, ``perplexity`` and so on, the keys of ``table.json``."""
    values = others | {"params": params, "size_mb": size_mb, "latency_ms": latency_ms}
    values |= {"accuracy": accuracy, "f1": f1}
    values |= {"in_domain": in_domain, "out_of_domain": out_of_domain}
    metrics = measured({FIELDS[key]: value for key, value in values.items()})
    prefix = f"{measured_by(metrics).per_domain}."
    return Row(name, role, metrics | in_domains(prefix, role, per_domain or {}), note)
