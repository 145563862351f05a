"""The catalogue of metrics: every name that is logged, once, with unit, direction and meaning.

The documentation, tables, plots, goals of a sweep and MLflow read it. A name is stable: it is a
contract with everyone who reads MLflow or ``metrics.jsonl``. ``<x>`` in a name is a part that a
user gives, such as a teacher's name: the entry stands for every name of this form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

Direction = Literal["higher", "lower"]
HIGHER: Direction = "higher"
LOWER: Direction = "lower"
SHARE, NATS, PARAMETERS = "share", "nats", "parameters"
"""Units. A share is a number between 0 and 1, which tables show in percent."""
S, MS, MB, BYTES = "s", "ms", "MB", "bytes"
ROWS, TOKENS, STEPS = "rows", "tokens", "steps"

CLASSIFIER, LANGUAGE = ("classification",), ("language_model",)
"""Tasks of a metric that only one of them has."""


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    """SHARE, MS, …; "" for a plain number."""
    direction: Direction | None
    """Which values of a student are better; None where neither is."""
    meaning: str
    """One phrase, Markdown."""
    tasks: tuple[str, ...] = ()
    """The tasks that have it; empty: all."""
    label: str = ""
    """On axes, in tables of several splits and in reports, which show only metrics with a label."""
    head: str = ""
    """In a table where the split is known; "": the label."""

    @property
    def mode(self) -> Literal["max", "min"]:
        """As a goal of a sweep."""
        return "min" if self.direction == "lower" else "max"

    @property
    def is_family(self) -> bool:
        """Whether a user gives a part of the name."""
        return "<" in self.name

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches the names that this entry stands for."""
        parts = re.split(r"<\w+>", self.name)
        return re.compile("(.+)".join(map(re.escape, parts)), re.DOTALL)


@dataclass(frozen=True)
class Group:
    """A section of the reference."""

    title: str
    metrics: tuple[Metric, ...]
    lead: str = ""
    """Paragraphs above the table, Markdown."""


# fmt: off
QUALITY = Group(
    "Quality of the student",
    (
        Metric("data.majority_rate", SHARE, None,
               "share of the most frequent class of the test split: the accuracy of a model that "
               "always predicts it",
               CLASSIFIER, label="data.majority_rate"),
        Metric("data.majority_rate.validation", SHARE, None,
               "share of the most frequent class of the validation split",
               CLASSIFIER, label="data.majority_rate.validation"),
        Metric("eval.accuracy", SHARE, HIGHER,
               "share of rows of the validation split whose largest logit is that of the label; "
               "language models: share of target tokens that are the most probable next token "
               "(next-token accuracy)",
               label="accuracy (validation)", head="accuracy"),
        Metric("test.accuracy", SHARE, HIGHER,
               "`eval.accuracy` on the test split, measured once for the exported weights; of a "
               "sweep, for the trials on the frontier",
               label="accuracy (test)", head="accuracy"),
        Metric("eval.perplexity", "", LOWER,
               "exp of the mean cross-entropy of a target token of the validation split, in nats; "
               "lower is better",
               LANGUAGE, label="perplexity (validation)", head="perplexity"),
        Metric("test.perplexity", "", LOWER,
               "`eval.perplexity` on the test split, measured once for the exported weights; of a "
               "sweep, for the trials on the frontier",
               LANGUAGE, label="perplexity (test)", head="perplexity"),
        Metric("eval.f1", SHARE, HIGHER,
               "macro F1 on validation: mean over the classes that occur",
               CLASSIFIER, label="F1 (validation)", head="F1"),
        Metric("test.f1", SHARE, HIGHER,
               "macro F1 on test",
               CLASSIFIER, label="F1 (test)", head="F1"),
        Metric("test.accuracy.<domain>", SHARE, HIGHER,
               "accuracy on one domain",
               CLASSIFIER),
        Metric("test.accuracy.in_domain", SHARE, HIGHER,
               "of an expert: accuracy on its own part of the data",
               CLASSIFIER, head="in-domain"),
        Metric("test.accuracy.out_of_domain", SHARE, HIGHER,
               "of an expert: accuracy on the other parts of the data",
               CLASSIFIER, head="out-of-domain"),
        Metric("test.perplexity.<domain>", "", LOWER,
               "perplexity on one domain",
               LANGUAGE),
        Metric("test.exact_match", SHARE, HIGHER,
               "share of the `generation.num_prompts` greedily generated answers that equal the "
               "reference, ignoring white space",
               LANGUAGE, label="exact match (test)", head="exact match"),
        Metric("test.rouge_l", SHARE, HIGHER,
               "mean ROUGE-L of these answers: F1 of the longest common subsequence",
               LANGUAGE, label="ROUGE-L (test)", head="ROUGE-L"),
        Metric("test.ece", SHARE, LOWER,
               "expected calibration error: Σ over 10 bins of confidence: share of rows · "
               "abs(accuracy − confidence)",
               CLASSIFIER),
    ),
)

COMPARED = Group(
    "Compared with the teachers",
    (
        Metric("eval.teacher_accuracy", SHARE, None,
               "accuracy of the aggregated teachers on validation, at T = 1",
               CLASSIFIER, label="eval.teacher_accuracy"),
        Metric("test.teacher_accuracy", SHARE, None,
               "accuracy of the aggregated teachers on test, at T = 1",
               CLASSIFIER),
        Metric("eval.retention", SHARE, HIGHER,
               "accuracy of the student / accuracy of the aggregated teachers, on validation",
               CLASSIFIER, label="retention (validation)", head="retention"),
        Metric("test.retention", SHARE, HIGHER,
               "accuracy of the student / accuracy of the aggregated teachers, on test",
               CLASSIFIER, label="retention (test)", head="retention"),
        Metric("fidelity.token_agreement", SHARE, HIGHER,
               "share of test tokens where the student's most probable next token is that of the "
               "aggregated teachers",
               LANGUAGE, label="agreement with teachers (test)", head="agreement"),
        Metric("fidelity.jsd", NATS, LOWER,
               "mean Jensen–Shannon divergence from the aggregated teachers on test",
               LANGUAGE, label="JSD from teachers (test)", head="JSD"),
        Metric("compression", "", HIGHER,
               "parameters of the largest teacher / parameters of the student",
               label="compression"),
        Metric("chain.links", "", None,
               "links of the chain that were kept, the student counted; 1: the student was "
               "distilled from the teachers",
               label="chain.links"),
    ),
)

COST = Group(
    "Size and speed of the student",
    (
        Metric("student.params", PARAMETERS, LOWER,
               "parameters, embeddings included",
               label="parameters"),
        Metric("student.size_mb", MB, LOWER,
               "exported float32 safetensors, MB = 10⁶ bytes",
               label="size (MB)"),
        Metric("student.latency_ms", MS, LOWER,
               "median of one sequence of `data.max_length` tokens (language models: 128 at "
               "most), batch 1, on one CPU thread",
               label="latency (ms)"),
        Metric("student.latency_p95_ms", MS, LOWER,
               "95th percentile of the same, `distill evaluate`"),
        Metric("student.gflops", "GFLOPs", LOWER,
               "10⁹ floating-point operations of that forward; a multiply-add is 2",
               label="compute (GFLOPs)"),
        Metric("student.peak_memory_mb", MB, LOWER,
               "weights and live tensors during it; language models: during generation",
               head="peak memory (MB)"),
        Metric("student.tokens_per_s", "tokens/s", HIGHER,
               "tokens generated per second, one text at a time, on one CPU thread",
               LANGUAGE, label="tokens/s"),
        Metric("student.gpu_latency_ms", MS, LOWER,
               "`student.latency_ms` on a GPU, if `distill evaluate` has one"),
        Metric("student.gpu_latency_p95_ms", MS, LOWER,
               "its 95th percentile"),
        Metric("student.gpu_peak_memory_mb", MB, LOWER,
               "`student.peak_memory_mb` on that GPU"),
    ),
)

TRAINING = Group(
    "Training",
    (
        Metric("loss", "", LOWER,
               "training loss: α · c(T) · D + (1 − α) · CE, plus the terms of the method; mean "
               "over the steps since the last record",
               label="loss"),
        Metric("kd.loss", "", LOWER,
               "its first part, unweighted: the divergence from the teachers; of language models "
               "a mean over tokens, also with `kd.normalise: sequences`"),
        Metric("ce.loss", NATS, LOWER,
               "its second part, unweighted: the cross-entropy with the labels; of language "
               "models a mean over tokens"),
        Metric("train.accuracy", SHARE, HIGHER,
               "accuracy on the labelled training rows; language models: next-token accuracy"),
        Metric("balance.loss", "", LOWER,
               "mixture of experts as student: its load-balancing loss, before "
               "`router_aux_loss_coef` of its config.json",
               LANGUAGE),
        Metric("lr", "", None,
               "learning rate of this step"),
        Metric("kd.temperature", "", None,
               "T: divides the logits of teachers and student in the soft loss; in training, that "
               "of this step",
               label="kd.temperature"),
        Metric("kd.alpha", "", None,
               "α: weight of the soft target; 1 − α is the weight of the label",
               label="kd.alpha"),
        Metric("grad_norm", "", None,
               "global gradient norm of the last step, before clipping to `optimizer.clip_norm`"),
        Metric("time.total_s", S, LOWER,
               "seconds of the run, or of the trial",
               label="time (s)"),
    ),
    "Means over the steps since the last record. `kd.temperature` and `kd.alpha` of a run's "
    "results are those of the configuration; [schedules](../methods/temperature-schedules.md) "
    "change them in training.",
)

DATA = Group(
    "Rows",
    (
        Metric("data.truncated_rows", ROWS, None,
               "rows truncated to `data.max_length`"),
        Metric("data.dropped_rows", ROWS, None,
               "rows dropped because their text is empty"),
        Metric("data.unlearnable_rows", ROWS, None,
               "rows dropped because they have no target token",
               LANGUAGE),
    ),
    "Logged once, before training.",
)

TEACHERS = Group(
    "Teachers and stream",
    (
        Metric("teacher.<name>.wait_s", S, LOWER,
               "time that the student waited for this teacher (the slowest of the step)"),
        Metric("teacher.<name>.rows", ROWS, None,
               "rows that it computed"),
        Metric("teacher.<name>.cached_rows", ROWS, None,
               "rows that were read from the cache"),
        Metric("teacher.<name>.compute_s", S, None,
               "time in its forwards, verification and generation included"),
        Metric("teacher.<name>.bytes", BYTES, None,
               "received from it"),
        Metric("teacher.<name>.idle_rate", SHARE, LOWER,
               "share of the time in which its replicas did not compute for this student; 0 where "
               "they computed two requests at a time"),
        Metric("teacher.<name>.requests", "", None,
               "requests sent"),
        Metric("teacher.<name>.retries", "", LOWER,
               "requests sent again because their replica was lost or made no progress"),
        Metric("teacher.<name>.kl", NATS, LOWER,
               "KL(p_k ‖ p_S) at T = 1 on the rows that it computed",
               CLASSIFIER),
        Metric("teacher.<name>.weight", SHARE, None,
               "its mean weight in the aggregation"),
        Metric("teacher.<name>.divergence", "", LOWER,
               "c(T) · D(p_k, p_S), at one of 16 positions",
               LANGUAGE),
        Metric("teacher.<name>.perplexity", "", LOWER,
               "perplexity of the next tokens, at 64 positions of each forward; not for cached "
               "outputs. A warning is printed above half the vocabulary size",
               LANGUAGE),
        Metric("teacher.<name>.mass_outside", SHARE, LOWER,
               "probability of tokens that the student does not have; above 1 % the run stops",
               LANGUAGE),
        Metric("teacher.<name>.clamped", "", None,
               "probabilities below 1e-7 that were clamped to it (`predict_proba` teachers)",
               CLASSIFIER),
        Metric("teacher.<name>.silent_mass_rate", SHARE, None,
               "mixtures of experts: mean router mass on experts outside the model's own k",
               LANGUAGE),
        Metric("teacher.<name>.busiest_expert_rate", SHARE, None,
               "mixtures of experts: largest share of tokens that an expert was selected for",
               LANGUAGE),
        Metric("teacher.<name>.idlest_expert_rate", SHARE, None,
               "mixtures of experts: smallest share of tokens that an expert was selected for",
               LANGUAGE),
        Metric("teacher.<name>.gate_kl_rate", NATS, LOWER,
               "`moe: {type: sar}`: first term of the gates' loss, KL(p_T ‖ p_S)",
               LANGUAGE),
        Metric("teacher.<name>.gate_balance_rate", "", LOWER,
               "`moe: {type: sar}`: second term of the gates' loss, the balancing of the experts",
               LANGUAGE),
        Metric("teacher.<name>.gate_version_rate", STEPS, None,
               "`moe: {type: sar}`: number of steps of the gates",
               LANGUAGE),
        Metric("stream.wait_s", S, LOWER,
               "time of waiting for all teachers"),
        Metric("stream.queue_depth", STEPS, HIGHER,
               "mean number of steps that are ready ahead of the student"),
        Metric("teacher.passes", "", LOWER,
               "of a sweep: rows computed by the busiest teacher / rows needed; 1: each teacher "
               "computed every row once, 0: all outputs came from the cache",
               label="teacher.passes"),
    ),
    "Over the time since the last record, summed over ranks (for depths, rates and means: mean "
    "over ranks). `<name>` is a teacher.",
)

MEMORY = Group(
    "Shared memory",
    (
        Metric("memory.students.hits", "", None,
               "fits (links, experts, router, baselines, student) that were found in the shared "
               "memory"),
        Metric("memory.students.accesses", "", None,
               "fits that were looked up. Fits that are finished, or have a checkpoint, in the "
               "run folder are not"),
        Metric("memory.answers.hits", ROWS, None,
               "teacher outputs that were read from the cache"),
        Metric("memory.answers.accesses", ROWS, None,
               "teacher outputs that were needed. Each row counts once per teacher and epoch, in "
               "the fits that this run trained"),
    ),
    "Logged once, at the end of a run with `memory.path`.",
)

SAMPLING = Group(
    "Generated text",
    (
        Metric("sampling.new_tokens", TOKENS, None,
               "tokens generated since the last record, over all ranks",
               LANGUAGE),
        Metric("sampling.generate_s", S, LOWER,
               "time of generation",
               LANGUAGE),
        Metric("sampling.generate_rate", SHARE, None,
               "share of the time since the last record in which a rank generated text, including "
               "verification and text of a teacher",
               LANGUAGE),
        Metric("sampling.tokens_per_row", TOKENS, None,
               "tokens per text",
               LANGUAGE),
        Metric("sampling.cut_rate", SHARE, None,
               "share of texts that reached their limit without an end token",
               LANGUAGE),
        Metric("sampling.acceptance_rate", SHARE, HIGHER,
               "`skd`: share of accepted drafts, among the drafts up to and including the first "
               "rejected one",
               LANGUAGE),
        Metric("sampling.tokens_per_call", TOKENS, HIGHER,
               "`skd`: tokens generated per sequence and forward of the verifying teacher",
               LANGUAGE),
        Metric("sampling.staleness", STEPS, None,
               "mean age, in updates, of the student's text that was trained on",
               LANGUAGE),
        Metric("sampling.student_rate", SHARE, None,
               "`mixed`: share of rows that the student generated",
               LANGUAGE),
    ),
)

ROUTER = Group(
    "Router",
    (
        Metric("router.accuracy", SHARE, HIGHER,
               "share of test rows for which the most probable expert is the expert of their part "
               "of the data; `attention`, `learned`: share of rows or tokens, of domains that a "
               "teacher is named like, for which this teacher has the largest weight; also logged "
               "in training",
               label="router.accuracy"),
        Metric("router.confidence", SHARE, None,
               "mean over the test split of the largest router probability",
               label="router.confidence"),
        Metric("router.load.<expert>", SHARE, None,
               "share of the selections on the test split that go to this expert (`aggregation.k` "
               "per row); `attention`, `learned`: its mean weight; sums to 1 over experts"),
        Metric("router.load.<expert>.<domain>", SHARE, None,
               "`attention`, `learned`: its mean weight on the test rows or tokens of a domain"),
        Metric("router.loss", NATS, LOWER,
               "`attention`, `learned`, in training: −log Σ w_k p_k(y) of the labels or next "
               "tokens"),
        Metric("router.entropy", NATS, None,
               "`attention`, `learned`, in training: entropy of the weights"),
    ),
)

EVALUATION = Group(
    "Evaluation",
    (
        Metric("test.rows", ROWS, None,
               "rows of the split"),
        Metric("test.truncated_rows", ROWS, None,
               "rows longer than `--max-length`"),
        Metric("test.precision", SHARE, HIGHER,
               "macro mean of the precision over the classes that occur",
               CLASSIFIER),
        Metric("test.recall", SHARE, HIGHER,
               "macro mean of the recall over the classes that occur",
               CLASSIFIER),
        Metric("test.precision.<label>", SHARE, HIGHER,
               "precision of one class",
               CLASSIFIER),
        Metric("test.recall.<label>", SHARE, HIGHER,
               "recall of one class",
               CLASSIFIER),
        Metric("test.f1.<label>", SHARE, HIGHER,
               "F1 of one class",
               CLASSIFIER),
        Metric("interval.<measure>.low", SHARE, None,
               "lower end of the bootstrap interval over rows, at `intervals.level`; `<measure>` "
               "is `accuracy`, `f1` or `ece`",
               CLASSIFIER),
        Metric("interval.<measure>.high", SHARE, None,
               "its upper end",
               CLASSIFIER),
        Metric("fidelity.agreement", SHARE, LOWER,
               "share of rows on which student and teacher (several: the aggregate) choose "
               "different classes",
               CLASSIFIER),
        Metric("fidelity.distribution", SHARE, LOWER,
               "… on which JSD(p_T, p_S) > 0.1 nats, at T = 1",
               CLASSIFIER),
        Metric("fidelity.confidence", SHARE, LOWER,
               "… on which the teacher is confident (max p ≥ 0.9) and the student is not, or is "
               "confident of another class",
               CLASSIFIER),
        Metric("fidelity.calibration", SHARE, LOWER,
               "… on which the largest probabilities differ by more than 0.05",
               CLASSIFIER),
        Metric("fidelity.any", SHARE, LOWER,
               "… that violate any of the four",
               CLASSIFIER),
        Metric("fidelity.ece_gap", SHARE, LOWER,
               "abs(ECE of the teacher − ECE of the student)",
               CLASSIFIER),
        Metric("fidelity.relative_drop", "", LOWER,
               "(ΔS − ΔT) / ΔT, where Δ is the accuracy lost under attack; null if the teacher "
               "lost none",
               CLASSIFIER),
        Metric("fidelity.transformed.<relation>", SHARE, LOWER,
               "the relations above on transformed rows: `agreement`, `distribution`, "
               "`confidence`, `calibration`, `any`",
               CLASSIFIER),
        Metric("fidelity.transformed.<transformation>.<relation>", SHARE, LOWER,
               "the same for one transformation",
               CLASSIFIER),
        Metric("fidelity.transformed.relative_drop", "", LOWER,
               "as `fidelity.relative_drop`, where Δ is the accuracy lost by transformation",
               CLASSIFIER),
        Metric("robustness.asr", SHARE, LOWER,
               "attack success rate: rows whose prediction any attack changed / rows attacked "
               "(predicted correctly before, and with something to change)",
               CLASSIFIER),
        Metric("robustness.accuracy", SHARE, HIGHER,
               "accuracy over the attacked sample, each row under the strongest attack on it",
               CLASSIFIER),
        Metric("robustness.attacked", ROWS, None,
               "rows that at least one attack could change",
               CLASSIFIER),
        Metric("robustness.<method>.asr", SHARE, LOWER,
               "`robustness.asr` of one attack",
               CLASSIFIER),
        Metric("robustness.<method>.accuracy", SHARE, HIGHER,
               "`robustness.accuracy` under one attack",
               CLASSIFIER),
        Metric("robustness.<method>.queries", "", None,
               "queries of one attack, mean per row",
               CLASSIFIER),
        Metric("robustness.transformed.accuracy", SHARE, HIGHER,
               "accuracy on transformed rows",
               CLASSIFIER),
        Metric("robustness.transformed.drop", SHARE, LOWER,
               "accuracy lost by the transformation on the same rows",
               CLASSIFIER),
        Metric("robustness.transformed.flips", SHARE, LOWER,
               "share of predictions that the transformation changed",
               CLASSIFIER),
        Metric("robustness.transformed.<transformation>.accuracy", SHARE, HIGHER,
               "accuracy on the rows of one transformation",
               CLASSIFIER),
        Metric("robustness.transformed.<transformation>.flips", SHARE, LOWER,
               "share of predictions that one transformation changed",
               CLASSIFIER),
    ),
    "Additional metrics of `distill evaluate`. The names are those of the student; with the "
    "prefix `teacher.`, a metric of quality or robustness is that of the teacher "
    "(`teacher.test.accuracy`). For the limits of the relations see [evaluation "
    "settings](evaluation.md).",
)

SWEEPS = Group(
    "Sweeps",
    (
        Metric("sweep.trials", "trials", None,
               "all trials"),
        Metric("sweep.finished", "trials", None,
               "trained to their end"),
        Metric("sweep.stopped", "trials", None,
               "stopped early by the scheduler"),
        Metric("sweep.failed", "trials", None,
               "failed"),
        Metric("sweep.frontier", "trials", None,
               "on the frontier"),
    ),
    "Logged to the run of the sweep in MLflow.",
)

META = Group(
    "Configuration memory",
    (
        Metric("meta.n", ROWS, None,
               "rows of train and transfer",
               CLASSIFIER),
        Metric("meta.n_test", ROWS, None,
               "rows of test",
               CLASSIFIER),
        Metric("meta.d", "", None,
               "inputs of a row (text: mean number of words)",
               CLASSIFIER),
        Metric("meta.classes", "", None,
               "number of classes",
               CLASSIFIER),
        Metric("meta.imbalance", "", None,
               "rows of the largest / of the smallest class that occurs in train",
               CLASSIFIER),
        Metric("meta.class_entropy", NATS, None,
               "entropy of the train labels",
               CLASSIFIER),
        Metric("meta.mean", "", None,
               "mean of each input column (text: length in characters), mean over columns",
               CLASSIFIER),
        Metric("meta.variance", "", None,
               "likewise: variance",
               CLASSIFIER),
        Metric("meta.skewness", "", None,
               "likewise: skewness; constant: 0",
               CLASSIFIER),
        Metric("meta.kurtosis", "", None,
               "likewise: kurtosis − 3; constant: 0",
               CLASSIFIER),
        Metric("meta.log_teacher_params", "", None,
               "log10 of the parameters of the largest teacher",
               CLASSIFIER),
        Metric("meta.log_student_params", "", None,
               "log10 of the parameters of the student",
               CLASSIFIER),
        Metric("meta.compression", "", None,
               "the ratio of the two numbers of parameters",
               CLASSIFIER),
        Metric("meta.log_capacity_gap", "", None,
               "natural logarithm of `meta.compression`",
               CLASSIFIER),
        Metric("meta.teacher_family.<family>", SHARE, None,
               "share of the teachers of this family: `transformer`, `mlp`, `cnn`; `other`: "
               "objects with `predict_proba`",
               CLASSIFIER),
        Metric("meta.student_family.<family>", "", None,
               "1 for the student's family (`transformer`, `mlp`, `cnn`), else 0",
               CLASSIFIER),
        Metric("meta.teacher_accuracy", SHARE, None,
               "`eval.teacher_accuracy`",
               CLASSIFIER),
    ),
    "Logged to runs of `distill train` and to the trials of a sweep: what describes the task to "
    "the [configuration memory](../methods/configuration-manager.md).",
)

# fmt: on
GROUPS = [
    *(QUALITY, COMPARED, COST, TRAINING, DATA, TEACHERS, MEMORY, SAMPLING, ROUTER),
    *(EVALUATION, SWEEPS, META),
]
"""In the order of the reference."""
METRICS: dict[str, Metric] = {}
"""All entries by name, in this order."""


def add(metrics: Iterable[Metric]) -> None:
    """More entries, such as those of a task of your own. Refuses a name that is there already."""
    for one in metrics:
        if one.name in METRICS:
            raise ValueError(f"the metric {one.name} is in the catalogue already")
        METRICS[one.name] = one
    metric.cache_clear()


@cache
def metric(name: str) -> Metric | None:
    """The entry of a name; None where there is none.

    Of the families that match, the one with the longest fixed part. ``teacher.test.…`` and the
    like, of an evaluation, have the entry of the same metric of the student.
    """
    if name in METRICS:
        return METRICS[name]
    for prefix in ("test.", "interval.", "robustness."):
        if name.startswith(f"teacher.{prefix}") and (
            found := metric(name.removeprefix("teacher."))
        ):
            return found
    families = [m for m in METRICS.values() if m.is_family and m.pattern.fullmatch(name)]
    return max(families, key=lambda m: len(re.sub(r"<\w+>", "", m.name)), default=None)


def known(names: Iterable[str]) -> None:
    """Raises AssertionError for a name that is not in the catalogue: a mistake of whoever logs."""
    unknown = [name for name in names if metric(name) is None]
    assert not unknown, (
        f"metric {unknown[0]!r} is logged, but is not in distill/metrics.py: add it there (or "
        "with distill.metrics.add)"
    )


for _group in GROUPS:
    add(_group.metrics)


# ---- lists of names ------------------------------------------------------------------------

SIZE, LATENCY = "student.size_mb", "student.latency_ms"
MAJORITY = "data.majority_rate"
"""On the test split; ``.validation``: on that split."""
IN_DOMAIN, OUT_OF_DOMAIN = "test.accuracy.in_domain", "test.accuracy.out_of_domain"

COSTS = ("student.params", SIZE, LATENCY, "student.gflops", "compression")
"""Of a trial, known before it trains."""
FINAL = ("eval.retention", "eval.teacher_accuracy", "time.total_s")
"""Of a trial, known at its end."""


@dataclass(frozen=True)
class TaskMetrics:
    """What a task measures. Reports, plots, sweeps and MLflow choose by it, and by nothing else
    of the task."""

    task: str
    model: str
    """What one of its models is called, in the singular."""
    validation: tuple[str, ...]
    """Of each evaluation while a model trains. The first selects the weights, is the quality of a
    sweep, and has a counterpart ``test.…``."""
    test: tuple[str, ...]
    """Of a model in the comparison on the test split."""
    per_domain: str
    """The metric of ``test`` that is measured in each domain too."""
    columns: tuple[str, ...]
    """Of ``test``, in the order of the table."""
    has_all_columns: bool = False
    """Whether the table has columns without a value, and no columns of domains."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """Heads of columns where they differ from the catalogue's."""
    summary: tuple[str, ...] = ()
    """Of the students of a sweep: columns of their tables."""
    overview: tuple[str, ...] = ()
    """After the quality, in the columns of MLflow."""
    note: str = ""
    """How to read these metrics: a list in Markdown."""

    @property
    def quality(self) -> Metric:
        """On validation: what a sweep optimises and selects by."""
        return METRICS[self.validation[0]]

    @property
    def test_quality(self) -> Metric:
        """The same on the test split: what models are compared by."""
        return METRICS[on_test(self.quality.name)]

    @property
    def tested(self) -> tuple[str, ...]:
        """Of :attr:`summary`, those on the test split."""
        return tuple(name for name in self.summary if name.startswith("test."))

    def head(self, name: str) -> str:
        """Of a column: ``next-token accuracy``."""
        found = METRICS[name]
        return self.heads.get(name) or found.head or found.label


CLASSIFICATION = TaskMetrics(
    "classification",
    "classifier",
    validation=("eval.accuracy", "eval.f1"),
    test=(
        *("student.params", SIZE, LATENCY, "test.accuracy", "test.f1", "test.retention"),
        *("compression", IN_DOMAIN, OUT_OF_DOMAIN),
    ),
    per_domain="test.accuracy",
    columns=(
        *("student.params", SIZE, LATENCY, "test.accuracy", "test.f1", IN_DOMAIN, OUT_OF_DOMAIN),
        "test.retention",
    ),
    has_all_columns=True,
    summary=("eval.accuracy", "eval.retention", "test.accuracy"),
    overview=("eval.retention", "test.f1"),
    note="- `eval.accuracy`: accuracy on the validation split. Sweeps, schedules and the "
    "choice of weights use it. `test.accuracy`: on the test split, measured once.\n- "
    "`eval.retention`, `test.retention`: accuracy of the student / accuracy of the "
    "aggregated teachers.\n",
)
LANGUAGE_MODEL = TaskMetrics(
    "language_model",
    "language model",
    validation=("eval.perplexity", "eval.accuracy"),
    test=(
        *("student.params", SIZE, LATENCY, "student.tokens_per_s", "student.peak_memory_mb"),
        *("test.perplexity", "test.accuracy", "test.exact_match", "test.rouge_l"),
        *("fidelity.token_agreement", "fidelity.jsd", "compression"),
    ),
    per_domain="test.perplexity",
    columns=(
        *("student.params", SIZE, "test.perplexity", "test.accuracy"),
        *("fidelity.token_agreement", "fidelity.jsd", "test.exact_match", "test.rouge_l"),
        *("student.tokens_per_s", "student.peak_memory_mb"),
    ),
    heads={"test.accuracy": "next-token accuracy", "eval.accuracy": "next-token accuracy"},
    summary=(
        *("eval.perplexity", "eval.accuracy", "test.perplexity", "test.accuracy"),
        "fidelity.token_agreement",
    ),
    overview=("test.accuracy", "fidelity.token_agreement"),
    note="- `eval.perplexity`, `test.perplexity`: exp of the mean cross-entropy of a token; "
    "lower is better. `test.accuracy`: next-token accuracy.\n"
    "- `fidelity.token_agreement`: share of test tokens where the student's most likely "
    "next token is that of the teachers.\n",
)
TASKS = {one.task: one for one in (CLASSIFICATION, LANGUAGE_MODEL)}
"""By name; of a plugin's, see :func:`declare`."""


def declare(measures: TaskMetrics) -> None:
    """What another task measures. Its metrics must be in the catalogue; see :func:`add`."""
    known((*measures.validation, *measures.test, *measures.overview, measures.per_domain))
    TASKS[measures.task] = measures


def of_task(task: str) -> TaskMetrics:
    return TASKS[task]


def measured_by(names: Iterable[str]) -> TaskMetrics:
    """The task that measured metrics, of a model, of its validation or of several models: the
    last declared one whose quality is among them; without any, classification."""
    there = set(names)
    tasks = reversed(TASKS.values())
    return next((t for t in tasks if {t.quality.name, t.test_quality.name} & there), CLASSIFICATION)


def fits(name: str, task: str) -> bool:
    """Whether models of the task have this metric."""
    return not METRICS[name].tasks or task in METRICS[name].tasks


def on_test(name: str) -> str:
    """``test.accuracy`` of ``eval.accuracy``; other names stay."""
    return re.sub(r"^eval\.", "test.", name)


def reported() -> tuple[str, ...]:
    """Metrics that a trial reports at every evaluation, as far as its task has them: what
    schedulers can go by."""
    return tuple(dict.fromkeys(name for task in TASKS.values() for name in task.validation))


def of_trials() -> tuple[str, ...]:
    """All that a goal of a sweep can name."""
    return (*reported(), *COSTS, *FINAL)
