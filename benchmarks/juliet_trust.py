"""MoEKD and its baselines on vulnerability detection: accuracy, robustness, fidelity, size.

    python benchmarks/juliet_trust.py --data FILE [--seeds 0 1 2] [--settings full few away]

FILE: a Parquet file with code, label, domain and split (NIST SARD Juliet 1.3). Every setting and
seed is one cell; two run at once. What is finished is kept in the work folder and found again.
Writes benchmarks/results/juliet_trust.json and .md; --write only writes, from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from juliet_table import write
from juliet_task import (
    MAX_LENGTH,
    MIXTURES,
    POOLED,
    ROUTER,
    TEACHING,
    Cell,
    engines_of,
    guidance_of,
    make_corpus,
    make_teachers,
    make_tokenizer,
)

from distill.config import KD, Optimizer, Serving, Student, Trainer
from distill.data.corpus import Corpus
from distill.evaluation.assess import (
    EvaluationTask,
    ModelPredictions,
    compare,
    examine,
    variants_of,
)
from distill.evaluation.classifiers import (
    Classifier,
    ExpertEnsemble,
    ServedClassifier,
    TokenEncoder,
    encode_texts,
)
from distill.evaluation.efficiency import latency_ms, measure_on_cpu
from distill.evaluation.samples import read_samples
from distill.evaluation.settings import Evaluation
from distill.evaluation.variants import Variants
from distill.objectives import ForwardKL
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.backends import open_backends
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.training.fit import fit_and_save, load_best
from distill.training.job import Job

STUDENTS = {
    "3 MB": Student(layers=2, hidden=128, heads=4, ffn=512),
    "half": Student(layers=2, hidden=80, heads=4, ffn=320),
}
EPOCHS = 5
TEMPERATURE, ALPHA = 10.0, 0.9
"""Compressor's temperature; the labels keep a tenth."""
SETTINGS = Evaluation.model_validate(
    {
        "transform": {"num_samples": 150},
        "attack": {"methods": ("combined",), "num_samples": 100, "budget": 50},
        "intervals": {"num_draws": 0},
    }
)


@dataclass(frozen=True)
class Shown:
    """The test rows of a cell, as they are and transformed."""

    task: EvaluationTask
    variants: Variants


class Quiet:
    """Prints nothing."""

    def say(self, message: str) -> None: ...
    def update(self, label: str, done: float | None = None, total: float | None = None) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/juliet-trust"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/juliet_trust"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=["full", "few", "away"])
    parser.add_argument("--write", action="store_true", help="only write what is there")
    args = parser.parse_args()
    cells = [Cell(s, seed, args.work) for seed in args.seeds for s in args.settings]
    if not args.write:
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
            failures = list(pool.map(run_cell, cells, [args.data] * len(cells)))
        if any(failures):
            sys.exit("\n".join(filter(None, failures)))
    found = [
        json.loads(file.read_text()) for c in cells for file in sorted(c.folder.glob("*.json"))
    ]
    write(args.out, found, cells)


def run_cell(cell: Cell, data: str) -> str:
    """Every model of one cell; returns the traceback of a failure."""
    torch.set_num_threads(1)
    try:
        corpus = make_corpus(cell, data)
        paths = make_teachers(cell, corpus)
        tokenizer = make_tokenizer(corpus, cell.folder / "tokenizer")
        samples = read_samples(corpus, corpus.rows("test"))
        task = EvaluationTask(samples, corpus.label_names, corpus.domain_names, "cpp")
        shown = Shown(task, variants_of(task, SETTINGS))
        seen = look_at_teachers(cell, corpus, paths, shown)
        for size, student in STUDENTS.items():
            for name in TEACHING:
                look_at_student(cell, corpus, paths, tokenizer, shown, seen, name, size, student)
    except Exception:
        print(f"{cell.folder} failed:\n{traceback.format_exc()}", flush=True)
        return f"{cell.folder} failed"
    return ""


def look_at_teachers(
    cell: Cell, corpus: Corpus, paths: dict[str, Path], shown: Shown
) -> dict[str, ModelPredictions]:
    """Pooled, each expert, the ensembles: their outputs, cached for their students."""
    client = engines_of(cell, paths)

    def asked(name: str) -> ServedClassifier:
        labels = cell.domains if name == ROUTER else corpus.label_names
        return ServedClassifier(name, labels, client, encode_texts)

    experts = {name: asked(name) for name in cell.domains}
    models: dict[str, Classifier] = {POOLED: asked(POOLED)}
    models |= {f"expert {name}": expert for name, expert in experts.items()}
    for name, aggregation in MIXTURES.items():
        if name == "oracle domain" and cell.left_out is not None:
            continue  # nobody is at home there
        router = asked(ROUTER) if aggregation.needs_router() else None
        models[name] = ExpertEnsemble(name, experts, aggregation, router)
    seen = {}
    for name, model in models.items():
        seen[name] = answer(cell, name, model, shown)
        kept = cell.folder / f"{slug(name)}.json"
        if not kept.exists():
            found = compare(seen[name], None, shown.task, shown.variants, SETTINGS).metrics
            latency = latency_ms(lambda model=model: model.logits(shown.task.samples[:1]))
            text = {"student.latency_ms": latency}
            keep(kept, cell, name, "teacher", found | text)
    return seen


def look_at_student(
    cell: Cell,
    corpus: Corpus,
    paths: dict[str, Path],
    tokenizer: str,
    shown: Shown,
    teachers: dict[str, ModelPredictions],
    name: str,
    size: str,
    student: Student,
) -> None:
    """Train, export, attack, and compare with its own teacher (without one: with the pooled)."""
    full = f"{name}, {size}"
    kept = cell.folder / f"student-{slug(full)}.json"
    if kept.exists():
        return
    aggregation = TEACHING[name]
    rows = range(corpus.rows("train").start, corpus.rows("transfer").stop)
    trainer = Trainer(engine="torch", epochs=EPOCHS, batch_size=32)
    job = Job(
        name=slug(full),
        folder=str(cell.folder / "students" / slug(full)),
        seed=cell.seed,
        model=StudentSpec(student, tokenizer, corpus.label_names, MAX_LENGTH),
        data=DataSpec(str(corpus.folder), tokenizer, MAX_LENGTH),
        train_rows=rows,
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(lr=1e-3, decay="linear"),
        trainer=trainer,
    )
    if aggregation is None:  # as many steps on the labelled rows
        job = replace(job, train_rows=corpus.rows("train"), num_steps=job.total_steps)
    else:
        job = replace(
            job,
            objective=ForwardKL(),
            kd=KD(temperature=TEMPERATURE, alpha=ALPHA),
            teacher_setup=guidance_of(cell, corpus, paths, aggregation),
        )
    fit_and_save(job)
    served = ServedTeacher(full, str(job.model_folder), Serving(), 2)
    encode = TokenEncoder(str(job.model_folder), MAX_LENGTH)
    model = ServedClassifier(
        full, corpus.label_names, LocalTeachers(open_backends([served])), encode
    )
    seen = answer(cell, full, model, shown)
    beside = {"uniform multi-teacher KD": "uniform mean", "MoEKD": "MoEKD routed, k = 2"}
    teacher = teachers[beside.get(name, POOLED)]
    found = compare(seen, teacher, shown.task, shown.variants, SETTINGS).metrics
    cost = measure_on_cpu(load_best(job).student, MAX_LENGTH)
    text = {"student.size_mb": cost.size_mb, "student.latency_ms": cost.latency_ms}
    keep(kept, cell, full, "student", found | text)


def answer(cell: Cell, name: str, model: Classifier, shown: Shown) -> ModelPredictions:
    """A model's output, from the work folder if it was queried before."""
    kept = cell.folder / "seen" / f"{slug(name)}.pt"
    if not kept.exists():
        seen = examine(model, shown.task, shown.variants, SETTINGS, Quiet())
        kept.parent.mkdir(exist_ok=True)
        torch.save(seen, kept)
    return torch.load(kept, weights_only=False)  # written by this very script


def keep(path: Path, cell: Cell, name: str, role: str, metrics: dict[str, float | None]) -> None:
    text = {
        "setting": cell.setting,
        "seed": cell.seed,
        "left_out": cell.left_out,
        "model": name,
        "role": role,
        "metrics": metrics,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(text, indent=1))
    partial.rename(path)
    accuracy, asr = metrics["test.accuracy"], metrics["robustness.asr"]
    print(f"{cell.folder.name}: {name}: accuracy {accuracy:.3f}, ASR {asr:.3f}", flush=True)


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


if __name__ == "__main__":
    main()
