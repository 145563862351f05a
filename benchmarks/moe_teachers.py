"""What a mixture-of-experts teacher's silent experts are worth: KD, GKD, ALL, KA and SAR, compared.

    python -m distill.samples.arithmetic --out data/arithmetic --domains addition subtraction
    python benchmarks/moe_teachers.py [--seeds 0 1 2] [--steps 100]

Trains a Mixtral of 8 experts from scratch on arithmetic (configs/arithmetic-teacher.yaml's data and
pace, --teacher-epochs of them), then of each seed one student that has seen the data's own text for
--warm-steps, and from it one for each way to ask the teacher, for --steps. All but KD learn from
what they write, by reverse KL, as in the paper (arXiv 2502.12947). Writes
benchmarks/results/moe_teachers.{json,md}. Fits that are done are not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from lm_fits import guidance, spread, student_job, versions
from sampled_arithmetic import ARITHMETIC
from sources_of_text import NEW, score
from transformers import MixtralConfig, MixtralForCausalLM

from distill.check import check
from distill.config import load
from distill.fit import Job, fit, fit_and_save, is_done, load_best
from distill.models.load import load_tokenizer, seeded

TEACHER = Path("configs/arithmetic-teacher.yaml")
STUDENT = Path("configs/arithmetic-skd.yaml")
RESULTS = Path("benchmarks/results/moe_teachers")
ON_POLICY = ["sampling={type: on_policy}"]
METHODS: dict[str, tuple[str, list[str]]] = {
    "KD (the data's text)": ("{type: own}", ["sampling={type: dataset}"]),
    "GKD (own routing)": ("{type: own}", ON_POLICY),
    "ALL": ("{type: all}", ON_POLICY),
    "KA, λ 0.05, M 2": ("{type: ka, passes: 2, explore: 0.05}", ON_POLICY),
    "KA, λ 0.2, M 2": ("{type: ka, passes: 2, explore: 0.2}", ON_POLICY),
    "KA, λ 0.05, M 8": ("{type: ka, passes: 8, explore: 0.05}", ON_POLICY),
    "SAR": ("{type: sar, lr: 1.0e-4}", ON_POLICY),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-steps", type=int, default=2000)
    parser.add_argument("--teacher-epochs", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path("runs/moe-teachers"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    teacher = tuned_teacher(args.folder / "teacher", args.teacher_epochs)
    rows: dict[str, list[float]] = {"the teacher": [scored(teacher)]}
    for seed in args.seeds:
        folder = args.folder / f"seed-{seed}"
        experiment = load(STUDENT, [f"output={folder / NEW}", *asked(teacher, "{type: own}")])
        experiment = experiment.model_copy(update={"sampling": no_sampling()})
        job = student_job(experiment, check(experiment), folder / "warm", seed, None)
        warm = replace(job, num_steps=args.warm_steps)
        fit_and_save(warm)
        rows.setdefault("start of all", []).append(scored(warm))
        for name, (moe, overrides) in METHODS.items():
            job = job_of(folder / name, seed, warm, asked(teacher, moe) + overrides, args)
            if not is_done(job):
                print(f"seed {seed}: {name}", flush=True)
                fit(job)
            rows.setdefault(name, []).append(scored(job))
        print(markdown(rows, args), flush=True)
    told = {"date": date.today().isoformat(), "seeds": args.seeds, "steps": args.steps}
    told |= {"warm_steps": args.warm_steps, "versions": versions(), "exact_match": rows}
    RESULTS.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(markdown(rows, args))


def no_sampling() -> Any:
    from distill.sampling import DatasetSampling

    return DatasetSampling()


def asked(teacher: Job, moe: str) -> list[str]:
    wire = "wire: {type: dense, dtype: float32}"
    served = f"{{name: mixture, path: {teacher.model_folder}, moe: {moe}, {wire}}}"
    mix = "aggregation={type: mean, mix: divergences}"
    return [f"teachers=[{served}]", mix, "objective={type: reverse_kl}"]


def tuned_teacher(folder: Path, epochs: int) -> Job:
    """A Mixtral of 8 experts, of which 2 are asked about a token, trained from scratch."""
    start = folder / "start"
    experiment = load(TEACHER)
    tokenizer = load_tokenizer(experiment.student.tokenizer or "")
    if not start.exists():
        config = MixtralConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
            num_local_experts=8,
            num_experts_per_tok=2,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with seeded(0):
            MixtralForCausalLM(config).save_pretrained(start)
        tokenizer.save_pretrained(start)
    given = [f"output={folder / NEW}", f"student={{path: {start}}}"]
    experiment = load(TEACHER, [*given, f"trainer.epochs={epochs}"])
    job = student_job(experiment, check(experiment), folder / "run", 0, None)
    fit_and_save(job)
    return job


def job_of(
    folder: Path, seed: int, warm: Job, overrides: list[str], args: argparse.Namespace
) -> Job:
    start = f"student={{path: {warm.model_folder}}}"
    experiment = load(STUDENT, [f"output={folder / NEW}", start, *overrides])
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
    seeds = ", ".join(map(str, args.seeds))
    lines = [
        f"Exact match on the test split after {args.steps} steps; mean ± sd over seeds {seeds}.",
        "",
        "| the teacher is asked as | exact match |",
        "|---|---:|",
    ]
    lines += [f"| {name} | {spread(found, 1, 100, ' %')} |" for name, found in rows.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
