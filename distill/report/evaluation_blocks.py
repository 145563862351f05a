"""An evaluation as blocks of rows, with a gloss for every term: terminal, Markdown and page show
the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill.evaluation.efficiency import Efficiency
from distill.evaluation.evaluated import Evaluated
from distill.evaluation.relations import RATES, Relations
from distill.wording import MISSING, count, percent, three_digits

MOST = 10
"""Classes or domains that the terminal shows; the page shows all."""
NO_ATTACKS = "not run: add --attacks (they take most of the time of an evaluation)"
GLOSSES = {
    "typos": "typing errors inside words",
    "synonyms": "words replaced by near synonyms",
    "case": "words in upper or lower case",
    "punctuation": "other punctuation marks",
    "noise": "uniform noise on every feature (transform.noise)",
    "rename": "other names of identifiers",
    "dead_code": "statements that are never executed",
    "loop": "for loops as while loops, and the reverse",
    "branch": "conditions negated, branches swapped",
    "comments": "comments added or removed",
    "layout": "other indentation, braces and blank lines",
    "constants": "integers written as sums or differences",
    "declaration_order": "independent declarations swapped",
    "random": "random renaming or rewording (as MHM)",
    "greedy": "most important name or word first (ALERT-like: no genetic stage or masked LM)",
    "style": "other layout, loops, branches, punctuation: the best of each round",
    "combined": "greedy with half the queries, then style",
}
"""Of transformations and attacks."""


@dataclass(frozen=True)
class Row:
    """One line; ``gloss`` explains its name."""

    name: str
    cells: tuple[str, ...]
    gloss: str = ""


@dataclass(frozen=True)
class Block:
    """A table under one title."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """Explain terms of the block."""
    slug: str = ""


def blocks(evaluated: Evaluated) -> list[Block]:
    """All tables that have rows, in the order of a report."""
    parts = (
        quality(evaluated),
        domains(evaluated),
        classes(evaluated),
        fidelity(evaluated),
        transformations(evaluated),
        attacks(evaluated),
        efficiency(evaluated),
    )
    return [part for part in parts if part is not None]


def models(evaluated: Evaluated) -> tuple[str, ...]:
    return ("student", "teacher") if evaluated.assessment.teacher is not None else ("student",)


def _pair(evaluated: Evaluated, metric: str, show: Callable = percent) -> tuple[str, ...]:
    metrics = evaluated.metrics
    names = {"student": metric, "teacher": f"teacher.{metric}"}
    return tuple(show(metrics.get(names[role])) for role in models(evaluated))


def _heads(evaluated: Evaluated, *names: str) -> list[str]:
    """Each name for each model, in two lines where there are two models."""
    roles = models(evaluated)
    return [f"{name}\n{role}" if len(roles) > 1 else name for name in names for role in roles]


def quality(evaluated: Evaluated) -> Block:
    metrics, level = evaluated.metrics, evaluated.request.settings.intervals.level
    rows = []
    for name, shown, gloss in (
        ("accuracy", "accuracy", "share of rows whose prediction is the label"),
        ("f1", "macro F1", "mean F1 over the classes"),
        ("precision", "macro precision", "mean precision over the classes"),
        ("recall", "macro recall", "mean recall over the classes"),
        ("ece", "calibration error (ECE)", "mean gap between confidence and accuracy; 0 is best"),
    ):
        texts = _pair(evaluated, f"test.{name}")
        prefixes = ("", "teacher.")
        spans = [
            _spanned(text, metrics, f"{prefix}interval.{name}")
            for prefix, text in zip(prefixes, texts, strict=False)
        ]
        rows.append(Row(shown, tuple(spans), gloss))
    if "test.retention" in metrics:
        cells = (percent(metrics["test.retention"]), "")
        rows.append(Row("retention", cells, "the student's accuracy divided by the teacher's"))
    notes = [f"[low, high]: {level * 100:g} % bootstrap interval over the rows"]
    if not evaluated.request.settings.intervals.num_draws:
        notes = []
    notes.append("calibration error (ECE): mean gap between confidence and accuracy; 0 is best")
    if "test.retention" in metrics:
        notes.append("retention: the student's accuracy divided by the teacher's")
    return Block(
        "Quality of the predictions",
        ("measure", *models(evaluated)),
        tuple(rows),
        tuple(notes),
        "quality",
    )


def _spanned(text: str, metrics: Mapping[str, float | None], interval: str) -> str:
    """``81.2 % [79.0, 83.4]`` where the interval was measured."""
    low, high = metrics.get(f"{interval}.low"), metrics.get(f"{interval}.high")
    return text if low is None or high is None else f"{text} [{low * 100:.1f}, {high * 100:.1f}]"


def domains(evaluated: Evaluated) -> Block | None:
    task = evaluated.task
    counts = {d: int((task.domains_R == d).sum()) for d in task.domain_names}
    rows = [
        Row(domain, (f"{num:,}", *_pair(evaluated, f"test.accuracy.{domain}")))
        for domain, num in counts.items()
        if num
    ]
    heads = ("domain", "rows", *models(evaluated))
    return Block("Accuracy by domain", heads, tuple(rows), slug="domains") if rows else None


def classes(evaluated: Evaluated) -> Block:
    """F1, precision and recall of the classes that have rows."""
    task, has_teacher = evaluated.task, len(models(evaluated)) > 1
    counts = np.bincount(task.labels_R, minlength=len(task.label_names))
    rows = []
    for name, num in zip(task.label_names, counts.tolist(), strict=True):
        if num:
            f1 = _pair(evaluated, f"test.f1.{name}")
            precision = percent(evaluated.metrics[f"test.precision.{name}"])
            recall = percent(evaluated.metrics[f"test.recall.{name}"])
            rows.append(Row(name, (f"{num:,}", precision, recall, *f1)))
    heads = ["class", "rows", "precision", "recall", "F1", *(["F1 of teacher"] * has_teacher)]
    return Block("Precision, recall and F1 by class", tuple(heads), tuple(rows), slug="classes")


def relation_names(relations: Relations) -> dict[str, tuple[str, str]]:
    """Of each relation a short name, and what its violation means."""
    distance = {"jsd": "Jensen-Shannon divergence", "kl": "KL divergence", "tv": "total variation"}
    epsilon, tau, delta = relations.epsilon, relations.tau, relations.delta
    return {
        "agreement": ("another class", "student and teacher predict different classes"),
        "distribution": (
            f"other probabilities ({relations.divergence.upper()} > {epsilon:g})",
            f"the {distance[relations.divergence]} of the two outputs is above {epsilon:g}",
        ),
        "confidence": (
            f"only the teacher is confident (≥ {tau:g})",
            f"the teacher has a probability of at least {tau:g} for a class; the student has "
            "less, or for another class",
        ),
        "calibration": (
            f"confidence differs by > {delta:g}",
            f"the largest probabilities of the two differ by more than {delta:g}",
        ),
        "any": ("any of the four", "at least one of the four"),
    }


def fidelity(evaluated: Evaluated) -> Block | None:
    metrics = evaluated.metrics
    if "fidelity.any" not in metrics:
        return None
    names = relation_names(evaluated.request.settings.relations)
    has_changed = "fidelity.transformed.any" in metrics
    rows = []
    for name in RATES:
        cells = [percent(metrics[f"fidelity.{name}"])]
        if has_changed:
            cells.append(percent(metrics.get(f"fidelity.transformed.{name}")))
        shown, gloss = names[name]
        rows.append(Row(shown, tuple(cells), f"{gloss} (fidelity.{name})"))
    heads = ("student differs from teacher: share of rows", "original")
    return Block(
        "Fidelity: does the student behave like its teacher? Lower is better",
        (*heads, "transformed") if has_changed else heads,
        tuple(rows),
        slug="fidelity",
    )


def transformations(evaluated: Evaluated) -> Block | None:
    """Accuracy on transformed rows, and the predictions that change; the last row is of all."""
    found = evaluated.assessment
    if "robustness.transformed.accuracy" not in evaluated.metrics:
        return None
    numbers = {**found.changed, "all": sum(found.changed.values())}
    rows = []
    for name, num in numbers.items():
        key = "robustness.transformed" if name == "all" else f"robustness.transformed.{name}"
        pairs = [*_pair(evaluated, f"{key}.accuracy"), *_pair(evaluated, f"{key}.flips")]
        rows.append(Row(name.replace("_", " "), (f"{num:,}", *pairs), GLOSSES.get(name, "")))
    heads = ["transformation", "rows", *_heads(evaluated, "accuracy", "flips")]
    return Block(
        "Transformations that keep the meaning",
        tuple(heads),
        tuple(rows),
        ("flips: share of predictions that differ from those of the original rows",),
        "transformations",
    )


def attacks(evaluated: Evaluated) -> Block | None:
    metrics, attack = evaluated.metrics, evaluated.request.settings.attack
    if "robustness.asr" not in metrics:
        return None
    rows = []
    for name in (*attack.methods, "any"):
        key = "robustness" if name == "any" else f"robustness.{name}"
        cells = [*_pair(evaluated, f"{key}.asr"), *_pair(evaluated, f"{key}.accuracy")]
        if name == "any":
            cells += [MISSING] * len(models(evaluated))
        else:
            cells += _pair(evaluated, f"{key}.queries", three_digits)
        rows.append(Row(name, tuple(cells), GLOSSES.get(name, "at least one of the attacks")))
    heads = ["attack", *_heads(evaluated, "success", "accuracy", "queries")]
    notes = (
        f"success: share of correct predictions changed with at most {attack.budget} queries a row",
        "accuracy: over the attacked sample, under the attack",
    )
    return Block(
        "Attacks by changes that keep the meaning", tuple(heads), tuple(rows), notes, "attacks"
    )


MEASURED: tuple[tuple[str, Callable[[Efficiency], str], str], ...] = (
    ("parameters", lambda cost: count(cost.params), "embeddings included"),
    ("size (MB)", lambda cost: three_digits(cost.size_mb), "float32 weights; 1 MB is 10⁶ bytes"),
    ("compute (GFLOPs)", lambda cost: three_digits(cost.gflops), "10⁹ operations for one row"),
    (
        "latency (ms), median",
        lambda cost: three_digits(cost.latency_ms),
        "one row of the longest length on one CPU thread",
    ),
    (
        "latency (ms), 95th percentile",
        lambda cost: three_digits(cost.latency_p95_ms),
        "of 30 measurements",
    ),
    (
        "peak memory (MB)",
        lambda cost: three_digits(cost.peak_memory_mb),
        "weights and live tensors while one row is computed",
    ),
)
"""Of a model with weights: name, value and gloss."""


def efficiency(evaluated: Evaluated) -> Block:
    costs = evaluated.costs
    roles = [role for role in models(evaluated) if role in costs or role == "student"]
    rows = [
        Row(name, tuple(show(costs[role]) for role in roles), gloss)
        for name, show, gloss in MEASURED
    ]
    if "compression" in evaluated.metrics:
        times = f"{three_digits(evaluated.metrics['compression'])}×"
        gloss = "parameters of the largest teacher / parameters of the student"
        rows.append(Row("compression", (times, *[""] * (len(roles) - 1)), gloss))
    on_gpu = evaluated.metrics.get("student.gpu_latency_ms")
    if on_gpu is not None:
        empty = ("",) * (len(roles) - 1)
        rows.append(Row("latency on the GPU (ms)", (three_digits(on_gpu), *empty), "median"))
    notes = ["latency: one row of the longest length on one CPU thread"]
    if len(roles) < len(models(evaluated)):
        notes.append("the teacher is not a single model with weights, so it is not measured")
    return Block(
        "Latency and memory, one row at a time",
        ("measure", *roles),
        tuple(rows),
        tuple(notes),
        "efficiency",
    )


def shortened(block: Block) -> Block:
    """Of many classes or domains those with the lowest last figure of the student."""
    if block.slug not in ("classes", "domains") or len(block.rows) <= MOST:
        return block
    column = block.heads.index("F1" if block.slug == "classes" else "student") - 1
    order: Sequence[Row] = sorted(block.rows, key=lambda row: _number(row.cells[column]))
    note = f"the {MOST} lowest of {len(block.rows)}; all are in evaluation.html"
    return replace(block, rows=tuple(order[:MOST]), notes=(*block.notes, note))


def _number(text: str) -> float:
    return 0.0 if text == MISSING else float(text.split(" ")[0])


def notes_of(evaluated: Evaluated) -> Iterator[str]:
    """What was left out or counted."""
    yield from evaluated.assessment.notes
    if evaluated.task.kind is not None and not evaluated.request.settings.attack.methods:
        yield f"attacks: {NO_ATTACKS}"
