"""The table of `distill train` as mean ± sd over runs that differ in their seed.

    python benchmarks/table_over_seeds.py runs/juliet-0 runs/juliet-1 runs/juliet-2 --out FILE.md

Reads each run's report/table.json, and its configuration for the line above the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import date
from pathlib import Path

import torch
import yaml

from distill import __version__
from distill.wording import count, three_digits

SHARES = ("accuracy", "f1", "in_domain", "out_of_domain", "retention")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--title", default="Runs over seeds")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tables = [json.loads((run / "report/table.json").read_text()) for run in args.runs]
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in args.runs]
    seeds = [config["seed"] for config in configs]
    limit = {k: v for k, v in configs[0]["data"]["limit"].items() if v is not None}
    about = (
        f"Seeds {', '.join(map(str, seeds))}; rows a domain {limit}, max_length "
        f"{configs[0]['data']['max_length']}; {date.today()}, distill {__version__}, "
        f"torch {torch.__version__}; mean ± sd of the test split."
    )
    lines = [
        f"# {args.title}",
        "",
        about,
        "",
        "| model | params | MB | CPU ms | " + " | ".join(name.replace("_", "-") for name in SHARES),
    ]
    lines[-1] += " |"
    lines.append("|---|" + "---:|" * (3 + len(SHARES)))
    for rows in zip(*tables, strict=True):
        names = {row["name"] for row in rows}
        assert len(names) == 1, f"the runs have different rows: {names}"
        cells = [names.pop(), count(rows[0]["params"]), three_digits(rows[0]["size_mb"])]
        cells.append(three_digits(median_of([row["latency_ms"] for row in rows])))
        cells += [share([row[name] for row in rows]) for name in SHARES]
        lines.append(f"| {' | '.join(cells)} |")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n")
    args.out.with_suffix(".json").write_text(json.dumps(tables, indent=1) + "\n")
    print("\n".join(lines))


def median_of(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def share(values: list[float | None]) -> str:
    """Percent, mean ± sd."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    spread = statistics.stdev(known) if len(known) > 1 else float("nan")
    return f"{statistics.mean(known):.1f} ± {spread:.1f} %"


if __name__ == "__main__":
    main()
