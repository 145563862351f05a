"""Sections of the page, one function each; None where an experiment has nothing to say."""

from __future__ import annotations

from collections.abc import Sequence

from distill.report.charts import bar, curve_style, curves_chart, key_line
from distill.report.heat import heat_grid
from distill.report.markup import Markup, join, tag
from distill.report.names import MEANINGS, label, shown
from distill.report.table import Row
from distill.report.tables import Cell, heat_table, metric_cell, table, value_cell
from distill.search.importance import HAS_NO_SKILL, importance
from distill.search.trials import Trial, frontier
from distill.tracking.read import Record, row_of

METRICS = (
    *("eval.perplexity", "eval.accuracy", "eval.f1", "eval.retention", "test.perplexity"),
    *("test.accuracy", "student.size_mb", "student.latency_ms", "student.tokens_per_s"),
    *("student.gflops", "student.params", "compression", "time.total_s"),
)
MAX_BARS = 5
"""Students of the frontier that the domains show."""


def trials(record: Record) -> Markup:
    """Every trial that has metrics; sorted by a click on a column's head."""
    members = {t.name for t in frontier(record.trials, record.goals)}
    some = [t for t in record.trials if t.status != "failed"]
    some.sort(key=lambda t: (t.name not in members, record.goals[0].cost(t.metrics)))
    known = {name for t in some for name in t.metrics}
    goals = [g.metric for g in record.goals if g.metric in known]
    rest = [m for m in METRICS if m in known and m not in goals]
    rows = []
    for trial in some:
        cells = [Cell(trial.status, is_text=True)]
        cells += [metric_cell(m, trial.metrics.get(m)) for m in goals]
        cells += [value_cell(trial.values.get(k)) for k in record.searched]
        cells += [metric_cell(m, trial.metrics.get(m)) for m in rest]
        rows.append((trial.name, cells))
    head = ["trial", "status", *map(label, goals), *record.searched, *map(label, rest)]
    names = [(t.name, t.name in members) for t in some]
    caption = "All trials; ★ on the frontier; a column's head sorts"
    return table(head, rows, caption, is_sortable=True, trials=names)


def comparison(record: Record) -> Markup | None:
    """Models on the test split."""
    rows = [*record.rows, *student_rows(record)]
    if not rows:
        return None
    if _are_language(rows):
        return _language_comparison(rows)
    has_domain = any(row.in_domain is not None for row in rows)
    lines = []
    for row in rows:
        cells = [
            Cell(row.role, is_text=True),
            metric_cell("accuracy", row.accuracy),
            metric_cell("f1", row.f1),
            metric_cell("retention", row.retention),
            metric_cell("student.params", row.params),
            metric_cell("student.size_mb", row.size_mb),
            metric_cell("student.latency_ms", row.latency_ms),
        ]
        if has_domain:
            cells += [metric_cell("accuracy", v) for v in (row.in_domain, row.out_of_domain)]
        lines.append((row.name, cells))
    head = [
        "model",
        "role",
        "accuracy",
        "F1",
        "retention",
        "parameters",
        "size (MB)",
        "latency (ms)",
    ]
    caption = "On the test split: experts, mixes, baselines, and the students of the frontier"
    return table(
        [*head, *(["in-domain", "out-of-domain"] if has_domain else [])],
        lines,
        caption,
        is_sortable=True,
    )


LANGUAGE_COLUMNS = {
    "perplexity": ("test.perplexity", "perplexity"),
    "next-token accuracy": ("test.accuracy", "accuracy"),
    "agreement": ("fidelity.token_agreement", "agreement"),
    "JSD": ("fidelity.jsd", "jsd"),
    "exact match": ("test.exact_match", "exact_match"),
    "ROUGE-L": ("test.rouge_l", "rouge_l"),
    "parameters": ("student.params", "params"),
    "size (MB)": ("student.size_mb", "size_mb"),
    "latency (ms)": ("student.latency_ms", "latency_ms"),
    "tokens/s": ("student.tokens_per_s", "tokens_per_s"),
}
"""Of language models: a metric, which says how to write it, and the field of a row."""


def _are_language(rows: Sequence[Row]) -> bool:
    return any(row.perplexity is not None for row in rows)


def _language_comparison(rows: Sequence[Row]) -> Markup:
    columns = {
        head: column
        for head, column in LANGUAGE_COLUMNS.items()
        if any(getattr(row, column[1]) is not None for row in rows)
    }
    lines = []
    for row in rows:
        cells = [metric_cell(metric, getattr(row, name)) for metric, name in columns.values()]
        lines.append((row.name, [Cell(row.role, is_text=True), *cells]))
    caption = "On the test split: teachers, mixes, baselines, and the students of the frontier"
    return table(["model", "role", *columns], lines, caption, is_sortable=True)


def student_rows(record: Record) -> list[Row]:
    """The frontier on the test split, cheapest first."""
    return [
        row_of(t.name, "student", t.metrics)
        for t in frontier(record.trials, record.goals)
        if "test.accuracy" in t.metrics
    ]


def heat_map(record: Record) -> Markup | None:
    grid = heat_grid(record.trials, record.goals[0].metric)
    if grid is None:
        return None
    hint = "n counts the trials in a cell: a mean of few says little. Darker is better."
    return join([heat_table(grid, record.goals[0]), tag("p", hint, class_="soft")])


def importances(record: Record) -> Markup | None:
    if not record.searched:
        return None
    metric = record.goals[0].metric
    found = importance(record.trials, record.searched, metric)
    if found.reason or found.r2 is None:
        return tag("p", f"Not measured: {found.reason}.")
    most = max(max(mean, 0.0) for mean, _ in found.keys.values()) or 1.0
    bars = (
        [
            tag("span", key),
            bar(mean / most),
            tag("span", f"{mean:.2f} ± {spread:.2f}"),
        ]
        for key, (mean, spread) in found.keys.items()
    )
    trust = (
        f"R² on trials that the model has not seen: {found.r2:.2f}, from {found.num_trials} trials."
    )
    if found.r2 < HAS_NO_SKILL:
        trust += " That is too low: take the bars for noise."
    what = (
        f"By how much R² for {label(metric)} falls when a key's values are shuffled among held-out "
        "trials (mean ± standard deviation over folds; permutation importance of extremely "
        "randomised trees). About 0: the key did not matter in the range that was searched."
    )
    return join([tag("div", bars, class_="bars"), tag("p", trust), tag("p", what, class_="soft")])


def curves(record: Record) -> Markup | None:
    """The quality and the loss over steps; the frontier in colours and dashes."""
    members = [t.name for t in frontier(record.trials, record.goals)]
    others = [t for t in record.trials if t.name not in members]
    by_name = {t.name: t for t in record.trials}
    ordered = others + [by_name[name] for name in members]
    charts, drawn = [], []
    for metric in dict.fromkeys([record.goals[0].metric, "loss"]):
        lines = [(t.name, t.name in members, _curve(t, metric)) for t in ordered]
        lines = [line for line in lines if len(line[2]) > 1]
        if lines:
            charts.append(tag("figure", curves_chart(lines, metric, "optimizer steps")))
            drawn = drawn or [name for name, is_member, _ in lines if is_member]
    if not charts:
        return None
    keys = (
        tag("li", key_line(*curve_style(index)), f" {name}") for index, name in enumerate(drawn)
    )
    rest = tag("li", key_line("curve other", ""), " the others")
    return join([tag("ul", keys, rest, class_="legend"), *charts])


def _curve(trial: Trial, metric: str) -> list[tuple[int, float]]:
    points = [
        (int(line["step"]), float(line["metrics"][metric]))
        for line in trial.history
        if metric in line["metrics"]
    ]
    return [point for point in points if point[1] == point[1] and abs(point[1]) != float("inf")]


def domains(record: Record) -> Markup | None:
    """Accuracy on test in each domain, a bar a model, from 0 to 100 %; of language models
    perplexity, from 0 to the largest."""
    students = [row for row in student_rows(record) if row.per_domain]
    rows = [row for row in record.rows if row.per_domain] + _spread(students)
    names = list(dict.fromkeys(name for row in rows for name in row.per_domain))
    if not names:
        return None
    is_language = _are_language(rows)
    most = max(v for row in rows for v in row.per_domain.values()) if is_language else 1.0
    groups = (
        tag("div", tag("h3", name), tag("div", _domain_bars(rows, name, most), class_="bars"))
        for name in names
    )
    what = "Perplexity (lower is better)" if is_language else "Accuracy"
    hint = f"{what} on the test split. Bars start at 0."
    if len(students) > MAX_BARS:
        hint += f" Of the frontier, {MAX_BARS} students from the smallest to the largest."
    return join([tag("p", hint, class_="soft"), tag("div", groups, class_="domains")])


def _domain_bars(rows: Sequence[Row], domain: str, most: float) -> list[Markup]:
    metric = "test.perplexity" if _are_language(rows) else "test.accuracy"
    return [
        part
        for row in rows
        if domain in row.per_domain
        for part in (
            tag("span", f"{row.name} ({row.role})" if row.role != "student" else f"★ {row.name}"),
            bar(row.per_domain[domain] / most, row.role),
            tag("span", shown(metric, row.per_domain[domain])),
        )
    ]


def _spread(students: Sequence[Row]) -> list[Row]:
    if len(students) <= MAX_BARS:
        return list(students)
    last = len(students) - 1
    return [students[round(i * last / (MAX_BARS - 1))] for i in range(MAX_BARS)]


def failures(record: Record) -> Markup | None:
    failed = [t for t in record.trials if t.status == "failed"]
    if not failed:
        return None
    rows = (
        tag(
            "tr",
            tag("th", trial.name, scope="row"),
            tag("td", trial.reason, class_="text long"),
            tag("td", ", ".join(f"{k}={v}" for k, v in trial.values.items()), class_="text long"),
        )
        for trial in failed
    )
    head = tag(
        "tr", (tag("th", n, scope="col", class_="text") for n in ("trial", "reason", "with"))
    )
    inner = tag("table", tag("thead", head), tag("tbody", rows))
    return tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label="Failures")


def environment(record: Record) -> Markup:
    """Where the figures come from: code, data, configuration, store."""
    pairs = {"MLflow": record.uri, "run": record.run_id, "started": record.started}
    pairs |= record.environment
    parts: list[Markup] = [_pairs(pairs)]
    if record.datasets:
        rows = [
            (
                d.context,
                [
                    Cell(d.name, is_text=True),
                    Cell(f"{d.num_rows:,}" if d.num_rows is not None else "–", d.num_rows),
                    Cell(d.digest, is_text=True),
                ],
            )
            for d in record.datasets
        ]
        head = ["split", "data set", "rows", "fingerprint"]
        parts.append(table(head, rows, "Data, by the fingerprint of its content"))
    if record.params:
        summary = f"Base configuration ({len(record.params)} keys)"
        inner = _pairs(dict(sorted(record.params.items())))
        parts.append(tag("details", tag("summary", summary), inner))
    return join(parts)


def _pairs(values: dict[str, str]) -> Markup:
    return tag(
        "dl", ([tag("dt", key), tag("dd", value)] for key, value in values.items()), class_="pairs"
    )


def meanings(record: Record) -> Markup:
    known = {name for t in record.trials for name in t.metrics} | record.totals.keys()
    pairs = {name: text for name, text in MEANINGS.items() if name in known}
    goals = ", then ".join(f"{g.metric} ({g.mode})" for g in record.goals)
    return join([tag("p", f"Goals of this experiment: {goals}."), _pairs(pairs)])
