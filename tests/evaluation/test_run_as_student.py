"""``distill evaluate RUN``: its columns, its teachers and their pickles, and what is no student."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from distill.cli import app
from distill.config import parse
from distill.config.yaml_text import read_yaml
from distill.driver.evaluate.subjects import check_student, run_of
from distill.errors import ModelError
from distill.evaluation.leakage import MIN_ROWS
from distill.run_folder import RunFolder
from tests.toys import write_data, write_encoder, write_named

PLAIN = ["transform.names=[]", "intervals.num_draws=0", "num_worst=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student without training, whose teacher is a pickle that was fitted on all rows."""
    root = tmp_path_factory.mktemp("run")
    path = write_data(root / "data.parquet", 7 * MIN_ROWS)
    rows = pq.read_table(path).to_pylist()
    words = make_pipeline(CountVectorizer(), LogisticRegression())
    words.fit([row["text"] for row in rows], [row["label"] for row in rows])
    (root / "words.pkl").write_bytes(pickle.dumps(words))
    write_encoder(root / "student", num_labels=2, seed=1)
    raw = {
        "output": str(root / "mine"),
        "data": {"path": str(path), "columns": {"domain": "domain", "split": "split"}},
        "teachers": [{"name": "w", "path": str(root / "words.pkl"), "allow_pickle": True}],
        "student": {"layers": 1, "hidden": 8},
    }
    RunFolder(root / "mine").claim(parse(raw), {})
    write_named(root / "student", root / "mine/student", ["no", "yes"])
    return root / "mine"


def evaluate(run: Path, *arguments: str, data: Path | None = None) -> tuple[str, dict]:
    """The output, and what evaluation.json has; of an error nothing."""
    root = run.parents[1] if run.name == "student" else run.parent
    out = root / "out"
    path = data or root / "data.parquet"
    given = [str(run), "--data", str(path), "--out", str(out), *PLAIN, *arguments]
    done = CliRunner().invoke(app, ["evaluate", *given])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    found = json.loads((out / "evaluation.json").read_text()) if done.exit_code == 0 else {}
    return done.output, found


def test_a_run_has_its_columns_its_teacher_and_the_permission_for_its_pickle(run: Path) -> None:
    output, found = evaluate(run)
    assert found["columns"]["split"] == "split"
    splits = pq.read_table(run.parent / "data.parquet").column("split").to_pylist()
    assert found["metrics"]["test.rows"] == splits.count("test") >= MIN_ROWS
    assert found["metrics"]["teacher.test.accuracy"] > 0.99
    assert "films" in output and "evaluation.html" in output
    # A model given by hand has no permission but the option's.
    output, _ = evaluate(run, "--teacher", str(run.parent / "words.pkl"))
    assert "pickles run code" in output
    # The student's own folder is of the same run.
    _, own = evaluate(run / "student")
    assert own["columns"] == found["columns"]
    assert "teacher.test.accuracy" not in own["metrics"]


def test_a_run_without_the_permission_loads_no_pickle(run: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "loaded",)

    (tmp_path / "trap.pkl").write_bytes(pickle.dumps(Trap()))
    raw = read_yaml((run / "config.yaml").read_text("utf-8"))
    raw["teachers"] = [{"name": "w", "path": str(tmp_path / "trap.pkl")}]
    RunFolder(tmp_path / "other").claim(parse(raw), {})
    shutil.copytree(run / "student", tmp_path / "other/student")
    output, _ = evaluate(tmp_path / "other", data=run.parent / "data.parquet")
    assert "pickles run code" in output and not (tmp_path / "loaded").exists()


def test_a_teacher_that_knows_the_rows_and_a_student_without_skill_are_warned_of(
    run: Path,
) -> None:
    _, found = evaluate(run)
    assert found["metrics"]["test.accuracy"] < 0.9
    warnings = "\n".join(found["warnings"])
    assert "may have been trained on these rows" in warnings
    report = run / "report"
    report.mkdir(exist_ok=True)
    accuracies = {
        "test.accuracy": found["metrics"]["test.accuracy"] - 0.2,
        "test.teacher_accuracy": found["metrics"]["teacher.test.accuracy"],
    }
    (report / "metrics.json").write_text(json.dumps(accuracies))
    _, later = evaluate(run)  # the student is better than on the run's test split
    assert any("the teacher fell from" in text for text in later["warnings"])
    (report / "metrics.json").unlink()


def test_a_student_below_the_largest_class_is_marked(run: Path, tmp_path: Path) -> None:
    rows = pq.read_table(run.parent / "data.parquet")
    _, whole = evaluate(run / "student", "--split-column", "")
    recalls = {c: whole["metrics"][f"test.recall.{c}"] for c in ("no", "yes")}
    worse = min(recalls, key=lambda c: recalls[c])
    kept = rows.filter([label == worse for label in rows.column("label").to_pylist()])
    pq.write_table(kept, tmp_path / "one.parquet")
    output, found = evaluate(run / "student", data=tmp_path / "one.parquet")
    assert found["majority"] == {"label": worse, "share": 1.0}
    assert "below the majority class (100.0 %)" in output


def test_folders_that_are_no_student(run: Path, tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "gone", "there is no folder"),
        (run.parent / "words.pkl", "is a file: give a run or an exported student"),
        (tmp_path, r"is neither a run .* nor an exported student"),
    ):
        with pytest.raises(ModelError, match=message):
            check_student(path)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "experiment.json").write_text("{}")
    with pytest.raises(ModelError, match="has no student yet, its training has not finished"):
        check_student(unfinished)
    trial = unfinished / "trials/trial-001/student"
    trial.mkdir(parents=True)
    with pytest.raises(ModelError, match=r"is a sweep of 1 students: .*trial-001/student"):
        check_student(unfinished)
    (unfinished / "config.yaml").write_text("")
    assert run_of(trial) == unfinished.absolute()
    assert run_of(tmp_path) is None


def test_attention_of_a_run_has_the_mean_of_its_teachers_as_the_way_out(run: Path) -> None:
    """Its weights depend on hidden states that only the training has."""
    other = run.parent / "attention"
    raw = read_yaml((run / "config.yaml").read_text())
    teachers = [raw["teachers"][0] | {"name": name} for name in "ab"]
    RunFolder(other).claim(
        parse(
            raw
            | {
                "output": str(other),
                "aggregation": {"type": "attention"},
                "teachers": teachers,
            }
        ),
        {},
    )
    shutil.copytree(run / "student", other / "student")
    output, _ = evaluate(other)
    path = run.parent / "words.pkl"
    assert f"uniform mean of its teachers, --teacher {path} --teacher {path};" in output
    assert f"to evaluate without the teachers of the run, give {other / 'student'}" in output
