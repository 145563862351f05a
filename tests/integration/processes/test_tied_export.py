"""Two ranks: what they export of a student with tied embeddings, and that they take the steps of
one process whatever their micro-batches. All of it in one launch of two processes, which import
DeepSpeed for seconds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from distill.export.folder import ModelCard, export
from distill.models.language_student import merged
from distill.training.fit import fit, load_best
from distill.training.job import Job
from tests.toys_language import llama
from tests.training.test_batch_cuts import SAMPLINGS, assert_alike, cut, unequal_job

pytestmark = pytest.mark.slow
ENGINES: dict[str, dict[str, Any]] = {
    "all": {"engine": "torch"},
    "micro-1": {"engine": "torch", "micro_batch_size": 1},
    "zero-0": {"engine": "deepspeed", "zero_stage": 0, "micro_batch_size": 3},
    "zero-2": {"engine": "deepspeed", "zero_stage": 2, "micro_batch_size": 3},
}
CUTS = [
    *((sampling, engine) for sampling in SAMPLINGS for engine in ("all", "micro-1")),
    ("dataset", "zero-0"),
    ("skd", "zero-2"),
]
STARTS: dict[str, dict[str, Any]] = {"whole": {}, "lora": {"lora": {"rank": 4}}}
STAGES = {"whole": (0, 1, 2, 3), "lora": (0, 3)}
RESUMED = [("whole", 2), ("lora", 3)]


def tied_job(root: Path, start: str, folder: str) -> Job:
    """Two steps of a Llama of a folder, whose head is its embeddings."""
    student = {"path": str(root / "films"), **STARTS[start]}
    job = unequal_job(root, folder, student=student)
    intervals = {"engine": "deepspeed", "checkpoint_every": 1, "eval_every": 2}
    return replace(job, trainer=job.trainer.model_copy(update=intervals), num_steps=2)


def at_stage(job: Job, folder: Path, stage: int) -> Job:
    trainer = job.trainer.model_copy(update={"zero_stage": stage})
    return replace(job, folder=str(folder), trainer=trainer)


def rank_main(rank: int, world_size: int, port: int, root: Path) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    job = unequal_job(root, f"rank-{rank}")
    for sampling, engine in CUTS:
        folder = root / f"{sampling}-{engine}"
        fit(cut(job, folder, sampling, **ENGINES[engine]), rank, world_size)
    for start, stages in STAGES.items():
        tied = tied_job(root, start, f"{start}-rank-{rank}")
        for stage in stages:
            folder, again = root / f"{start}-{stage}", root / f"{start}-{stage}-again"
            fit(at_stage(tied, folder, stage), rank, world_size)
            if (start, stage) in RESUMED:
                if rank == 0:  # as if it had been stopped after its first step
                    first = "checkpoints/step-00000001"
                    shutil.copytree(folder / first, again / first)
                dist.barrier()
                fit(at_stage(tied, again, stage), rank, world_size)


class Launched(NamedTuple):
    root: Path
    job: Job
    tied: dict[str, Job]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    root = tmp_path_factory.mktemp("tied")
    job = unequal_job(root)
    for sampling in SAMPLINGS:  # the reference: one process, the whole batch at once
        fit(cut(job, root / f"{sampling}-one", sampling))
    tied = {start: tied_job(root, start, start) for start in STARTS}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.integration.processes.test_tied_export"]
    ranks = [
        subprocess.Popen([*command, str(rank), "2", str(port), str(root)]) for rank in range(2)
    ]
    assert [rank.wait() for rank in ranks] == [0, 0]
    return Launched(root, job, tied)


@pytest.mark.parametrize(("sampling", "engine"), CUTS)
def test_two_ranks_take_the_steps_of_one(launched: Launched, sampling: str, engine: str) -> None:
    one, two = (
        cut(launched.job, launched.root / f"{sampling}-{name}", sampling)
        for name in ("one", engine)
    )
    assert_alike(two, one)


@pytest.mark.parametrize("start", STARTS)
def test_the_embeddings_are_exported_once(launched: Launched, tmp_path: Path, start: str) -> None:
    """At every stage the same weights, which transformers ties."""
    before, reference = llama(1).state_dict(), dict[str, torch.Tensor]()
    for stage in STAGES[start]:
        job = at_stage(launched.tied[start], launched.root / f"{start}-{stage}", stage)
        out = tmp_path / str(stage)
        export(merged(load_best(job).student), job.data.tokenizer, out, ModelCard(name="tied"))
        weights = load_file(out / "model.safetensors")
        assert weights.keys() == before.keys() - {"lm_head.weight"}
        loaded: Any = AutoModelForCausalLM.from_pretrained(out)
        assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
        moved = {name for name, tensor in weights.items() if not torch.equal(tensor, before[name])}
        assert moved and ("model.embed_tokens.weight" in moved) is (start == "whole")
        reference = reference or weights
        for name, tensor in reference.items():
            torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("start", "stage"), RESUMED)
def test_resumed_is_uninterrupted_bit_for_bit(launched: Launched, start: str, stage: int) -> None:
    whole, again = (
        load_file(launched.root / f"{start}-{stage}{suffix}/best.safetensors")
        for suffix in ("", "-again")
    )
    assert whole.keys() == again.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
