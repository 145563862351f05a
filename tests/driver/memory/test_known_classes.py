"""Names of classes and fields in a key are those of 0.1, whatever the code calls them: outputs and
fits that an earlier version keeps in the shared memory are found again."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from distill.aggregation import Aggregation
from distill.config import parse
from distill.config.moe import MoE
from distill.config.sampling import Sampling
from distill.config.temperature import TemperatureSchedule
from distill.driver.checks.check import check
from distill.driver.memory.content import Contents, description
from distill.objectives import Objective
from distill.run_folder import RunFolder
from distill.tasks.classification.specs import EncoderSpec
from distill.tasks.jobs import student_job, write_tokenizer
from distill.tasks.language_model.specs import LanguageExpertSpec, LanguageStudentSpec
from distill.wires import Wire
from tests.toys_language import language_experiment
from tests.toys_memory import taught_job

KNOWN = json.loads(Path(__file__).with_name("classes_of_0_1.json").read_text("utf-8"))
WITHOUT_DEFAULTS = {"FixedWeights", "WeightedSum", "Single"}


def _classes(value: Any, found: dict[str, list[str]]) -> dict[str, list[str]]:
    if isinstance(value, dict):
        if "class" in value:
            found[value["class"]] = sorted(value.keys() - {"class"})
        for item in value.values():
            _classes(item, found)
    elif isinstance(value, list):
        for item in value:
            _classes(item, found)
    return found


def _members(union: Any) -> list[type]:
    if isinstance(union, type):
        return [union]
    return [member for argument in get_args(union) for member in _members(argument)]


def test_a_fit_is_described_as_before(tmp_path: Path) -> None:
    found = _classes(description(taught_job(tmp_path)), {})
    assert {"Job", "Guidance", "TeacherSpec", "TeacherKey"} <= found.keys()
    assert found == {name: KNOWN[name] for name in found}


def test_the_fit_of_a_language_model_is_described_as_before(tmp_path: Path) -> None:
    plan = check(parse(language_experiment(tmp_path)))
    experiment, run = plan.experiment, RunFolder(plan.experiment.output)
    tokenizer = write_tokenizer(experiment.student, plan.tokenizer, plan.corpus, run.tokenizer)
    job = student_job(experiment, plan.corpus, tokenizer, run.fit, run.stop)
    found = _classes(described := description(job), {})
    assert {"Job", "BlocksSpec", "LanguageStudentSpec"} <= found.keys()
    assert found == {name: KNOWN[name] for name in found}
    assert described["job"]["data"]["reading"] is None


UNIONS = {
    "aggregation": Aggregation,
    "objective": Objective,
    "sampling": Sampling,
    "moe": MoE,
    "schedule": TemperatureSchedule,
    "wire": Wire,
}


@pytest.mark.parametrize("key", UNIONS)
def test_methods_are_described_as_before(key: str) -> None:
    members = [m for m in _members(UNIONS[key]) if m.__name__ not in WITHOUT_DEFAULTS]
    assert members
    for member in members:
        found = _classes(Contents().described(member()), {})
        assert found == {name: KNOWN.get(f"{key} {name}", KNOWN[name]) for name in found}


@pytest.mark.parametrize("spec", [EncoderSpec, LanguageExpertSpec, LanguageStudentSpec])
def test_models_are_described_as_before(spec: type) -> None:
    assert sorted(field.name for field in fields(spec)) == KNOWN[spec.__name__]
