"""Speculative sampling in batches against one prompt after another, which the published scripts do.

    distill train configs/arithmetic-teacher.yaml
    python benchmarks/speculative_batches.py --student FOLDER [--batch 16] [--repetitions 5]

Both write the same texts, token by token, since each draw belongs to a row and a place. A student
that has learned something drafts as in training; FOLDER is any model folder with the teacher's
tokenizer. Medians; writes benchmarks/results/speculative_batches.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from lm_fits import versions

from distill.models.language import load_language_model
from distill.models.load import load_tokenizer
from distill.models.tokenizer import num_ids
from distill.sampling import Speculative
from distill.sampling.draw import TEACHER, row_seeds, uniforms
from distill.sampling.generation import Drafted, GeneratedBatch, write
from distill.sampling.records import DraftRequest
from distill.sampling.verification import Verification

RESULTS = Path("benchmarks/results/speculative_batches.json")
MAX_NEW_TOKENS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", default="runs/arithmetic-teacher/student")
    parser.add_argument("--student", required=True)
    parser.add_argument("--data", default="data/arithmetic/arithmetic.parquet")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = load_tokenizer(args.teacher)
    teacher, student = (load_language_model(f).eval() for f in (args.teacher, args.student))
    rows = pq.read_table(args.data, filters=[("split", "=", "test")]).slice(0, args.batch)
    prompts = [tokenizer(text)["input_ids"] for text in rows["prompt"].to_pylist()]
    seeds_B = row_seeds(0, 0, np.arange(args.batch))
    settings = Speculative(drafts=5, top_k=2)
    ends = (int(tokenizer.eos_token_id),)

    def written(some: slice) -> GeneratedBatch:
        verify = judge_of(teacher, num_ids(tokenizer), prompts[some], seeds_B[some], settings)
        described = (
            student,
            num_ids(tokenizer),
            prompts[some],
            [MAX_NEW_TOKENS] * len(prompts[some]),
        )
        return write(
            *described,
            ends,
            seeds_B[some],
            settings.decoding,
            num_drafts=settings.drafts,
            verify=verify,
        )

    seconds: dict[str, list[float]] = {"batched": [], "sequential": []}
    with torch.inference_mode():
        written(slice(0, 2))
        for _ in range(args.repetitions):
            began = time.perf_counter()
            batched = written(slice(None))
            seconds["batched"].append(time.perf_counter() - began)
            began = time.perf_counter()
            single = [written(slice(i, i + 1)) for i in range(args.batch)]
            seconds["sequential"].append(time.perf_counter() - began)
            assert batched.texts == [one.texts[0] for one in single]
    num_tokens = sum(map(len, batched.texts))
    report = {
        "date": date.today().isoformat(),
        "versions": versions(),
        "machine": {"cores": os.cpu_count(), "threads": args.threads},
        "batch": args.batch,
        "tokens": num_tokens,
        "tokens_per_call": num_tokens / batched.num_calls,
        "acceptance": batched.num_passed / batched.num_tested,
        "seconds": seconds,
        "speedup": median(seconds["sequential"]) / median(seconds["batched"]),
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def judge_of(
    teacher: Any, num_tokens: int, prompts: Any, seeds_B: np.ndarray, settings: Speculative
) -> Any:
    judging = Verification(teacher, num_tokens)
    asked = tuple(np.array(prompt) for prompt in prompts)

    def verify(drafted: Drafted) -> tuple[np.ndarray, np.ndarray]:
        request = DraftRequest(
            "r",
            "writer",
            0,
            asked,
            drafted.past,
            drafted.rows_b,
            drafted.last_b,
            drafted.drafts_bG,
            uniforms(seeds_B[drafted.rows_b], drafted.places_b, TEACHER),
            settings.top_k,
            settings.nucleus,
            settings.teacher_decoding,
        )
        verified = judging.verify(request)
        return verified.num_kept_b, verified.replacement_b

    return verify


if __name__ == "__main__":
    main()
