"""One trial without Ray: trained once, told again, taken over, and asked of nobody."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distill.config import parse
from distill.driver.checks.check import check
from distill.driver.sweep.trial import Sweep, run_trial
from distill.errors import CheckpointError, TeacherError, TrainingError
from distill.search.ledger import MEMBER, Ledger
from distill.search.plan import raw_of
from distill.search.reporter import Metrics
from distill.teachers.client import CacheOnlyClient
from distill.teachers.requests import TeacherRequest
from tests.toys import toy_experiment

VALUES = {"kd.temperature": 2.0, "optimizer.lr": 5e-3}
Told = list[tuple[Metrics, Path | None]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trial")


SIZED = {"layers": 1, "hidden": 16, "heads": 2}


def sweep_of(
    root: Path, folder: Path, exchanges: bool = False, size: dict[str, Any] = SIZED
) -> Sweep:
    raw = toy_experiment(root)
    del raw["experts"]
    raw |= {
        "output": str(folder),
        "aggregation": {"type": "mean"},
        "baselines": [],
        "student": size | {"tokenizer": str(root / "encoder")},
        "trainer": {"engine": "torch", "epochs": 3, "batch_size": 16},
    }
    plan = check(parse(raw))
    return Sweep(
        raw_of(plan.experiment),
        folder,
        plan.corpus.folder,
        plan.tokenizer,
        None,
        None,
        folder / "stop",
        exchanges,
    )


def told_by(sweep: Sweep, values: dict[str, Any], start_from: Path | None = None) -> Told:
    text: Told = []
    sweep.ledger.begin(values)
    run_trial(sweep, values, lambda m, folder: text.append((m, folder)), start_from=start_from)
    return text


def test_a_finished_trial_tells_the_same_again_without_training(root: Path, tmp_path: Path) -> None:
    sweep = sweep_of(root, tmp_path)
    first = told_by(sweep, VALUES)
    assert [m["step"] for m, _ in first[:-1]] == [11, 22, 33]
    best = tmp_path / "trials/trial-001/fit/best.safetensors"
    written = best.stat().st_mtime_ns
    again = told_by(sweep, dict(reversed(VALUES.items())))
    assert again == first
    assert best.stat().st_mtime_ns == written
    (entry,) = sweep.ledger.entries()
    assert entry.status == "finished" and entry.trial().student
    assert entry.metrics["eval.accuracy"] == max(m["eval.accuracy"] for m, _ in first[:-1])
    assert not (entry.fit / "checkpoints").exists()


def test_searched_keys_reach_the_student(root: Path, tmp_path: Path) -> None:
    sweep = sweep_of(root, tmp_path)
    told_by(sweep, {"student.hidden": 24, "student.vocab_size": 64})
    (entry,) = sweep.ledger.entries()
    config = json.loads((entry.student / "config.json").read_text())
    assert config["hidden_size"] == 24 and config["vocab_size"] <= 64
    assert entry.dimensions == {"layers": 1, "hidden": 24, "heads": 2, "ffn": 96}
    assert entry.metrics["student.params"] == sum(
        t.numel() for t in load_file(entry.student / "model.safetensors").values()
    )


def test_an_interrupted_trial_goes_on_and_tells_all(root: Path, tmp_path: Path) -> None:
    calm = told_by(sweep_of(root, tmp_path / "calm"), VALUES)
    sweep = sweep_of(root, tmp_path / "cut")
    sweep.ledger.begin(VALUES)
    text: Told = []

    def request_stop(metrics: Metrics, folder: Path | None) -> None:
        text.append((metrics, folder))
        sweep.stop.touch()

    run_trial(sweep, VALUES, request_stop)
    assert sweep.ledger.entries()[0].status == "running"
    sweep.stop.unlink()
    resumed = told_by(sweep, VALUES)
    evaluations = [m["eval.accuracy"] for m, _ in calm]
    assert [m["eval.accuracy"] for m, _ in resumed] == evaluations
    for name in ("calm", "cut"):
        assert (tmp_path / name / "trials/trial-001/trial.json").exists()
    one, other = (
        load_file(tmp_path / name / "trials/trial-001/fit/best.safetensors")
        for name in ("calm", "cut")
    )
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("size", [SIZED, {"size_mb": 0.05}])
def test_a_member_goes_on_from_anothers_weights(
    root: Path, tmp_path: Path, size: dict[str, Any]
) -> None:
    sweep = sweep_of(root, tmp_path, exchanges=True, size=size)
    strong = told_by(sweep, VALUES | {MEMBER: 0})
    folders = [folder for _, folder in strong[:-1]]
    assert all(folder is not None for folder in folders)
    weak = VALUES | {MEMBER: 1, "optimizer.lr": 1e-5}
    sweep.ledger.begin(weak)
    better = weak | {"optimizer.lr": 4e-3}
    taken = told_by(sweep, better, start_from=folders[-1])
    # The strong member was at its end: nothing is left to train, its best is the weak one's now.
    first, second = sweep.ledger.entries()
    assert second.values == better
    assert second.metrics["eval.accuracy"] == first.metrics["eval.accuracy"]
    assert len(taken) == 1
    one, other = (load_file(e.student / "model.safetensors") for e in (first, second))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_failed_trial_raises_and_may_be_begun_again(root: Path, tmp_path: Path) -> None:
    sweep = sweep_of(root, tmp_path)
    wild = {"optimizer.lr": 1e30}
    with pytest.raises(TrainingError):
        told_by(sweep, wild)
    entry = sweep.ledger.write(sweep.ledger.entries()[0], "failed", {}, "became nan")
    assert entry.trial().student == "" and entry.trial().reason == "became nan"
    assert sweep.ledger.begin(wild).status == "running"
    assert len(sweep.ledger.entries()) == 1


def test_twins_train_once(root: Path, tmp_path: Path) -> None:
    """The same values proposed twice at once: one trains, the other waits and tells the same."""
    sweep = sweep_of(root, tmp_path)
    sweep.ledger.begin(VALUES)
    sweep.ledger.begin(VALUES)
    assert len(sweep.ledger.entries()) == 1
    text: dict[str, Told] = {"one": [], "two": []}

    def run_as(name: str) -> None:
        run_trial(sweep, VALUES, lambda metrics, folder: text[name].append((metrics, folder)))

    threads = [threading.Thread(target=run_as, args=(name,)) for name in text]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert text["one"] == text["two"] and len(text["one"]) == 4
    steps = [line["step"] for line in sweep.ledger.entries()[0].history()]
    assert steps == sorted(steps), "nobody else wrote into the same folder"


def test_nothing_starts_once_the_sweep_is_asked_to_stop(root: Path, tmp_path: Path) -> None:
    sweep = sweep_of(root, tmp_path)
    sweep.stop.touch()
    run_trial(sweep, VALUES, lambda metrics, folder: None)
    assert sweep.ledger.entries() == []


def test_a_deleted_trial_gives_its_name_to_none(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for rate in (1e-3, 2e-3, 3e-3):
        ledger.write(ledger.begin({"optimizer.lr": rate}), "finished", {"eval.accuracy": rate})
    shutil.rmtree(tmp_path / "trial-002")
    new = ledger.begin({"optimizer.lr": 4e-3})
    assert new.name == "trial-004"
    assert [e.name for e in ledger.entries()] == ["trial-001", "trial-003", "trial-004"]


def test_a_damaged_entry_says_how_to_go_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entry = ledger.begin(VALUES)
    (entry.folder / "trial.json").write_text("{")
    with pytest.raises(CheckpointError, match="delete"):
        ledger.entries()


def test_whoever_asks_a_silent_teacher_hears_why(root: Path) -> None:
    ids = np.array([[5]])
    request = TeacherRequest("films/0/0", np.array([7]), ids, np.ones_like(ids))
    with pytest.raises(TeacherError, match=r"lacks 1 outputs of teacher 'films' \(row 7"):
        CacheOnlyClient(("films",)).call("films", request)
