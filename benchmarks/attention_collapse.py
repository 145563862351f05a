"""Whether attention over teachers collapses onto a poor one: before and after a change of its loss.

    git worktree add ../before bf63392
    PYTHONPATH=../before python benchmarks/attention_collapse.py measure --before
    python benchmarks/attention_collapse.py measure
    PYTHONPATH=../before python benchmarks/attention_collapse.py measure --before --teachers-alone
    python benchmarks/attention_collapse.py measure --teachers-alone
    python benchmarks/attention_collapse.py merge

scikit-learn's digits, split by seed into train (30 %, labelled), transfer (20 %, without labels),
validation and test (25 % each). Two sets of teachers. `poor`: a random forest, a uniform teacher,
and a random one that is sure of its output. `domains`: the images are upright, rotated by 90° or
inverted, and each of three forests is trained on one of these. A forest's outputs on rows that it
was trained on are those of five-fold cross-validation. The student is a perceptron of one hidden
layer of 32. At α = 1 (`--teachers-alone`, the first set) labels train the attention alone.
Everything runs through distill's own loop, in this process. The weight is the mean on test of the
forest (of the row's own domain).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

from distill import __version__
from distill.aggregation import Attention, Uncertainty, UniformMean
from distill.config import KD, Cache, Data, Optimizer, Serving, Stream, Student, Trainer
from distill.data.batches import Batches
from distill.data.corpus import Corpus, build_corpus
from distill.models.features import feature_space
from distill.objectives import ForwardKL
from distill.records import TeacherAnswers
from distill.tasks.classification.predict import predict
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.cache import TeacherCache, TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, load_best
from distill.training.job import Job

SEEDS = (0, 1, 2)
TEMPERATURES, ALPHAS = (2.0, 4.0), (0.7, 0.9)
SHARES = {"train": 0.3, "transfer": 0.2, "validation": 0.25, "test": 0.25}
SETS = {
    "poor": ("forest", "uniform", "random"),
    "domains": ("upright", "rotated", "inverted"),
}
METHODS: dict[str, Any] = {
    "mean": UniformMean(mix="probabilities"),
    "uncertainty": Uncertainty(),
    "attention": Attention(),
}
BEFORE = "attention before"
ALONE = "labels alone"
NUM_STEPS, BATCH_SIZE, LR = 480, 32, 3e-3
SMALLEST = 1e-7
"""Forests emit exact zeros."""
READING = (
    "The weight of the good teacher no longer collapses in any setting. What the student gains "
    "depends on α. At α = 1 no label reaches the student, and under the collapsed attention it is "
    "near chance; under the attention now it is ahead of the mean. At α < 1 no aggregation reaches "
    "the student from labels alone, in either set. With the first set, the collapse to a uniform "
    "target then leaves the student to the labels, and the attention before is ahead of the "
    "attention now, or level with it; against the mean, the attention now is ahead at α = 0.9, "
    "level at T 2, α 0.7, and behind at T 4, α 0.7, all within two standard deviations. With the "
    "second set the attention is ahead of the mean in all settings."
)
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Setting:
    """One data set under one seed, with the outputs of its teachers for every row."""

    corpus: Corpus
    logits_KRC: np.ndarray
    good_R: np.ndarray
    """The teacher that knows a row."""
    teacher_setup: TeacherSetup
    model: StudentSpec


def prepared(name: str, seed: int, folder: Path) -> Setting:
    rng = np.random.default_rng(seed)
    digits: Any = load_digits()
    images_RHW, labels_R = digits.images, digits.target
    num_rows = len(labels_R)
    teachers = SETS[name]
    domain_R = rng.integers(3, size=num_rows) if name == "domains" else np.zeros(num_rows, int)
    shown = np.stack([images_RHW, np.rot90(images_RHW, axes=(1, 2)), 16 - images_RHW])
    features_RD = shown[domain_R, np.arange(num_rows)].reshape(num_rows, -1)
    order_R = rng.permutation(num_rows)
    edges = np.cumsum([round(share * num_rows) for share in SHARES.values()])[:-1]
    split_R = np.empty(num_rows, object)
    for split, rows in zip(SHARES, np.split(order_R, edges), strict=True):
        split_R[rows] = split
    columns = {
        "features": pa.array(list(features_RD)),
        "label": pa.array(labels_R.astype(np.int64)),
        "split": pa.array(split_R.tolist()),
        "domain": pa.array([teachers[d] for d in domain_R]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    settings: dict[str, Any] = {
        "path": str(folder / "rows.parquet"),
        "columns": {"features": "features", "split": "split", "domain": "domain"},
        "cache_dir": str(folder / "data"),
    }
    corpus = build_corpus(Data.model_validate(settings), seed)
    domains_R = corpus.domains_of(range(corpus.num_rows))
    good_R = np.array([teachers.index(d) for d in corpus.domain_names])[domains_R]
    probs_KRC = np.stack(
        [
            _answers(corpus, teacher, seed + k, np.flatnonzero(good_R == k))
            for k, teacher in enumerate(teachers)
        ]
    )
    logits_KRC = np.log(np.maximum(probs_KRC, SMALLEST)).astype(np.float32)
    keys = {
        teacher: TeacherKey(f"{teacher}-{seed}", corpus.fingerprint, "none", "dense/float32", 0)
        for teacher in teachers
    }
    cache = TeacherCache(folder / "cache", keys, "benchmark")
    for teacher, logits_RC in zip(teachers, logits_KRC, strict=True):
        cache.put(teacher, np.arange(corpus.num_rows), logits_RC)
    cache.close()
    specs = tuple(
        ServedTeacher(teacher, "", Serving(), len(corpus.label_names), key)
        for teacher, key in keys.items()
    )
    teacher_setup = TeacherSetup(
        client=LocalTeachers({}),  # never queried: the cache holds every row
        teachers=specs,
        router=None,
        aggregation=UniformMean(),
        stream=Stream(in_flight=1),
        cache=Cache(),
        cache_folder=str(folder / "cache"),
    )
    info = corpus.features
    assert info is not None
    space = feature_space(info.columns, info.mean, info.sd)
    student = Student(layers=1, hidden=32, dropout=0.0)
    model = StudentSpec(student, "", corpus.label_names, 0, space)
    return Setting(corpus, logits_KRC, good_R, teacher_setup, model)


def _answers(corpus: Corpus, teacher: str, seed: int, own_R: np.ndarray) -> np.ndarray:
    """Probabilities of every row; ``own_R``: the rows of the teacher's domain."""
    num_classes = len(corpus.label_names)
    if teacher == "uniform":
        return np.full((corpus.num_rows, num_classes), 1 / num_classes)
    if teacher == "random":
        drawn_RC = np.random.default_rng(seed).normal(size=(corpus.num_rows, num_classes))
        return torch.from_numpy(4 * drawn_RC).softmax(1).numpy()
    features_RD = corpus.features_of(range(corpus.num_rows))
    train = np.intersect1d(np.asarray(corpus.rows("train")), own_R)
    labels = corpus.labels_of(train)
    forest: Any = RandomForestClassifier(100, random_state=seed, n_jobs=1)
    forest.fit(features_RD[train], labels)
    probs_RC = np.zeros((corpus.num_rows, num_classes))
    probs_RC[:, forest.classes_] = forest.predict_proba(features_RD)
    crossed: Any = cross_val_predict(
        RandomForestClassifier(100, random_state=seed, n_jobs=1),
        features_RD[train],
        labels,
        cv=5,
        method="predict_proba",
    )
    probs_RC[np.ix_(train, forest.classes_)] = crossed
    return probs_RC


def measured(
    setting: Setting,
    aggregation: Any,
    schedule_values: tuple[float, float],
    seed: int,
    folder: Path,
) -> dict[str, float]:
    """Test accuracy, and the mean weight of the teacher that knows a row."""
    corpus = setting.corpus
    train, transfer = corpus.rows("train"), corpus.rows("transfer")
    teacher_setup = None
    if aggregation is not None:
        changed = vars(setting.teacher_setup) | {"aggregation": aggregation}
        teacher_setup = TeacherSetup(**changed)
    job = Job(
        name="student",
        folder=str(folder),
        seed=seed,
        model=setting.model,
        data=DataSpec(str(corpus.folder), "", 0),
        train_rows=train if teacher_setup is None else range(train.start, transfer.stop),
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(lr=LR),
        trainer=Trainer(
            engine="torch",
            batch_size=BATCH_SIZE,
            eval_every=NUM_STEPS // 6,
            log_every=NUM_STEPS,
            checkpoint_every=NUM_STEPS,
        ),
        num_steps=NUM_STEPS,
        objective=ForwardKL() if teacher_setup else None,
        kd=KD(temperature=schedule_values[0], alpha=schedule_values[1]) if teacher_setup else None,
        teacher_setup=teacher_setup,
    )
    fit(job)
    module, test = load_best(job), np.asarray(corpus.rows("test"))
    batches = Batches(job.data.open(), corpus.rows("test"), 256, 0, shuffle=False)
    hits_R = predict(module, batches).student_R == corpus.labels_of(test)
    found = {"accuracy": float(hits_R.mean())}
    if teacher_setup is not None:
        weights_KR = _weights(module, setting.logits_KRC[:, test], corpus.features_of(test))
        found["weight"] = float(weights_KR[setting.good_R[test], np.arange(len(test))].mean())
    return found


@torch.inference_mode()
def _weights(module: Any, logits_KRC: np.ndarray, features_RD: np.ndarray) -> np.ndarray:
    """Of both versions of the attention, whose networks have different names."""
    network = getattr(module, "router", None) or getattr(module, "attention", None)
    features_BD = torch.from_numpy(features_RD)
    states = module.student(features=features_BD, output_hidden_states=True).hidden_states
    logits_KBC = torch.from_numpy(logits_KRC)
    answers = TeacherAnswers(logits_KBC, torch.ones(logits_KBC.shape[:2], dtype=torch.bool))
    return module.aggregation.weigh(answers, states[-1][:, 0], network).weights_KB.numpy()


def measure(is_before: bool, is_alone: bool) -> None:
    """``is_alone``: at α = 1, the first set only."""
    methods = {BEFORE: METHODS["attention"]} if is_before else METHODS
    runs, cpu_started = [], time.process_time()
    with tempfile.TemporaryDirectory() as root:
        alphas = (1.0,) if is_alone else ALPHAS
        for name, seed in product(list(SETS)[:1] if is_alone else SETS, SEEDS):
            setting = prepared(name, seed, Path(root) / f"{name}-{seed}")
            about = {"set": name, "seed": seed}
            tries: list[tuple[str, Any, tuple[float, float]]] = [
                (method, aggregation, schedule_values)
                for method, aggregation in methods.items()
                for schedule_values in product(TEMPERATURES, alphas)
            ]
            if not is_before and not is_alone:
                test = np.asarray(setting.corpus.rows("test"))
                hits_KR = setting.logits_KRC[:, test].argmax(2) == setting.corpus.labels_of(test)
                for teacher, hits_R in zip(SETS[name], hits_KR, strict=True):
                    runs.append(about | {"method": teacher, "accuracy": float(hits_R.mean())})
                tries.append((ALONE, None, (1.0, 0.0)))
            for i, (method, aggregation, schedule_values) in enumerate(tries):
                folder = Path(root) / f"{name}-{seed}" / f"fit-{i}"
                found = measured(setting, aggregation, schedule_values, seed, folder)
                run = about | {
                    "method": method,
                    "temperature": schedule_values[0],
                    "alpha": schedule_values[1],
                }
                runs.append(run | found)
                print(json.dumps(runs[-1]), flush=True)
    name = "before" if is_before else "now"
    part = RESULTS / f"attention_collapse_part_{name}{'_alone' if is_alone else ''}.json"
    content = {"runs": runs, "cpu_seconds": time.process_time() - cpu_started}
    part.write_text(json.dumps(content, indent=1) + "\n")


def merge() -> None:
    """All parts into one file of results, and its table."""
    parts = sorted(RESULTS.glob("attention_collapse_part_*.json"))
    contents = [json.loads(part.read_text()) for part in parts]
    result = {
        "steps": NUM_STEPS,
        "batch_size": BATCH_SIZE,
        "lr": LR,
        "cpu_seconds": sum(content["cpu_seconds"] for content in contents),
        "versions": {
            "distill": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "cpus": os.cpu_count(),
        "runs": [run for content in contents for run in content["runs"]],
    }
    out = RESULTS / "attention_collapse"
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(as_markdown(result))
    for part in parts:
        part.unlink()
    print(as_markdown(result))


def as_markdown(result: dict[str, Any]) -> str:
    runs = result["runs"]
    about = " ".join((__doc__ or "").split("scikit-learn's digits")[1].split())
    lines = [
        "# Attention over teachers: before and after it is trained by the labels' likelihood",
        "",
        f"scikit-learn's digits{about} {NUM_STEPS} steps of {BATCH_SIZE} rows, AdamW at {LR:g}; "
        "the weights of the best evaluation on validation. Mean ± standard deviation of three "
        f"seeds. All fits: {result['cpu_seconds'] / 60:.0f} CPU minutes.",
        "",
        "*attention before* (commit bf63392): the distillation loss trains the weights. "
        "*attention*: the likelihood of the labels trains them.",
        "",
        READING,
    ]
    for name, teachers in SETS.items():
        own = [run for run in runs if run["set"] == name]
        single = ", ".join(f"{t} {_cell(own, 'accuracy', method=t)}" for t in teachers)
        alone = _cell(own, "accuracy", method=ALONE)
        lines += [
            "",
            f"## Teachers: {', '.join(teachers)}",
            "",
            f"Test accuracy of the teachers: {single}. Student from labels alone: {alone}.",
            "",
        ]
        found = {(run["temperature"], run["alpha"]) for run in own if run["method"] == "mean"}
        schedule_values = sorted(found)
        for metric, shown in (("accuracy", "test accuracy"), ("weight", "weight of the good one")):
            head = " | ".join(f"T {t:g}, α {a:g}" for t, a in schedule_values)
            lines += [f"| {shown} | {head} |", "|---|" + "---:|" * len(schedule_values)]
            for method in ("mean", "uncertainty", BEFORE, "attention"):
                cells = [
                    _cell(own, metric, method=method, temperature=t, alpha=a)
                    for t, a in schedule_values
                ]
                lines.append(f"| {method} | {' | '.join(cells)} |")
            lines.append("")
    return "\n".join(lines)


def _cell(runs: list[dict[str, Any]], metric: str, **of: Any) -> str:
    values = [
        run[metric] for run in runs if all(run.get(key) == value for key, value in of.items())
    ]
    if metric == "weight":
        return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--before", action="store_true", help="the attention of an old worktree")
    measuring.add_argument("--teachers-alone", action="store_true", help="at α = 1, the first set")
    commands.add_parser("merge")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("distill").setLevel(logging.ERROR)
    RESULTS.mkdir(exist_ok=True)
    if args.command == "merge":
        merge()
    else:
        measure(args.before, args.teachers_alone)


if __name__ == "__main__":
    main()
