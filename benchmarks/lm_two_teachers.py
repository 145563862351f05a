"""Two tuned language models into one student, beside one teacher and none, over seeds.

    python benchmarks/lm_two_teachers.py [--seeds 0 1 2] [--folder runs/lm-two-teachers-bench]

Runs configs/lm-two-teachers.yaml (data and model of the samples it names must be there). The
experts are tuned once, by ``distill experts``, and teach in all; a seed decides the order of the
blocks. For each seed three students on the same text for as many steps: under the two experts (the
one of the block's domain), under SmolLM2 as it is, and without a teacher. Writes
benchmarks/results/lm_two_teachers.{json,md}: perplexity on the test split, mean ± sd.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

CONFIG = Path("configs/lm-two-teachers.yaml")
RESULTS = Path("benchmarks/results/lm_two_teachers")
COLUMNS = ("perplexity", "code", "prose", "accuracy", "agreement", "jsd")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/lm-two-teachers-bench"))
    args = parser.parse_args()
    base = yaml.safe_load(CONFIG.read_text())["experts"]["base"]
    rows: dict[str, list[dict[str, Any]]] = {}
    experts = args.folder / "tuned" / "experts"
    tuned = {name: str(experts / name / "model") for name in ("code", "prose")}
    if not all(Path(folder).is_dir() for folder in tuned.values()):
        distill("experts", f"output={args.folder / 'tuned'}", "tracking.system_metrics=false")
    for seed in args.seeds:
        two = train(args.folder, f"two-{seed}", seed, ["experts=null", _teachers(tuned)])
        alone = ["experts=null", _teachers({"smollm2": base}), "aggregation={type: mean}"]
        one = train(args.folder, f"one-{seed}", seed, [*alone, "baselines=[]"])
        named = {
            "SmolLM2 (the base)": one["smollm2"],
            "tuned to code": two["code"],
            "tuned to prose": two["prose"],
            "the tuned one of the domain": two["oracle mix"],
            "student, untrained": two["student, untrained"],
            "student, no teacher": two["no-teacher"],
            "student, one teacher (SmolLM2)": one["student"],
            "student, two tuned teachers": two["student"],
        }
        for name, row in named.items():
            rows.setdefault(name, []).append(figures(row))
    told = {"date": date.today().isoformat(), "seeds": args.seeds, "versions": versions()}
    told |= {"config": yaml.safe_load(CONFIG.read_text()), "rows": rows}
    RESULTS.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(markdown(rows, args.seeds))
    print(RESULTS.with_suffix(".md").read_text())


def _teachers(folders: dict[str, str]) -> str:
    entries = [
        f"{{name: {name}, path: {path}, num_cpus: 0, wire: {{type: hidden}}}}"
        for name, path in folders.items()
    ]
    return f"teachers=[{', '.join(entries)}]"


def train(folder: Path, name: str, seed: int, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Rows of a run's table by name; a run that is there already is only read."""
    output = folder / name
    table = output / "report" / "table.json"
    if not table.exists():
        # Teachers answer each block once for all seeds.
        shared = [f"output={output}", f"cache.path={folder / 'cache'}"]
        shared.append(f"tracking.uri=sqlite:///{folder.absolute()}/mlflow.db")
        folder.mkdir(parents=True, exist_ok=True)
        distill("train", f"seed={seed}", *shared, "tracking.log_model=false", *overrides)
    return {row["name"]: row for row in json.loads(table.read_text())}


def distill(command: str, *overrides: str) -> None:
    own = [sys.executable, "-m", "distill.cli", command, str(CONFIG)]
    subprocess.run([*own, *overrides], check=True)


def figures(row: dict[str, Any]) -> dict[str, float | None]:
    found = {name: row.get(name) for name in COLUMNS if name not in ("code", "prose")}
    return found | {domain: row["per_domain"].get(domain) for domain in ("code", "prose")}


def markdown(rows: dict[str, list[dict[str, Any]]], seeds: list[int]) -> str:
    told = ", ".join(map(str, seeds))
    heads = ("perplexity", "code", "prose", "next token", "agreement", "JSD, nats")
    lines = [
        f"Test perplexity, mean ± sd over seeds {told}; agreement and JSD are with the "
        "teachers of the same run (of the student without one: the two tuned).",
        "",
        f"| | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
    ]
    for name, found in rows.items():
        cells = [cell([row[column] for row in found], column) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(values: list[float | None], column: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    scale, unit = (100, " %") if column in ("accuracy", "agreement") else (1, "")
    places = 3 if column == "jsd" else 1
    spread = stdev(known) * scale if len(known) > 1 else 0.0
    shown = f"{mean(known) * scale:.{places}f}"
    return f"{shown}{unit}" if spread == 0 else f"{shown} ± {spread:.{places}f}{unit}"


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "deepspeed", "ray")}


if __name__ == "__main__":
    main()
