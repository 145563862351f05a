"""The key of a fit: equal where the result is, another one for every setting that changes it."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from distill.aggregation import Routed, UniformMean
from distill.config import KD, Cache, InitFrom, Serving, Stream, Student, Teacher, Trainer, parse
from distill.driver.checks.check import check
from distill.driver.memory.content import DROPPED, Contents, _model_paths, content_key, description
from distill.objectives import ForwardKL, ReverseKL, WeightedSum
from distill.run_folder import RunFolder
from distill.tasks.classification.specs import EncoderSpec, StudentSpec
from distill.tasks.jobs import student_job, write_tokenizer
from distill.teachers.cache import TeacherKey
from distill.teachers.served import ServedTeacher
from distill.teachers.setup import TeacherSetup
from distill.training.job import Job
from distill.variant import Section
from tests.toys import write_encoder
from tests.toys_language import language_experiment
from tests.toys_memory import table_job, taught_job


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return taught_job(tmp_path_factory.mktemp("content"))


def test_the_key_is_stable(job: Job) -> None:
    assert content_key(job) == content_key(taught_job(Path(job.folder).parent))
    assert len(content_key(job)) == 32


@pytest.mark.parametrize("name", sorted(f.name for f in fields(Job)))
def test_every_field_of_a_job_is_in_the_key_unless_it_is_dropped(job: Job, name: str) -> None:
    others: dict[str, Any] = {
        "model": replace(job.model, student=Student(hidden=16, dropout=0.0)),  # type: ignore[type-var]
        "teacher_setup": None,
        "folder": f"{job.folder}-2",
    }
    other = replace(job, **{name: others.get(name, "another")})
    assert (content_key(other) == content_key(job)) == (name in {"name", "folder", "stop_file"})


@pytest.mark.parametrize("section", ["optimizer", "trainer", "kd", "objective", "sampling"])
def test_every_setting_is_in_the_key_unless_it_is_dropped(job: Job, section: str) -> None:
    """Also one that is added later."""
    settings: Section = getattr(job, section)
    same = {
        name
        for name in type(settings).model_fields
        if content_key(replace(job, **{section: settings.model_copy(update={name: "another"})}))
        == content_key(job)
    }
    assert same == DROPPED.get(type(settings), set())
    assert type(settings) is Trainer or not same


def test_a_sum_of_objectives_is_in_the_key_with_its_weights(job: Job) -> None:
    def key(weight: float) -> str:
        members = (ForwardKL(), ReverseKL(weight=weight))
        return content_key(replace(job, objective=WeightedSum(members)))

    assert key(0.1) == key(0.1)
    assert len({key(0.1), key(0.2), content_key(replace(job, objective=ForwardKL()))}) == 3


@pytest.mark.parametrize("of", [TeacherSetup, ServedTeacher, TeacherKey, Serving])
def test_every_field_of_the_teachers_is_in_the_key_unless_it_is_dropped(of: type) -> None:
    contents = Contents()
    key = TeacherKey("weights", "rows", "tokens", "dense", 8)
    spec = ServedTeacher("a", "folder", Serving(), 2, key)
    whole = TeacherSetup(None, (spec,), None, UniformMean(), Stream(), Cache(), "folder")  # type: ignore[arg-type]
    value: Any = {TeacherSetup: whole, ServedTeacher: spec, TeacherKey: key, Serving: Serving()}[of]
    names = Serving.model_fields if of is Serving else [f.name for f in fields(of)]
    for name in names:
        change = {name: "another"}
        other = value.model_copy(update=change) if of is Serving else replace(value, **change)
        is_same = contents.described(other) == contents.described(value)
        assert is_same == (name in DROPPED.get(of, ())), name


def test_a_later_field_is_in_the_key() -> None:
    class Later(KD):
        later: str = "none"

    contents = Contents()
    assert contents.described(Later()) != contents.described(Later(later="some"))


def test_rows_and_labels_are_in_the_key_by_their_numbers(tmp_path: Path) -> None:
    job = table_job(tmp_path)
    rows = np.asarray(job.train_rows)
    assert content_key(replace(job, train_rows=rows)) == content_key(job)
    assert content_key(replace(job, train_rows=rows[:-1])) != content_key(job)
    labels = np.zeros(len(rows), np.int64)
    router = replace(job, train_labels=labels)
    other = labels.copy()
    other[3] = 1  # a row whose lowest loss is another expert's
    assert content_key(replace(router, train_labels=other)) != content_key(router)


def test_models_are_in_the_key_by_content(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    shutil.copytree(tmp_path / "encoder", tmp_path / "moved")
    shutil.copytree(tmp_path / "encoder", tmp_path / "tuned")
    weights = load_file(tmp_path / "tuned" / "model.safetensors")
    save_file({n: t + 1 for n, t in weights.items()}, tmp_path / "tuned" / "model.safetensors")

    def described(name: str) -> list[Any]:
        folder, contents = str(tmp_path / name), Contents()
        student = Student(init_from=InitFrom(path=folder, layers=1))
        return [
            contents.described(EncoderSpec(folder, ("no", "yes"))),
            contents.described(StudentSpec(student, folder, ("no", "yes"), 8)),
        ]

    assert described("moved") == described("encoder")
    for tuned, own in zip(described("tuned"), described("encoder"), strict=True):
        assert tuned != own


def test_folders_of_teachers_and_router_are_not_in_the_key() -> None:
    """Their weights are: in the keys of the served models."""
    contents = Contents()
    here, there = (Teacher(name="a", path=path, allow_pickle=True) for path in ("x", "y"))
    assert contents.described(here) == contents.described(there)
    assert contents.described(Teacher(name="b", path="x")) != contents.described(here)
    routed = [contents.described(Routed(k=1, router=path)) for path in ("x", "y")]
    assert routed[0] == routed[1] != contents.described(Routed(k=2, router="x"))


def subclasses(of: type) -> list[type]:
    return [c for one in of.__subclasses__() for c in [one, *subclasses(one)]]


def test_every_field_that_names_a_model_is_known_as_such() -> None:
    """Also one that is added later, if it is a ModelPath."""
    own = [c for c in subclasses(Section) if c.__module__.startswith("distill.")]
    paths = {(c.__name__, name) for c in own for name in _model_paths(c)}
    assert {
        ("Student", "path"),
        ("Student", "tokenizer"),
        ("InitFrom", "path"),
        ("Teacher", "path"),
        ("Teacher", "adapter"),
        ("Experts", "base"),
        ("Routed", "router"),
    } <= paths


def test_a_capped_student_is_described_by_its_dimensions(tmp_path: Path) -> None:
    def key(folder: str, student: Student) -> str:
        job = table_job(tmp_path, folder)
        return content_key(replace(job, model=replace(job.model, student=student)))  # type: ignore[type-var]

    capped = [Student(size_mb=size, dropout=0.0) for size in (0.0100, 0.0101, 0.05)]
    first, near, large = (key(f"fit-{i}", student) for i, student in enumerate(capped))
    assert first == near != large


def test_no_folder_is_in_a_description(tmp_path: Path) -> None:
    raw = language_experiment(tmp_path)
    raw["student"] = {"init_from": {"path": str(tmp_path / "films"), "layers": 1}}
    plan = check(parse(raw))
    run = RunFolder(plan.experiment.output)
    student = plan.experiment.student
    tokenizer = write_tokenizer(student, plan.tokenizer, plan.corpus, run.tokenizer)
    language = replace(
        student_job(plan.experiment, plan.corpus, tokenizer, run.fit, run.stop),
        objective=ReverseKL(),
        kd=KD(),
    )
    for job in (language, taught_job(tmp_path)):
        described = json.dumps(description(job))
        assert str(tmp_path) not in described
    elsewhere = replace(language.data, tokenizer=str(tmp_path / "films"))
    assert content_key(replace(language, data=elsewhere)) == content_key(language)
    shorter = replace(language.data, max_length=12)
    assert content_key(replace(language, data=shorter)) != content_key(language)


def test_what_is_not_known_is_not_left_out() -> None:
    with pytest.raises(TypeError, match="unknown content in the key of a fit: object"):
        Contents().described({"a": object()})
