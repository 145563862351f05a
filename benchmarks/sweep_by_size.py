"""The trials of a sweep by size of the student: how many, and their validation accuracy.

    python benchmarks/sweep_by_size.py benchmarks/results/juliet_sweep

Reads ``frontier.csv`` in the folder of a finished sweep's report; writes ``by_size.md`` there. A
frontier has the best trial of each size, which is the better the more trials a size has; the means
do not have this bias.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import mean

from lm_fits import spread

SIZE, ACCURACY = "metrics.student.size_mb", "metrics.eval.accuracy"


def by_size(rows: list[dict[str, str]]) -> str:
    found: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if row["status"] == "finished":
            found[float(row[SIZE])].append(float(row[ACCURACY]))
    lines = ["| MB | trials | accuracy (validation), mean ± sd, % | lowest | highest |"]
    lines.append("|---:|---:|---:|---:|---:|")
    for size, values in sorted(found.items()):
        ends = f"{100 * min(values):.1f} | {100 * max(values):.1f}"
        lines.append(f"| {size:.3f} | {len(values)} | {spread(values, 1, 100)} | {ends} |")
    everything = [value for values in found.values() for value in values]
    lines.append(f"| all | {len(everything)} | {100 * mean(everything):.1f} | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with (folder / "frontier.csv").open(encoding="utf-8") as file:
        table = by_size(list(csv.DictReader(file)))
    title = "Finished trials by size; the other searched values differ from trial to trial.\n\n"
    (folder / "by_size.md").write_text(title + table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
