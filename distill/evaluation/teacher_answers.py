"""What served teachers generate, greedily, for the same test prompts as the student.

A teacher is queried as it is served, with its adapter and its routing of experts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill.config.sampling import Decoding
from distill.errors import Interrupted, ModelError
from distill.evaluation.generation import GenerationScores, score_answers
from distill.models.language import check_language_folder
from distill.sampling.records import GenerationRequest
from distill.teachers.client import TeacherClient
from distill.teachers.served import ServedTeacher

BATCH = 8
"""Prompts of a request, as many as the student is given at once."""


class EvaluationPrompt(Protocol):
    @property
    def ids(self) -> list[int]: ...
    @property
    def reference(self) -> str: ...


def score_teacher(
    client: TeacherClient,
    teacher: ServedTeacher,
    prompts: Sequence[EvaluationPrompt],
    tokenizer: Any,
    max_new_tokens: int,
    turn_ends: Sequence[int] = (),
    allow_pickle: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> GenerationScores | None:
    """Exact match and ROUGE-L of one teacher's text; None without prompts.

    ``prompts``: in tokens of ``tokenizer``, which teacher and student share. An answer stops as the
    student's: at an end of text (by the tokenizer or the teacher's own settings), at an end of a
    turn, after ``max_new_tokens`` or at the teacher's last position. Raises TeacherError where no
    replica responds, and Interrupted.
    """
    if not prompts:
        return None
    positions = check_language_folder(teacher.folder, allow_pickle).max_positions
    ends = _ends(teacher.folder, tokenizer, turn_ends)
    room = [min(max_new_tokens, positions - len(prompt.ids)) for prompt in prompts]
    if min(room) < 1:
        raise ModelError(
            f"a prompt of {max(len(p.ids) for p in prompts)} tokens leaves none of the {positions} "
            f"positions of teacher {teacher.name!r} for an answer: lower data.max_length"
        )
    answers: list[str] = []
    for start in range(0, len(prompts), BATCH):
        if should_stop():
            raise Interrupted("stopped during the evaluation; the trained student is kept")
        part = slice(start, start + BATCH)
        request = GenerationRequest(
            f"evaluation/{teacher.name}/{start}",
            tuple(np.array(prompt.ids, np.int64) for prompt in prompts[part]),
            tuple(room[part]),
            ends,
            np.zeros(len(prompts[part]), np.uint64),  # greedy: nothing is drawn
            Decoding(temperature=0),
        )
        texts = [_before_end(text, ends) for text in client.call(teacher.name, request).texts]
        answers += tokenizer.batch_decode(texts, skip_special_tokens=True)
    return score_answers(answers, [prompt.reference for prompt in prompts])


def _ends(folder: str, tokenizer: Any, turn_ends: Sequence[int]) -> tuple[int, ...]:
    found = {*turn_ends, tokenizer.eos_token_id, *_own_ends(Path(folder))}
    return tuple(sorted(end for end in found if end is not None))


def _own_ends(folder: Path) -> list[int]:
    """By generation_config.json of the teacher's folder, where it has one."""
    path = folder / "generation_config.json"
    try:
        own = json.loads(path.read_text("utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []
    return own if isinstance(own, list) else [own]


def _before_end(text: np.ndarray, ends: Sequence[int]) -> list[int]:
    tokens = text.tolist()
    return next((tokens[:i] for i, token in enumerate(tokens) if token in ends), tokens)
