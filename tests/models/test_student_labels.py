"""A student that continues from a folder: its head stays, so its classes must be the run's."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config import Student
from distill.errors import ModelError
from distill.models.student import build_student, check_start
from tests.toys import write_encoder, write_named


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A classifier of no, yes; one without names, as save_pretrained leaves it; one of 0, 1."""
    root = tmp_path_factory.mktemp("starts")
    write_encoder(root / "words", num_labels=2)
    write_named(root / "words", root / "plain", None)
    write_named(root / "words", root / "numbers", [0, 1])
    return {name: root / name for name in ("words", "plain", "numbers")}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("plain", ("0", "1")),
        ("plain", ("bad", "good")),
        ("numbers", ("0", "1")),
        ("words", ("no", "yes")),
    ],
)
def test_it_has_the_names_of_the_run(folders: dict[str, Path], name: str, labels: tuple) -> None:
    folder = folders[name]
    model = build_student(Student(path=str(folder)), folder, labels, 16, seed=0)
    config = model.config
    assert config.id2label == dict(enumerate(labels))
    assert config.label2id == {label: i for i, label in enumerate(labels)}


@pytest.mark.parametrize(
    ("name", "labels", "is_order_given", "message"),
    [
        (
            "words",
            ("yes", "no"),
            True,
            "set data.labels to the former, or start from only its encoder",
        ),
        ("numbers", ("1", "0"), False, "set data.labels to the former, or start"),
        ("plain", ("bad", "good"), False, "set data.labels in the order of its classes, or start"),
        (
            "words",
            ("bad", "good"),
            True,
            r"\['bad', 'good'\]: start from only its encoder with st",
        ),
        (
            "plain",
            ("1", "2", "3"),
            False,
            r"'3'\]: start from only its encoder with student.init_from",
        ),
    ],
)
def test_other_classes_are_refused(folders, name, labels, is_order_given, message) -> None:
    student = Student(path=str(folders[name]))
    with pytest.raises(ModelError, match=message):
        check_start(student, folders[name], labels, 16, is_order_given)
