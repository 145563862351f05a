"""Where a student's text comes from, on real text: functions in, a line about them out (ROUGE-L).

    python -m distill.samples.smollm2 --out data/smollm2
    python -m distill.samples.docstrings --out data/docstrings
    python benchmarks/sampled_docstrings.py --dtype bfloat16 --no-equal-time --methods SKD \
        "on-policy, T 1" "mixed, λ 0.5, T 1" "supervised KD" SeqKD "cross-entropy, no teacher"

These are the methods of the committed result: SKD drafts at T 0.5, the other students sample at
T 1. All methods, at equal decoding too: without --methods.

The teacher is SmolLM2 tuned to docstrings by configs/docstrings-teacher.yaml (here, once, in this
process); everything but the source of text is configs/docstrings-skd.yaml's; see
sources_of_text.py. ROUGE-L is of greedy answers to the first prompts of the test split. Writes
benchmarks/results/sampled_docstrings.*.
"""

from __future__ import annotations

from pathlib import Path

from sources_of_text import Task, compare, parsed

DOCSTRINGS = Task(
    config=Path("configs/docstrings-skd.yaml"),
    results=Path("benchmarks/results/sampled_docstrings"),
    steps=40,
    warm_steps=600,
    teacher=Path("runs/docstrings-teacher/student"),
    teacher_config=Path("configs/docstrings-teacher.yaml"),
    num_prompts=100,
    max_new_tokens=24,
    batch_size=25,
    score="rouge_l",
    text="ROUGE-L",
)


if __name__ == "__main__":
    compare(DOCSTRINGS, parsed(__doc__ or "", DOCSTRINGS, Path("runs/sampled-docstrings")))
