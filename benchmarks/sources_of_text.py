"""Sources of a student's text, compared over seeds: what the benchmarks of it share.

Of each seed, all students start from one that was trained on the data set's own text; then each is
trained on one source of text for as many steps, and, where that takes far less time than
speculative distillation, for as many as fit into the latter's time. Students sample their text and
their drafts at temperature 0.5 and top-p 0.5, or, in the rows named T 1, at 1 and 1: methods are
compared at equal decoding. Time is that of the CPU, of this process, teachers included. Finished
fits are not run again, so that seeds may run side by side.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
import torch
import yaml
from lm_fits import computed_in, spread, student_job, teacher_setup, versions

from distill.config import load
from distill.driver.checks.check import check
from distill.evaluation.generation import score_answers, write_answers
from distill.models.language import load_language_model
from distill.models.load import load_tokenizer
from distill.training.fit import fit, fit_and_save, is_done, load_best
from distill.training.job import Job


def sampled(kind: str, temperature: float, top_p: float) -> list[str]:
    """Overrides: text or drafts of the student, by these settings; other settings stay."""
    decoding = f"{{temperature: {temperature}, top_p: {top_p}}}"
    if kind == "skd":
        return [f"sampling.decoding={decoding}"]
    return [f"sampling={{type: {kind}, decoding: {decoding}}}"]


METHODS: dict[str, list[str]] = {
    "SKD": sampled("skd", 0.5, 0.5),
    "on-policy": sampled("on_policy", 0.5, 0.5),
    "mixed, λ 0.5": sampled("mixed", 0.5, 0.5),  # λ 0.5 is the default
    "SKD, T 1": sampled("skd", 1, 1),
    "on-policy, T 1": sampled("on_policy", 1, 1),
    "mixed, λ 0.5, T 1": sampled("mixed", 1, 1),
    "supervised KD": ["sampling={type: dataset}"],
    "SeqKD": ["sampling={type: teacher}", "kd.alpha=0"],
    "cross-entropy, no teacher": ["sampling={type: dataset}", "kd.alpha=0"],
}
"""The first is the one whose time the others may use."""
LED = "SKD"
START = "start of all"
NEW = "output"  # never made: what is checked need not know that fits of it are there


@dataclass(frozen=True)
class Task:
    """What differs from benchmark to benchmark."""

    config: Path
    results: Path
    steps: int
    warm_steps: int
    teacher: Path
    """Its folder."""
    teacher_config: Path
    """By which it is trained, here, where the folder is missing."""
    num_prompts: int
    """Of the test split, to be answered greedily."""
    max_new_tokens: int
    batch_size: int
    score: str
    """Of distill.evaluation.generation.GenerationScores."""
    text: str


def parsed(about: str, task: Task, folder: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=task.steps)
    parser.add_argument("--warm-steps", type=int, default=task.warm_steps)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--no-equal-time", action="store_true", help="none that is not there")
    parser.add_argument("--folder", type=Path, default=folder)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    return parser.parse_args()


def compare(task: Task, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    tuned_teacher(task, args.dtype)
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in args.seeds:
        folder = args.folder / f"seed-{seed}"
        budget_s = 0.0
        warm = warm_start(task, folder / "warm", seed, args)
        rows.setdefault(START, []).append(text(task, warm))
        for name in sorted(args.methods, key=list(METHODS).index):
            job = job_of(task, name, folder / name, seed, warm, args)
            found = run(task, job, args.steps)
            rows.setdefault(name, []).append(found)
            if name == LED:
                budget_s = found["seconds"]
                continue
            longer = folder / f"{name}, equal time"
            is_wanted = budget_s and (longer.exists() or not args.no_equal_time)
            if not is_wanted or found["seconds"] > 0.7 * budget_s:
                continue
            num_steps = round(args.steps * budget_s / found["seconds"])
            job = job_of(task, name, longer, seed, warm, args)
            rows.setdefault(f"{name}, equal time", []).append(run(task, job, num_steps))
        print(markdown(task, rows, args.seeds), flush=True)
    record = {"date": date.today().isoformat(), "seeds": args.seeds, "steps": args.steps}
    record |= {"command": " ".join(["python", *map(shlex.quote, sys.argv)])}
    record |= {"warm_steps": args.warm_steps, "dtype": args.dtype, "versions": versions()}
    teacher, student = (load_language_model(str(f)) for f in (task.teacher, warm.model_folder))
    record |= {
        "teacher": score(task, teacher, warm.data),
        "params": {"teacher": teacher.num_parameters(), "student": student.num_parameters()},
        "config": yaml.safe_load(task.config.read_text()),
    }
    task.results.with_suffix(".json").write_text(
        json.dumps(record | {"rows": rows}, indent=1) + "\n"
    )
    task.results.with_suffix(".md").write_text(
        f"The teacher: {task.text} {record['teacher']:.1%}.\n\n" + markdown(task, rows, args.seeds)
    )
    if LED in rows:
        draw_acceptance(rows[LED], task.results.with_suffix(".png"))


def tuned_teacher(task: Task, dtype: str) -> None:
    """Trained in this process, where its configuration has not been trained already."""
    if task.teacher.exists():
        return
    folder = task.teacher.parent
    experiment = load(task.teacher_config, [f"output={folder / NEW}", f"trainer.dtype={dtype}"])
    job = student_job(experiment, check(experiment), folder / "fit", 0, None)
    fit_and_save(job)
    task.teacher.symlink_to(Path(job.model_folder).resolve())


def warm_start(task: Task, folder: Path, seed: int, args: argparse.Namespace) -> Job:
    given = [f"output={folder / NEW}", "sampling={type: dataset}", *computed_in(args.dtype)]
    experiment = load(task.config, given)
    job = student_job(experiment, check(experiment), folder, seed, None)
    job = replace(job, num_steps=args.warm_steps)
    fit_and_save(job)
    return job


def job_of(
    task: Task, name: str, folder: Path, seed: int, warm: Job, args: argparse.Namespace
) -> Job:
    start = f"student={{path: {warm.model_folder}}}"
    given = [f"output={folder / NEW}", start, *METHODS[name], *computed_in(args.dtype)]
    experiment = load(task.config, given)
    plan = check(experiment)
    served = {t.name: (t.path, t) for t in experiment.teachers}
    # Without a cache: what equal time buys is not to depend on what ran before.
    experiment = experiment.model_copy(
        update={"cache": experiment.cache.model_copy(update={"type": "none"})}
    )
    teachers = teacher_setup(experiment, plan, served, folder / "cache", args.threads)
    is_plain = experiment.sampling.type == "dataset" and experiment.kd.alpha == 0
    return student_job(experiment, plan, folder, seed, None if is_plain else teachers)


def run(task: Task, job: Job, num_steps: int) -> dict[str, Any]:
    timed = Path(job.folder) / "seconds.json"
    job = replace(job, num_steps=num_steps)
    if not is_done(job) or not timed.exists():
        print(f"{job.folder}: {num_steps} steps", flush=True)
        began = time.process_time()
        fit(job)
        timed.write_text(json.dumps(time.process_time() - began))
    return text(task, job) | {"seconds": json.loads(timed.read_text()), "steps": num_steps}


def text(task: Task, job: Job) -> dict[str, Any]:
    """The test score, cached in the fit's folder, and the acceptance of drafts over training."""
    kept = Path(job.folder) / f"{task.score.replace('_', '-')}.json"
    if not kept.exists():
        kept.write_text(json.dumps(score(task, load_best(job).student, job.data)))
    lines = (Path(job.folder) / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    drafts = [
        (entry["step"], *(entry["metrics"][f"sampling.{n}"] for n in DRAFTS))
        for entry in entries
        if f"sampling.{DRAFTS[0]}" in entry["metrics"]
    ]
    tests = [e["metrics"][PERPLEXITY] for e in entries if PERPLEXITY in e["metrics"]]
    return {task.score: json.loads(kept.read_text()), "perplexity": tests[-1], "drafts": drafts}


PERPLEXITY = "eval.perplexity"
DRAFTS = ("acceptance_rate", "tokens_per_call")


def score(task: Task, model: Any, data: Any) -> float:
    blocks, tokenizer = data.open(), load_tokenizer(data.tokenizer)
    prompts = blocks.prompts_of("test", task.num_prompts)
    ids = [prompt.ids for prompt in prompts]
    answers = write_answers(model, tokenizer, ids, task.max_new_tokens, task.batch_size)
    return getattr(score_answers(answers, [p.reference for p in prompts]), task.score)


PAIRS = (("SKD", "on-policy"), ("SKD, T 1", "on-policy, T 1"))
"""Compared seed by seed: the starts differ more than the methods."""


def markdown(task: Task, rows: dict[str, list[dict[str, Any]]], seeds: list[int]) -> str:
    lines = [
        f"Mean ± sd over seeds {', '.join(map(str, seeds))}; {task.text} on the test split, gain "
        "over the start of the same seed, perplexity of the data's own text on the validation "
        "split. Students sample at temperature 0.5 and top-p 0.5, in the rows with T 1 at 1 and 1.",
        "",
        f"| text of | steps | CPU seconds | {task.text} | gain, points | perplexity |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in rows.items():
        steps = "" if "steps" not in found[0] else spread([r["steps"] for r in found], 0)
        seconds = "" if "steps" not in found[0] else spread([r["seconds"] for r in found], 0)
        gain = "" if "steps" not in found[0] else spread(above(task, found, rows[START]), 1)
        if len(found) < len(seeds):
            name += f" ({len(found)} seeds)"
        score = spread([r[task.score] for r in found], 1, 100, " %")
        perplexity = spread([r["perplexity"] for r in found], 2)
        lines.append(f"| {name} | {steps} | {seconds} | {score} | {gain} | {perplexity} |")
    for one, other in PAIRS:
        if one in rows and other in rows:
            gaps = above(task, rows[one], rows[other])
            by_seed = ", ".join(f"{gap:+.1f}" for gap in gaps)
            lines += ["", f"{one} above {other}, points: {spread(gaps, 1)} (by seed {by_seed})."]
    lines += [line for name, found in rows.items() for line in accepted(name, found)]
    return "\n".join(lines) + "\n"


def accepted(name: str, found: list[dict[str, Any]]) -> list[str]:
    """A line on the drafts, in which text of only the data set or one model has none."""
    if not all(row["drafts"] for row in found):
        return []
    first, last = ([row["drafts"][i] for row in found] for i in (0, -1))
    shares = [", ".join(f"{100 * draft[1]:.1f} %" for draft in drafts) for drafts in (first, last)]
    tokens = ", ".join(f"{draft[2]:.2f}" for draft in last)
    steps = f"at step {first[0][0]} {shares[0]}, at step {last[0][0]} {shares[1]}"
    return ["", f"{name}, drafts accepted by seed: {steps}; tokens per teacher forward {tokens}."]


def above(task: Task, ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[float]:
    """Percentage points of ``ones`` above ``others``, seed by seed."""
    pairs = zip(ones, others, strict=False)  # while seeds are missing
    return [100 * (one[task.score] - other[task.score]) for one, other in pairs]


def draw_acceptance(found: list[dict[str, Any]], path: Path) -> None:
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for row in found:
        steps, acceptance, tokens = zip(*row["drafts"], strict=True)
        left.plot(steps, [100 * share for share in acceptance], color="C0", alpha=0.7)
        right.plot(steps, tokens, color="C1", alpha=0.7)
    left.set(xlabel="step", ylabel="drafts that pass, %", ylim=(0, 101))
    right.set(xlabel="step", ylabel="tokens per teacher forward", ylim=(0, None))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
