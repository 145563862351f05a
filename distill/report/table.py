"""The comparison: one row per model, for the terminal, Markdown, CSV and JSON.

Accuracies, F1, retention, agreement, exact match and ROUGE-L are fractions in a :class:`Row` and
percentages in a table. A table of language models has columns of its own, those that some row has
a value for.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.evaluation.rows import (
    CLASSIFIERS_ONLY,
    IN_DOMAIN,
    IN_DOMAIN_BEFORE,
    LANGUAGE_ONLY,
    Row,
)
from distill.wording import MISSING, is_missing, is_no_number, percent, three_digits

if TYPE_CHECKING:
    from rich.console import Group

MAX_DOMAIN_COLUMNS = 4


def count(value: float | None) -> str:
    """22.7 M, 310 k, 96."""
    if value is None or is_missing(value):
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def best_student(rows: Sequence[Row]) -> Row | None:
    """The most accurate student, of language models that of the lowest perplexity; the smaller of
    two equals."""
    students = [r for r in rows if r.role == "student" and not is_missing(_quality(r))]
    return max(students, key=lambda r: (_quality(r) or 0, -(r.params or 0)), default=None)


def _quality(row: Row) -> float | None:
    """Larger is better."""
    return row.accuracy if row.perplexity is None else -row.perplexity


class Column(NamedTuple):
    head: str
    cell: Callable[[Row], str]


COLUMNS = (
    Column("model", lambda row: row.name),
    Column("parameters", lambda row: count(row.params)),
    Column("size (MB)", lambda row: three_digits(row.size_mb)),
    Column("latency (ms)", lambda row: three_digits(row.latency_ms)),
    Column("accuracy", lambda row: percent(row.accuracy)),
    Column("F1", lambda row: percent(row.f1)),
    Column("in-domain", lambda row: percent(row.in_domain)),
    Column("out-of-domain", lambda row: percent(row.out_of_domain)),
    Column("retention", lambda row: percent(row.retention)),
)
"""The heads are those of the HTML report."""


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """COLUMNS for classifiers; for language models those that some row has a value for, with the
    perplexity in each domain unless there are more than MAX_DOMAIN_COLUMNS."""
    if not any(row.is_language for row in rows):
        return COLUMNS
    domains = list(dict.fromkeys(name for row in rows for name in row.per_domain))
    columns = (
        *COLUMNS[:3],
        Column("perplexity", lambda row: three_digits(row.perplexity)),
        *(_domain_column(d) for d in domains if len(domains) <= MAX_DOMAIN_COLUMNS),
        Column("next-token accuracy", lambda row: percent(row.accuracy)),
        Column("agreement", lambda row: percent(row.agreement)),
        Column("JSD", lambda row: three_digits(row.jsd)),
        Column("exact match", lambda row: percent(row.exact_match)),
        Column("ROUGE-L", lambda row: percent(row.rouge_l)),
        Column("tokens/s", lambda row: three_digits(row.tokens_per_s)),
        Column("peak memory (MB)", lambda row: three_digits(row.peak_memory_mb)),
    )
    return tuple(c for c in columns if any(c.cell(row) != MISSING for row in rows))


def _domain_column(domain: str) -> Column:
    return Column(f"perplexity {domain}", lambda row: three_digits(row.per_domain.get(domain)))


def render(rows: Sequence[Row], title: str, columns: int | None = None) -> "Group":
    """The table as the terminal shows it, within ``columns`` (by default the terminal's): a line
    between roles, the best student marked. Heads are broken over several lines."""
    from distill.report.terminal import grid

    shown = columns_of(rows)
    best = best_student(rows)
    return grid(
        [broken(column.head) for column in shown],
        [[column.cell(row) for column in shown] for row in rows],
        title,
        marked=None if best is None else next(i for i, row in enumerate(rows) if row is best),
        ends=[i for i, row in enumerate(rows[:-1]) if rows[i + 1].role != row.role],
        notes=[f"{row.name}: {row.note}" for row in rows if row.note],
        columns=columns,
    )


def fidelity_table(metrics: Mapping[str, float]) -> "Group":
    """``fidelity.*`` of a training: where the student does not behave like its teachers."""
    from distill.evaluation.relations import Relations, described
    from distill.report.terminal import grid

    rows = [
        [name, meaning, percent(metrics[f"fidelity.{name}"])]
        for name, meaning in described(Relations()).items()
    ]
    title = "fidelity: test rows where the student differs from the aggregated teachers"
    return grid(["relation", "violated if", "rows"], rows, title, left=(1,), wrap=(1,))


def broken(head: str) -> str:
    """A column's head with a line for each word, so that the column is as narrow as its cells."""
    parts = {" ": "\n", "-domain": "-\ndomain", "parameters": "para-\nmeters"}
    for part, lines in parts.items():
        head = head.replace(part, lines)
    return head


def to_markdown(rows: Sequence[Row]) -> str:
    """A pipe table; the best student in bold, notes below."""
    best = best_student(rows)
    columns = columns_of(rows)
    heads = [column.head.replace("|", "\\|") for column in columns]
    lines = [_pipes(heads), _pipes(["---"] + ["---:"] * (len(columns) - 1))]
    for row in rows:
        shown = [column.cell(row).replace("|", "\\|") for column in columns]
        lines.append(_pipes([f"**{c}**" for c in shown] if row is best else shown))
    notes = [f"- {row.name}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """Unrounded numbers, each domain's accuracy (perplexity) in a column; missing is empty."""
    plain = [_flat(row, values) for row, values in zip(rows, _values(rows), strict=True)]
    names = list(dict.fromkeys(key for values in plain for key in values))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return file.getvalue()


def to_json(rows: Sequence[Row]) -> str:
    """Unrounded numbers; missing, NaN and infinite are null."""
    return json.dumps(_values(rows), indent=2, ensure_ascii=False)


def from_json(text: str) -> list[Row]:
    """What :func:`to_json` wrote, also of versions that called the fields otherwise. A value that
    was NaN or infinite is missing."""
    names: dict[str, str] = dict(zip(IN_DOMAIN_BEFORE, IN_DOMAIN, strict=True))
    found: list[dict[str, Any]] = json.loads(text)
    return [Row(**{names.get(key, key): row[key] for key in row}) for row in found]


def _values(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Every field that this kind of table has."""
    is_language = any(row.is_language for row in rows)
    others = CLASSIFIERS_ONLY if is_language else LANGUAGE_ONLY
    values = [_nulled(asdict(row)) for row in rows]
    return [{k: v for k, v in of_row.items() if k not in others} for of_row in values]


def _flat(row: Row, values: dict[str, object]) -> dict[str, object]:
    name = "perplexity" if row.is_language else "accuracy"
    per_domain: dict[str, object] = values.pop("per_domain")  # type: ignore[assignment]
    return values | {f"{name}.{domain}": value for domain, value in per_domain.items()}


def _nulled(values: dict[str, object]) -> dict[str, object]:
    return {
        k: _nulled(v) if isinstance(v, dict) else None if is_no_number(v) else v
        for k, v in values.items()
    }


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.splitlines()) for cell in cells)} |"
