"""Whether a student and a teacher mean the same by the columns of their logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.data.tokens import tokenizer_fingerprint
from distill.errors import ModelError
from distill.models.tokenizer import load_tokenizer, num_ids

NUM_SHOWN = 3
WAY_OUT = (
    "use objective.type: uld, which compares across tokenizers, or a teacher with the student's "
    "tokenizer"
)


def same_vocabulary(
    student_folder: str | Path,
    teacher_folder: str | Path,
    student_width: int,
    teacher_width: int,
    way_out: str = WAY_OUT,
) -> int:
    """Columns that both share: those of the tokenizer's ids.

    Each model may have more (``width``, as of 151,936 and 152,064 in one family): padding, which
    neither reads nor predicts. The ids must be the same tokens, and text must be cut into them by
    the same rules. (Which of them pads does not matter: padding is never read.)

    Raises ModelError naming the first ids that differ and both tokens, or the rule, and
    ``way_out``.
    """
    student, teacher = load_tokenizer(student_folder), load_tokenizer(teacher_folder)
    names_S, names_T = _names(student), _names(teacher)
    if names_S != names_T:
        raise ModelError(
            f"the tokenizers of the student ({student_folder}) and the teacher ({teacher_folder}) "
            f"differ: {_differences(names_S, names_T)}: {way_out}"
        )
    if rules := _differing_rules(student, teacher):
        raise ModelError(
            f"the tokenizers of the student ({student_folder}) and the teacher ({teacher_folder}) "
            f"have the same tokens, but cut text by other rules ({', '.join(rules)}): {way_out}"
        )
    num = num_ids(student)
    for who, width in (("student", student_width), ("teacher", teacher_width)):
        if width < num:
            raise ModelError(
                f"the {who} predicts {width} tokens, its tokenizer has {num}: put the tokenizer "
                "that the model was trained with into its folder"
            )
    return num


def speak_alike(one: str | Path, other: str | Path) -> bool:
    """Whether two folders' tokenizers cut every text into the same ids."""
    first, second = load_tokenizer(one), load_tokenizer(other)
    return _names(first) == _names(second) and not _differing_rules(first, second)


def check_tokenizer_sha256(name: str, folder: str | Path, declared: str | None) -> None:
    """Raise ModelError unless the folder's tokenizer is the one that the configuration declares."""
    found = tokenizer_fingerprint(folder) if declared is not None else None
    if found != declared:
        raise ModelError(
            f"teachers.{name}: the tokenizer in {folder} has the fingerprint {found}, "
            f"tokenizer_sha256 says {declared}: give the folder that was meant, or correct the key"
        )


def _names(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def _differences(student: Mapping[int, str], teacher: Mapping[int, str]) -> str:
    different = [
        i for i in sorted(student.keys() | teacher.keys()) if student.get(i) != teacher.get(i)
    ]
    shown = [
        f"id {i} is {_quoted(student.get(i))} to the student and {_quoted(teacher.get(i))} to the "
        "teacher"
        for i in different[:NUM_SHOWN]
    ]
    more = len(different) - len(shown)
    return "; ".join(shown) + (f"; and {more} more ids" if more else "")


def _quoted(token: str | None) -> str:
    return "no token" if token is None else repr(token)


def _differing_rules(student: Any, teacher: Any) -> list[str]:
    """Parts of the tokenizers' pipelines that differ, as tokenizer.json names them."""
    if not (student.is_fast and teacher.is_fast):
        return [] if type(student) is type(teacher) else ["class"]
    ours, theirs = (json.loads(t.backend_tokenizer.to_str()) for t in (student, teacher))
    # Saved defaults of calls, not rules.
    keys = sorted((ours.keys() | theirs.keys()) - {"truncation", "padding", "version"})
    return [key for key in keys if ours.get(key) != theirs.get(key)]
