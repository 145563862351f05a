"""``distill evaluate``: a teacher's outputs are brought into the order of the student's classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.config import parse
from distill.driver.checks.check import check
from distill.driver.evaluate.standalone import EvaluationSource, evaluate
from distill.errors import ConfigError, InputError, ModelError
from distill.evaluation.evaluated import Evaluated, EvaluationRequest
from distill.evaluation.settings import parse_labels, parse_settings
from distill.report.progress import Progress
from distill.run_folder import RunFolder
from tests.toys import toy_experiment, write_encoder, write_named, write_turned

PLAIN = parse_settings(["attack.methods=[]", "transform.names=[]", "intervals.num_draws=0"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, and its teacher under other names and in another order."""
    root = tmp_path_factory.mktemp("evaluate-labels")
    toy_experiment(root)
    table = pq.read_table(root / "data.parquet").slice(0, 120)
    pq.write_table(table, root / "words.parquet")
    numbers = pa.array([int(label == "yes") for label in table.column("label").to_pylist()])
    index = table.schema.get_field_index("label")
    pq.write_table(table.set_column(index, "label", numbers), root / "integers.parquet")
    write_encoder(root / "student", num_labels=2, seed=1)
    write_encoder(root / "teacher", num_labels=2, seed=2)
    write_turned(root / "teacher", root / "turned", ["yes", "no"])
    write_turned(root / "teacher", root / "turned-words", ["positive", "negative"])
    write_named(root / "teacher", root / "plain", None)
    write_named(root / "student", root / "plain-student", None)
    return root


def evaluated(
    root: Path, *teachers: str, student: str = "student", data: str = "words", **labels: Any
) -> Evaluated:
    paths = tuple(str(root / teacher) for teacher in teachers)
    source = EvaluationSource(str(root / f"{data}.parquet"), split_column="")
    return evaluate(
        EvaluationRequest(root / student, source, paths, settings=PLAIN, **labels), Progress()
    )


def test_the_order_of_a_teachers_classes_changes_nothing(root: Path) -> None:
    plain = evaluated(root, "teacher")
    turned = evaluated(root, "turned")
    assert turned.metrics["teacher.test.accuracy"] != 0.5  # which an order could not change
    costs = ("latency", "memory", "gflops")
    for name, value in plain.metrics.items():
        if not any(cost in name for cost in costs):
            assert turned.metrics[name] == value, name
    both = evaluated(root, "teacher", "turned")
    assert both.metrics["teacher.test.accuracy"] == plain.metrics["teacher.test.accuracy"]


def test_labels_called_otherwise_are_mapped(root: Path) -> None:
    expected = evaluated(root, "teacher").metrics["teacher.test.accuracy"]
    own = {"negative": "no", "positive": "yes"}
    found = evaluated(root, "turned-words", teacher_labels=(own,))
    assert found.metrics["teacher.test.accuracy"] == expected
    found = evaluated(root, "turned", "turned-words", teacher_labels=({}, own))
    assert found.metrics["teacher.test.accuracy"] == expected
    with pytest.raises(ModelError, match=r"with --teacher-labels: {positive: …, negative: …}"):
        evaluated(root, "turned-words")
    with pytest.raises(ModelError, match=r"--teacher-labels: {LABEL_0: …, LABEL_1: …}"):
        evaluated(root, "plain")  # the student's order may be a sorted guess
    with pytest.raises(ConfigError, match="--teacher-labels is given 1 times, --teacher 2 times"):
        evaluated(root, "turned", "turned-words", teacher_labels=(own,))
    with pytest.raises(ConfigError, match="--teacher-labels needs --teacher"):
        evaluated(root, teacher_labels=(own,))


def test_models_without_names_are_of_the_integers(root: Path) -> None:
    found = evaluated(root, "plain", student="plain-student", data="integers")
    assert found.task.label_names == ("0", "1")
    named = evaluated(root, "teacher")
    for name in ("test.accuracy", "teacher.test.accuracy", "fidelity.any"):
        assert found.metrics[name] == named.metrics[name]
    with pytest.raises(
        InputError,
        match=r"'(no|yes)' in row 1 .* LABEL_0, LABEL_1 of the student .*; the data has no, yes: ",
    ):
        evaluated(root, student="plain-student")


@pytest.mark.parametrize("data_labels", [None, ["no", "yes"]])
def test_a_runs_own_teachers_have_the_labels_of_its_configuration(
    root: Path, tmp_path: Path, data_labels: list[str] | None
) -> None:
    raw = toy_experiment(root, aggregation={"type": "mean"}, output=str(tmp_path / "run"))
    del raw["experts"]
    own = None if data_labels else {"LABEL_0": "no", "LABEL_1": "yes"}
    raw["data"]["labels"] = data_labels
    raw["teachers"] = [
        {"name": "a", "path": str(root / "plain"), "labels": own, "num_cpus": 0.1},
        {"name": "b", "path": str(root / "turned"), "num_cpus": 0.1},
    ]
    plan = check(parse(raw))
    assert plan.columns == {"b": (1, 0)}
    RunFolder(tmp_path / "run").claim(plan.experiment, plan.identity)
    write_named(root / "student", tmp_path / "run/student", ["no", "yes"])
    found = evaluated(root, student=str(tmp_path / "run"))
    assert (
        found.metrics["teacher.test.accuracy"]
        == (evaluated(root, "teacher").metrics["teacher.test.accuracy"])
    )
    with pytest.raises(ConfigError, match="is a run, whose own teachers"):
        evaluated(root, str(tmp_path / "run"), teacher_labels=({"LABEL_0": "no"},))


def test_the_map_on_the_command_line(root: Path, tmp_path: Path) -> None:
    assert parse_labels("{LABEL_0: a, 1: b}") == {"LABEL_0": "a", "1": "b"}
    for text, message in {
        "LABEL_0=no": "is not a mapping: write",
        "{LABEL_0: no, LABEL_1: yes}": "YAML reads no, off and false as a boolean",
        "{a": "--teacher-labels '{a'",
    }.items():
        with pytest.raises(ConfigError, match=message) as caught:
            parse_labels(text)
        assert len(str(caught.value).splitlines()) == 1
    arguments = ["evaluate", str(root / "student"), "--data", str(root / "words.parquet")]
    arguments += ["--teacher", str(root / "turned-words"), "--out", str(tmp_path / "out")]
    arguments += ["--teacher-labels", "{negative: 'no', positive: 'yes'}"]
    few = ["attack.methods=[]", "transform.names=[]", "intervals.num_draws=0"]
    done = CliRunner().invoke(app, [*arguments, *few])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert written["teacher_labels"] == [{"negative": "no", "positive": "yes"}]
    expected = evaluated(root, "teacher").metrics["teacher.test.accuracy"]
    assert written["metrics"]["teacher.test.accuracy"] == expected
