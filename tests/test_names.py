"""Names of teachers, experts, baselines and domains: folders, keys of MLflow, refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.utils.validation import (
    MAX_ENTITY_KEY_LENGTH,
    path_not_unique,
    validate_param_and_metric_name,
)

from distill.config import Experiment, parse
from distill.config.values import safe_name, written_name, written_tag
from distill.driver.evaluate.subjects import _models_of_run
from distill.errors import ConfigError
from distill.names import MAX_FOLDER_BYTES, checked_name, confusable, folder_name
from distill.run_folder import RunFolder
from distill.tasks.checks.ensemble import check_names
from distill.teachers.cache import TeacherCache, TeacherKey
from tests.toys import toy_experiment

ODD = (
    *("C", "C++", "C##", "C__", "c++", "电影", "新闻", "Home & Kitchen", "Home_&_Kitchen", "a/b"),
    *("a//b", "a/", "../a", "..", ".", "-x", ".x", "_x", "café", "cafe\u0301", "x" * 300),
    *(
        "x" * 299 + "y",
        "电" * 100,
        "电" * 99 + "影",
        "a\u200db",
        "50%",
        "a b",
        "a  b",
        "[/b]",
        "$x$",
    ),
)


@pytest.mark.parametrize(
    "name", ["a", "tf-idf", "v1.2_b", "con", "9", "a.", "A" * MAX_FOLDER_BYTES]
)
def test_names_that_were_possible_keep_their_folder(name: str) -> None:
    assert folder_name(name) == name


def test_two_names_never_share_a_folder_and_every_folder_can_be_made(tmp_path: Path) -> None:
    folders = [folder_name(name) for name in ODD]
    assert len(set(folders)) == len(ODD)
    for folder in folders:
        assert folder[0] not in ".-" and Path(folder).name == folder
        (tmp_path / f"{folder}-0123456789ab").mkdir()
    assert folder_name("电影") == "电影"


@pytest.mark.parametrize(
    "name", ["loss", "eval.accuracy", "test.accuracy.a/b", "a b:c", "电影", "x" * 250]
)
def test_mlflow_has_what_it_takes_as_it_is(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize("prefix", ["", "test.accuracy."])
def test_two_names_never_share_a_key_of_mlflow_which_takes_each(prefix: str) -> None:
    names = [prefix + name for name in ODD]
    keys = [safe_name(name) for name in names]
    assert len(set(keys)) == len(ODD)
    for name, key in zip(names, keys, strict=True):
        assert validate_param_and_metric_name(key) and not path_not_unique(key)
        assert len(key) <= MAX_ENTITY_KEY_LENGTH
        assert safe_name(key) == key  # records of an older outbox are safe already
        assert written_name(key, {written_tag(key): name}) == name
        assert validate_param_and_metric_name(written_tag(key))


def test_a_tag_of_another_name_is_not_believed() -> None:
    key = safe_name("C++")
    assert written_name(key, {written_tag(key): "C##"}) == key
    assert written_name("loss", {}) == "loss"


@pytest.mark.parametrize("name", ["电影", "C++", "Home & Kitchen", "👩\u200d🍳", " a", "[/b]"])
def test_one_line_of_text_is_a_name(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "\u3000", "a\nb", "a\tb", "a\u2028b", "a\x00", "a" * 201]
)
def test_what_is_no_line_of_text_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the name .*: give one line of text$"):
        checked_name(name)


def test_names_that_people_or_file_systems_take_for_one() -> None:
    for one, other in itertools.pairwise(["Java", "java", " JAVA "]):
        assert confusable(["x", one, other]) == (one, other)
    assert confusable(["café", "cafe\u0301"]) == ("café", "cafe\u0301")
    assert confusable(["C++", "C", "C##", "电影", "新闻", "a b", "ab"]) is None


def test_the_cache_of_a_teacher_is_one_folder_whatever_it_is_called(tmp_path: Path) -> None:
    key = TeacherKey("w" * 64, "d" * 64, "t" * 64, "dense/float32", 128)
    names = ("../C++", "[/b]*", "[/b]?")
    assert not TeacherCache(tmp_path, dict.fromkeys(names, key), "rank0").messages
    assert len(list(tmp_path.glob("*/manifest.json"))) == len(names)
    changed = TeacherCache(tmp_path, {"[/b]*": replace(key, data="e" * 64)}, "rank0")
    assert changed.messages == [
        "teacher cache of '[/b]*' was made for other data: building a new one"
    ]


def experiment(tmp_path: Path, **changes: object) -> Experiment:
    return parse(toy_experiment(tmp_path, **changes))


def test_experts_may_be_called_as_their_domains_are(tmp_path: Path) -> None:
    check_names(experiment(tmp_path), ("电影", "C++", "Home & Kitchen"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("a", "router"),
            r"'router' cannot be the name of a teacher, it is .*'domain': change",
        ),
        (("a", "student"), r"'student' cannot be the name of a.*partition\.type 'kmeans'$"),
        (
            ("a", "uniform mean"),
            r"'uniform mean' cannot be .* it is the name of another row of the",
        ),
        (("a", "routed ensemble, k=2"), r"'routed ensemble, k=2' cannot be the name of"),
        (("a", "a\nb"), r"the name 'a\\nb' holds a line break.*values of data\.columns\.domain"),
        (("Java", "java"), r"teachers 'Java' and 'java' are too similar"),
        (
            ("a", "Alone"),
            r"baselines: 'alone' is also the name of the teacher 'Alone': change base",
        ),
    ],
)
def test_experts_whose_names_are_taken_are_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_names(experiment(tmp_path), names)
    assert len(str(caught.value).splitlines()) == 1


def test_a_run_knows_its_experts_by_their_names(tmp_path: Path) -> None:
    given = experiment(tmp_path)
    names = ("C##", "C++", "plain", "电影")
    run = RunFolder(given.output)
    run.keep_expert_names(names)
    for name in names:
        (run.experts / folder_name(name) / "model").mkdir(parents=True)
    found = _models_of_run(run.root, given)
    assert [name for name, _, _ in found] == sorted(names)
    assert [Path(path).parent.name for _, path, _ in found] == [*map(folder_name, sorted(names))]
