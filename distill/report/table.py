"""The comparison: one row per model, for the terminal, Markdown, CSV and JSON.

Shares, such as accuracies, are fractions in a :class:`Row` and in files, and percentages in a
table. The columns are those of the task that measured the rows.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.evaluation.rows import Row, in_domains, measured
from distill.metrics import IN_DOMAIN, OUT_OF_DOMAIN, TaskMetrics, measured_by
from distill.report.names import shown
from distill.wording import MISSING, is_missing, is_no_number, percent

if TYPE_CHECKING:
    from rich.console import Group

MAX_DOMAIN_COLUMNS = 4
PER_DOMAIN, NOTE = "per_domain", "note"
FIELDS = {
    "params": "student.params",
    "size_mb": "student.size_mb",
    "latency_ms": "student.latency_ms",
    "accuracy": "test.accuracy",
    "f1": "test.f1",
    PER_DOMAIN: "",
    "in_domain": IN_DOMAIN,
    "out_of_domain": OUT_OF_DOMAIN,
    "retention": "test.retention",
    "compression": "compression",
    NOTE: "",
    "perplexity": "test.perplexity",
    "agreement": "fidelity.token_agreement",
    "jsd": "fidelity.jsd",
    "exact_match": "test.exact_match",
    "rouge_l": "test.rouge_l",
    "tokens_per_s": "student.tokens_per_s",
    "peak_memory_mb": "student.peak_memory_mb",
}
"""Keys of a row in the files, in their order, and the metrics that they are; a metric that is not
among them has its own name as key."""
FIELDS_BEFORE = {"home": "in_domain", "abroad": "out_of_domain"}
"""Keys as versions before 0.2 wrote them."""


def measures_of(rows: Sequence[Row]) -> TaskMetrics:
    """Of the task that measured the rows."""
    return measured_by(name for row in rows for name in row.metrics)


def best_student(rows: Sequence[Row]) -> Row | None:
    """The best student by the task's quality; the smaller of two equals."""
    quality = measures_of(rows).test_quality
    sign = -1 if quality.direction == "lower" else 1
    students = [r for r in rows if r.role == "student" and not is_missing(r.value(quality.name))]
    return max(
        students,
        key=lambda r: (sign * (r.value(quality.name) or 0), -(r.params or 0)),
        default=None,
    )


class Column(NamedTuple):
    head: str
    cell: Callable[[Row], str]


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The task's columns: of some tasks all, of others those that some row has a value for, with
    the quality in each domain unless there are more than MAX_DOMAIN_COLUMNS."""
    measures = measures_of(rows)
    columns = [Column("model", lambda row: row.name)]
    for name in measures.columns:
        columns.append(_column(measures.head(name), name))
        if name == measures.per_domain and not measures.has_all_columns:
            domains = list(dict.fromkeys(name for row in rows for name in row.per_domain))
            if len(domains) <= MAX_DOMAIN_COLUMNS:
                columns += [_domain_column(measures, domain) for domain in domains]
    if measures.has_all_columns:
        return tuple(columns)
    return tuple(c for c in columns if any(c.cell(row) != MISSING for row in rows))


def _column(head: str, metric: str) -> Column:
    return Column(head, lambda row: shown(metric, row.value(metric)))


def _domain_column(measures: TaskMetrics, domain: str) -> Column:
    metric = measures.per_domain
    head = f"{measures.head(metric)} {domain}"
    return Column(head, lambda row: shown(metric, row.per_domain.get(domain)))


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
    return grid(["relation", "violated if", "rows"], rows, title, wrap=(1,))


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
    quality = measures_of(rows).per_domain.rpartition(".")[2]
    plain = [_flat(values, quality) for values in _values(rows)]
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
    """What :func:`to_json` wrote, also of versions that called the keys otherwise. A value that
    was NaN or infinite is missing."""
    return [_row(values) for values in json.loads(text)]


def _row(values: Mapping[str, Any]) -> Row:
    metrics: dict[str, float | None] = {}
    for key, value in values.items():
        key = FIELDS_BEFORE.get(key, key)
        if key not in ("name", "role", PER_DOMAIN, NOTE):
            metrics[FIELDS.get(key, key)] = value
    name, role = values["name"], values["role"]
    measures = measured_by(measured(metrics))
    domains = in_domains(f"{measures.per_domain}.", role, measured(values.get(PER_DOMAIN, {})))
    return Row(name, role, measured(metrics) | domains, values.get(NOTE, ""))


def _values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every key that the files of this task have."""
    names = measures_of(rows).test
    keys = {key: metric for key, metric in FIELDS.items() if not metric or metric in names}
    keys |= {name: name for name in names if name not in keys.values()}
    return [
        {"name": row.name, "role": row.role}
        | {key: _nulled(_value(row, key, metric)) for key, metric in keys.items()}
        for row in rows
    ]


def _value(row: Row, key: str, metric: str) -> Any:
    if key == PER_DOMAIN:
        return row.per_domain
    return row.note if key == NOTE else row.value(metric)


def _flat(values: dict[str, Any], quality: str) -> dict[str, Any]:
    per_domain = values.pop(PER_DOMAIN)
    return values | {f"{quality}.{domain}": value for domain, value in per_domain.items()}


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulled(inner) for key, inner in value.items()}
    return None if is_no_number(value) else value


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.splitlines()) for cell in cells)} |"
