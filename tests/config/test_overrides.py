"""``a.b=c``: entries of lists by index and by name, keys with dots, what cannot be set."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from distill.config.overrides import assign
from distill.errors import ConfigError

TEACHERS = [
    {"name": "reviews", "path": "a"},
    {"name": "v1", "path": "b"},
    {"name": "v1.5", "path": "c"},
    {"name": "0", "path": "d"},
]
RAW: dict[str, Any] = {"teachers": TEACHERS, "student": {"lora": {"targets": ["q", "v"]}}}


def assigned(key: str, value: Any = "new") -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    assign(raw, key, value)
    return raw


@pytest.mark.parametrize(
    ("key", "index"),
    [
        ("teachers.reviews.path", 0),
        ("teachers.v1.path", 1),
        ("teachers.v1.5.path", 2),  # the longest name that matches, not the key 5 of v1
        ("teachers.0.path", 0),  # digits are an index, whatever the names are
        ("teachers.3.path", 3),
    ],
)
def test_an_entry_has_its_index_and_its_name(key: str, index: int) -> None:
    raw = assigned(key)
    assert [i for i, teacher in enumerate(raw["teachers"]) if teacher["path"] == "new"] == [index]


def test_a_whole_entry_and_an_entry_without_keys_are_set() -> None:
    assert assigned("teachers.v1", {"name": "x"})["teachers"][1] == {"name": "x"}
    assert assigned("student.lora.targets.1")["student"]["lora"]["targets"] == ["q", "new"]


def test_a_section_below_a_named_entry_is_made() -> None:
    assert assigned("teachers.v1.wire.type", "topk")["teachers"][1]["wire"] == {"type": "topk"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "teachers.review.path",
            "override teachers.review.path: teachers has 4 entries (0 to 3) named reviews, v1, "
            "v1.5, 0, got 'review'",
        ),
        ("teachers.4.path", "got the index 4"),
        ("teachers.².path", "got '²'"),
        ("student.", "override student.: a key is missing before or after a dot"),
        ("student.lora.targets.q", "student.lora.targets has 2 entries (0 to 1), got 'q'"),
        ("teachers.v1.path.x", "teachers.1.path is the value 'b', not a section"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(key: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        assigned(key)
    assert message in str(caught.value)


def test_the_searched_keys_hold_dots() -> None:
    grid = {"type": "grid", "values": [1, 2]}
    raw: dict[str, Any] = {"search": {"space": {"kd.alpha": dict(grid)}}}
    assign(raw, "search.space.kd.temperature", grid)
    assign(raw, "search.space.kd.alpha.values", [0.5])
    assert raw["search"]["space"] == {
        "kd.alpha": {"type": "grid", "values": [0.5]},
        "kd.temperature": grid,
    }
