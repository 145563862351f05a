"""How a batch is cut into micro-batches changes no step: losses divide by the counts of the whole
batch, also where one row has one target and another has nineteen.

Two ranks, which take processes, are in tests/integration/processes/test_tied_export.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from distill.aggregation import Attention
from distill.config import KD, Cache, Optimizer, Trainer
from distill.objectives import ForwardKL
from distill.training.checkpoints import FolderStore
from distill.training.class_module import DistillModule
from distill.training.engines import make_engine
from distill.training.fit import fit, load_best, open_batches
from distill.training.job import Job
from distill.training.loop import Selection, TrainingIntervals, train
from distill.training.schedule import Schedule
from tests.sampling.test_fits import SKD, _parsed, sampled_job
from tests.toys import FILLERS, NUM_CLASSES, WORDS, ToyTeachers, tiny_bert, toy_batches
from tests.toys_language import DOMAINS

NUM_STEPS = 3
BATCH_SIZE = 8
SPLITS = ["train"] * 11 + ["validation"] * 2 + ["test"] * 2
"""Eleven rows to train on: steps of eight rows, of three, and of eight."""
ANSWERS = (1, 18, 2, 9)
"""Words of the rows' answers, one row after the other."""
SAMPLINGS: dict[str, dict[str, Any]] = {
    "dataset": {"type": "dataset"},
    "on_policy": {"type": "on_policy"},
    "mixed": {"type": "mixed", "student_share": 0.3},
    "skd": SKD,
}
NUM_WRITTEN = {"dataset": 0, "on_policy": NUM_STEPS, "mixed": 2, "skd": NUM_STEPS}
"""Steps on the student's text, of this seed."""


def unequal_job(root: Path, folder: str = "job", **changes: Any) -> Job:
    """Two teachers, and no cache: every fit asks them anew."""
    if not (root / "texts.parquet").exists():
        write_unequal_texts(root / "texts.parquet")
    job = sampled_job(
        root,
        folder,
        SAMPLINGS["dataset"],
        {"type": "dense", "dtype": "float32"},  # in 16 bits a logit may round to its neighbour
        optimizer={"lr": 1e-3, "decay": "constant", "warmup": 0.0},
        trainer={"batch_size": BATCH_SIZE, "log_every": 1, "eval_every": NUM_STEPS},
        **changes,
    )
    assert job.teacher_setup is not None
    teacher_setup = replace(job.teacher_setup, cache=Cache(type="none"))
    return replace(job, teacher_setup=teacher_setup, num_steps=NUM_STEPS)


def write_unequal_texts(path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "prompt": " ".join(rng.choice(FILLERS, rng.integers(1, 4))),
            "completion": " ".join(rng.choice(WORDS, ANSWERS[i % len(ANSWERS)])),
            "domain": DOMAINS[i % 2],
            "split": split,
        }
        for i, split in enumerate(SPLITS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def cut(job: Job, folder: Path, sampling: str, **trainer: Any) -> Job:
    """``job`` with text from elsewhere, and its batches cut otherwise."""
    alpha = 0.5 if sampling == "dataset" else 1.0  # its own text teaches the student nothing
    return replace(
        job,
        folder=str(folder),
        trainer=job.trainer.model_copy(update=trainer),
        sampling=_parsed(SAMPLINGS[sampling]),
        kd=KD(temperature=1.0, alpha=alpha),
    )


def logged(job: Job) -> list[dict[str, float]]:
    lines = (Path(job.folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"] for line in lines if '"loss"' in line]


def assert_alike(job: Job, whole: Job) -> None:
    """Weights, what was written, and what was logged of each step."""
    weights = load_best(job).state_dict()
    for name, tensor in load_best(whole).state_dict().items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=0)
    for row, expected in zip(logged(job), logged(whole), strict=True):
        assert row.get("sampling.new_tokens") == expected.get("sampling.new_tokens")
        for name in ("loss", "kd.loss", "ce.loss", "train.accuracy", "grad_norm"):
            assert row[name] == pytest.approx(expected[name], abs=1e-5), name


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return unequal_job(tmp_path_factory.mktemp("cuts"))


def test_the_parts_of_a_batch_are_very_unequal(job: Job, tmp_path: Path) -> None:
    batches, _ = open_batches(cut(job, tmp_path, "dataset", micro_batch_size=3), 0, 1)
    counts = [int(part.targets_BT.sum()) for part in batches.at(0) if part.targets_BT is not None]
    assert len(counts) == 3 and max(counts) > 5 * min(counts)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_micro_batches_train_as_the_whole_batch(job: Job, tmp_path: Path, sampling: str) -> None:
    whole = cut(job, tmp_path / "whole", sampling)
    fit(whole)
    generated = [row.get("sampling.new_tokens", 0) for row in logged(whole)]
    assert sum(tokens > 0 for tokens in generated) == NUM_WRITTEN[sampling]
    for size in (1, 3):
        small = cut(job, tmp_path / f"micro-{size}", sampling, micro_batch_size=size)
        fit(small)
        assert_alike(small, whole)


def classifier_after(folder: Path, micro_batch_size: int | None) -> dict[str, Tensor]:
    """Twelve rows a step, a fourth of them without a label; a teacher has seen every other one."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = DistillModule(
            tiny_bert(0), ForwardKL(), Attention(dropout=0), ("a", "b"), NUM_CLASSES
        )
    optimizer = Optimizer(lr=1e-3, decay="constant", warmup=0)
    batches = toy_batches(num_rows=20, micro=micro_batch_size)  # then a step of eight
    engine = make_engine(module, optimizer, Trainer(engine="torch"), batches.num_micro_batches)
    train(
        engine,
        batches,
        ToyTeachers([tiny_bert(8), tiny_bert(9)]),
        Schedule(NUM_STEPS, optimizer, KD(temperature=2, alpha=0.6)),
        FolderStore(folder),
        lambda engine: {"eval.accuracy": 0.5},
        Selection("eval.accuracy"),
        TrainingIntervals(log=1, evaluate=NUM_STEPS, checkpoint=NUM_STEPS),
    )
    return engine.module_state()


def test_rows_without_a_label_weigh_alike_in_every_micro_batch(tmp_path: Path) -> None:
    whole: Mapping[str, Tensor] = classifier_after(tmp_path / "whole", None)
    for size in (1, 3):
        small = classifier_after(tmp_path / f"micro-{size}", size)
        for name, tensor in whole.items():
            # Some of the attention's gradients are all rounding, and AdamW moves by the rate.
            atol = 1e-5 if name.startswith("student.") else 2e-4
            torch.testing.assert_close(small[name], tensor, atol=atol, rtol=0)
