"""DeepSpeed on two ranks does what the plain one-process loop does, for every ZeRO stage."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from distill.aggregation import Attention
from distill.config import KD, Optimizer, Trainer
from distill.config.temperature import Convergence
from distill.objectives import ForwardKL
from distill.training.checkpoints import FolderStore
from distill.training.class_module import DistillModule
from distill.training.engines import make_engine
from distill.training.fit import fit as fit_job
from distill.training.job import Job
from distill.training.loop import Selection, TrainingIntervals, train
from distill.training.schedule import Schedule
from tests.sampling.test_fits import SKD, sampled_job
from tests.toys import NUM_CLASSES, ToyTeachers, tiny_bert, toy_batches
from tests.training.test_language_fit import job_of

pytestmark = pytest.mark.slow
NUM_STEPS = 20
LANGUAGE_STAGES = (1, 3)
MICRO = 4
TEMPERATURE = "kd.temperature"
CONSTANT = KD(alpha=0.6)


def fit(
    folder: Path,
    trainer: Trainer,
    rank: int,
    world_size: int,
    num_steps: int,
    kd: KD = CONSTANT,
    log: int = 1,
    metric: str = "loss",
) -> Any:
    """20 steps over 12-row batches of 50 rows: uneven lengths, unlabelled rows, filler rows."""
    torch.manual_seed(rank)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = DistillModule(
            tiny_bert(0), ForwardKL(), Attention(dropout=0), ("a", "b"), NUM_CLASSES
        )
    batches = toy_batches(rank=rank, world_size=world_size, micro=MICRO)
    optimizer = Optimizer(lr=5e-3, weight_decay=0.05, clip_norm=0.5)
    engine = make_engine(module, optimizer, trainer, batches.num_micro_batches)
    started_from = engine.module_state()
    logged: list[float] = []

    def keep(step: int, metrics: dict[str, float]) -> None:
        if metric in metrics:
            logged.append(metrics[metric])

    train(
        engine,
        batches,
        ToyTeachers([tiny_bert(8), tiny_bert(9)]),
        Schedule(num_steps, optimizer.model_copy(update={"decay": "constant"}), kd),
        FolderStore(folder, world_size),
        lambda engine: {"eval.accuracy": 0.5},
        Selection("eval.accuracy"),
        TrainingIntervals(log=log, evaluate=1000, checkpoint=10),
        keep,
    )
    return engine, started_from, logged


def rank_main(rank: int, world_size: int, port: int, folder: Path) -> None:
    """One rank: all four stages in one process, since DeepSpeed takes seconds to import."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
    }
    torch.set_num_threads(1)
    for stage in (0, 1, 2, 3):
        trainer = Trainer(engine="deepspeed", zero_stage=stage)
        domain_teacher = folder / f"zero-{stage}"
        engine, started_from, losses = fit(domain_teacher, trainer, rank, world_size, NUM_STEPS)
        state = engine.module_state()
        # Resume from step 10 in a fresh engine: the second half must repeat itself.
        (again := folder / f"again-{stage}").mkdir(exist_ok=True)
        if rank == 0:
            (again / "checkpoints").mkdir()
            os.rename(
                domain_teacher / "checkpoints/step-00000010", again / "checkpoints/step-00000010"
            )
        engine.barrier()
        resumed, _, rest = fit(again, trainer, rank, world_size, NUM_STEPS)
        resumed_state = resumed.module_state()
        if rank == 0:
            torch.save({"start": started_from, "end": state}, folder / f"zero-{stage}.pt")
            is_same = all(torch.equal(state[n], resumed_state[n]) for n in state)
            record = {"losses": losses, "rest": rest, "is_same": is_same}
            (folder / f"zero-{stage}.json").write_text(json.dumps(record))
    for stage in LANGUAGE_STAGES:
        job = language_job(folder, f"language-{stage}", rank, zero_stage=stage)
        fit_job(job, rank, world_size)
    drafting = {"zero_stage": 3, "checkpoint_every": 3}
    fit_job(drafting_job(folder, "drafting-3", rank, **drafting), rank, world_size)
    scheduled_fits(folder, rank, world_size)
    # With text under way on both ranks.
    (again := folder / "drafting-again/checkpoints").mkdir(parents=True, exist_ok=True)
    if rank == 0:
        os.rename(folder / "drafting-3/checkpoints/step-00000003", again / "step-00000003")
    dist.barrier()
    fit_job(drafting_job(folder, "drafting-again", rank, **drafting), rank, world_size)


def scheduled_fits(folder: Path, rank: int, world_size: int) -> None:
    """A temperature that follows losses; resumed from step 10, in the interval from 9 to 12."""
    schedule = {"kd": KD(alpha=0.6, schedule=Convergence()), "log": 3}
    trainer = Trainer(engine="deepspeed", zero_stage=2)
    engine, _, whole = fit(
        folder / "scheduled", trainer, rank, world_size, NUM_STEPS, **schedule, metric=TEMPERATURE
    )
    (again := folder / "scheduled-again/checkpoints").mkdir(parents=True, exist_ok=True)
    if rank == 0:
        os.rename(folder / "scheduled/checkpoints/step-00000010", again / "step-00000010")
    dist.barrier()
    resumed, _, rest = fit(
        again.parent, trainer, rank, world_size, NUM_STEPS, **schedule, metric=TEMPERATURE
    )
    state, resumed_state = engine.module_state(), resumed.module_state()
    if rank == 0:
        is_same = all(torch.equal(state[n], resumed_state[n]) for n in state)
        record = {"temperatures": whole, "rest": rest, "is_same": is_same}
        (folder / "scheduled.json").write_text(json.dumps(record))


def drafting_job(root: Path, folder: str, rank: int = 0, **trainer: Any) -> Job:
    """A student that writes a step ahead: 5 rows, so that one rank has more than the other."""
    intervals = {
        "engine": "deepspeed",
        "batch_size": 5,
        "log_every": 1,
        "eval_every": 1000,
        **trainer,
    }
    job = sampled_job(root, f"{folder}-rank-{rank}", SKD | {"staleness": 1})
    changed = job.trainer.model_copy(update=intervals)
    return replace(job, folder=str(root / folder), trainer=changed, num_steps=6)


def language_job(root: Path, folder: str, rank: int = 0, **trainer: Any) -> Job:
    """20 steps of a Llama with tied embeddings under two teachers that send hidden states, one of
    them with a padded vocabulary; blocks of uneven numbers of positions."""
    intervals = {"batch_size": 6, "micro_batch_size": 2, "log_every": 1, "eval_every": 1000}
    mixture = {"type": "mean", "mix": "probabilities"}
    job = job_of(root, f"{folder}-rank-{rank}", aggregation=mixture)  # no driver made the folder
    changed = job.trainer.model_copy(update={"engine": "deepspeed", **intervals, **trainer})
    optimizer = job.optimizer.model_copy(update={"decay": "constant"})
    own = {"trainer": changed, "optimizer": optimizer, "num_steps": NUM_STEPS}
    return replace(job, folder=str(root / folder), **own)


def language_losses(root: Path, folder: str) -> list[float]:
    lines = (root / folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line)["metrics"] for line in lines]
    return [metrics["loss"] for metrics in found if "loss" in metrics]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all stages on two ranks."""
    folder = tmp_path_factory.mktemp("deepspeed")
    fit_job(language_job(folder, "plain", engine="torch"))  # the reference
    fit_job(drafting_job(folder, "drafting-plain", engine="torch"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.integration.processes.test_deepspeed"]
    ranks = [
        subprocess.Popen([*command, str(rank), "2", str(port), str(folder)]) for rank in range(2)
    ]
    assert [rank.wait() for rank in ranks] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reference: one process, plain torch, the whole batch at once."""
    return fit(tmp_path_factory.mktemp("plain"), Trainer(engine="torch"), 0, 1, NUM_STEPS)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_ranks_agree_with_one_process(two_ranks: Path, plain: Any, stage: int) -> None:
    engine, started_from, losses = plain
    saved = torch.load(two_ranks / f"zero-{stage}.pt", weights_only=True)
    for name, tensor in started_from.items():
        assert torch.equal(saved["start"][name], tensor), f"{name} starts from other weights"
    record = json.loads((two_ranks / f"zero-{stage}.json").read_text())
    assert len(losses) == NUM_STEPS and losses[0] != losses[-1]
    assert record["losses"] == pytest.approx(losses, rel=1e-5)
    student = tiny_bert(0).eval()
    prefix = "student."
    batch = toy_batches(shuffle=False).at(0)[0]

    def logits(state: dict[str, torch.Tensor]) -> torch.Tensor:
        weights = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        student.load_state_dict(weights)
        with torch.no_grad():
            return student(**batch.inputs()).logits

    torch.testing.assert_close(
        logits(saved["end"]), logits(engine.module_state()), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_resumed_is_uninterrupted_bit_for_bit(two_ranks: Path, stage: int) -> None:
    record = json.loads((two_ranks / f"zero-{stage}.json").read_text())
    assert len(record["rest"]) == NUM_STEPS - 10
    assert record["rest"] == record["losses"][10:]
    assert record["is_same"]


def test_a_temperature_resumes_within_an_interval_bit_for_bit(two_ranks: Path) -> None:
    record = json.loads((two_ranks / "scheduled.json").read_text())
    assert len(record["temperatures"]) == 7 and len(set(record["temperatures"])) > 4
    assert record["rest"] == record["temperatures"][3:]
    assert record["is_same"]


@pytest.mark.parametrize("stage", LANGUAGE_STAGES)
def test_a_language_model_with_tied_embeddings_trains_alike(two_ranks: Path, stage: int) -> None:
    plain, sharded = (language_losses(two_ranks, name) for name in ("plain", f"language-{stage}"))
    assert len(plain) == NUM_STEPS and plain[-1] < plain[0]
    assert sharded == pytest.approx(plain, rel=1e-5)
    weights = {
        name: load_file(two_ranks / name / "best.safetensors")
        for name in ("plain", f"language-{stage}")
    }
    for name, tensor in weights["plain"].items():
        torch.testing.assert_close(weights[f"language-{stage}"][name], tensor, rtol=1e-4, atol=1e-5)


def test_a_sharded_student_writes_what_a_whole_one_does(two_ranks: Path) -> None:
    """Both ranks go forward as often, however long their rows are; so the fit has ended at all."""
    plain, sharded, resumed = (
        [json.loads(line)["metrics"] for line in lines if '"loss"' in line]
        for lines in (
            (two_ranks / name / "metrics.jsonl").read_text().splitlines()
            for name in ("drafting-plain", "drafting-3", "drafting-again")
        )
    )
    assert len(plain) == 6
    assert [m["loss"] for m in resumed] == [m["loss"] for m in sharded[3:]]
    for name in ("loss", "sampling.new_tokens"):
        assert [m[name] for m in sharded] == pytest.approx([m[name] for m in plain], rel=1e-4)


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
