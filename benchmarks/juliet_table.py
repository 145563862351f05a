"""The tables of juliet_trust.py, mean ± sd over seeds, and what MoEKD's claims come to."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import torch
from juliet_task import FEW, MAX_LENGTH, ROWS, TEACHING, Cell

from distill import __version__

TITLES = {
    "full": "All labels",
    "few": f"{FEW:.0%} of the labels, the rest as unlabelled transfer rows",
    "away": "One domain left out (input, integer, lifetime by seed): tested there alone",
}
COLUMNS = {
    "accuracy": "test.accuracy",
    "F1": "test.f1",
    "ASR": "robustness.asr",
    "accuracy under attack": "robustness.accuracy",
    "any violation": "fidelity.any",
    "… transformed": "fidelity.transformed.any",
    "MB": "student.size_mb",
    "ms": "student.latency_ms",
}
PLAIN = ("MB", "ms")
ORDER = (
    *("pooled", "expert input", "expert integer", "expert lifetime", "expert memory"),
    *("uniform mean", "MoEKD routed, k = 2", "oracle domain"),
    *(f"{name}, {size}" for size in ("3 MB", "half") for name in TEACHING),
)
CLAIMS = [
    ("MoEKD routed, k = 2", "pooled"),
    ("MoEKD, 3 MB", "single-teacher KD, 3 MB"),
    ("MoEKD, half", "single-teacher KD, half"),
    ("MoEKD, 3 MB", "no KD, 3 MB"),
    ("MoEKD, half", "single-teacher KD, 3 MB"),
]


def write(out: Path, found: list[dict], cells: list[Cell]) -> None:
    found = sorted(found, key=lambda one: (one["setting"], one["seed"]))
    about = (
        f"{date.today()}, distill {__version__}, torch {torch.__version__}, {os.cpu_count()} CPU "
        f"cores. Rows of each domain: {ROWS['train']} train, {ROWS['valid']} validation, "
        f"{ROWS['test']} test ({2 * ROWS['test']} of a domain left out); {MAX_LENGTH} tokens; "
        "templates never cross splits. All teachers are TF-IDF with logistic regression, `pooled` "
        "the one over all labels. ASR and accuracy under attack: combined attack, 50 queries, 100 "
        "rows. Any violation: of the four relations, with the student's own teacher (without KD: "
        "with the pooled one), on 1,000 rows, and on 150 rows under each of 8 transformations. "
        "Latency: one row, one CPU thread, while other work ran. Mean ± sd over seeds. *Better* "
        "and *worse*: beyond two standard errors of the paired differences, which over three "
        "seeds is a weak test."
    )
    parts = ["# MoEKD on vulnerability detection", about]
    for setting, title in TITLES.items():
        own = [one for one in found if one["setting"] == setting]
        if own:
            parts += [f"## {title}", table(own), claims(own)]
    out.with_suffix(".md").write_text("\n\n".join(parts) + "\n")
    brief = [one | {"metrics": rounded(one["metrics"])} for one in found]
    lines = ",\n".join(json.dumps(one) for one in brief)
    out.with_suffix(".json").write_text(f"[\n{lines}\n]\n")
    print("\n\n".join(parts))


def rounded(metrics: dict[str, float | None]) -> dict[str, float | None]:
    """Without the figures of each single transformation."""
    kept = {name: value for name, value in metrics.items() if name.count(".") < 3}
    return {name: None if value is None else round(value, 4) for name, value in kept.items()}


def table(found: list[dict]) -> str:
    names = list(dict.fromkeys(one["model"] for one in found))
    names.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    seeds = sorted({one["seed"] for one in found})
    head = ["model", *COLUMNS]
    rows = [head, ["---", *["---:"] * len(COLUMNS)]]
    for name in names:
        own = [one["metrics"] for one in found if one["model"] == name]
        cells = [shown((m.get(k) for m in own), c in PLAIN) for c, k in COLUMNS.items()]
        text = "TF-IDF + LR, pooled teacher" if name == "pooled" else name
        rows.append(
            [f"{text}{'' if len(own) == len(seeds) else f' ({len(own)} of {len(seeds)})'}", *cells]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shown(values: Iterable[float | None], is_plain: bool) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    scale, digits = (1, 2) if is_plain else (100, 1)
    mean = statistics.mean(known) * scale
    if len(known) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {statistics.stdev(known) * scale:.{digits}f}"


def claims(found: list[dict]) -> str:
    """MoEKD against its rivals, seed by seed."""
    lines = []
    for one, other in CLAIMS:
        for measure, key, sign in (
            ("accuracy", "test.accuracy", 1),
            ("accuracy under attack", "robustness.accuracy", 1),
            ("ASR", "robustness.asr", -1),
        ):
            gains = differences(found, one, other, key)
            if len(gains) < 2:
                continue
            mean, sd = statistics.mean(gains) * 100, statistics.stdev(gains) * 100
            each = ", ".join(f"{gain * 100:+.1f}" for gain in gains)
            text = verified(sign * mean, sd / len(gains) ** 0.5, len(gains))
            rival = "the pooled teacher" if other == "pooled" else other
            gain = f"{mean:+.1f} ± {sd:.1f} points ({each})"
            lines.append(f"- {one}, against {rival}: {measure} {gain}, {text}")
    return "\n".join(lines)


def verified(gain: float, error: float, num: int) -> str:
    """Two standard errors of the paired difference, over at least three seeds."""
    if num < 3 or abs(gain) <= 2 * error:
        return "no clear difference"
    return "better" if gain > 0 else "worse"


def differences(found: list[dict], one: str, other: str, key: str) -> list[float]:
    by_seed = {
        name: {f["seed"]: f["metrics"][key] for f in found if f["model"] == name}
        for name in (one, other)
    }
    common = sorted(by_seed[one].keys() & by_seed[other].keys())
    return [by_seed[one][seed] - by_seed[other][seed] for seed in common]
