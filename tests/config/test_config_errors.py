"""What a newcomer mistypes: one line with the key as it is written, what it must be, the value and
the way out."""

from __future__ import annotations

from typing import Any

import pytest

from distill.config import load, parse
from distill.errors import ConfigError

SMALL = {"data": {"path": "x.parquet"}, "output": "out"}
ONE = {"name": "reviews", "path": "x"}
DATA = {"path": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kd": 0.9},
            "kd must be a section with the keys temperature, alpha, normalise, schedule, got 0.9: "
            "write kd: {temperature: …}",
        ),
        ({"kd": None}, "kd is empty: give it a value, or remove the key"),
        (
            {"teachers": {"reviews": {"path": "x"}}},
            "got a mapping: begin each entry with a dash, as in - {name: …, path: …}",
        ),
        ({"teachers": "models/x"}, "got 'models/x': begin each entry with a dash, as in - {name:"),
        ({"teachers": ["models/x"]}, "teachers.0 must be a section with the keys name, path, "),
        ({"teachers": [{"name": "reviews"}]}, "teachers.reviews.path is missing: add it to mine"),
        ({"teachers": [ONE | {"pth": "y"}]}, "unknown key teachers.reviews.pth: did you mean path"),
        ({"teachers": [ONE | {"num_gpus": "many"}]}, "teachers.reviews.num_gpus must be a number"),
        ({"teachers": [ONE | {"num_gpus": -1}]}, "teachers.reviews.num_gpus must be greater than"),
        ({"teachers": [ONE | {"wire": "topk"}]}, "got 'topk': write wire: {type: topk}"),
        ({"teachers": [ONE | {"wire": {}}]}, "teachers.reviews.wire.type is missing: give one of"),
        ({"data": "x.csv"}, "got 'x.csv': write data: {path: …}"),
        ({"data": {"path": 5}}, "data.path must be text or a list of texts, got 5: put it in quo"),
        ({"data": DATA | {"labels": "good"}}, "must be a list of texts, got 'good': write labels:"),
        (
            {"data": DATA | {"text": "review"}},
            "unknown key data.text: did you mean data.columns.te",
        ),
        ({"temperature": 2}, "unknown key temperature: did you mean kd.temperature?"),
        ({"objective": "reverse_kl"}, "got 'reverse_kl': write objective: {type: reverse_kl}"),
        ({"objective": {"type": "reversekl"}}, "got 'reversekl': did you mean reverse_kl?"),
        ({"student": {"scale": "tny"}}, "one of tiny, mini, small, medium, base, got 'tny': did y"),
        ({"student": {"size_mb": "5MB"}}, "student.size_mb must be a number, got '5MB'"),
        ({"trainer": {"epochs": "three"}}, "trainer.epochs must be a number, got 'three'"),
        ({"trainer": {"gradient_checkpointing": "on it"}}, "must be true or false, got 'on it'"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas must be a list of 2 numbers, got a lis"),
        ({"baselines": ["tfidf"]}, "baselines.0 must be a section whose type is one of labels_onl"),
        (
            {"search": {"space": {"kd.alpha": [0, 1]}}},
            "search.space.kd.alpha must be a section whose type is one of grid, choice",
        ),
    ],
)
def test_each_mistake_is_one_line_with_the_way_out(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SMALL | change, source="mine.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")
    assert len(str(caught.value).splitlines()) == 1


def test_every_mistake_has_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SMALL | {"kd": {"alpha": 2}, "seed": "x"}, source="mine.yaml")
    assert str(caught.value).splitlines() == [
        "mine.yaml: kd.alpha must be less than or equal to 1, got 2",
        "mine.yaml: seed must be a whole number, got 'x'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n\tpath: x\n", "line 2, column 1: a tab: indent with spaces"),
        ("data: {path: x\nkd: {}\n", "line 2, column 3: a bracket [ or { is not closed, or a com"),
        ("data:\n  path: x\n columns: {}\n", "line 3, column 2: the indent differs from that of"),
        ("data: path: x\n", "line 1, column 11: a second colon in a line"),
        ("data: {path: x}\nkd: {}\nkd: {}\n", "line 3, column 1: the key 'kd' occurs twice"),
        (
            "data: {path: @x}\n",
            "line 1, column 14: found character '@' that cannot start any token",
        ),
        ("data: {path: 'x}\n", "the file ends within quotes: close them"),
        ("", "is empty: it must at least have data.path"),
        ("x", "must hold a mapping of keys, such as data: and teachers:, got str"),
    ],
)
def test_files_that_are_no_yaml_name_the_place(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_merged_mapping_may_be_overridden(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {path: x}\nkd: &a {alpha: 1}\noptimizer: {lr: 0.1}\n")
    assert load(path).kd.alpha == 1
    path.write_text(
        "data: {path: x}\nteachers:\n- &t {name: a, path: x, num_gpus: 1}\n- {<<: *t, name: b}\n"
    )
    assert [t.name for t in load(path).teachers] == ["a", "b"]


def test_a_configuration_that_is_not_there_lists_those_that_are(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(
        ConfigError, match=r"no configuration file at .*mien.yaml: .* has mine.yaml"
    ):
        load(tmp_path / "mien.yaml")
