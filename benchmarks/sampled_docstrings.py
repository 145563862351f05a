"""Where a student's text comes from, on real text: functions in, a line about them out (ROUGE-L).

    python -m distill.samples.smollm2 --out data/smollm2
    python -m distill.samples.docstrings --out data/docstrings
    python benchmarks/sampled_docstrings.py [--seeds 0 1 2] [--steps 40] [--dtype bfloat16]

The teacher is SmolLM2 tuned to docstrings by configs/docstrings-teacher.yaml (here, once, in this
process); everything but the source of text is configs/docstrings-skd.yaml's; see
sources_of_text.py. ROUGE-L is of greedy answers to the first prompts of the test split. Writes
benchmarks/results/sampled_docstrings.*.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lm_fits import student_job
from sources_of_text import NEW, Task, compare, parsed

from distill.check import check
from distill.config import load
from distill.fit import fit_and_save

TEACHER = Path("configs/docstrings-teacher.yaml")
DOCSTRINGS = Task(
    config=Path("configs/docstrings-skd.yaml"),
    results=Path("benchmarks/results/sampled_docstrings"),
    steps=40,
    warm_steps=600,
    teacher=Path("runs/docstrings-teacher/student"),
    num_prompts=100,
    max_new_tokens=24,
    batch_size=25,
    score="rouge_l",
    told="ROUGE-L",
)


def tuned_teacher(task: Task, dtype: str) -> None:
    """Where configs/docstrings-teacher.yaml has not been trained already."""
    if task.teacher.exists():
        return
    folder = task.teacher.parent
    experiment = load(TEACHER, [f"output={folder / NEW}", f"trainer.dtype={dtype}"])
    job = student_job(experiment, check(experiment), folder / "fit", 0, None)
    fit_and_save(job)
    task.teacher.symlink_to(Path(job.model_folder).resolve())


if __name__ == "__main__":
    args = parsed(__doc__ or "", DOCSTRINGS, Path("runs/sampled-docstrings"))
    torch.set_num_threads(args.threads)
    tuned_teacher(DOCSTRINGS, args.dtype)
    compare(DOCSTRINGS, args)
