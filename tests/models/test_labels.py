"""Which output of a model is which class: the rules as a table, and every refusal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from distill.config.labels import as_label, configured_label, configured_map
from distill.errors import ConfigError, ModelError
from distill.models.labels import Classes, Outputs, class_orders, columns_of

KEY = "teachers[0].labels"
WORDS, TURNED = ("negative", "positive"), ("positive", "negative")
HF2, HF5 = ("LABEL_0", "LABEL_1"), tuple(f"LABEL_{i}" for i in range(5))
STARS = tuple("12345")


def matched(
    own: tuple[str, ...],
    classes: tuple[str, ...],
    labels: Mapping[str, str] | None = None,
    is_given: bool = False,
    key: str | None = KEY,
) -> tuple[int, ...] | None:
    text = "data.labels" if is_given else "the data"
    return columns_of(Outputs("teacher 'a'", own, key, labels), Classes(text, classes, is_given))


@pytest.mark.parametrize(
    ("own", "classes", "labels", "is_given", "columns"),
    [
        # by name, in any order
        (WORDS, WORDS, None, False, None),
        (TURNED, WORDS, None, False, (1, 0)),
        (("b", "c", "a"), ("a", "b", "c"), None, True, (2, 0, 1)),
        ((" negative", "positive\t"), TURNED, None, False, (1, 0)),
        (("1", "0"), ("0", "1"), None, True, (1, 0)),
        (HF2, HF2[::-1], None, True, (1, 0)),  # data whose labels are called so
        # LABEL_i is the integer i, wherever it stands
        (HF2, ("0", "1"), None, False, None),
        (HF2, ("1", "0"), None, False, (1, 0)),
        (HF2[::-1], ("0", "1"), None, False, (1, 0)),
        (("0", "1"), HF2, None, False, None),
        (tuple(f"LABEL_{i}" for i in range(12)), tuple(map(str, range(12))), None, False, None),
        # or data.labels[i], where there is data.labels
        (HF2, TURNED, None, True, None),
        (HF2[::-1], WORDS, None, True, (1, 0)),
        (("0", "1"), WORDS, None, True, None),
        (("1", "0"), WORDS, None, True, (1, 0)),
        (HF5, STARS, None, True, None),
        # by the map, where there is one
        (HF2, WORDS, {"LABEL_0": "positive", "LABEL_1": "negative"}, True, (1, 0)),
        (("positive", "LABEL_0"), WORDS, {"LABEL_0": "negative"}, False, (1, 0)),
        (("0", "1"), ("0", "1"), {"0": "1", "1": "0"}, False, (1, 0)),
    ],
)
def test_the_output_of_each_class(own, classes, labels, is_given, columns) -> None:
    assert matched(own, classes, labels, is_given) == columns


@pytest.mark.parametrize(
    ("own", "classes", "labels", "is_given", "kind", "message"),
    [
        (
            HF2,
            WORDS,
            None,
            False,
            ModelError,
            r"'LABEL_0' matches none .* {LABEL_0: …, LABEL_1: …}",
        ),
        (("0", "1"), WORDS, None, False, ModelError, r"teachers\[0\]\.labels: {'0': …, '1': …}$"),
        (
            HF5,
            STARS,
            None,
            False,
            ModelError,
            "teacher 'a' has .*, those of the data are 1, 2, 3, 4, 5: 'L",
        ),
        # Some numbers match by name; that is an accident.
        (tuple("01234"), STARS, None, True, ModelError, r"'0' matches none .* '1': …, '2': …, '3'"),
        (tuple("01234"), STARS[::-1], None, False, ModelError, "'0' matches none"),
        (
            tuple(f"LABEL_{i}" for i in range(3)),
            ("0", "2", "1"),
            None,
            True,
            ModelError,
            "LABEL_1 can be the label '1' or .*place, '2': map",
        ),
        (
            HF2,
            ("1", "0"),
            None,
            True,
            ModelError,
            "LABEL_0 can be the label '0' or .*place, '1': map",
        ),
        (("no", "bad"), ("no", "yes"), None, True, ModelError, r"'bad' matches none .*{bad: …}$"),
        (("on", "yes"), ("on", "no"), None, True, ModelError, r"labels: {'yes': …}$"),
        (
            ("a", "b", "c"),
            ("a", "b"),
            None,
            False,
            ModelError,
            "the 3 labels a, b, c, .* are 2: a, b",
        ),
        (
            ("a", "b", "c"),
            ("a", "b"),
            None,
            False,
            ModelError,
            "'c' has no counterpart: give",
        ),
        (
            ("a", "b"),
            ("a", "b", "c"),
            None,
            True,
            ModelError,
            "'c' has no counterpart: give",
        ),
        (HF5, WORDS, None, True, ModelError, r"'LABEL_0' .* \(teachers\[0\]\.labels only renames"),
        (("x", "x"), WORDS, None, False, ModelError, "two of its classes 'x': correct id2label"),
        # The map itself
        (HF2, WORDS, {"LABEL_0": "positive"}, True, ModelError, r"'LABEL_1' .* {LABEL_1: …}$"),
        (
            HF2,
            WORDS,
            {"LABEL_2": "negative"},
            True,
            ConfigError,
            "maps 'LABEL_2' to 'negative', but",
        ),
        (
            HF2,
            WORDS,
            {"LABEL_0": "negativ"},
            True,
            ConfigError,
            "to 'negativ', which is not a label of data",
        ),
        (
            HF2,
            WORDS,
            {"LABEL_0": "negative", "LABEL_1": "negative"},
            True,
            ConfigError,
            r"labels: 'LABEL_0' and 'LABEL_1' of teacher 'a' would both be 'negative'",
        ),
        (
            WORDS,
            WORDS,
            {"negative": "positive"},
            False,
            ConfigError,
            "'positive' of .* both be 'pos",
        ),
    ],
)
def test_what_cannot_be_matched(own, classes, labels, is_given, kind, message) -> None:
    with pytest.raises(kind, match=message) as caught:
        matched(own, classes, labels, is_given)
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_that_cannot_be_mapped_is_told_what_its_labels_must_be() -> None:
    with pytest.raises(
        ModelError, match="'b' matches none of them: its labels must be these names"
    ):
        matched(("a", "b"), ("a", "c"), key=None)


def test_what_a_model_says_of_the_classes() -> None:
    def orders(*names: str, labels: dict[str, str] | None = None) -> tuple[tuple[str, ...], ...]:
        return class_orders(Outputs("teacher 'a'", names, KEY, labels))

    assert orders("yes ", "no") == (("yes", "no"),)
    assert orders("1", "0") == (("1", "0"),)
    assert orders("LABEL_1", "LABEL_0") == (("1", "0"), ("LABEL_1", "LABEL_0"))
    assert orders("LABEL_1", "LABEL_2") == (("LABEL_1", "LABEL_2"),)
    assert orders(*HF2, labels={"LABEL_0": "bad", "LABEL_1": "good"}) == (("bad", "good"),)


def test_values_become_labels_as_those_of_data_files() -> None:
    mixed = np.array([np.int64(3), np.float32(1.0), np.bool_(True), 2.0, 0.5, "x"], object)
    assert [as_label(value) for value in mixed] == ["3", "1", "1", "2", "0.5", "x"]


def test_labels_in_yaml() -> None:
    assert [configured_label(v) for v in (0, 1.0, " a ", "0")] == ["0", "1", "a", "0"]
    with pytest.raises(
        ValueError, match=r"no, off and false as a boolean: .*quotes, or write 0 for"
    ):
        configured_label(False)
    for value in (0.5, None, ["a"], " "):
        with pytest.raises(ValueError, match="label"):
            configured_label(value)
    assert configured_map({0: "negative", "b": 1}) == {"0": "negative", "b": "1"}
    with pytest.raises(ValueError, match="the label '0' is mapped twice"):
        configured_map({0: "a", "0": "b"})
    with pytest.raises(ValueError, match="is not a mapping: write the model's label"):
        configured_map(["a", "b"])
