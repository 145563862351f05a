"""Keys and variants declare their tasks; one check refuses them with another task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

import pytest
from pydantic import BaseModel, RootModel

from distill.config import Experiment, parse
from distill.config.keys_of_tasks import check_fits, misfits, models_of, variants_of
from distill.errors import ConfigError
from distill.variant import Only, Section, Variant

MINIMAL: dict[str, Any] = {"data": {"path": "data"}, "output": "run"}
TEACHER = {"name": "t", "path": "t"}
TASKS = ("classification", "language_model")


def messages(task: str, **raw: Any) -> list[str]:
    experiment = parse(MINIMAL | {"task": task} | raw)
    return [message for _, message in misfits(experiment, task)]


def test_an_experiment_of_defaults_fits_every_task() -> None:
    for task in TASKS:
        assert messages(task) == []
        data = {"path": "data", "columns": {"domain": "d"}}
        assert messages(task, data=data, experts={"base": "b"}) == []


def test_a_message_names_key_value_and_way_out() -> None:
    assert messages("language_model", student={"vocab_size": 64}) == [
        "student.vocab_size 64 applies only to classifiers, task is language_model: remove it"
    ]
    served = TEACHER | {"wire": {"type": "topk"}, "adapter": "a"}
    assert messages("classification", teachers=[served]) == [
        "teachers.t.wire.type topk applies only to language models, task is classification: use "
        "dense",
        "teachers.t.adapter a applies only to language models, task is classification: merge it "
        "into a model folder (peft's merge_and_unload), and set path to that folder",
    ]
    assert messages("language_model", trainer={"select_by": "eval.f1"}) == [
        "trainer.select_by eval.f1 applies only to classifiers, task is language_model: use "
        "eval.perplexity or eval.accuracy (of the next token)"
    ]
    (listed,) = messages("classification", objective=[{"type": "uld"}], teachers=[TEACHER])
    assert listed.startswith("objective.0.type uld applies only to language models, task is cl")
    assert "use forward_kl, " in listed and "uld" not in listed.partition(": ")[2]


def test_a_value_that_is_the_default_fits() -> None:
    data = {"path": "data", "labels": None, "unlabelled": "error", "columns": {"features": None}}
    trainer = {"gradient_checkpointing": False}
    for task in TASKS:
        assert messages(task, data=data, trainer=trainer, warm_start=False) == []


def test_the_first_misfit_is_raised_except_for_ignored_keys() -> None:
    raw = MINIMAL | {"task": "language_model", "warm_start": True, "student": {"vocab_size": 64}}
    experiment = parse(raw)
    with pytest.raises(ConfigError, match=r"^student\.vocab_size 64 applies only to classifiers"):
        check_fits(experiment, experiment.task)
    ignored = ("student.vocab_size", "warm_start")
    check_fits(experiment, experiment.task, ignored)
    with pytest.raises(ConfigError, match=r"^warm_start true applies only to classifiers"):
        check_fits(experiment, experiment.task, ignored[:1])


# ---- every declaration -----------------------------------------------------------------------


def sections(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """Every class below a section, itself included."""
    if model in seen:
        return
    seen.add(model)
    model.model_rebuild()
    yield model
    for field in model.model_fields.values():
        for below in classes_in(field.annotation):
            yield from sections(below, seen)


def classes_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for one in get_args(annotation) for found in classes_in(one)]


def made(model: type[BaseModel], **values: Any) -> BaseModel:
    """Not validated: required keys are null."""
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    return model.model_construct(**dict.fromkeys(required) | values)


EVERY = [*sections(Experiment, set())]
KEYS = [
    pytest.param(model, name, only, id=f"{model.__name__}.{name}-{only.task}")
    for model in EVERY
    for name, field in model.model_fields.items()
    for only in field.metadata
    if isinstance(only, Only)
]
VARIANTS = [m for m in EVERY if issubclass(m, Variant) and m.tasks]


@pytest.mark.parametrize(("model", "name", "only"), KEYS)
def test_every_declared_key_is_refused(model: type[BaseModel], name: str, only: Only) -> None:
    assert only.task in TASKS and only.way_out
    value = only.values[0] if only.values else "x"
    section = made(model, **{name: value})
    (other,) = {*TASKS} - {only.task}
    assert [key for key, _ in misfits(section, only.task, "s")] == []
    ((key, message),) = misfits(section, other, "s")
    assert key == f"s.{name}"
    assert message == (
        f"s.{name} {value} applies only to {models_of([only.task])}, task is {other}: "
        f"{only.way_out}"
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_declared_variant_is_refused_wherever_it_can_stand(variant: type[Variant]) -> None:
    found = 0
    for model in EVERY:
        for name, field in model.model_fields.items():
            if variant not in variants_of(field.annotation) or issubclass(model, RootModel):
                continue
            section = made(model, **{name: made(variant)})
            for task in TASKS:
                refused = [message for _, message in misfits(section, task, "s")]
                kind = variant.model_fields["type"].default
                expected = f"s.{name}.type {kind} applies only to {models_of(variant.tasks)}, task"
                assert [m.startswith(expected) for m in refused] == [True] * (
                    task not in variant.tasks
                )
            found += 1
    assert found


def test_the_families_that_declare_tasks() -> None:
    kinds = {variant.model_fields["type"].default for variant in VARIANTS}
    assert kinds == {
        *("routed", "learned", "uld", "kmeans", "tfidf"),
        *("hidden", "topk", "sampled", "all", "ka", "sar"),
        *("teacher", "on_policy", "mixed", "skd"),
    }


class Red(Variant):
    type: Literal["red"] = "red"


class Blue(Variant):
    tasks: ClassVar[tuple[str, ...]] = ("toy", "language_model")
    type: Literal["blue"] = "blue"


class Painted(Section):
    paint: Red | Blue = Red()


def test_a_task_of_a_plugin_has_its_own_name_in_messages() -> None:
    blue = Painted(paint=Blue())
    assert [*misfits(blue, "toy")] == []
    ((_, message),) = misfits(blue, "classification")
    assert message == (
        "paint.type blue applies only to task toy and language models, task is classification: "
        "use red"
    )
