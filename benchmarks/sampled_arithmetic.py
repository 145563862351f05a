"""Where a student's text comes from: SeqKD, supervised, on-policy, mixed and speculative, compared.

    python -m distill.samples.arithmetic --out data/arithmetic --domains addition subtraction
    distill train configs/arithmetic-teacher.yaml
    python benchmarks/sampled_arithmetic.py --no-equal-time --methods SKD on-policy \
        "cross-entropy, no teacher" "supervised KD"

These are the methods of the committed result, whose teacher was stopped early; it names where. All
methods, and more steps for the quick ones: without options. The teacher is trained here where its
folder is missing.

Everything but the source of text is configs/arithmetic-skd.yaml's; see sources_of_text.py. Exact
match is of greedy answers to the test split. Writes benchmarks/results/sampled_arithmetic.*.
"""

from __future__ import annotations

from pathlib import Path

from sources_of_text import Task, compare, parsed

ARITHMETIC = Task(
    config=Path("configs/arithmetic-skd.yaml"),
    results=Path("benchmarks/results/sampled_arithmetic"),
    steps=300,
    warm_steps=2000,
    teacher=Path("runs/arithmetic-teacher/student"),
    teacher_config=Path("configs/arithmetic-teacher.yaml"),
    num_prompts=10**9,
    max_new_tokens=60,
    batch_size=128,
    score="exact_match",
    text="exact match",
)


if __name__ == "__main__":
    compare(ARITHMETIC, parsed(__doc__ or "", ARITHMETIC, Path("runs/sampled-arithmetic")))
