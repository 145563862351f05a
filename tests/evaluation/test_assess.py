"""What an assessment promises: a teacher beside itself, names known beforehand, counted losses."""

from __future__ import annotations

import numpy as np
import pytest

from distill.errors import ConfigError, DataError, InputError
from distill.evaluation.assess import Assessment, EvaluationTask, assess
from distill.evaluation.names import COSTS, metric_names
from distill.evaluation.samples import Sample
from distill.evaluation.settings import Evaluation, parse_kind, parse_settings
from tests.evaluation.toy_classifiers import Constant, Silent, Words

SOURCE = """\
int {name}(int *numbers, int count) {{
    int sum = {start};
    for (int i = 0; i < count; i++) {{ sum += numbers[i]; }}
    if (sum > {start}) {{ return sum; }} else {{ return {start}; }}
}}
"""
SETTINGS = parse_settings(["attack.budget=8", "attack.num_samples=6", "intervals.num_draws=20"])
NAMES = ("safe", "vulnerable")


def task(num: int = 8, num_broken: int = 0) -> EvaluationTask:
    samples = []
    for i in range(num):
        name = "gadget" if i % 2 else "total"
        text = "int f( {" if i < num_broken else SOURCE.format(name=name, start=10 + i)
        samples.append(Sample(i, i % 2, ("left", "right")[i // 2 % 2], text))
    return EvaluationTask(samples, NAMES, ("left", "right"), "c")


STUDENT = Words({"gadget": 3.0, "total": -3.0, "sum": 0.1, "while": 1.0})
TEACHER = Words({"gadget": 4.0, "total": -4.0, "if": 0.1})


def examined(settings: Evaluation = SETTINGS, of: EvaluationTask | None = None) -> Assessment:
    return assess(STUDENT, TEACHER, of or task(), settings, Silent())


def test_every_metric_was_announced() -> None:
    found = examined()
    announced = metric_names(task(), SETTINGS, has_teacher=True)
    assert found.metrics.keys() <= announced
    # The rest is measured by whoever has the models' files, or is of changes that never applied.
    rest = announced - found.metrics.keys()
    from_files = {"test.retention", "test.teacher_accuracy", "compression"}
    from_files |= {"test.rows", "test.truncated_rows"}
    from_files |= {f"student.{cost}" for cost in COSTS}
    assert {name for name in rest if "transformed" not in name} == from_files
    alone = assess(STUDENT, None, task(), SETTINGS, Silent())
    assert alone.metrics.keys() <= metric_names(task(), SETTINGS, has_teacher=False)
    assert not any(name.startswith(("fidelity", "teacher")) for name in alone.metrics)


def test_a_student_that_is_its_teacher_violates_nothing() -> None:
    found = assess(TEACHER, TEACHER, task(), SETTINGS, Silent())
    rates = {n: v for n, v in found.metrics.items() if n.startswith("fidelity") and "drop" not in n}
    assert len(rates) > 10 and set(rates.values()) == {0.0}
    assert found.differences == []


def test_known_answers() -> None:
    metrics = examined().metrics
    assert metrics["test.accuracy"] == metrics["teacher.test.accuracy"] == 1
    assert metrics["test.accuracy.left"] == metrics["test.recall.vulnerable"] == 1
    # The teacher reads the function's name alone, so that renaming, and nothing else, moves it.
    assert metrics["teacher.robustness.transformed.comments.flips"] == 0
    assert metrics["teacher.robustness.asr"] is not None
    assert metrics["robustness.transformed.rename.accuracy"] < 1  # type: ignore[operator]


def test_the_worst_differences_are_the_other_labels_first() -> None:
    found = assess(Constant(), TEACHER, task(), SETTINGS, Silent())
    assert found.metrics["fidelity.agreement"] == 0.5
    worst = found.differences
    assert len({one.row for one in worst}) == len(worst)
    assert {one.student for one in worst} == {"vulnerable"}
    disagreeing = [one.teacher != one.student for one in worst]
    assert disagreeing[0] and disagreeing == sorted(disagreeing, reverse=True)


def test_sources_that_do_not_parse_are_counted_and_shown_as_they_are() -> None:
    found = examined(of=task(num_broken=2))
    assert any("2 of 8 sources do not parse as c" in note for note in found.notes)
    with pytest.raises(DataError, match=r"6 of 8 sources \(75%\) do not parse as c, more than"):
        examined(of=task(num_broken=6))
    assert examined(parse_settings(["transform.max_unparsed=1"]), task(num_broken=6)).notes


def test_a_class_without_rows_is_told() -> None:
    samples = [sample for sample in task().samples if sample.label == 1]
    found = assess(STUDENT, None, EvaluationTask(samples, NAMES, (), "c"), SETTINGS, Silent())
    assert any("no row has the class 'safe'" in note for note in found.notes)
    assert "test.recall.safe" not in found.metrics


def test_features_under_noise() -> None:
    class Threshold:
        name, label_names = "threshold", NAMES

        def logits(self, samples):  # type: ignore[no-untyped-def]
            return np.array([[0.0, s.features_D[0]] for s in samples], np.float32)

    near = [-0.01, 0.01] * 10
    rows = [np.array([x, 0.0], np.float32) for x in [-2.0] * 10 + near + [2.0] * 10]
    samples = [Sample(i, int(x[0] > 0), features_D=x) for i, x in enumerate(rows)]
    features = EvaluationTask(samples, NAMES, (), None, sd_D=np.array([1.0, 0.0]))
    settings = parse_settings(["transform.noise=0.1"])
    found = assess(Threshold(), Threshold(), features, settings, Silent())
    # Of the half of the rows near the border, noise of a tenth turns about half; of the rest, none.
    flips = found.metrics["robustness.transformed.noise.flips"]
    assert flips is not None and 0.1 < flips < 0.4
    assert found.metrics["robustness.transformed.drop"] == pytest.approx(flips)
    assert found.metrics["fidelity.any"] == 0
    assert "robustness.asr" not in found.metrics


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["attack.budget=0"], "attack.budget must be at least 1 query per sample, got 0"),
        (["attack.methods=[bribe]"], "there is no attack 'bribe': choose from random, greedy"),
        (["attack.methods=null"], "attack.methods must be a list, got None"),
        (["relations.tau=2"], "relations.tau"),
        (["attack.bugdet=10"], "did you mean budget?"),
        (["attack"], "key=value"),
    ],
)
def test_settings_that_cannot_be(overrides: list[str], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(overrides)
    assert text in str(caught.value)


def test_languages_and_transformations_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="--language cobol: this language is not"):
        parse_kind("cobol")
    with pytest.raises(InputError, match="there is no transformation 'shuffle' of c"):
        examined(parse_settings(["transform.names=[shuffle]"]))
