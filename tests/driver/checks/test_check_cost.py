"""Estimates of who waits for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.config import Student, parse
from distill.driver.checks.check import check
from distill.models.language_student import build_language_student
from distill.tasks.language_model.cost import Costs, student_params
from tests.driver.checks.test_check_sampling import experiment_of, lines_of
from tests.toys_language import language_experiment, write_llama

IDLE, SHARE = "teacher idle (estimate)", "generation share (estimate)"


def test_a_step_is_the_sum_of_its_parts_or_the_longer_of_two_at_once() -> None:
    nobody = {"a": 0.0, "b": 0.0}
    costs = Costs(6, 2, nobody, {"a": 4, "b": 2}, requests_ahead=False)
    assert (costs.step, costs.generation) == (12, 2)
    assert (costs.idle("a"), costs.idle("b")) == pytest.approx((1 - 4 / 12, 1 - 2 / 12))
    ahead = Costs(6, 2, nobody, {"a": 4, "b": 2}, requests_ahead=True)
    assert ahead.step == 8 and ahead.idle("a") == pytest.approx(0.5)
    behind = Costs(6, 2, nobody, {"a": 16, "b": 2}, requests_ahead=True)
    assert behind.step == 16 and behind.idle("a") == 0
    verified = Costs(6, 2, nobody | {"a": 4}, {"a": 4, "b": 2}, requests_ahead=False)
    assert (
        verified.step == 16
        and verified.generation == 6
        and verified.idle("a") == pytest.approx(0.5)
    )
    one_base = Costs(6, 2, nobody, {"a": 4, "b": 2}, requests_ahead=False, together=[["a", "b"]])
    assert one_base.step == 14, "adapters on it answer one after the other"
    assert one_base.idle("a") == one_base.idle("b") == pytest.approx(1 - 6 / 14)


def test_the_plan_estimates_from_parameters(tmp_path: Path) -> None:
    """One teacher as large as the student: 2 written, 2 answered, 6 trained."""
    write_llama(tmp_path / "films", seed=1)
    changes: dict[str, Any] = {
        "teachers": [{"name": "films", "path": str(tmp_path / "films"), "num_cpus": 0.1}],
        "aggregation": {"type": "mean"},
        "student": {"path": str(tmp_path / "films")},
    }

    def text(sampling: dict[str, Any], **more: Any) -> tuple[str, str | None]:
        lines = lines_of(experiment_of(tmp_path, sampling, **changes | more))
        return lines[IDLE][0], lines[SHARE][0] if SHARE in lines else None

    assert text({"type": "on_policy"}) == ("films 80%", "20% of a step")
    assert text({"type": "on_policy", "staleness": 1}) == ("films 75%", "25% of a step")
    assert text({"type": "mixed"}) == ("films 78%", "11% of a step")
    assert text({"type": "skd", "top_k": 9}) == ("films 67%", "33% of a step")
    assert text({"type": "dataset"}) == ("films 67%", None)
    twice = changes["teachers"][0] | {"replicas": 2}
    assert text({"type": "dataset"}, teachers=[twice]) == ("films 83%", None)
    assert text({"type": "teacher"}, kd={"alpha": 0.0}) == ("films 75%", "25% of a step")


def test_teachers_of_a_domain_share_the_rows(tmp_path: Path) -> None:
    raw = language_experiment(tmp_path, student={"path": str(tmp_path / "films")})
    lines = {line.part: line.what for line in check(parse(raw)).lines}
    assert lines[IDLE].startswith("films 83%, meals 8")


def test_parameters_are_counted_without_building_the_student(tmp_path: Path) -> None:
    folder = str(write_llama(tmp_path / "deep", num_hidden_layers=5))
    for given in (
        {"layers": 1, "hidden": 32, "heads": 2, "ffn": 48},
        {"init_from": {"path": folder, "layers": 3, "keep": "even"}},
        {"path": folder},
    ):
        student = Student.model_validate(given)
        built = build_language_student(student, folder, 24, seed=0)
        assert student_params(student, folder) == built.num_parameters()
