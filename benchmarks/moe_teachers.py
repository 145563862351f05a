"""What a mixture-of-experts teacher's silent experts are worth: KD, GKD, ALL, KA and SAR, compared.

    distill train configs/arithmetic-teacher.yaml
    python benchmarks/moe_teachers.py [--seeds 0 1 2] [--steps 60] [--sweep-seeds 0]

The dense teacher of arithmetic, upcycled into a Mixtral of 8 experts of which a token asks 2, is
trained on (for --teacher-epochs) until its experts differ. Then, of each seed, one student that has
seen the data's own text for --warm-steps, and from it one for each way to ask the teacher, for
--steps; λ and M are swept for some seeds. All but KD learn from what they write, by reverse KL, as
in the paper (arXiv 2502.12947).
Writes benchmarks/results/moe_teachers.{json,md}. Fits that are done are not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from lm_fits import guidance, spread, student_job, versions
from sampled_arithmetic import ARITHMETIC
from sources_of_text import NEW, score

from distill.check import check
from distill.config import load
from distill.fit import Job, fit, fit_and_save, is_done, load_best
from distill.models.language import load_language_model
from distill.models.load import load_tokenizer
from distill.samples.upcycle import upcycled
from distill.sampling import DatasetSampling

TEACHER = Path("configs/arithmetic-teacher.yaml")
STUDENT = Path("configs/arithmetic-skd.yaml")
RESULTS = Path("benchmarks/results/moe_teachers")
ON_POLICY = ["sampling={type: on_policy}"]


def ka(explore: float, passes: int) -> str:
    return f"{{type: ka, passes: {passes}, explore: {explore}}}"


METHODS: dict[str, tuple[str, list[str]]] = {
    "KD (the data's text)": ("{type: own}", ["sampling={type: dataset}"]),
    "GKD (own routing)": ("{type: own}", ON_POLICY),
    "ALL": ("{type: all}", ON_POLICY),
    "KA, λ 0.05, M 2": (ka(0.05, 2), ON_POLICY),
    "SAR": ("{type: sar, lr: 1.0e-4}", ON_POLICY),
}
SWEPT: dict[str, tuple[str, list[str]]] = {
    "KA, λ 0, M 2": (ka(0, 2), ON_POLICY),
    "KA, λ 0.2, M 2": (ka(0.2, 2), ON_POLICY),
    "KA, λ 0.5, M 2": (ka(0.5, 2), ON_POLICY),
    "KA, λ 0.05, M 1": (ka(0.05, 1), ON_POLICY),
    "KA, λ 0.05, M 8": (ka(0.05, 8), ON_POLICY),
    "KA, λ 0.05, M 32": (ka(0.05, 32), ON_POLICY),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sweep-seeds", type=int, nargs="+", default=[0], help="of λ and M")
    parser.add_argument("--steps", type=int, default=60)
    # At the first students' own rate of 1e-3, 60 steps with a new optimizer cost them 12 points.
    parser.add_argument("--lr", type=float, default=2e-4, help="of those steps")
    parser.add_argument("--warm-steps", type=int, default=2000)
    parser.add_argument("--teacher-epochs", type=float, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/moe-teachers"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    teacher = tuned_teacher(args.folder / "teacher", args.teacher_epochs)
    rows: dict[str, list[float]] = {"the teacher": [scored(teacher)]}
    for methods, seeds in ((METHODS, args.seeds), (SWEPT, args.sweep_seeds)):
        for seed in seeds:
            folder = args.folder / f"seed-{seed}"
            warm = warm_start(folder, seed, teacher, args.warm_steps)
            if methods is METHODS:
                rows.setdefault("start of all", []).append(scored(warm))
            for name, (moe, overrides) in methods.items():
                job = job_of(folder / name, seed, warm, asked(teacher, moe) + overrides, args)
                if not is_done(job):
                    print(f"seed {seed}: {name}", flush=True)
                    fit(job)
                rows.setdefault(name, []).append(scored(job))
        write(rows, args)


def write(rows: dict[str, list[float]], args: argparse.Namespace) -> None:
    record = {
        "date": date.today().isoformat(),
        "seeds": args.seeds,
        "steps": args.steps,
        "lr": args.lr,
    }
    record |= {"sweep_seeds": args.sweep_seeds, "warm_steps": args.warm_steps}
    record |= {"versions": versions(), "exact_match": rows}
    RESULTS.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(markdown(rows, args))
    print(markdown(rows, args), flush=True)


def warm_start(folder: Path, seed: int, teacher: Job, num_steps: int) -> Job:
    experiment = load(STUDENT, [f"output={folder / NEW}", *asked(teacher, "{type: own}")])
    experiment = experiment.model_copy(update={"sampling": DatasetSampling()})
    job = student_job(experiment, check(experiment), folder / "warm", seed, None)
    warm = replace(job, num_steps=num_steps)
    fit_and_save(warm)
    return warm


def asked(teacher: Job, moe: str) -> list[str]:
    wire = "wire: {type: dense, dtype: float32}"
    served = f"{{name: mixture, path: {teacher.model_folder}, moe: {moe}, {wire}}}"
    mix = "aggregation={type: mean, mix: divergences}"
    return [f"teachers=[{served}]", mix, "objective={type: reverse_kl}"]


def tuned_teacher(folder: Path, epochs: float) -> Job:
    """The dense teacher as a mixture of 8 experts, 2 for a token, trained until they differ."""
    start = folder / "start"
    dense = ARITHMETIC.teacher
    if not start.exists():
        upcycled(load_language_model(str(dense)), num_experts=8).save_pretrained(start)
        load_tokenizer(str(dense)).save_pretrained(start)
    given = [f"output={folder / NEW}", f"student={{path: {start}}}", "optimizer.lr=5.0e-4"]
    experiment = load(TEACHER, [*given, f"trainer.epochs={epochs}"])
    job = student_job(experiment, check(experiment), folder / "run", 0, None)
    fit_and_save(job)
    return job


def job_of(
    folder: Path, seed: int, warm: Job, overrides: list[str], args: argparse.Namespace
) -> Job:
    start = f"student={{path: {warm.model_folder}}}"
    given = [f"output={folder / NEW}", start, f"optimizer.lr={args.lr}"]
    experiment = load(STUDENT, [*given, *overrides])
    plan = check(experiment)
    served = {t.name: (t.path, t) for t in experiment.teachers}
    teachers = guidance(experiment, plan, served, folder / "cache", args.threads)
    return replace(student_job(experiment, plan, folder, seed, teachers), num_steps=args.steps)


def scored(job: Job) -> float:
    """Exact match on the test split, kept beside the fit."""
    kept = Path(job.folder) / "exact-match.json"
    if not kept.exists():
        kept.write_text(json.dumps(score(ARITHMETIC, load_best(job).student, job.data)))
    return json.loads(kept.read_text())


def markdown(rows: dict[str, list[float]], args: argparse.Namespace) -> str:
    """Gains are each seed's own over the start of all, which differs far more between seeds."""
    swept = args.sweep_seeds
    lines = [
        f"Exact match on the test split after {args.steps} steps; mean ± sd over seeds "
        f"{told(args.seeds)}, those of the sweep of λ and M over {told(swept)}.",
        "",
        "| the teacher is asked as | exact match | gain over the start, points |",
        "|---|---:|---:|",
    ]
    starts = dict(zip(args.seeds, rows["start of all"], strict=True))
    for name, found in rows.items():
        gain = ""
        if name in METHODS or name in SWEPT:
            seeds = swept if name in SWEPT else args.seeds
            gains = [one - starts[seed] for seed, one in zip(seeds, found, strict=True)]
            gain = spread(gains, 2, 100)
        lines.append(f"| {name} | {spread(found, 1, 100, ' %')} | {gain} |")
    return "\n".join(lines) + "\n"


def told(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))


if __name__ == "__main__":
    main()
