"""A learned router of two tuned language models, a fixed ensemble and the oracle, over seeds.

    distill experts configs/lm-two-teachers.yaml output=runs/lm-two-teachers-bench/tuned
    python benchmarks/lm_router.py [--seeds 0 1 2] [--folder runs/lm-two-teachers-bench]

Experts, data, student and steps are those of benchmarks/lm_two_teachers.py, whose fits under the
oracle are taken over where they are done. For each seed a student under the uniform ensemble of
probabilities, under a learned router per sample and per token, and under the teacher of the block's
domain. Reported on the test split: the student's perplexity, that of what it was taught by, and how
often the router trusts the domain's own teacher. Writes benchmarks/results/lm_router.{json,md}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
import yaml
from lm_fits import spread, student_job, versions
from lm_two_teachers import CONFIG, asked, compared

from distill.aggregation import Aggregation, LearnedRouter, OracleDomain, UniformMean
from distill.config import load
from distill.driver.checks.check import check
from distill.training.fit import fit, is_done, load_best

RESULTS = Path("benchmarks/results/lm_router")
# By the name of its fits' folders, which lm_two_teachers.py shares.
MIXTURES: dict[str, Aggregation] = {
    "uniform ensemble": UniformMean(),
    "learned router per sample": LearnedRouter(per="sample"),
    "learned router per token": LearnedRouter(per="token"),
    "two teachers": OracleDomain(),
}
COLUMNS = {
    "perplexity": "student",
    "code": "on code",
    "prose": "on prose",
    "taught_by": "what taught it",
    "home": "trusts the domain's teacher",
    "confidence": "its weight",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/lm-two-teachers-bench"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    experiment = load(CONFIG, [f"output={args.folder / 'plan'}", f"trainer.dtype={args.dtype}"])
    plan = check(experiment, print)
    tuned = {n: str(args.folder / "tuned/experts" / n / "model") for n in ("code", "prose")}
    two = asked(experiment, plan, tuned, args)
    rows: dict[str, list[dict[str, float | None]]] = {}
    for number, seed in enumerate(args.seeds, 1):
        for name, mixture in MIXTURES.items():
            teacher_setup = replace(two, aggregation=mixture)
            job = student_job(experiment, plan, args.folder / f"{name}-{seed}", seed, teacher_setup)
            if not is_done(job):
                print(f"seed {seed}: {name}, {job.total_steps} steps", flush=True)
                fit(job)
            found = compared(load_best(job), job, plan, teacher_setup)
            text = {} if found.routing is None else found.routing.metrics()
            row = {"perplexity": found.student.total.perplexity}
            row |= found.student.perplexities(("code", "prose"))
            row |= {"taught_by": found.aggregate.total.perplexity, "routing": text}
            row |= {n: text.get(f"router.{m}") for n, m in ROUTING.items()}
            rows.setdefault(name, []).append(row)
        print(markdown(rows, args.seeds[:number]), flush=True)
    record = {"date": date.today().isoformat(), "seeds": args.seeds, "versions": versions()}
    record |= {"dtype": args.dtype, "config": yaml.safe_load(CONFIG.read_text()), "rows": rows}
    RESULTS.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(markdown(rows, args.seeds))


ROUTING = {"home": "accuracy", "confidence": "confidence"}


def markdown(rows: Mapping[str, list[dict]], seeds: list[int]) -> str:
    lines = [
        f"Perplexity on the test split, mean ± sd over seeds {', '.join(map(str, seeds))}; "
        '"two teachers" is the oracle: each block under the teacher of its domain.',
        "",
        f"| | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---:|' * len(COLUMNS)}",
    ]
    for name, found in rows.items():
        cells = [cell([row[column] for row in found], column in ROUTING) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(values: list[float | None], is_share: bool) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return spread(known, 1, 100, " %") if is_share else spread(known, 1)


if __name__ == "__main__":
    main()
