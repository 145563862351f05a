"""An evaluation as one HTML file: the look of a report, plots inside, every text escaped."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distill import __version__
from distill.config.values import flatten, masked
from distill.evaluation.assess import Difference
from distill.evaluation.evaluated import Evaluated
from distill.report import evaluation_blocks as rows
from distill.report.document import document
from distill.report.evaluation_blocks import Block
from distill.report.markup import Markup, join, tag
from distill.report.page_tables import Cell, page_table
from distill.wording import percent, three_digits

MOST_CHARS = 2000
"""Of a text among the differing samples."""
PACKAGES = ("torch", "transformers", "numpy", "scikit-learn")
CAPTIONS = {
    "reliability.png": "Accuracy against confidence: on the dashed line a model is as accurate as "
    "it is confident; below it, it is overconfident",
    "violations.png": "Share of rows on which student and teacher differ",
    "attacks.png": "Accuracy under attack against the number of queries a row",
}


def page(evaluated: Evaluated, title: str, plots: Sequence[Path]) -> str:
    """The whole file; ``plots`` are PNG files, which become a part of it."""
    images = {path.name: _image(path) for path in plots}
    parts = {
        "Quality": join([_table(rows.quality(evaluated)), images.get("reliability.png")]),
        "Domains": _maybe(rows.domains(evaluated)),
        "Classes": _table(rows.classes(evaluated)),
        "Fidelity": _maybe(rows.fidelity(evaluated), images.get("violations.png")),
        "Transformations": _maybe(rows.transformations(evaluated)),
        "Attacks": _attacks(evaluated, images.get("attacks.png")),
        "Latency and memory": _table(rows.efficiency(evaluated)),
        "Differing samples": _differences(evaluated),
        "Settings and environment": _settings(evaluated),
    }
    return document(f"{title}: distill evaluate", _head(evaluated, title), parts)


def _head(evaluated: Evaluated, title: str) -> Markup:
    label, share = evaluated.majority
    majority = f"largest class: {label}, {percent(share)} of the rows"
    notes = rows.notes_of(evaluated)
    return join(
        [
            tag("h1", title),
            tag("p", majority, class_="soft"),
            (tag("p", tag("strong", "Warning: "), w, class_="note") for w in evaluated.warnings),
            (tag("p", f"Gate failed: {f}", class_="note") for f in evaluated.failures),
            _facts(evaluated),
            tag("ul", (tag("li", note) for note in notes), class_="soft"),
        ]
    )


def _facts(evaluated: Evaluated) -> Markup:
    metrics, cost = evaluated.metrics, evaluated.costs["student"]
    note = evaluated.majority.note(metrics["test.accuracy"] or 0.0)
    facts = [
        ("Student's accuracy", percent(metrics["test.accuracy"]), _interval(evaluated, "", note))
    ]
    if evaluated.assessment.teacher is not None:
        accuracy = percent(metrics["teacher.test.accuracy"])
        facts.append(("Teacher's accuracy", accuracy, _interval(evaluated, "teacher.")))
        retention = percent(metrics["test.retention"])
        facts.append(("Retention", retention, "accuracy of the student / of the teacher"))
        same = percent(1 - (metrics["fidelity.agreement"] or 0.0))
        facts.append(("Agreement", same, "rows with the same prediction as the teacher"))
    size = three_digits(metrics["student.size_mb"])
    facts.append(("Student's size", f"{size} MB", "float32 weights"))
    latency = f"{three_digits(cost.latency_ms)} ms"
    facts.append(("Student's latency", latency, "median of one row on one CPU thread"))
    return tag(
        "dl",
        (
            tag("div", tag("dt", name), tag("dd", value, tag("small", more)))
            for name, value, more in facts
        ),
        class_="facts",
    )


def _interval(evaluated: Evaluated, prefix: str, note: str = "") -> str:
    metrics, level = evaluated.metrics, evaluated.request.settings.intervals.level
    low = metrics.get(f"{prefix}interval.accuracy.low")
    high = metrics.get(f"{prefix}interval.accuracy.high")
    span = ""
    if low is not None and high is not None:
        span = f"{level * 100:g} % interval {low * 100:.1f} to {high * 100:.1f} %"
    return "; ".join(filter(None, [span, note]))


def _maybe(block: Block | None, *more: Markup | None) -> Markup | None:
    return None if block is None else join([_table(block), *more])


def _table(block: Block) -> Markup:
    """With the gloss of each row as its last column."""
    has_glosses = any(row.gloss for row in block.rows)
    lines = []
    for row in block.rows:
        cells = [Cell(cell, _number(cell)) for cell in row.cells]
        if has_glosses:
            cells.append(Cell(row.gloss, is_text=True))
        lines.append((row.name, cells))
    heads = [*block.heads, *(["meaning"] if has_glosses else [])]
    notes = [note for note in block.notes if not _is_in_glosses(note, block)]
    return tag(
        "div",
        page_table(heads, lines, block.title, is_sortable=len(lines) > 1),
        (tag("p", note, class_="soft caption") for note in notes),
        class_="glossed" if has_glosses else None,
    )


def _is_in_glosses(note: str, block: Block) -> bool:
    """Notes of the terminal, which has no room for the glosses."""
    name, _, text = note.partition(": ")
    return any(row.gloss == text or (row.gloss and row.name == name) for row in block.rows)


def _number(text: str) -> float | None:
    """By which a column sorts: 22.7 M, 81.2 %, 1,204."""
    first, *rest = text.replace(",", "").split(" ") or [""]
    try:
        scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(rest[0] if rest else "", 1.0)
        return float(first) * scale
    except ValueError:
        return None


def _attacks(evaluated: Evaluated, plot: Markup | None) -> Markup:
    block = rows.attacks(evaluated)
    if block is not None:
        return join([_table(block), plot])
    if evaluated.task.kind is None:
        return tag("p", "Attacks need text, or code with --language.")
    return tag("p", f"{rows.NO_ATTACKS[0].upper()}{rows.NO_ATTACKS[1:]}.")


def _image(path: Path) -> Markup:
    data = base64.b64encode(path.read_bytes()).decode()
    caption = CAPTIONS[path.name]
    image = tag("img", src=f"data:image/png;base64,{data}", alt=caption, class_="figure")
    box = tag("div", image, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return tag("figure", box, tag("figcaption", caption, class_="soft caption"))


def _differences(evaluated: Evaluated) -> Markup | None:
    """The samples on which student and teacher differ most."""
    found = evaluated.assessment.differences
    if not found:
        return None
    hint = (
        "Rows with different predictions first, then by divergence of the probabilities. Row "
        "numbers start at 0."
    )
    return join([tag("p", hint, class_="soft"), (_difference(one) for one in found)])


def _difference(one: Difference) -> Markup:
    where = [f"row {one.row}", one.domain, "" if one.variant == "original" else one.variant]
    figures = {
        "label": one.label,
        "teacher": f"{one.teacher} ({one.teacher_p:.2f})",
        "student": f"{one.student} ({one.student_p:.2f})",
        "divergence": f"{one.divergence:.3f}",
    }
    texts = [text[:MOST_CHARS] for text in (one.text, one.pair) if text]
    return tag(
        "article",
        tag("h3", ", ".join(filter(None, where))),
        tag("p", ", ".join(f"{name} {value}" for name, value in figures.items()), class_="soft"),
        (tag("pre", text) for text in texts),
    )


def _settings(evaluated: Evaluated) -> Markup:
    """What was read and how: enough to repeat it."""
    request = evaluated.request
    read = {
        "student": str(request.student),
        "teachers": ", ".join(map(masked, request.teachers)) or _own_teachers(evaluated),
        "data": masked(request.source.path),
    }
    columns = evaluated.data.columns.model_dump(mode="json", exclude_none=True)
    read |= {f"column: {key}": _shown(value) for key, value in columns.items()}
    if evaluated.data.columns.split is not None:
        read["split"] = evaluated.data.splits.test
    read |= {name: str(value) for name, value in flatten(request.settings).items()}
    device = request.settings.on_device
    environment = {
        "distill": __version__,
        "Python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        **{name: found for name in PACKAGES if (found := _version(name))},
    }
    return join(
        [
            tag("h3", "Settings"),
            _pairs(read),
            tag("h3", "Environment"),
            _pairs(environment),
        ]
    )


def _own_teachers(evaluated: Evaluated) -> str:
    return "the run's own" if evaluated.assessment.teacher is not None else "none"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _pairs(values: Mapping[str, str]) -> Markup:
    return tag(
        "dl", ([tag("dt", key), tag("dd", value)] for key, value in values.items()), class_="pairs"
    )
