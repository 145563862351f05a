"""A student of mixtures of experts, through the one loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.data.blocks import build_blocks
from distill.data.corpus import Corpus
from distill.tasks.language_model.scores import ExactTeachers, compare
from distill.training.fit import build_module, fit, load_best
from tests.toys_language import write_tokenizer
from tests.toys_moe import OWN, mixture
from tests.training.test_language_fit import job_of

DENSE = {"type": "dense", "dtype": "float32"}
AS_OWN = {"type": "ka", "passes": 1, "explore": 0.0, "experts": OWN}


def teachers(root: Path, *moes: dict[str, Any]) -> list[dict[str, Any]]:
    given = []
    for i, moe in enumerate(moes):
        folder = root / f"mixture-{i}"
        if not folder.exists():
            mixture("mixtral", seed=i).save_pretrained(folder)
            write_tokenizer(folder)
        given.append({"name": f"t{i}", "path": str(folder), "num_cpus": 0.1, "moe": moe})
    return given


def fitted(root: Path, folder: str, mix: str, *moes: dict[str, Any]) -> tuple[Any, Any]:
    intervals = {"epochs": 1, "batch_size": 8, "log_every": 4}
    changes: dict[str, Any] = {
        "teachers": teachers(root, *moes),
        "aggregation": {"type": "mean", "mix": mix},
        "objective": {"type": "reverse_kl"},
        "trainer": intervals,
    }
    job = job_of(root, folder, DENSE, **changes)
    fit(job)
    return job, load_best(job).student.state_dict()


def test_augmentation_with_nothing_to_augment_is_distillation(tmp_path: Path) -> None:
    _, expected = fitted(tmp_path, "own", "logits", {"type": "own"})
    _, found = fitted(tmp_path, "ka", "divergences", AS_OWN)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-5)
    twice = AS_OWN | {"passes": 2, "explore": 0.5}
    _, drawn = fitted(tmp_path, "drawn", "divergences", twice)
    assert any(not torch.allclose(drawn[name], t, atol=1e-4) for name, t in expected.items())


def test_answers_that_change_are_not_kept_and_usage_is_logged(tmp_path: Path) -> None:
    job, _ = fitted(tmp_path, "run", "divergences", {"type": "ka"}, {"type": "all"})
    cached = {path.name.split("-")[0] for path in (tmp_path / "run" / "cache").iterdir()}
    assert cached == {"t1"}
    logged = [json.loads(line)["metrics"] for line in (Path(job.folder) / "metrics.jsonl").open()]
    text = next(metrics for metrics in logged if "teacher.t0.silent_mass_rate" in metrics)
    assert 0 < text["teacher.t0.silent_mass_rate"] < 1
    assert text["teacher.t1.idlest_expert_rate"] == 1
    assert 0 < text["teacher.t0.idlest_expert_rate"] < text["teacher.t0.busiest_expert_rate"] <= 1


def test_a_student_is_compared_with_the_model_itself(tmp_path: Path) -> None:
    """Not with one of its answers."""
    found = {}
    for name, moe in (("ka", {"type": "ka"}), ("own", {"type": "own"})):
        changes: dict[str, Any] = {
            "teachers": teachers(tmp_path, moe),
            "aggregation": {"type": "mean", "mix": "divergences"},
        }
        job = job_of(tmp_path, name, DENSE, **changes)
        assert job.teacher_setup is not None
        shown = ExactTeachers.of(job.teacher_setup)
        spec: Any = job.data
        blocks = build_blocks(Corpus(Path(spec.corpus)), spec.tokenizer, spec.max_length)
        with shown.open(job.data) as stream:
            module: Any = build_module(job).eval()
            scores = compare(
                module, blocks, shown, stream, job.teacher_setup.aggregation, lambda: False, 16.0
            )
        found[name] = scores.teachers["t0"].total.perplexity
    assert found["ka"] == pytest.approx(found["own"], rel=1e-6)
