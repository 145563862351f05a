"""The three mutmut results as one table: ``python benchmarks/mutation.py`` writes mutation.md.

Each record ``results/mutation_{num,samp,eval}.json`` names its tests and every survivor.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
RECORDS = ("num", "samp", "eval")


def packages() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in RECORDS:
        record = json.loads((RESULTS / f"mutation_{name}.json").read_text("utf-8"))
        found |= record["packages"]
    return found


def kind_of(reason: str) -> str:
    """The group of a survivor's reason."""
    for kind in ("equivalent", "performance only", "another sample", "not killed"):
        if reason.startswith(kind):
            return kind
    return "words of a message"


def write(path: Path) -> None:
    rows, kinds = [], Counter[str]()
    total: Counter[str] = Counter()
    for name, package in sorted(packages().items()):
        mutants, killed = package["mutants"], package["killed"]
        total.update(mutants=mutants, killed=killed, excluded=package["excluded_message_strings"])
        rows.append((name, mutants, killed, package["excluded_message_strings"]))
        for reason, survivors in package["survivors"].items():
            kinds[kind_of(reason)] += len(survivors)
    rows.append(("all", total["mutants"], total["killed"], total["excluded"]))
    lines = [
        "# Mutants of method code",
        "",
        "mutmut 3.8.0. The records mutation_num.json, mutation_samp.json and mutation_eval.json",
        "name every survivor and its reason. Mutants of message strings are not counted. A mutant",
        "that was killed once was not run again when tests were added.",
        "",
        "| package | mutants | killed | % | message strings excluded |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [f"| {p} | {n:,} | {k:,} | {k / n:.1%} | {x} |" for p, n, k, x in rows]
    lines += ["", "| survivors | mutants |", "|---|---:|"]
    lines += [f"| {kind} | {num} |" for kind, num in kinds.most_common()]
    path.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    write(RESULTS / "mutation.md")
