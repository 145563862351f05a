"""A run folder that was begun under an earlier rule for ``student.size_mb`` resumes as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.config import Student, parse
from distill.data.corpus import build_corpus
from distill.driver.checks.check import check
from distill.models.load import load_tokenizer
from distill.models.shape import FILE
from distill.models.sizes import solve
from distill.run_folder import RunFolder, identity
from distill.tasks.jobs import student_job
from distill.training.fit import fit, load_best
from distill.training.job import Job
from distill.wording import counted
from tests.toys import toy_experiment

CAP = 0.05


def job_of(root: Path, folder: str, student: dict[str, Any]) -> Job:
    """Of a student without teachers, in this process."""
    raw = toy_experiment(root, student=student, output=str(root / folder))
    raw |= {"baselines": [], "aggregation": {"type": "mean"}}
    raw["trainer"] = {"engine": "torch", "epochs": 2, "batch_size": 27, "checkpoint_every": 1}
    del raw["experts"]
    experiment = parse(raw)
    corpus = build_corpus(experiment.data)
    encoder = str(root / "encoder")
    return student_job(experiment, corpus, encoder, root / folder / "fit", root / folder / "stop")


def dimensions(root: Path, by_first_rule: bool) -> dict[str, Any]:
    num_tokens = len(load_tokenizer(root / "encoder"))
    found = solve(Student(size_mb=CAP), num_tokens, 2, 16, by_first_rule)
    return {key: getattr(found, key) for key in ("layers", "hidden", "heads", "ffn")}


class Stopped(Exception):
    pass


def stop(cursor: Any) -> None:
    raise Stopped


def test_a_fit_that_the_first_rule_began_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    capped = job_of(tmp_path, "begun", {"size_mb": CAP})
    first = dimensions(tmp_path, by_first_rule=True)
    assert first != dimensions(tmp_path, by_first_rule=False)
    # The first rule's dimensions written out leave the folder that the old code left.
    old = job_of(tmp_path, "begun", first)
    with pytest.raises(Stopped):
        fit(old, report=stop)
    assert not (Path(old.folder) / FILE).exists()
    fit(capped)
    whole = job_of(tmp_path, "whole", first)
    fit(whole)
    expected = load_best(whole).state_dict()
    found = load_best(capped).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_finished_folder_of_the_first_rule_is_read(tmp_path: Path) -> None:
    capped = job_of(tmp_path, "done", {"size_mb": CAP})
    old = job_of(tmp_path, "done", dimensions(tmp_path, by_first_rule=True))
    fit(old)
    config = load_best(capped).student.config
    assert config.intermediate_size == dimensions(tmp_path, by_first_rule=True)["ffn"]


def test_a_new_fit_uses_the_cap_and_records_it(tmp_path: Path) -> None:
    job = job_of(tmp_path, "new", {"size_mb": CAP})
    fit(job)
    new = dimensions(tmp_path, by_first_rule=False)
    assert load_best(job).student.config.intermediate_size == new["ffn"]
    assert (Path(job.folder) / FILE).exists()
    # Whoever looks from elsewhere, such as the evaluation, builds the same.
    other = replace(job, name="other")
    assert load_best(other).student.config.hidden_size == new["hidden"]


def test_check_shows_the_shape_of_a_begun_fit(tmp_path: Path) -> None:
    raw = toy_experiment(tmp_path, student={"size_mb": CAP}, output=str(tmp_path / "run"))
    raw |= {"cluster": {"num_cpus": 16}}
    experiment = parse(raw)

    def shown() -> str:
        return next(line.what for line in check(experiment).lines if line.part == "student")

    new, first = (dimensions(tmp_path, by_first_rule) for by_first_rule in (False, True))

    def size(found: dict[str, int]) -> str:
        return f"hidden {found['hidden']}, {counted(found['heads'], 'head')}, ffn {found['ffn']}"

    assert shown().endswith(size(new))
    run = RunFolder(experiment.output)
    run.claim(experiment, check(experiment).identity)
    (run.fit / "checkpoints" / "step-00000001").mkdir(parents=True)
    assert shown().endswith(size(first))
    assert not (run.fit / FILE).exists(), "a check leaves nothing behind"
    run.close()


def test_the_identity_of_a_run_is_the_cap(tmp_path: Path) -> None:
    raw = toy_experiment(tmp_path, student={"size_mb": CAP})
    found = identity(parse(raw), "data")
    assert found["student.size_mb"] == CAP and found["student.ffn"] == "null"
    assert "data.prompt_as_chat" not in found  # at its default, as before there was the key
