"""An evaluation for people and machines: tables, one page, one JSON, plots, differing samples."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from distill.config.values import masked
from distill.errors import RunFolderError
from distill.evaluation.assess import ModelPredictions
from distill.evaluation.evaluated import Evaluated
from distill.report.evaluation_blocks import Block, blocks, notes_of, shortened
from distill.report.evaluation_page import page
from distill.report.evaluation_plots import accuracy_under_attack, reliability, violation_bars
from distill.report.terminal import grid, width

if TYPE_CHECKING:
    from rich.console import Group

SHOWN_CHARS = 400
"""Of a text in the list of differences."""
PLOTS = ("reliability.png", "violations.png", "attacks.png")


def render(evaluated: Evaluated, columns: int | None = None) -> Group:
    """The tables in ``columns``, by default the terminal's; notes and warnings below them."""
    from rich.console import Group
    from rich.text import Text

    limit = columns or width()
    parts: list[Group | Text] = [Text(_folded(title(evaluated), limit), style="bold")]
    for block in map(shortened, blocks(evaluated)):
        rows = [[row.name, *row.cells] for row in block.rows]
        notes = [_folded(note, limit) for note in block.notes]
        table = grid(block.heads, rows, block.title, notes=notes, columns=limit)
        parts += [Text(""), table]
    parts.append(Text(""))
    parts += [Text(_folded(f"· {note}", limit)) for note in notes_of(evaluated)]
    parts += [
        Text(_folded(f"warning: {text}", limit), style="bold yellow") for text in evaluated.warnings
    ]
    return Group(*parts)


def _folded(text: str, columns: int) -> str:
    return textwrap.fill(text, columns, subsequent_indent="  ", break_on_hyphens=False)


def title(evaluated: Evaluated) -> str:
    request = evaluated.request
    return masked(
        f"{request.student} on {request.source.path}: {len(evaluated.task.samples):,} rows"
    )


def to_markdown(evaluated: Evaluated) -> str:
    parts = [f"# {title(evaluated)}"]
    parts += [f"**Warning:** {text}" for text in evaluated.warnings]
    parts += map(_block, blocks(evaluated))
    parts += ["\n".join(f"- {note}" for note in notes_of(evaluated)), _differences(evaluated)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    has_glosses = any(row.gloss for row in block.rows)
    more = ["meaning"] if has_glosses else []
    lines = [
        f"## {block.title}\n",
        _pipes([*block.heads, *more]),
        _pipes(["---", *["---:"] * (len(block.heads) - 1), *["---"] * len(more)]),
    ]
    lines += [_pipes([row.name, *row.cells, *([row.gloss] * len(more))]) for row in block.rows]
    notes = [] if has_glosses else block.notes
    return "\n".join([*lines, *(["", *notes] if notes else [])])


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
    """evaluation.html, evaluation.json, evaluation.md and the plots; returns their paths, in this
    order."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PLOTS:  # of an earlier evaluation, which may have had a teacher
        (folder / name).unlink(missing_ok=True)
    plots = _plots(evaluated, folder)
    paths = [folder / f"evaluation.{ending}" for ending in ("html", "json", "md")]
    texts = (page(evaluated, title(evaluated), plots), to_json(evaluated), to_markdown(evaluated))
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths + plots


def to_json(evaluated: Evaluated) -> str:
    """Everything measured, under stable names."""
    request, found = evaluated.request, evaluated.assessment
    values = {
        "student": str(request.student),
        "teachers": [masked(path) for path in request.teachers],
        "teacher_labels": [dict(labels) for labels in request.teacher_labels],
        "data": masked(request.source.path),
        "columns": evaluated.data.columns.model_dump(mode="json", exclude_none=True),
        "settings": request.settings.model_dump(mode="json"),
        "metrics": evaluated.metrics,
        "majority": evaluated.majority._asdict(),
        "warnings": list(evaluated.warnings),
        "notes": found.notes,
        "gates": evaluated.failures,
        "differences": [asdict(one) for one in found.differences],
        "curves": {
            role: {m: [float(v) for v in curve] for m, curve in seen.attacks.curves.items()}
            for role, seen in _seen(evaluated).items()
            if seen.attacks is not None
        },
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _plots(evaluated: Evaluated, folder: Path) -> list[Path]:
    seen = _seen(evaluated)
    calibrations = {role: one.calibration for role, one in seen.items()}
    paths = [reliability(calibrations, folder / "reliability.png")]
    if evaluated.assessment.teacher is not None:
        paths.append(violation_bars(evaluated.metrics, folder / "violations.png"))
    curves = {role: one.attacks.curves for role, one in seen.items() if one.attacks is not None}
    if curves:
        paths.append(accuracy_under_attack(curves, folder / "attacks.png"))
    return paths


def _seen(evaluated: Evaluated) -> dict[str, ModelPredictions]:
    found = evaluated.assessment
    return {"student": found.student} | ({"teacher": found.teacher} if found.teacher else {})
