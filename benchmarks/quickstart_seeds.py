"""The quickstart over several seeds: the whole job, then the same student under other teachers.

    python benchmarks/quickstart_seeds.py configs/quickstart.yaml data.max_length=40 \
        'data.limit={train: 700, transfer: 900, validation: 150, test: 300}'

The committed result also has ``batch_size: 64`` in the baseline ``encoder-first-two-layers``.

For each seed: `distill train` as a user runs it (timed), then, with the experts it trained, the
same student for as many steps under each single expert and under the uniform mean of all. Prints
and writes mean ± sd over the seeds. Finished seeds in --work are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

from distill import __version__
from distill.aggregation import UniformMean
from distill.config import Cache, Experiment, Serving, Stream, load
from distill.data.batches import Batches
from distill.data.corpus import build_corpus
from distill.models.load import weights_fingerprint
from distill.models.tokenizer import tokenizer_fingerprint
from distill.tasks.classification.predict import predict
from distill.tasks.classification.specs import DataSpec, StudentSpec
from distill.teachers.backends import open_backends
from distill.teachers.cache import TeacherKey
from distill.teachers.local import LocalTeachers
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.fit import fit, is_done, load_best
from distill.training.job import Job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", default="runs/quickstart-seeds")
    parser.add_argument("--out", default="benchmarks/results/quickstart_seeds")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    results = []
    for seed in args.seeds:
        output = Path(args.work) / f"seed-{seed}"
        kept = output / "benchmark.json"
        if not kept.exists():
            kept.write_text(json.dumps(one_seed(args.config, seed, output, args.overrides)))
        results.append(json.loads(kept.read_text()))
    write(Path(args.out), " ".join([args.config, *args.overrides]), args.seeds, results)


def one_seed(config: str, seed: int, output: Path, overrides: list[str]) -> dict[str, float]:
    """Test accuracy by model name, and the seconds of `distill train`."""
    changes = [*overrides, f"seed={seed}", f"output={output}"]
    started = time.perf_counter()
    command = [sys.executable, "-m", "distill.cli", "train", config, *changes, "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    rows = json.loads((output / "report/table.json").read_text())
    found = {f"{row['role']}: {row['name']}": row["accuracy"] for row in rows}
    for field, name in {"in_domain": "in-domain", "out_of_domain": "out-of-domain"}.items():
        found |= {f"{name}: {row['name']}": row[field] for row in rows if row[field] is not None}
    experiment = load(config, changes)
    folders = {p.name: p / "model" for p in sorted((output / "experts").iterdir()) if p.is_dir()}
    folders.pop("router", None)
    for name in folders:
        accuracy = student_under(experiment, output, {name: folders[name]}, f"only-{name}")
        found[f"student under {name} alone"] = accuracy
    found["student under the uniform mean"] = student_under(
        experiment, output, folders, "uniform-mean"
    )
    return found | {"seconds": seconds}


def student_under(
    experiment: Experiment, output: Path, folders: dict[str, Path], label: str
) -> float:
    """Test accuracy of the experiment's student, taught by the mean of these experts."""
    torch.set_num_threads(os.cpu_count() or 1)
    corpus = build_corpus(experiment.data, experiment.seed)
    max_length = experiment.data.max_length
    tokenizer = str(output / "tokenizer")
    specs = []
    for name, folder in folders.items():
        serving = Serving()
        key = TeacherKey(
            weights=f"{weights_fingerprint(folder)}-{serving.dtype}",
            data=corpus.fingerprint,
            tokenizer=tokenizer_fingerprint(folder),
            wire=serving.wire.name,
            max_length=max_length,
            cut=experiment.data.cut,
        )
        specs.append(ServedTeacher(name, str(folder), serving, len(corpus.label_names), key))
    teacher_setup = TeacherSetup(
        LocalTeachers(open_backends(specs)),
        tuple(specs),
        None,
        UniformMean(),
        Stream(in_flight=1),
        Cache(),
        str(output / "cache"),
    )
    data = DataSpec(str(corpus.folder), tokenizer, max_length, experiment.data.cut)
    job = Job(
        name=label,
        folder=str(output / "others" / label),
        seed=experiment.seed,
        model=StudentSpec(experiment.student, tokenizer, corpus.label_names, max_length),
        data=data,
        train_rows=range(corpus.rows("train").start, corpus.rows("transfer").stop),
        validation_rows=corpus.rows("validation"),
        optimizer=experiment.optimizer,
        trainer=experiment.trainer.model_copy(
            update={"engine": "torch", "num_workers": 1, "micro_batch_size": None}
        ),
        objective=experiment.objective,
        kd=experiment.kd,
        teacher_setup=teacher_setup,
    )
    if not is_done(job):
        fit(job)
    rows = corpus.rows("test")
    predicted = predict(load_best(job), Batches(data.open(), rows, 64, seed=0, shuffle=False))
    return float((predicted.student_R == corpus.labels_of(rows)).mean())


def write(out: Path, config: str, seeds: list[int], results: list[dict[str, float]]) -> None:
    """A JSON with every figure, and a Markdown table of mean ± sd."""
    names = [name for name in results[0] if name != "seconds"]
    about = {
        "config": config,
        "seeds": seeds,
        "date": date.today().isoformat(),
        "distill": __version__,
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(about | {"results": results}, indent=1) + "\n")
    lines = ["| test accuracy | mean ± sd | seeds |", "|---|---|---|"]
    for name in names:
        values = [100 * result[name] for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        each = ", ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {name} | {statistics.mean(values):.1f} ± {spread:.1f} % | {each} |")
    table = "\n".join(lines)
    seconds = statistics.median(result["seconds"] for result in results)
    described = ", ".join(f"{key} {value}" for key, value in about.items())
    text = f"# Quickstart over {len(seeds)} seeds\n\n{described}\n\n{table}\n\n"
    text += f"`distill train`: median {seconds:.0f} s.\n"
    out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
