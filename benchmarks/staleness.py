"""On-policy distillation from text some updates old: what it gains in time, and its price.

    distill train configs/arithmetic-teacher.yaml
    python benchmarks/moe_teachers.py arithmetic       (its mixture is the teacher that is timed)
    python benchmarks/staleness.py --part time --timed-steps 16 --staleness 0 1 2
    python benchmarks/staleness.py --part price --staleness 0 8

These make the committed result.

Of each seed one student that has seen the data's own text, and from it one for each staleness, all
taught by the dense teacher of configs/arithmetic-skd.yaml: exact match after --steps. Time is that
of --timed-steps with teachers in a Ray actor of one core and a student of one core: the dense
one, far quicker than the student, and a mixture of experts asked in --passes passes (ka's cost), to
which the student has to wait. Each is timed --repetitions times, in turns; gains are ratios within
a turn. Writes benchmarks/results/staleness.{json,md}. Fits that are done are not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from lm_fits import spread, student_job, teacher_setup, versions
from sampled_arithmetic import ARITHMETIC
from sources_of_text import NEW, warm_start
from sources_of_text import text as told_of

from distill.cluster.connect import connect
from distill.config import Cluster, load
from distill.driver.checks.check import check
from distill.training.fit import fit, is_done
from distill.training.job import Job

FOLDER = Path("runs/staleness")
MIXTURE = Path("runs/moe-arithmetic/teacher/run/fit/model")
RESULTS = Path("benchmarks/results/staleness")
SKIPPED = 4
"""Steps at the start that are not timed: connections are made, and the text ahead is written."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 2, 8])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--warm-steps", type=int, default=ARITHMETIC.warm_steps)
    parser.add_argument("--timed-steps", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--part", choices=["time", "price"], nargs="+", default=["time", "price"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = RESULTS.with_suffix(".json")
    record = json.loads(kept.read_text()) if kept.exists() else {}
    for part, measured in (("price", price), ("time", timed)):
        if part in args.part:
            text = {name: getattr(args, name) for name in ("seeds", "steps", "timed_steps")}
            text |= {"date": date.today().isoformat(), "versions": versions(), "dtype": args.dtype}
            record[part] = text | measured(args)
            kept.write_text(json.dumps(record, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table := markdown(record))
    print(table)


def price(args: argparse.Namespace) -> dict:
    """Exact match on the test split, by staleness and seed."""
    found: dict[str, list[float]] = {}
    for seed in args.seeds:
        folder = args.folder / f"seed-{seed}"
        warm = warm_start(ARITHMETIC, folder / "warm", seed, args)
        found.setdefault("start", []).append(exact_match(warm))
        for staleness in args.staleness:
            job = job_of(folder / f"{staleness} updates old", seed, warm, staleness, [])
            job = replace(job, num_steps=args.steps)
            if not is_done(job):
                print(f"seed {seed}: staleness {staleness}", flush=True)
                fit(job)
            found.setdefault(str(staleness), []).append(exact_match(job))
    return {"exact_match": found}


def timed(args: argparse.Namespace) -> dict:
    """Seconds a step, by teacher, staleness and turn."""
    warm = warm_start(
        ARITHMETIC, args.folder / f"seed-{args.seeds[0]}" / "warm", args.seeds[0], args
    )
    mixture = f"{{name: mixture, path: {MIXTURE}, moe: {{type: ka, passes: "
    mixture += f"{args.passes}}}, wire: {{type: dense, dtype: float32}}}}"
    asked = [f"teachers=[{mixture}]", "aggregation={type: mean, mix: divergences}"]
    teachers = {"dense": [], f"mixture, {args.passes} passes": asked}
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with connect(Cluster(num_cpus=4)):
        for name, overrides in teachers.items():
            for turn in range(args.repetitions):
                for staleness in args.staleness:
                    folder = args.folder / "timed" / f"{name} {staleness} {turn}"
                    shutil.rmtree(folder, ignore_errors=True)
                    job = job_of(folder, args.seeds[0], warm, staleness, overrides)
                    one = served(replace(job, num_steps=args.timed_steps))
                    print(f"{name}, staleness {staleness}: {one}", flush=True)
                    found.setdefault(name, {}).setdefault(str(staleness), []).append(one)
    return {"runs": found}


def job_of(folder: Path, seed: int, warm: Job, staleness: int, overrides: list[str]) -> Job:
    given = [f"output={folder / NEW}", f"student={{path: {warm.model_folder}}}", "cache.type=none"]
    given.append(f"sampling={{type: on_policy, staleness: {staleness}}}")
    given += [f"sampling.max_new_tokens={ARITHMETIC.max_new_tokens}", "trainer.log_every=1"]
    experiment = load(ARITHMETIC.config, [*given, *overrides])
    plan = check(experiment)
    named = {t.name: (t.path, t) for t in experiment.teachers}
    return student_job(
        experiment, plan, folder, seed, teacher_setup(experiment, plan, named, folder, 1)
    )


def served(job: Job) -> dict[str, float]:
    """Fitted with its teacher in an actor."""
    from distill.teachers.replica_pool import RayTeacherPool

    assert job.teacher_setup is not None
    with RayTeacherPool(job.teacher_setup.teachers) as pool:
        client = pool.client(job.teacher_setup.stream)
        fit(replace(job, teacher_setup=replace(job.teacher_setup, client=client)))
    lines = (Path(job.folder) / "metrics.jsonl").read_text().splitlines()
    steps = [entry for entry in map(json.loads, lines) if "loss" in entry["metrics"]][SKIPPED:]
    text = {"seconds": (steps[-1]["time"] - steps[0]["time"]) / (len(steps) - 1)}
    for key in steps[-1]["metrics"]:
        if key.endswith((".idle_rate", ".generate_rate")):
            text[key] = statistics.mean(entry["metrics"][key] for entry in steps[1:])
    return text


def exact_match(job: Job) -> float:
    return told_of(ARITHMETIC, job)[ARITHMETIC.score]


def markdown(record: dict) -> str:
    lines = []
    if "time" in record:
        lines += [
            "Seconds a step, median of the turns; the gain is of each turn over staleness 0, "
            "median (least, most).",
            "",
            "| teacher | staleness | seconds a step | gain | teacher idle | writing |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, by_staleness in record["time"]["runs"].items():
            first = [run["seconds"] for run in by_staleness["0"]]
            for staleness, runs in by_staleness.items():
                seconds = [run["seconds"] for run in runs]
                gains = [a / b for a, b in zip(first, seconds, strict=True)]
                idle, writing = (
                    statistics.median(v for run in runs for k, v in run.items() if end in k)
                    for end in (".idle_rate", ".generate_rate")
                )
                gain = f"{statistics.median(gains):.2f} ({min(gains):.2f}, {max(gains):.2f})"
                # Known on arrival: a window may have a little of what the one before computed.
                rates = f"{max(0, idle):.0%} | {writing:.0%}"
                text = f"{statistics.median(seconds):.2f} | {gain} | {rates}"
                lines.append(f"| {name} | {staleness} | {text} |")
        lines.append("")
    if "price" in record:
        text = ", ".join(map(str, record["price"]["seeds"]))
        lines += [
            f"On the test split after {record['price']['steps']} steps under the dense teacher; "
            f"mean ± sd over seeds {text}.",
            "",
            "| text of the student as it was | exact match | gain over the start, points |",
            "|---|---:|---:|",
        ]
        start = record["price"]["exact_match"]["start"]
        for name, values in record["price"]["exact_match"].items():
            gains = [value - first for value, first in zip(values, start, strict=True)]
            gain = "" if name == "start" else spread(gains, 2, 100)
            called = "(start of all)" if name == "start" else f"{name} updates before"
            lines.append(f"| {called} | {spread(values, 1, 100, ' %')} | {gain} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
