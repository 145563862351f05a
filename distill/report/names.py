"""Metrics as people read them: names, units, definitions and digits."""

from __future__ import annotations

import re

from distill.report.table import count
from distill.search.trials import Value
from distill.wording import MISSING, percent, three_digits

MEANINGS = {
    "data.majority_rate": "share of the most frequent class of the test split: the accuracy of a "
    "model that always predicts it",
    "data.majority_rate.validation": "the same on the validation split",
    "eval.accuracy": "share of rows of the validation split whose largest logit is the label "
    "(language models: next-token accuracy); selection, schedules and sweeps use it",
    "test.accuracy": "the same on the test split, measured once for the exported weights of the "
    "trials on the frontier",
    "eval.perplexity": "exp of the mean cross-entropy of a token of the validation split, in nats; "
    "lower is better",
    "test.perplexity": "the same on the test split, measured once for the exported weights of the "
    "trials on the frontier",
    "eval.f1": "macro F1 on validation: mean over the classes that occur",
    "eval.loss": "mean loss on validation",
    "test.f1": "macro F1 on test",
    "eval.teacher_accuracy": "accuracy of the aggregated teachers on validation, at temperature 1",
    "eval.retention": "accuracy of the student / accuracy of the aggregated teachers, "
    "on validation",
    "test.retention": "the same on test",
    "fidelity.token_agreement": "share of test tokens where the student's most likely next token "
    "is that of the aggregated teachers",
    "fidelity.jsd": "mean Jensen-Shannon divergence from the aggregated teachers on test, in nats",
    "test.exact_match": "share of texts generated for test prompts that equal the reference",
    "test.rouge_l": "mean ROUGE-L (F1 of the longest common subsequence) of these texts",
    "student.tokens_per_s": "tokens generated per second, one text at a time, on one CPU thread",
    "compression": "parameters of the largest teacher / parameters of the student",
    "student.params": "parameters, embeddings included",
    "student.size_mb": "exported float32 safetensors, MB = 10⁶ bytes",
    "student.latency_ms": "median of one sequence of data.max_length tokens (language models: 128 "
    "at most), batch 1, on one CPU thread",
    "student.gflops": "10⁹ floating-point operations of that forward; a multiply-add is 2",
    "router.confidence": "mean of the largest router probability, on test",
    "router.accuracy": "share of test rows that are routed to the expert of their own part of the "
    "data",
    "chain.links": "links of the chain that were kept, the student counted; 1: the student was "
    "distilled from the teachers",
    "kd.temperature": "T: divides the logits of teachers and student in the soft loss",
    "kd.alpha": "α: weight of the soft target; 1 − α is the weight of the label",
    "loss": "training loss, mean over the steps since the last record",
    "teacher.passes": "teacher forwards / rows: 1 if each teacher computed every row once, "
    "0 if all outputs came from the cache",
    "time.total_s": "seconds of the whole trial",
}
_SHOWN = {
    "eval.accuracy": "accuracy (validation)",
    "eval.f1": "F1 (validation)",
    "eval.perplexity": "perplexity (validation)",
    "eval.retention": "retention (validation)",
    "test.accuracy": "accuracy (test)",
    "test.f1": "F1 (test)",
    "test.perplexity": "perplexity (test)",
    "test.exact_match": "exact match (test)",
    "test.rouge_l": "ROUGE-L (test)",
    "fidelity.token_agreement": "agreement with teachers (test)",
    "fidelity.jsd": "JSD from teachers (test)",
    "student.tokens_per_s": "tokens/s",
    "test.retention": "retention (test)",
    "student.size_mb": "size (MB)",
    "student.latency_ms": "latency (ms)",
    "student.gflops": "compute (GFLOPs)",
    "student.params": "parameters",
    "time.total_s": "time (s)",
}
TEST = ("test.perplexity", "test.accuracy")
"""Metrics of the test split that tables show, if the task has them."""
_FRACTIONS = re.compile(
    r"(^|\.)(accuracy|f1|retention|teacher_accuracy|token_agreement|exact_match|rouge_l)(\.|$)"
)


def label(metric: str) -> str:
    """``size (MB)``; a name that is not known stays as it is."""
    return _SHOWN.get(metric, metric)


def is_fraction(metric: str) -> bool:
    """Whether it is stored as 0.81 and shown as 81 %."""
    return bool(_FRACTIONS.search(metric))


def shown(metric: str, value: float | None) -> str:
    """A metric's value without its unit, but with % where it is a fraction."""
    if is_fraction(metric):
        return percent(value)
    return count(value) if metric.endswith("params") else three_digits(value)


def shown_value(value: Value | None) -> str:
    """A searched key's value: 3, 0.01, 2.9e-05, forward_kl."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
