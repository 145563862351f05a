"""Sections of the page, one function each; None where an experiment has no data for it."""

from __future__ import annotations

from collections.abc import Sequence

from distill.evaluation.rows import Row, row_of
from distill.metrics import IN_DOMAIN, LATENCY, METRICS, OUT_OF_DOMAIN, SIZE, measured_by
from distill.report.charts import bar, curve_style, curves_chart, key_line
from distill.report.heat import heat_grid
from distill.report.keys import common, differing
from distill.report.markup import Markup, join, tag
from distill.report.names import is_share, label, shown, shown_value
from distill.report.table import measures_of
from distill.report.tables import Cell, heat_table, metric_cell, scroll, table, value_cell
from distill.search.importance import HAS_NO_SKILL, importance
from distill.search.trials import Trial, frontier
from distill.tracking.read import Record

COSTS = (
    *(SIZE, LATENCY, "student.tokens_per_s", "student.gflops", "student.params"),
    *("compression", "time.total_s"),
)
"""In the table of trials, after the metrics of quality."""
COMPARED = (
    *("test.perplexity", "test.accuracy", "test.f1", "test.retention", IN_DOMAIN, OUT_OF_DOMAIN),
    *("fidelity.token_agreement", "fidelity.jsd", "test.exact_match", "test.rouge_l"),
    *("student.params", SIZE, LATENCY, "student.tokens_per_s"),
)
"""Columns of the comparison; before them those of the task that are not among them."""
HIDDEN = ("student.peak_memory_mb",)
"""Columns of other tables that the comparison leaves out."""
MAX_BARS = 5
"""Students that the section of domains shows."""


def trials(record: Record) -> Markup:
    """Every trial that has metrics; a click on a column's head sorts."""
    members = {t.name for t in frontier(record.trials, record.goals)}
    some = [t for t in record.trials if t.status != "failed"]
    some.sort(key=lambda t: (t.name not in members, record.goals[0].cost(t.metrics)))
    known = {name for t in some for name in t.metrics}
    goals = [g.metric for g in record.goals if g.metric in known]
    measures = measured_by(known)
    quality = [m for m in measures.summary if m.startswith(("eval.", "test."))]
    order = dict.fromkeys((*measures.validation, *quality, *COSTS))
    rest = [m for m in order if m in known and m not in goals]
    keys = differing(some, record.searched)
    rows = []
    for trial in some:
        cells = [Cell(trial.status, is_text=True)]
        cells += [metric_cell(m, trial.metrics.get(m)) for m in goals]
        cells += [value_cell(trial.values.get(k)) for k in keys]
        cells += [metric_cell(m, trial.metrics.get(m)) for m in rest]
        rows.append((trial.name, [*cells, Cell(record.below_majority(trial), is_text=True)]))
    head = ["trial", "status", *map(label, goals), *keys, *map(label, rest), "note"]
    names = [(t.name, t.name in members) for t in some]
    caption = "All trials; ★ on the frontier; click a column head to sort"
    whole = table(head, rows, caption, is_sortable=True, trials=names)
    same = [f"{key} {shown_value(v)}" for key, v in common(some, record.searched).items()]
    if not same or len(some) < 2:
        return whole
    return join([whole, tag("p", f"In all trials: {', '.join(same)}.", class_="soft")])


def comparison(record: Record) -> Markup | None:
    """Models on the test split: all that were tested, on the frontier or not."""
    students = tested(record)
    rows = [*record.rows, *(row_of(t.name, "student", t.metrics) for t in students)]
    if not rows:
        return None
    measures = measures_of(rows)
    own = [name for name in measures.columns if name not in (*COMPARED, *HIDDEN)]
    columns = [name for name in (*own, *COMPARED) if name in measures.test]
    members = {t.name for t in frontier(record.trials, record.goals)}
    notes = [row.note for row in record.rows] + [record.below_majority(t) for t in students]
    names = [("", False)] * len(record.rows) + [(t.name, t.name in members) for t in students]
    lines = []
    for row, note in zip(rows, notes, strict=True):
        cells = [metric_cell(name, row.value(name)) for name in columns]
        cells = [Cell(row.role, is_text=True), *cells, Cell(note, is_text=True)]
        lines.append((row.name, cells))
    caption = (
        "On the test split: teachers, ensembles (mix), baselines, links of a chain and students "
        "(★ on the frontier)"
    )
    head = ["model", "role", *map(measures.head, columns), "note"]
    return table(head, lines, caption, is_sortable=True, trials=names)


def tested(record: Record) -> list[Trial]:
    """Trials that were measured on the test split, cheapest first. A sweep tests its frontier."""
    some = [t for t in record.trials if t.status == "finished" and "test.accuracy" in t.metrics]
    return sorted(some, key=lambda t: [goal.cost(t.metrics) for goal in reversed(record.goals)])


def heat_map(record: Record) -> Markup | None:
    grid = heat_grid(record.trials, record.goals[0].metric)
    if grid is None:
        return None
    hint = "n: number of trials in a cell; a mean over few trials is uncertain. Darker is better."
    if any(" – " in text for text in (*grid.x_labels, *grid.y_labels)):
        hint += " Values are grouped into ranges; each cell is labelled with its limits."
    return join([heat_table(grid, record.goals[0]), tag("p", hint, class_="soft")])


def importances(record: Record) -> Markup | None:
    if not record.searched:
        return None
    metric = record.goals[0].metric
    finished = [t for t in record.trials if t.status == "finished"]
    found = importance(record.trials, differing(finished, record.searched), metric)
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
    trust = f"R² on held-out trials: {found.r2:.2f}, from {found.num_trials} trials."
    if found.r2 < HAS_NO_SKILL:
        trust += " That is too low: the bars are noise."
    what = (
        f"By how much R² for {label(metric)} falls when a key's values are shuffled among held-out "
        "trials (mean ± standard deviation over folds; permutation importance of extremely "
        "randomised trees). About 0: the key had no effect in the searched range."
    )
    return join([tag("div", bars, class_="bars"), tag("p", trust), tag("p", what, class_="soft")])


def curves(record: Record) -> Markup | None:
    """Quality and loss over steps; the trials on the frontier in colours and dashes."""
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
    some = tested(record)
    if record.is_sweep:
        members = frontier(record.trials, record.goals)
        some = [trial for trial in some if trial in members]
    students = [r for t in some if (r := row_of(t.name, "student", t.metrics)).per_domain]
    rows = [row for row in record.rows if row.per_domain] + _spread(students)
    names = list(dict.fromkeys(name for row in rows for name in row.per_domain))
    if not names:
        return None
    metric = METRICS[measures_of(rows).per_domain]
    most = 1.0
    if not is_share(metric.name):
        most = max(v for row in rows for v in row.per_domain.values())
    groups = (
        tag("div", tag("h3", name), tag("div", _domain_bars(rows, name, most), class_="bars"))
        for name in names
    )
    what = f"{metric.head.capitalize()}{' (lower is better)' if metric.mode == 'min' else ''}"
    hint = f"{what} on the test split. Bars start at 0."
    if len(students) > MAX_BARS:
        of = "students of the frontier" if record.is_sweep else "students"
        hint += f" {MAX_BARS} of {len(students)} {of}, from the smallest to the largest."
    return join([tag("p", hint, class_="soft"), tag("div", groups, class_="domains")])


def _domain_bars(rows: Sequence[Row], domain: str, most: float) -> list[Markup]:
    metric = measures_of(rows).per_domain
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
    return scroll(inner, "Failed trials, their reasons and values")


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
    pairs = {
        one.name: one.meaning.replace("`", "")
        for one in METRICS.values()
        if one.label and one.name in known
    }
    goals = ", then ".join(f"{g.metric} ({g.mode})" for g in record.goals)
    return join([tag("p", f"Goals of this experiment: {goals}."), _pairs(pairs)])
