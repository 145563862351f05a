"""An evaluation for people and machines: one table, one JSON, plots, the samples that differ."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distill.errors import RunFolderError
from distill.evaluation.relations import RATES
from distill.evaluation.standalone import Evaluated
from distill.report.evaluation_plots import accuracy_under_attack, reliability, violation_bars
from distill.report.table import MISSING, count, percent, three_digits
from distill.tracking.values import masked

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_CHARS = 400
"""Of a text in the list of differences."""


class Line(NamedTuple):
    """One measure; ``teacher`` is empty where it is about both, or of the student alone."""

    section: str
    measure: str
    student: str
    teacher: str = ""


def lines(evaluated: Evaluated) -> list[Line]:
    """The table: quality, fidelity, robustness, efficiency."""
    return [
        *_quality(evaluated),
        *_fidelity(evaluated),
        *_robustness(evaluated),
        *_efficiency(evaluated),
    ]


def _both(evaluated: Evaluated, section: str, measure: str, name: str) -> Line:
    metrics = evaluated.metrics
    teacher = ""
    if f"teacher.{name}" in metrics:
        teacher = percent(metrics[f"teacher.{name}"])
    return Line(section, measure, percent(metrics.get(name)), teacher)


def _quality(evaluated: Evaluated) -> Iterator[Line]:
    metrics = evaluated.metrics
    rows = [("accuracy", "accuracy"), ("f1", "macro F1"), ("precision", "macro precision")]
    for name, told in [*rows, ("recall", "macro recall"), ("ece", "ECE")]:
        line = _both(evaluated, "quality", told, f"test.{name}")
        spans = [
            _spanned(text, metrics, f"{prefix}interval.{name}")
            for prefix, text in (("", line.student), ("teacher.", line.teacher))
        ]
        yield Line("quality", told, *spans)
    for domain in evaluated.task.domain_names:
        if f"test.accuracy.{domain}" in metrics:
            yield _both(evaluated, "quality", f"accuracy in {domain}", f"test.accuracy.{domain}")
    for label in evaluated.task.label_names:
        if f"test.recall.{label}" in metrics:
            yield _both(evaluated, "quality", f"F1 of class {label}", f"test.f1.{label}")
    if "test.retention" in metrics:
        yield Line("quality", "retention", percent(metrics["test.retention"]))


def _spanned(text: str, metrics: Mapping[str, float | None], interval: str) -> str:
    """``81.2 % [79.0, 83.4]`` where the interval was measured."""
    low, high = metrics.get(f"{interval}.low"), metrics.get(f"{interval}.high")
    return text if low is None or high is None else f"{text} [{low * 100:.1f}, {high * 100:.1f}]"


def _fidelity(evaluated: Evaluated) -> Iterator[Line]:
    metrics = evaluated.metrics
    if "fidelity.any" not in metrics:
        return
    for name in RATES:
        text = percent(metrics[f"fidelity.{name}"])
        changed = metrics.get(f"fidelity.transformed.{name}")
        if changed is not None:
            text += f" → {percent(changed)} transformed"
        yield Line("fidelity", f"violates {name}", text)
    yield Line("fidelity", "ECE gap", percent(metrics["fidelity.ece_gap"]))
    if "fidelity.relative_drop" in metrics:
        drop = metrics["fidelity.relative_drop"]
        told = MISSING if drop is None else f"{drop * 100:+.0f} %"
        yield Line("fidelity", "relative drop", told)


def _robustness(evaluated: Evaluated) -> Iterator[Line]:
    metrics = evaluated.metrics
    for name, told in (
        ("transformed.accuracy", "accuracy, transformed"),
        ("transformed.drop", "accuracy lost, transformed"),
        ("transformed.flips", "predictions that change"),
        ("asr", "attack success (any attack)"),
        ("accuracy", "accuracy under attack"),
    ):
        if f"robustness.{name}" in metrics:
            yield _both(evaluated, "robustness", told, f"robustness.{name}")
    for method in evaluated.request.settings.attack.methods:
        if f"robustness.{method}.asr" in metrics:
            name = f"robustness.{method}.asr"
            yield _both(evaluated, "robustness", f"success of {method}", name)


def _efficiency(evaluated: Evaluated) -> Iterator[Line]:
    student = evaluated.costs["student"]
    teacher = evaluated.costs.get("teacher")
    for told, shown in (
        ("parameters", lambda cost: count(cost.params)),
        ("MB (float32)", lambda cost: three_digits(cost.size_mb)),
        ("GFLOPs", lambda cost: three_digits(cost.gflops)),
        ("ms on one CPU thread, p50", lambda cost: three_digits(cost.latency_ms)),
        ("ms on one CPU thread, p95", lambda cost: three_digits(cost.latency_p95_ms)),
        ("peak memory, MB", lambda cost: three_digits(cost.peak_memory_mb)),
    ):
        yield Line("efficiency", told, shown(student), shown(teacher) if teacher else "")
    on_gpu = evaluated.metrics.get("student.gpu_latency_ms")
    if on_gpu is not None:
        yield Line("efficiency", "ms on the GPU, p50", three_digits(on_gpu))


def render(evaluated: Evaluated) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    has_teacher = evaluated.assessment.teacher is not None
    title = Text(_title(evaluated))
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    heads = ["", "measure", "student", *(["teacher"] if has_teacher else [])]
    for head in heads:
        table.add_column(head, justify="right" if head in ("student", "teacher") else "left")
    for section, group in groupby(lines(evaluated), key=lambda line: line.section):
        for index, line in enumerate(group):
            cells = [section if index == 0 else "", line.measure, line.student]
            if has_teacher:
                cells.append(line.teacher)
            table.add_row(*map(Text, cells))  # a label may look like markup
        table.add_section()
    if evaluated.assessment.notes:
        table.caption = Text("\n".join(f"· {note}" for note in evaluated.assessment.notes))
    return table


def to_markdown(evaluated: Evaluated) -> str:
    has_teacher = evaluated.assessment.teacher is not None
    heads = ["", "measure", "student", *(["teacher"] if has_teacher else [])]
    rows = [_pipes(heads), _pipes(["---", "---", *["---:"] * (len(heads) - 2)])]
    for line in lines(evaluated):
        rows.append(_pipes(list(line) if has_teacher else list(line[:3])))
    notes = [f"- {note}" for note in evaluated.assessment.notes]
    parts = [f"# {_title(evaluated)}", "\n".join(rows), "\n".join(notes), _differences(evaluated)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(evaluated: Evaluated) -> str:
    request = evaluated.request
    return masked(f"{request.student} on {request.source.path}")


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _differences(evaluated: Evaluated) -> str:
    found = evaluated.assessment.differences
    if not found:
        return ""
    parts = ["## Where student and teacher differ most"]
    for one in found:
        parts.append(
            f"Row {one.row}{f', {one.domain}' if one.domain else ''}, {one.variant}: label "
            f"{one.label}, teacher {one.teacher} ({one.teacher_p:.2f}), student {one.student} "
            f"({one.student_p:.2f}), divergence {one.divergence:.3f}"
        )
        for text in (one.text, *([one.pair] if one.pair else [])):
            shown = text[:SHOWN_CHARS].replace("`", "'")
            parts.append(f"```\n{shown}\n```")
    return "\n\n".join(parts)


PLOTS = ("reliability.png", "violations.png", "attacks.png")


def default_folder(student: Path, data: str) -> Path:
    """``reports/evaluation-NAME-on-DATA``; a run's own student is called like its run."""
    path = student.absolute()
    name = path.parent.name if path.name == "student" else path.name
    stem = re.sub(r"[^\w.-]+", "-", Path(data).stem).strip("-") or "data"
    return Path("reports") / f"evaluation-{name}-on-{stem}"


def check_folder(folder: Path) -> None:
    """Raises RunFolderError where the report cannot be written."""
    existing = next(p for p in [folder, *folder.absolute().parents] if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunFolderError(f"--out {folder} cannot be written ({existing}): give another folder")


def write(evaluated: Evaluated, folder: Path) -> list[Path]:
    """evaluation.json, evaluation.md and the plots; returns their paths, the JSON first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PLOTS:  # of an earlier evaluation, which may have had a teacher
        (folder / name).unlink(missing_ok=True)
    found, settings = evaluated.assessment, evaluated.request.settings
    told = {
        "student": str(evaluated.request.student),
        "teachers": [masked(path) for path in evaluated.request.teachers],
        "teacher_labels": [dict(labels) for labels in evaluated.request.teacher_labels],
        "data": masked(evaluated.request.source.path),
        "settings": settings.model_dump(mode="json"),
        "metrics": evaluated.metrics,
        "notes": found.notes,
        "gates": evaluated.failures,
        "differences": [asdict(one) for one in found.differences],
        "curves": {
            role: {m: [float(v) for v in curve] for m, curve in seen.attacks.curves.items()}
            for role, seen in _seen(evaluated).items()
            if seen.attacks is not None
        },
    }
    paths = [folder / "evaluation.json", folder / "evaluation.md"]
    paths[0].write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    paths[1].write_text(to_markdown(evaluated), encoding="utf-8")
    seen = _seen(evaluated)
    calibrations = {role: one.calibration for role, one in seen.items()}
    paths.append(reliability(calibrations, folder / "reliability.png"))
    if found.teacher is not None:
        paths.append(violation_bars(evaluated.metrics, folder / "violations.png"))
    curves = {role: one.attacks.curves for role, one in seen.items() if one.attacks is not None}
    if curves:
        paths.append(accuracy_under_attack(curves, folder / "attacks.png"))
    return paths


def _seen(evaluated: Evaluated) -> dict:
    found = evaluated.assessment
    return {"student": found.student} | ({"teacher": found.teacher} if found.teacher else {})
