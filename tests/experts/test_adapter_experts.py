"""Experts that are tuned as adapters on one base, and are kept and served as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from distill.config import parse
from distill.driver.checks.check import check
from distill.experts.jobs import expert_jobs
from distill.experts.partition import by_column
from distill.models.language import load_language_model
from distill.run_folder import RunFolder
from distill.tasks.language_model.specs import BlocksSpec
from distill.teachers.backends import open_backends
from distill.teachers.cache import TeacherKey
from distill.teachers.served import ServedTeacher
from distill.training.fit import fit_and_save, load_best
from tests.toys_language import NUM_TOKENS, language_experiment
from tests.toys_moe import plain, request

LORA = {"rank": 4, "alpha": 8.0}


def test_each_is_kept_as_an_adapter_and_all_are_served_from_one_base(tmp_path: Path) -> None:
    raw = language_experiment(tmp_path)
    del raw["teachers"]
    base = str(tmp_path / "films")
    wire = {"type": "dense", "dtype": "float32"}
    raw["experts"] = {
        "base": base,
        "lora": LORA,
        "epochs": 2,
        "batch_size": 4,
        "optimizer": {"lr": 1e-2},
        "serving": {"num_cpus": 0.1, "wire": wire},
    }
    experiment = parse(raw)
    plan = check(experiment)
    shown = {line.part: line.what for line in plan.lines}
    assert "2 adapters on one base, 1 replica, " in shown["2 experts"]
    assert plan.num_cpus == pytest.approx(1.1), "one actor for both"

    assert experiment.experts is not None
    data = BlocksSpec(str(plan.corpus.folder), base, 24)
    parts = by_column(data.open(), ("train", "validation", "test"))
    folder = RunFolder(experiment.output).experts
    jobs = expert_jobs(experiment.experts, parts, data, folder, seed=0)
    key = TeacherKey("weights", "data", "tokenizer", "wire", 0)
    specs, expected = [], []
    for job in jobs:
        fit_and_save(job)
        before = {p.name: p.read_bytes() for p in job.model_folder.iterdir()}
        assert before.keys() == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
        fit_and_save(job)
        assert before == {p.name: p.read_bytes() for p in job.model_folder.iterdir()}
        serving = experiment.experts.serving
        adapter = str(job.model_folder)
        specs.append(
            ServedTeacher(job.name, base, serving, NUM_TOKENS, key, "language_model", adapter)
        )
        tuned = load_best(job).student
        expected.append(plain(tuned, request()))
        again = PeftModel.from_pretrained(load_language_model(base), adapter).eval()
        assert np.array_equal(plain(again.get_base_model(), request()), expected[-1])
    assert not np.allclose(*expected, atol=1e-2)

    served = open_backends(specs)
    models = [served[spec.name].language_model.model for spec in specs]
    assert models[0] is models[1]
    for spec, logits_PV in zip(specs, expected, strict=True):
        found = served[spec.name].answer(request(num_rows=3))
        payload = torch.from_numpy(found.payload.copy())
        torch.testing.assert_close(payload, torch.from_numpy(logits_PV), atol=1e-5, rtol=1e-5)
