"""The comparison: one row a model, for the terminal, Markdown, CSV and JSON.

Accuracies, F1, retention, agreement, exact match and ROUGE-L are fractions in a :class:`Row` and
percentages on paper. A table of language models has columns of its own, those that some row fills.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

Role = Literal["expert", "mix", "baseline", "student"]
MISSING = "–"
CLASSIFIERS_ONLY = ("f1", "home", "abroad", "retention")
LANGUAGE_ONLY = (
    "perplexity",
    "agreement",
    "jsd",
    "exact_match",
    "rouge_l",
    "tokens_per_s",
    "peak_memory_mb",
)
"""Fields of a row that the files of the other kind of table leave out."""
MAX_DOMAIN_COLUMNS = 4
OWN_DOMAIN = ("home", "abroad")
"""What the metrics of an expert call its own domain, and all others."""
AS_DOMAIN = " (domain)"
"""Follows there the name of a domain that is called so too."""


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
    """Of language models: of the next token."""
    f1: float | None = None
    per_domain: dict[str, float] = field(default_factory=dict)
    """Accuracy in each domain; of language models perplexity."""
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
    """exp of the mean cross-entropy of a token, in nats. Language models alone have it, and the
    fields below."""
    agreement: float | None = None
    """Share of positions where the likeliest token is the teachers'."""
    jsd: float | None = None
    """Mean Jensen-Shannon divergence from the teachers, in nats."""
    exact_match: float | None = None
    rouge_l: float | None = None
    tokens_per_s: float | None = None
    """Written on one CPU thread, one text at a time."""
    peak_memory_mb: float | None = None
    """10⁶ bytes of weights and live tensors while it writes."""

    @property
    def is_language(self) -> bool:
        return self.perplexity is not None

    def metrics(self) -> dict[str, float | None]:
        """Under the stable names, as MLflow has them."""
        if self.is_language:
            return self._language_metrics()
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
        return metrics | self._in_domains("test.accuracy")

    def _in_domains(self, metric: str) -> dict[str, float]:
        taken = OWN_DOMAIN if self.role == "expert" else ()
        return {
            f"{metric}.{d}{AS_DOMAIN if d in taken else ''}": value
            for d, value in self.per_domain.items()
        }

    def _language_metrics(self) -> dict[str, float | None]:
        metrics: dict[str, float | None] = {
            "student.params": self.params,
            "student.size_mb": self.size_mb,
            "student.latency_ms": self.latency_ms,
            "student.tokens_per_s": self.tokens_per_s,
            "student.peak_memory_mb": self.peak_memory_mb,
            "test.perplexity": self.perplexity,
            "test.accuracy": self.accuracy,
            "test.exact_match": self.exact_match,
            "test.rouge_l": self.rouge_l,
            "fidelity.token_agreement": self.agreement,
            "fidelity.jsd": self.jsd,
            "compression": self.compression,
        }
        return metrics | self._in_domains("test.perplexity")


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
    if math.isinf(value):
        return "∞"
    rounded = float(f"{value:.3g}")  # first, so that 9.996 is 10.0 and not 10.00
    if abs(rounded) >= 100 or rounded == 0:
        return f"{value:.0f}"
    return f"{value:.{min(2 - math.floor(math.log10(abs(rounded))), 3)}f}"


def best_student(rows: Sequence[Row]) -> Row | None:
    """The most accurate student, of language models that of the lowest perplexity; the smaller of
    two equals."""
    students = [r for r in rows if r.role == "student" and not _is_missing(_quality(r))]
    return max(students, key=lambda r: (_quality(r) or 0, -(r.params or 0)), default=None)


def _quality(row: Row) -> float | None:
    """Larger is better."""
    return row.accuracy if row.perplexity is None else -row.perplexity


class Column(NamedTuple):
    head: str
    cell: Callable[[Row], str]


COLUMNS = (
    Column("model", lambda row: row.name),
    Column("params", lambda row: count(row.params)),
    Column("MB", lambda row: three_digits(row.size_mb)),
    Column("CPU ms", lambda row: three_digits(row.latency_ms)),
    Column("accuracy", lambda row: percent(row.accuracy)),
    Column("F1", lambda row: percent(row.f1)),
    Column("home", lambda row: percent(row.home)),
    Column("abroad", lambda row: percent(row.abroad)),
    Column("retention", lambda row: percent(row.retention)),
)


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Of classifiers COLUMNS; of language models those that some row fills, with the perplexity in
    each domain (PPL) unless there are more than MAX_DOMAIN_COLUMNS."""
    if not any(row.is_language for row in rows):
        return COLUMNS
    domains = list(dict.fromkeys(name for row in rows for name in row.per_domain))
    columns = (
        *COLUMNS[:3],
        Column("PPL", lambda row: three_digits(row.perplexity)),
        *(_domain_column(d) for d in domains if len(domains) <= MAX_DOMAIN_COLUMNS),
        Column("next token", lambda row: percent(row.accuracy)),
        Column("agree", lambda row: percent(row.agreement)),
        Column("JSD", lambda row: three_digits(row.jsd)),
        Column("exact match", lambda row: percent(row.exact_match)),
        Column("ROUGE-L", lambda row: percent(row.rouge_l)),
        Column("tok/s", lambda row: three_digits(row.tokens_per_s)),
        Column("MB peak", lambda row: three_digits(row.peak_memory_mb)),
    )
    return tuple(c for c in columns if any(c.cell(row) != MISSING for row in rows))


def _domain_column(domain: str) -> Column:
    return Column(f"PPL {domain}", lambda row: three_digits(row.per_domain.get(domain)))


def render(rows: Sequence[Row], title: str) -> "Table":
    """A rich table, legible from 100 columns; a line between roles, the best student marked."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    columns = columns_of(rows)
    is_narrow = columns is not COLUMNS  # there are more of them, under heads of two lines
    if is_narrow:
        table.padding, table.pad_edge = (0, 1, 0, 0), False
    for column in columns:
        is_name = column.head == "model"
        table.add_column(
            column.head.replace(" ", "\n") if is_narrow else column.head,
            justify="left" if is_name else "right",
            no_wrap=not is_name,
            overflow="fold",
        )
    best = best_student(rows)
    for index, row in enumerate(rows):
        name, *values = (column.cell(row) for column in columns)
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
    columns = columns_of(rows)
    heads = [column.head.replace("|", "\\|") for column in columns]
    lines = [_pipes(heads), _pipes(["---"] + ["---:"] * (len(columns) - 1))]
    for row in rows:
        shown = [column.cell(row).replace("|", "\\|") for column in columns]
        lines.append(_pipes([f"**{c}**" for c in shown] if row is best else shown))
    notes = [f"- {row.name}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """Unrounded numbers, a column for each domain's accuracy (perplexity); missing is empty."""
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
        k: _nulled(v) if isinstance(v, dict) else None if _is_no_number(v) else v
        for k, v in values.items()
    }


def _is_no_number(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.splitlines()) for cell in cells)} |"
