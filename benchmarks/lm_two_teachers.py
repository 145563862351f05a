"""Two tuned language models into one student, against one teacher and none, over seeds.

    distill experts configs/lm-two-teachers.yaml output=runs/lm-two-teachers-bench/tuned
    python benchmarks/lm_two_teachers.py [--seeds 0 1 2] [--folder runs/lm-two-teachers-bench]

Takes data, student, objective and steps from configs/lm-two-teachers.yaml (its samples must be
there) and runs its fits one after another in this process, teachers included, without Ray
and DeepSpeed. The experts are tuned once and teach in all; a seed decides the order of the blocks.
For each seed three students on the same text for as many steps: under the two experts (the one of
the block's domain), under SmolLM2 as it is, and without a teacher. Each is then compared, on the
test split, with the tuned experts. Writes benchmarks/results/lm_two_teachers.{json,md}.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml
from lm_fits import spread, student_job, teacher_setup, versions

from distill.aggregation import UniformMean
from distill.config import Experiment, Serving, load
from distill.data.blocks import Blocks
from distill.driver.checks.check import check
from distill.tasks.language_model.scores import ExactTeachers, Scores, compare, score
from distill.tasks.plan import Plan
from distill.teachers.setup import TeacherSetup
from distill.training.fit import build_module, fit, is_done, load_best
from distill.training.job import Job
from distill.wires import HiddenWire

CONFIG = Path("configs/lm-two-teachers.yaml")
RESULTS = Path("benchmarks/results/lm_two_teachers")
COLUMNS = {
    "perplexity": "perplexity",
    "code": "code",
    "prose": "prose",
    "accuracy": "next token",
    "agreement": "agreement",
    "jsd": "JSD, nats",
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
    assert experiment.experts is not None
    two = asked(experiment, plan, tuned, args)
    base = {"smollm2": experiment.experts.base}
    one = asked(experiment, plan, base, args)
    one = replace(one, aggregation=UniformMean())
    rows: dict[str, list[dict[str, float | None]]] = {}
    for seed in args.seeds:
        for name, teachers in {"no teacher": None, "one teacher": one, "two teachers": two}.items():
            job = student_job(experiment, plan, args.folder / f"{name}-{seed}", seed, teachers)
            if not is_done(job):
                print(f"seed {seed}: {name}, {job.total_steps} steps", flush=True)
                fit(job)
            found = compared(load_best(job), job, plan, two)
            if seed == args.seeds[0] and teachers is None:
                rows |= {f"teacher tuned to {n}": [figures(s)] for n, s in found.teachers.items()}
                rows["the tuned teacher of the domain"] = [figures(found.aggregate)]
                rows["SmolLM2, the one teacher"] = [figures(alone(job, plan, base["smollm2"]))]
                start = compared(build_module(job).eval(), job, plan, two)
                rows["student, untrained"] = [figures(start.student)]
            rows.setdefault(f"student, {name}", []).append(figures(found.student))
            print(markdown(rows, args.seeds), flush=True)
    text = {"date": date.today().isoformat(), "seeds": args.seeds, "versions": versions()}
    text |= {"dtype": args.dtype}
    text |= {"config": yaml.safe_load(CONFIG.read_text()), "rows": rows}
    RESULTS.with_suffix(".json").write_text(json.dumps(text, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(markdown(rows, args.seeds))


def asked(
    experiment: Experiment, plan: Plan, folders: Mapping[str, str], args: argparse.Namespace
) -> TeacherSetup:
    """Teachers that send hidden states; answers are cached for all seeds."""
    serving = Serving(dtype=args.dtype, wire=HiddenWire(dtype=args.dtype))
    served = {name: (folder, serving) for name, folder in folders.items()}
    return teacher_setup(experiment, plan, served, args.folder / "cache", args.threads)


def compared(module: Any, job: Job, plan: Plan, two: TeacherSetup) -> Any:
    assert isinstance(plan.rows, Blocks)
    teachers = ExactTeachers.of(two)
    with teachers.open(job.data) as stream:
        budget = job.trainer.loss_chunk_mb
        return compare(module, plan.rows, teachers, stream, two.aggregation, lambda: False, budget)


def alone(job: Job, plan: Plan, folder: str) -> Scores:
    """A whole model on the test split."""
    assert isinstance(plan.rows, Blocks)
    whole = replace(
        job.model, student=job.model.student.model_copy(update=WHOLE | {"path": folder})
    )
    return score(build_module(replace(job, model=whole)).eval(), plan.rows, lambda: False)


WHOLE = {"init_from": None}


def figures(scores: Scores) -> dict[str, float | None]:
    total = scores.total
    own = {n: getattr(total, n) for n in ("perplexity", "accuracy", "agreement", "jsd")}
    return own | scores.perplexities(("code", "prose"))


def markdown(rows: Mapping[str, list[dict[str, float | None]]], seeds: list[int]) -> str:
    text = ", ".join(map(str, seeds))
    lines = [
        f"Perplexity on the test split; students: mean ± sd over seeds {text}. Agreement and JSD "
        "are with the tuned teacher of each block's domain.",
        "",
        f"| | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---:|' * len(COLUMNS)}",
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
    return spread(known, places, scale, unit)


if __name__ == "__main__":
    main()
