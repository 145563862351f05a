"""Whether a student and a teacher mean the same by the columns of their logits."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import ModelError
from distill.models.tokenizer import load_tokenizer, num_ids, tokenizer_fingerprint

NUM_SHOWN = 3
WAY_OUT = (
    "use a teacher with the student's tokenizer or, for data.columns.text, objective.type: uld, "
    "which compares across tokenizers"
)


@dataclass(frozen=True)
class SharedTokens:
    """The columns of a student and its teachers that mean the same token to all of them, as one of
    the teachers needs to know them."""

    width: int
    """Columns that are compared: no id from here on is shared."""
    left_out: tuple[int, ...] = ()
    """Ids below ``width`` that are not the same token to all: never compared, nor written."""
    num_own: int = 0
    """Tokens of the teacher's own vocabulary."""

    @property
    def name(self) -> str:
        """Of a cache's key: empty where the teacher has no other columns."""
        if not self.outside:
            return ""
        return ",".join(map(str, [self.width, *self.left_out]))

    @property
    def outside(self) -> tuple[int, ...]:
        """Ids of the teacher that are not compared."""
        return (*(i for i in self.left_out if i < self.num_own), *range(self.width, self.num_own))


def same_vocabulary(
    student_folder: str | Path,
    teacher_folder: str | Path,
    student_width: int,
    teacher_width: int,
    way_out: str = WAY_OUT,
) -> int:
    """Columns up to the last that both share.

    Each model may have more (``width``, as of 151,936 and 152,064 in one family): padding, which
    neither reads nor predicts. The ids must be the same tokens, and text must be cut into them by
    the same rules; but for added tokens, of which :func:`differing` tells, and which the data must
    not hold (tasks/language_model/check.py). Which token pads does not matter, padding is never
    read; nor does the decoder, which only makes text of tokens.

    Raises ModelError naming the first ids that differ and both tokens, or the rule, and
    ``way_out``.
    """
    student, teacher = load_tokenizer(student_folder), load_tokenizer(teacher_folder)
    added = differing(student, teacher)
    names_S, names_T = _names(student, added), _names(teacher, added)
    if names_S != names_T:
        raise ModelError(
            f"the tokenizers of the student ({student_folder}) and the teacher ({teacher_folder}) "
            f"differ: {_differences(names_S, names_T)}: {way_out}"
        )
    if rules := _differing_rules(student, teacher, added):
        raise ModelError(
            f"the tokenizers of the student ({student_folder}) and the teacher ({teacher_folder}) "
            f"have the same tokens, but split text by different rules ({', '.join(rules)}): "
            f"{way_out}"
        )
    num = _width(student, teacher, added)
    for who, width in (("student", student_width), ("teacher", teacher_width)):
        if width < num:
            raise ModelError(
                f"the {who} predicts {width} tokens, its tokenizer has {num}: put the tokenizer "
                "that the model was trained with into its folder"
            )
    return num


def differing(student: Any, teacher: Any) -> dict[int, tuple[str | None, str | None]]:
    """Ids of added tokens that are not the same to both tokenizers: the student's token and the
    teacher's, None where there is none.

    Equal ones have the same text and match the same spaces and words with them. Whether a token is
    special does not matter: that decides what is left out of decoded text. An id that is a word of
    one vocabulary and another token of the other is not among them: the vocabularies differ.
    """
    if not (student.is_fast and teacher.is_fast):
        return {}
    ours, theirs = _added(student), _added(teacher)
    names_S, names_T = _names(student), _names(teacher)
    found = {}
    for i in sorted(ours.keys() | theirs.keys()):
        pair = (names_S.get(i), names_T.get(i))
        is_word = (i in names_S and i not in ours) or (i in names_T and i not in theirs)
        if ours.get(i) != theirs.get(i) and not (is_word and pair[0] != pair[1]):
            found[i] = pair
    return found


def shared_tokens(
    student_folder: str | Path, teacher_folders: Mapping[str, str | Path]
) -> dict[str, SharedTokens]:
    """By teacher, of tokenizers that :func:`same_vocabulary` has accepted. Columns are shared by
    all or by none: several teachers are compared with the student side by side."""
    student = load_tokenizer(student_folder)
    teachers = {name: load_tokenizer(folder) for name, folder in teacher_folders.items()}
    widths, left_out = [], set()
    for teacher in teachers.values():
        added = differing(student, teacher)
        widths.append(_width(student, teacher, added))
        left_out |= added.keys()
    width = min(widths)
    holes = tuple(sorted(i for i in left_out if i < width))
    return {name: SharedTokens(width, holes, num_ids(t)) for name, t in teachers.items()}


def same_tokenizer(one: str | Path, other: str | Path) -> bool:
    """Whether two folders' tokenizers cut every text into the same ids."""
    first, second = load_tokenizer(one), load_tokenizer(other)
    return _names(first) == _names(second) and not _differing_rules(first, second)


def check_tokenizer_sha256(name: str, folder: str | Path, declared: str | None) -> None:
    """Raise ModelError unless the folder's tokenizer is the one that the configuration declares."""
    found = tokenizer_fingerprint(folder) if declared is not None else None
    if found != declared:
        raise ModelError(
            f"teachers.{name}: the tokenizer in {folder} has the fingerprint {found}, "
            f"tokenizer_sha256 is {declared}: give the folder that was meant, or correct the key"
        )


def _width(student: Any, teacher: Any, added: Mapping[int, Any]) -> int:
    if not added:
        return num_ids(student)
    return 1 + max(_names(student, added).keys() & _names(teacher, added).keys(), default=-1)


def _names(tokenizer: Any, but: Container[int] = ()) -> dict[int, str]:
    return {i: token for token, i in tokenizer.get_vocab().items() if i not in but}


def _added(tokenizer: Any) -> dict[int, dict[str, Any]]:
    """How each added token is found in a text."""
    pipeline = json.loads(tokenizer.backend_tokenizer.to_str())
    ignored = {"id", "special"} | ({"normalized"} if pipeline["normalizer"] is None else set())
    return {
        token["id"]: {key: value for key, value in token.items() if key not in ignored}
        for token in pipeline["added_tokens"]
    }


def _differences(student: Mapping[int, str], teacher: Mapping[int, str]) -> str:
    different = [
        i for i in sorted(student.keys() | teacher.keys()) if student.get(i) != teacher.get(i)
    ]
    shown = [
        f"id {i} is {quoted(student.get(i))} to the student and {quoted(teacher.get(i))} to the "
        "teacher"
        for i in different[:NUM_SHOWN]
    ]
    more = len(different) - len(shown)
    return "; ".join(shown) + (f"; and {more} more ids" if more else "")


def quoted(token: str | None) -> str:
    """As messages show it."""
    return "no token" if token is None else repr(token)


def _differing_rules(
    student: Any, teacher: Any, added: Mapping[int, Any] | None = None
) -> list[str]:
    """Parts of the tokenizers' pipelines that differ, as tokenizer.json names them. ``added``: of
    :func:`differing`, and then the decoder does not count."""
    if not (student.is_fast and teacher.is_fast):
        return [] if type(student) is type(teacher) else ["class"]
    ours, theirs = (json.loads(t.backend_tokenizer.to_str()) for t in (student, teacher))
    # Saved defaults of calls, not rules.
    ignored = {"truncation", "padding", "version"}
    if added is not None:
        ignored |= {"added_tokens", "decoder"}
        tokens = {token for pair in added.values() for token in pair}
        for pipeline in (ours, theirs):
            pipeline["model"]["vocab"] = _without(pipeline["model"]["vocab"], tokens)
    keys = sorted((ours.keys() | theirs.keys()) - ignored)
    return [key for key in keys if ours.get(key) != theirs.get(key)]


def _without(vocabulary: Any, tokens: Container[str | None]) -> Any:
    """A model's vocabulary (a Unigram one: tokens with their scores) without some tokens."""
    if isinstance(vocabulary, dict):
        return {token: i for token, i in vocabulary.items() if token not in tokens}
    return [entry for entry in vocabulary if entry[0] not in tokens]
