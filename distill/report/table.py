"""The comparison: one row a model, for the terminal, Markdown, CSV and JSON.

Accuracies, F1 and retention are fractions in a :class:`Row` and percentages on paper.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

Role = Literal["expert", "mix", "baseline", "student"]
MISSING = "–"
COLUMNS = ("model", "params", "MB", "CPU ms", "accuracy", "F1", "home", "abroad", "retention")


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
    f1: float | None = None
    per_domain: dict[str, float] = field(default_factory=dict)
    """Accuracy in each domain."""
    home: float | None = None
    """Accuracy in the domain an expert was trained on."""
    abroad: float | None = None
    """Accuracy in all the others."""
    retention: float | None = None
    """Accuracy as a fraction of the teachers' mix."""
    compression: float | None = None
    """Parameters of the teachers over this model's."""
    note: str = ""
    perplexity: float | None = None
    agreement: float | None = None
    jsd: float | None = None
    exact_match: float | None = None
    rouge_l: float | None = None
    tokens_per_s: float | None = None
    peak_memory_mb: float | None = None

    def metrics(self) -> dict[str, float | None]:
        """Under the stable names, as MLflow has them."""
        metrics: dict[str, float | None] = {
            "student.params": self.params,
            "student.size_mb": self.size_mb,
            "student.latency_ms": self.latency_ms,
            "test.accuracy": self.accuracy,
            "test.f1": self.f1,
            "test.retention": self.retention,
            "compression": self.compression,
            "test.accuracy.home": self.home,
            "test.accuracy.abroad": self.abroad,
        }
        metrics |= {
            "test.perplexity": self.perplexity,
            "fidelity.token_agreement": self.agreement,
            "fidelity.jsd": self.jsd,
            "test.exact_match": self.exact_match,
            "test.rouge_l": self.rouge_l,
        }
        return metrics | {f"test.accuracy.{d}": value for d, value in self.per_domain.items()}


def percent(value: float | None) -> str:
    return MISSING if _is_missing(value) else f"{value * 100:.1f} %"  # type: ignore[operator]


def count(value: float | None) -> str:
    """22.7 M, 310 k, 96."""
    if value is None or _is_missing(value):
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def three_digits(value: float | None) -> str:
    """90.9, 1.25, 454: three significant digits, never an exponent."""
    if value is None or _is_missing(value):
        return MISSING
    rounded = float(f"{value:.3g}")  # first, so that 9.996 is 10.0 and not 10.00
    if abs(rounded) >= 100 or rounded == 0:
        return f"{value:.0f}"
    return f"{value:.{min(2 - math.floor(math.log10(abs(rounded))), 3)}f}"


def best_student(rows: Sequence[Row]) -> Row | None:
    """The most accurate student; the smaller of two equals."""
    students = [r for r in rows if r.role == "student" and not _is_missing(r.accuracy)]
    return max(students, key=lambda r: (r.accuracy or 0, -(r.params or 0)), default=None)


def cells(row: Row) -> tuple[str, ...]:
    """The row under :data:`COLUMNS`."""
    return (
        row.name,
        count(row.params),
        three_digits(row.size_mb),
        three_digits(row.latency_ms),
        *(percent(v) for v in (row.accuracy, row.f1, row.home, row.abroad, row.retention)),
    )


def render(rows: Sequence[Row], title: str) -> "Table":
    """A rich table, legible from 100 columns; a line between roles, the best student marked."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for column in COLUMNS:
        is_name = column == "model"
        table.add_column(
            column,
            justify="left" if is_name else "right",
            no_wrap=not is_name,
            overflow="fold",
        )
    best = best_student(rows)
    for index, row in enumerate(rows):
        name, *values = cells(row)
        is_last = index + 1 < len(rows) and rows[index + 1].role != row.role
        marked = f"★ {name}" if row is best else name  # not by colour alone
        table.add_row(
            Text(marked),
            *values,
            style="bold green" if row is best else None,
            end_section=is_last,
        )
    notes = [f"{row.name}: {row.note}" for row in rows if row.note]
    if notes:
        table.caption = Text("\n".join(notes))
    return table


def to_markdown(rows: Sequence[Row]) -> str:
    """A pipe table; the best student in bold, notes below."""
    best = best_student(rows)
    lines = [_pipes(COLUMNS), _pipes(["---"] + ["---:"] * (len(COLUMNS) - 1))]
    for row in rows:
        shown = [cell.replace("|", "\\|") for cell in cells(row)]
        lines.append(_pipes([f"**{c}**" for c in shown] if row is best else shown))
    notes = [f"- {row.name}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """Unrounded numbers, a column for each domain's accuracy; missing is empty."""
    plain = [_flat(row) for row in rows]
    names = list(dict.fromkeys(key for values in plain for key in values))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return file.getvalue()


def to_json(rows: Sequence[Row]) -> str:
    """Unrounded numbers; missing and NaN are null."""
    return json.dumps([_nulled(asdict(row)) for row in rows], indent=2, ensure_ascii=False)


def _flat(row: Row) -> dict[str, object]:
    values = _nulled(asdict(row))
    per_domain: dict[str, object] = values.pop("per_domain")  # type: ignore[assignment]
    return values | {f"accuracy.{name}": value for name, value in per_domain.items()}


def _nulled(values: dict[str, object]) -> dict[str, object]:
    return {
        k: _nulled(v) if isinstance(v, dict) else None if _is_missing(v) else v
        for k, v in values.items()
    }


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
