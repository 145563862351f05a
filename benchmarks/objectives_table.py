"""Every objective on one classification task and one language-model task, over seeds.

    python benchmarks/objectives_table.py [--seeds 0 1 2] [--work runs/objectives-table]

All objectives have their defaults, and the same T, alpha, learning rate and steps: none is tuned.
Classification: scikit-learn's digits, a random forest teaches a small perceptron
(memory_tasks.py). Language model: the text of this repository's documents; a small Llama that was
trained on it teaches a smaller one. Both are compared with a student that is trained on labels
only, for as many steps. Everything runs through distill's own loop, in this process, with one
thread. Finished fits in --work are not run again. Writes
benchmarks/results/objectives_table.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
import torch
from lm_fits import student_job, teacher_setup, versions
from memory_tasks import Task, prepare
from pydantic import TypeAdapter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from distill import __version__
from distill.config import KD, Experiment, Optimizer, Serving, Trainer, parse
from distill.data.batches import Batches
from distill.data.blocks import Blocks
from distill.driver.checks.check import check
from distill.objectives import Objective
from distill.tasks.classification.predict import predict
from distill.tasks.language_model.scores import score
from distill.tasks.plan import Plan
from distill.teachers.cache import TeacherCache
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, load_best
from distill.training.job import Job
from distill.wires import HiddenWire

ROOT = Path(__file__).parents[1]
RESULTS = Path("benchmarks/results/objectives_table")
KINDS = (
    *("forward_kl", "reverse_kl", "jsd", "skewed_forward_kl", "skewed_reverse_kl", "adaptive_kl"),
    *("total_variation", "decoupled", "cosine", "dist", "cmkd", "r2kd", "comparative", "uld"),
)
OBJECTIVES: dict[str, Any] = {
    "labels only": None,
    **{kind: {"type": kind} for kind in KINDS},
    "forward_kl + 0.1 cosine": [{"type": "forward_kl"}, {"type": "cosine", "weight": 0.1}],
}
NOT_FOR = {"digits": {"uld"}, "documents": {"comparative"}}
"""By task: uld applies to language models, comparative to classifiers."""
SETTINGS = {"temperature": 2.0, "alpha": 0.7}
DIGITS = {"lr": 3e-3, "batch_size": 32}
LANGUAGE = {"lr": 2e-3, "batch_size": 8, "max_length": 64, "vocabulary": 1024}
TEACHER = {"layers": 3, "hidden": 128, "heads": 4, "ffn": 256}
STUDENT = {"layers": 1, "hidden": 48, "heads": 2, "ffn": 96}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=240, help="of a student, digits")
    parser.add_argument("--language-steps", type=int, default=250, help="of a student, documents")
    parser.add_argument("--teacher-steps", type=int, default=600, help="documents")
    parser.add_argument("--work", type=Path, default=Path("runs/objectives-table"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("distill").setLevel(logging.ERROR)
    ledger = Ledger(args.work / "fits.jsonl")
    documents = Documents(args.work / "documents", args.language_steps, args.teacher_steps)
    teachers = {"documents": [ledger.run("documents", 0, "teacher", documents.train_teacher)]}
    for seed in args.seeds:
        task = prepare("digits", seed, Path(), args.work / "tasks")
        teachers.setdefault("digits", []).append({"accuracy": teacher_accuracy(task)})
        for name in OBJECTIVES:
            if name not in NOT_FOR["digits"]:
                fits = digits_of(task, seed, name, args.steps, args.work / "trial")
                ledger.run("digits", seed, name, fits)
            if name not in NOT_FOR["documents"]:
                ledger.run("documents", seed, name, documents.of(seed, name))
        write(ledger, teachers, args)


class Ledger:
    """Finished fits, a line each, so that an interrupted benchmark goes on where it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.fits: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def run(self, task: str, seed: int, name: str, trained: Any) -> dict[str, float]:
        known = self.find(task, seed, name)
        if known is not None:
            return known
        cpu = time.process_time()
        figures = trained()
        figures |= {"cpu_seconds": round(time.process_time() - cpu, 2)}
        done = {"task": task, "seed": seed, "name": name, "figures": figures}
        self.fits.append(done)
        with self._path.open("a") as file:
            file.write(json.dumps(done) + "\n")
        print(json.dumps(done), flush=True)
        return figures

    def find(self, task: str, seed: int, name: str) -> dict[str, float] | None:
        wanted = (task, seed, name)
        found = [f["figures"] for f in self.fits if (f["task"], f["seed"], f["name"]) == wanted]
        return found[-1] if found else None


def objective_of(name: str) -> Objective | None:
    given = OBJECTIVES[name]
    return None if given is None else TypeAdapter(Objective).validate_python(given)


# ---- digits ----------------------------------------------------------------------------------


def teacher_accuracy(task: Task) -> float:
    """Of the forest, on the test split."""
    corpus, (spec,) = task.corpus, task.teacher_setup.teachers
    rows = np.asarray(corpus.rows("test"))
    cache = TeacherCache(task.teacher_setup.cache_folder, {spec.name: spec.key}, "benchmark")
    logits_RC = cache.get(spec.name, rows).payload_PX
    cache.close()
    return float((logits_RC.argmax(1) == corpus.labels_of(rows)).mean())


def digits_of(task: Task, seed: int, name: str, num_steps: int, folder: Path) -> Any:
    """One student; the same first weights for all objectives of a seed."""

    def trained() -> dict[str, float]:
        shutil.rmtree(folder, ignore_errors=True)
        corpus, objective = task.corpus, objective_of(name)
        train, transfer = corpus.rows("train"), corpus.rows("transfer")
        # The transfer rows have no labels: without teachers there is nothing to learn from them.
        rows = np.arange(train.start, train.stop if objective is None else transfer.stop)
        job = Job(
            name="student",
            folder=str(folder),
            seed=seed,
            model=task.model,
            data=task.data,
            train_rows=np.tile(rows, -(-num_steps * DIGITS["batch_size"] // len(rows))),
            validation_rows=corpus.rows("validation"),
            optimizer=Optimizer(lr=DIGITS["lr"]),
            trainer=Trainer(
                engine="torch",
                batch_size=DIGITS["batch_size"],
                eval_every=num_steps // 5,
                log_every=num_steps,
                checkpoint_every=num_steps,
            ),
            num_steps=num_steps,
        )
        if objective is not None:
            kd = KD(**SETTINGS)
            job = replace(job, objective=objective, kd=kd, teacher_setup=task.teacher_setup)
        fit(job)
        held_out = corpus.rows("test")
        batches = Batches(job.data.open(), held_out, 256, 0, shuffle=False)
        predicted = predict(load_best(job), batches)
        accuracy = (predicted.student_R == corpus.labels_of(held_out)).mean()
        return {"accuracy": float(accuracy)}

    return trained


# ---- documents -------------------------------------------------------------------------------


class Documents:
    """Paragraphs of this repository's documents, packed into blocks; a teacher trained on them."""

    def __init__(self, folder: Path, num_steps: int, teacher_steps: int) -> None:
        self._folder, self._num_steps, self._teacher_steps = folder, num_steps, teacher_steps
        folder.mkdir(parents=True, exist_ok=True)
        self._teacher = folder / "teacher"
        texts = paragraphs()
        write_tokenizer(texts, folder / "tokenizer", LANGUAGE["vocabulary"])
        order = np.random.default_rng(0).permutation(len(texts))
        shares = np.array([0.8, 0.1])
        edges = (shares.cumsum() * len(texts)).astype(int)
        parts = dict(zip(("train", "validation", "test"), np.split(order, edges), strict=True))
        rows = [{"text": texts[i], "split": name} for name, part in parts.items() for i in part]
        pq.write_table(pa.Table.from_pylist(rows), folder / "texts.parquet")

    def _experiment(self, student: dict[str, Any], num_steps: int) -> Experiment:
        return parse(
            {
                "task": "language_model",
                "data": {
                    "path": str(self._folder / "texts.parquet"),
                    "columns": {"split": "split"},
                    "max_length": LANGUAGE["max_length"],
                    "cache_dir": str(self._folder / "data"),
                },
                "output": str(self._folder / "run"),
                "student": student | {"tokenizer": str(self._folder / "tokenizer")},
                "optimizer": {"lr": LANGUAGE["lr"]},
                "kd": SETTINGS,
                "trainer": {
                    "engine": "torch",
                    "batch_size": LANGUAGE["batch_size"],
                    "eval_every": num_steps // 4,
                    "log_every": num_steps,
                    "checkpoint_every": num_steps,
                },
            }
        )

    def _fitted(self, job: Job, plan: Plan, num_steps: int) -> tuple[Any, dict[str, float]]:
        shutil.rmtree(job.folder, ignore_errors=True)
        fit(replace(job, num_steps=num_steps))
        module: Any = load_best(job)
        assert isinstance(plan.rows, Blocks)
        total = score(module, plan.rows, lambda: False).total
        return module, {"perplexity": total.perplexity, "accuracy": total.accuracy}

    def train_teacher(self) -> dict[str, float]:
        experiment = self._experiment(TEACHER, self._teacher_steps)
        plan = check(experiment)
        job = student_job(experiment, plan, self._folder / "teacher-run", 0, None)
        module, figures = self._fitted(job, plan, self._teacher_steps)
        module.student.save_pretrained(self._teacher)
        for file in (self._folder / "tokenizer").iterdir():
            shutil.copy(file, self._teacher / file.name)
        return figures

    def of(self, seed: int, name: str) -> Any:
        """One student; the same first weights and blocks for all objectives of a seed."""

        def trained() -> dict[str, float]:
            experiment = self._experiment(STUDENT, self._num_steps)
            plan = check(experiment)
            objective, teachers = objective_of(name), None
            if objective is not None:
                teachers = self._teacher_setup(experiment, plan)
            run = self._folder / "student-run"
            job = student_job(experiment, plan, run, seed, teachers)
            if objective is not None:
                job = replace(job, objective=objective)
            return self._fitted(job, plan, self._num_steps)[1]

        return trained

    def _teacher_setup(self, experiment: Experiment, plan: Plan) -> TeacherSetup:
        """The teacher's outputs are cached for all students."""
        serving = Serving(wire=HiddenWire(dtype="float32"))
        served = {"teacher": (str(self._teacher), serving)}
        return teacher_setup(experiment, plan, served, self._folder / "cache", 1)


def paragraphs() -> list[str]:
    """Of the documents written by hand: README.md, CONTRIBUTING.md, CHANGELOG.md and docs/."""
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for folder in ("guide", "methods", "results"):
        pages += sorted((ROOT / "docs" / folder).glob("*.md"))
    texts = [part.strip() for page in pages for part in page.read_text("utf-8").split("\n\n")]
    return list(dict.fromkeys(text for text in texts if len(text) > 40))


def write_tokenizer(texts: Sequence[str], folder: Path, vocabulary: int) -> None:
    """Byte-level BPE of the documents."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    fast.save_pretrained(folder)


# ---- tables ----------------------------------------------------------------------------------


def write(ledger: Ledger, teachers: dict[str, list[dict[str, float]]], args: Any) -> None:
    """After every seed: a JSON with every fit, and a Markdown table."""
    seeds = [s for s in args.seeds if ledger.find("documents", s, [*OBJECTIVES][-1])]
    cpu = sum(found["figures"]["cpu_seconds"] for found in ledger.fits) / 60
    about = {
        "date": date.today().isoformat(),
        "distill": __version__,
        "versions": versions() | {"scikit-learn": sklearn.__version__},
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "threads": 1,
        "seeds": seeds,
        "kd": SETTINGS,
        "digits": DIGITS | {"steps": args.steps},
        "documents": LANGUAGE
        | {"steps": args.language_steps, "teacher_steps": args.teacher_steps}
        | {"teacher": TEACHER, "student": STUDENT},
        "cpu_minutes": round(cpu, 1),
        "teachers": teachers,
    }
    shown = [f"   {json.dumps(found)}" for found in ledger.fits]
    head = json.dumps(about, indent=1).removesuffix("\n}")
    text = head + ',\n "fits": [\n' + ",\n".join(shown) + "\n ]\n}\n"
    RESULTS.with_suffix(".json").write_text(text)
    RESULTS.with_suffix(".md").write_text(markdown(ledger, teachers, seeds, args, cpu))


def markdown(
    ledger: Ledger,
    teachers: dict[str, list[dict[str, float]]],
    seeds: Sequence[int],
    args: Any,
    cpu: float,
) -> str:
    kd = f"T {SETTINGS['temperature']:g}, alpha {SETTINGS['alpha']:g}"
    lines = [
        f"# Objectives, {len(seeds)} seeds",
        "",
        f"{kd}; every objective with its defaults, nothing tuned for it. Test split, mean ± sd "
        f"over seeds {', '.join(map(str, seeds))}. Digits: {args.steps} steps of "
        f"{DIGITS['batch_size']} rows. Documents: {args.language_steps} steps of "
        f"{LANGUAGE['batch_size']} blocks of {LANGUAGE['max_length']} tokens. {cpu:.0f} CPU "
        "minutes. In parentheses: difference from labels only, mean ± sd over seeds of the "
        "difference in the same seed.",
        "",
        "| objective | digits: accuracy, % | documents: perplexity | documents: next token, % |",
        "|---|---:|---:|---:|",
    ]
    accuracy = [100 * found["accuracy"] for found in teachers["digits"]]
    (teacher,) = teachers["documents"]
    lines.append(
        f"| the teacher | {spread(accuracy, 1)} | {teacher['perplexity']:.1f} | "
        f"{100 * teacher['accuracy']:.1f} |"
    )
    columns = [("digits", "accuracy", 100, 1), ("documents", "perplexity", 1, 1)]
    columns.append(("documents", "accuracy", 100, 1))
    for name in OBJECTIVES:
        cells = [cell(ledger, seeds, name, *column) for column in columns]
        lines.append(f"| `{name}` | {' | '.join(cells)} |" if OBJECTIVES[name] else plain(cells))
    lines += ["", *sentences(ledger, seeds, columns[:2])]
    return "\n".join(lines) + "\n"


def plain(cells: Sequence[str]) -> str:
    return f"| labels only | {' | '.join(cells)} |"


def figures(
    ledger: Ledger, seeds: Sequence[int], name: str, task: str, metric: str, scale: float
) -> list[float]:
    found = [ledger.find(task, seed, name) for seed in seeds]
    return [scale * f[metric] for f in found if f is not None]


def cell(
    ledger: Ledger,
    seeds: Sequence[int],
    name: str,
    task: str,
    metric: str,
    scale: float,
    places: int,
) -> str:
    own = figures(ledger, seeds, name, task, metric, scale)
    if not own:
        return "–"
    if OBJECTIVES[name] is None:
        return spread(own, places)
    base = figures(ledger, seeds, "labels only", task, metric, scale)
    gains = [a - b for a, b in zip(own, base, strict=True)]
    sign = "+" if statistics.fmean(gains) > 0 else ""
    return f"{spread(own, places)} ({sign}{spread(gains, places)})"


def sentences(ledger: Ledger, seeds: Sequence[int], columns: Sequence[Any]) -> list[str]:
    """By task: the objectives that help in every seed, and those that do not."""
    found = []
    for task, metric, scale, _ in columns:
        sign = -1 if metric == "perplexity" else 1
        base = figures(ledger, seeds, "labels only", task, metric, scale)
        parts: dict[str, list[str]] = {"better": [], "not better": []}
        for name, given in OBJECTIVES.items():
            own = figures(ledger, seeds, name, task, metric, scale)
            if given is not None and own:
                helps = all(sign * (a - b) > 0 for a, b in zip(own, base, strict=True))
                parts["better" if helps else "not better"].append(f"`{name}`")
        parts_shown = [f"{what}: {', '.join(names) or 'none'}" for what, names in parts.items()]
        found += [
            f"{task.capitalize()}, {metric}, compared with labels only in every seed — "
            + "; ".join(parts_shown)
            + ".",
            "",
        ]
    return found[:-1]


def spread(values: Sequence[float], places: int) -> str:
    mean = f"{statistics.fmean(values):.{places}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{places}f}"


if __name__ == "__main__":
    main()
