"""What a mixture-of-experts teacher's silent experts are worth: KD, GKD, ALL, KA and SAR, compared.

    distill train configs/arithmetic-teacher.yaml
    python benchmarks/moe_teachers.py arithmetic [--seeds 0 1 2] [--sweep-seeds 0 1 2]
    python -m distill.samples.smollm2 --out data/smollm2
    python -m distill.samples.docstrings --out data/docstrings
    distill train configs/docstrings-teacher.yaml
    python benchmarks/moe_teachers.py docstrings --dtype bfloat16 --steps 20 --sweep-seeds 0 1

These make the committed results.

A dense model, upcycled into a Mixtral of which a token asks 2 experts, is trained on until its
experts differ: of arithmetic the trained teacher into 8, of docstrings SmolLM2 as it is into 4.
Then, of each seed, one student that has seen the data's own text for --warm-steps, and from it one
for each way to use the teacher's experts, for --steps; λ and M are swept for some seeds. All but
KD train on their own text, by reverse KL, as in the paper (arXiv 2502.12947).
Writes benchmarks/results/moe_{arithmetic,docstrings}.{json,md}. Fits that are done are not run
again, so that seeds may run side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch
from lm_fits import computed_in, spread, student_job, teacher_setup, versions
from sampled_arithmetic import ARITHMETIC
from sampled_docstrings import DOCSTRINGS
from sources_of_text import NEW, Task, score, warm_start

from distill.config import load
from distill.driver.checks.check import check
from distill.models.language import load_language_model
from distill.models.load import load_tokenizer
from distill.samples.upcycle import upcycled
from distill.tasks.language_model.scores import score as score_text
from distill.training.fit import fit, fit_and_save, is_done, load_best
from distill.training.job import Job

ON_POLICY = ["sampling={type: on_policy}"]
GKD = "GKD (own routing)"


@dataclass(frozen=True)
class Setting:
    """A mixture and its students."""

    task: Task
    """Data, students and what they are scored by; its teacher is not used."""
    dense: Path
    num_experts: int
    teacher: tuple[str, ...]
    """The configuration by which the mixture is trained on, and overrides of it."""
    wire: str
    passes: tuple[int, ...]
    """M of the sweep, at the paper's λ."""
    lr: float
    steps: int
    warm_steps: int


def ka(explore: float, passes: int) -> str:
    return f"{{type: ka, passes: {passes}, explore: {explore}}}"


SETTINGS = {
    "arithmetic": Setting(
        ARITHMETIC,
        dense=ARITHMETIC.teacher,
        num_experts=8,
        teacher=("configs/arithmetic-teacher.yaml", "optimizer.lr=5.0e-4", "trainer.epochs=4"),
        wire="{type: dense, dtype: float32}",
        passes=(1, 8),
        lr=1e-3,
        steps=300,
        warm_steps=2000,
    ),
    "docstrings": Setting(
        DOCSTRINGS,
        dense=Path("data/smollm2/model"),
        num_experts=4,
        teacher=("configs/docstrings-teacher.yaml", "optimizer.lr=1.0e-4"),
        wire="{type: hidden}",
        passes=(1, 4),
        lr=5e-4,
        steps=40,
        warm_steps=600,
    ),
}
METHODS: dict[str, tuple[str, list[str]]] = {
    "KD (the data's text)": ("{type: own}", ["sampling={type: dataset}"]),
    GKD: ("{type: own}", ON_POLICY),
    "ALL": ("{type: all}", ON_POLICY),
    "KA, λ 0.05, M 2": (ka(0.05, 2), ON_POLICY),
    "SAR": ("{type: sar, lr: 1.0e-4}", ON_POLICY),
}


def swept(passes: Sequence[int]) -> dict[str, tuple[str, list[str]]]:
    pairs = [(explore, 2) for explore in (0, 0.2, 0.5)]
    pairs += [(0.05, m) for m in passes]
    return {f"KA, λ {explore}, M {m}": (ka(explore, m), ON_POLICY) for explore, m in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sweep-seeds", type=int, nargs="+", default=[0, 1, 2], help="of λ, M")
    parser.add_argument("--steps", type=int, help="of each way to ask; default: the setting's")
    parser.add_argument("--lr", type=float, help="of those steps")
    parser.add_argument("--warm-steps", type=int)
    parser.add_argument("--passes", type=int, nargs="+", help="M of the sweep")
    parser.add_argument("--folder", type=Path, help="default: runs/moe-SETTING")
    parser.add_argument("--results", type=Path, help="default: benchmarks/results/moe_SETTING")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    setting = SETTINGS[args.setting]
    for name in ("steps", "lr", "warm_steps", "passes"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(setting, name))
    args.folder = args.folder or Path(f"runs/moe-{args.setting}")
    args.results = args.results or Path(f"benchmarks/results/moe_{args.setting}")
    torch.set_num_threads(args.threads)
    teacher = tuned_teacher(setting, args.folder / "teacher", args.dtype)
    rows: dict[str, list[Scored]] = {"the teacher": [scored(setting, teacher)]}
    sweep = swept(args.passes)
    for methods, seeds in ((METHODS, args.seeds), (sweep, args.sweep_seeds)):
        for seed in seeds:
            folder = args.folder / f"seed-{seed}"
            warm = warm_start(setting.task, folder / "warm", seed, args)
            if methods is METHODS:
                rows.setdefault("start of all", []).append(scored(setting, warm))
            for name, (moe, overrides) in methods.items():
                asked = [f"teachers=[{served(setting, teacher, moe)}]", *overrides]
                job = job_of(setting, folder / name, seed, warm, asked, args)
                if not is_done(job):
                    print(f"seed {seed}: {name}", flush=True)
                    fit(job)
                rows.setdefault(name, []).append(scored(setting, job))
        write(setting, rows, args, {**METHODS, **sweep})


Scored = dict[str, float]
"""The task's score and the perplexity, on the test split."""


def write(
    setting: Setting,
    rows: dict[str, list[Scored]],
    args: argparse.Namespace,
    methods: dict[str, tuple[str, list[str]]],
) -> None:
    text = ("seeds", "sweep_seeds", "steps", "warm_steps", "lr", "dtype")
    record = {"date": date.today().isoformat()} | {name: getattr(args, name) for name in text}
    record |= {"objective": "reverse_kl", "asked": methods, "versions": versions(), "rows": rows}
    args.results.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    table = markdown(setting.task, rows, args, methods)
    args.results.with_suffix(".md").write_text(table)
    print(table, flush=True)


def served(setting: Setting, teacher: Job, moe: str) -> str:
    keys = {"path": teacher.model_folder, "num_cpus": 0, "moe": moe, "wire": setting.wire}
    keys["max_batch_tokens"] = 2048  # a small mixture's grouped products are slower in large parts
    text = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return f"{{name: mixture, {text}}}"


def tuned_teacher(setting: Setting, folder: Path, dtype: str) -> Job:
    """The dense model as a mixture, trained until its experts differ."""
    start = folder / "start"
    if not start.exists():
        dense = load_language_model(str(setting.dense))
        upcycled(dense, num_experts=setting.num_experts).save_pretrained(start)
        load_tokenizer(str(setting.dense)).save_pretrained(start)
    config, *overrides = setting.teacher
    given = [f"output={folder / NEW}", f"student={{path: {start}}}", f"trainer.dtype={dtype}"]
    experiment = load(config, [*given, *overrides])
    job = student_job(experiment, check(experiment), folder / "run", 0, None)
    fit_and_save(job)
    return job


def job_of(
    setting: Setting,
    folder: Path,
    seed: int,
    warm: Job,
    overrides: list[str],
    args: argparse.Namespace,
) -> Job:
    given = [f"output={folder / NEW}", f"student={{path: {warm.model_folder}}}"]
    given += ["aggregation={type: mean, mix: divergences}", "objective={type: reverse_kl}"]
    given += [*overrides, f"optimizer.lr={args.lr}", *computed_in(args.dtype)]
    if "on_policy" in str(overrides):
        given.append(f"sampling.max_new_tokens={setting.task.max_new_tokens}")
    experiment = load(setting.task.config, given)
    plan = check(experiment)
    named = {t.name: (t.path, t) for t in experiment.teachers}
    teachers = teacher_setup(experiment, plan, named, folder / "cache", args.threads)
    return replace(student_job(experiment, plan, folder, seed, teachers), num_steps=args.steps)


def scored(setting: Setting, job: Job) -> Scored:
    """Cached in the fit's folder."""
    task, kept = setting.task, Path(job.folder) / "scored.json"
    if not kept.exists():
        module = load_best(job)
        found = {task.score: score(task, module.student, job.data)}
        found["perplexity"] = score_text(module, job.data.open(), lambda: False).total.perplexity
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def markdown(
    task: Task,
    rows: dict[str, list[Scored]],
    args: argparse.Namespace,
    methods: dict[str, tuple[str, list[str]]],
) -> str:
    """Gains are each seed's own over the start of all, which differs far more between seeds."""
    swept = args.sweep_seeds
    lines = [
        f"On the test split after {args.steps} steps; mean ± sd over seeds {text(args.seeds)}, "
        f"those of the sweep of λ and M (at the end) over {text(swept)}.",
        "",
        f"| how the teacher's experts are used | {task.text} "
        "| gain over the start, points | perplexity | above GKD by seed, points |",
        "|---|---:|---:|---:|---:|",
    ]
    starts = dict(zip(args.seeds, rows["start of all"], strict=True))
    usual = dict(zip(args.seeds, rows[GKD], strict=True))
    for name, found in rows.items():
        gain, above, values = "", "", [one[task.score] for one in found]
        if name in methods:
            seeds = args.seeds if name in METHODS else swept
            pairs = list(zip(seeds, values, strict=True))
            gain = spread([one - starts[seed][task.score] for seed, one in pairs], 2, 100)
            if name != GKD:
                gaps = [100 * (one - usual[seed][task.score]) for seed, one in pairs]
                above = ", ".join(f"{gap:+.2f}" for gap in gaps)
        score, perplexity = spread(values, 1, 100, " %"), [one["perplexity"] for one in found]
        lines.append(f"| {name} | {score} | {gain} | {spread(perplexity, 3)} | {above} |")
    return "\n".join(lines) + "\n"


def text(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))


if __name__ == "__main__":
    main()
