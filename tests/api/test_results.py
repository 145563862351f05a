"""Results of the functions: short in a terminal, tables and plots in a notebook; predict, evaluate
and export on objects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import distill
from distill.api import SweepResult, TrainPaths, TrainResult
from distill.api.results import quality
from distill.errors import ConfigError, DataError, RunFolderError
from distill.models.features import FeatureSpace, build_classifier
from distill.models.load import load_classifier
from distill.search.trials import Trial
from tests.export.test_prediction import TEXTS, make_run
from tests.models.tiny_models import save_decoder
from tests.report.rows import a_row
from tests.toys import write_data, write_encoder

PNG = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture
def result(tmp_path: Path) -> TrainResult:
    student = write_encoder(tmp_path / "exported", num_labels=2)
    data = {"path": "x", "columns": {"text": "review"}}
    run = make_run(tmp_path / "run", student, data)
    (run / "report").mkdir()
    (run / "report" / "trade_off.png").write_bytes(PNG)
    rows = (
        a_row("films <b>", "expert", params=1e6, accuracy=0.9),
        a_row("student", "student", params=1e4, size_mb=0.04, accuracy=0.875, retention=0.97),
    )
    metrics = {"test.accuracy": 0.875, "student.size_mb": 0.04}
    paths = TrainPaths(run, run / "student", run / "report")
    return TrainResult(rows, metrics, paths, mlflow="mlflow ui --port 1")


def test_a_training_is_a_line_or_a_table(result: TrainResult) -> None:
    assert repr(result) == f"TrainResult(test accuracy 87.5 %, 0.040 MB, {result.paths.run})"
    of_language = TrainResult((), {"test.perplexity": 9.0, "test.accuracy": 0.5}, result.paths)
    assert repr(of_language).startswith("TrainResult(test perplexity 9.00, next-token accuracy 50")
    assert "★ " in str(result) and str(result).endswith(f"report    {result.paths.report}")
    shown = result._repr_html_()
    assert "films &lt;b&gt;" in shown and "<b>" not in shown  # names are escaped
    assert "★ student" in shown and "97.0 %" in shown
    assert "data:image/png;base64,iVBORw0KGgo=" in shown  # what is there, inline
    assert shown.count("<img") == 1 and str(result.paths.run / "report") in shown
    assert "MLflow: <code>mlflow ui --port 1</code>" in shown
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", shown)
    assert "F1" not in heads and "accuracy" in heads  # empty columns are left out
    table = result.to_pandas()
    assert table["test.accuracy"].tolist() == [0.9, 0.875] and table["model"][1] == "student"


def test_the_student_is_loaded_once_and_predicts(result: TrainResult) -> None:
    assert result.student is result.student
    assert result.tokenizer("good")["input_ids"][0] == 2
    want = [result.student.config.id2label[i] for i in best_of(result.paths.student)]
    # A list of texts, and a table with the run's column.
    assert result.predict(TEXTS).predictions == want
    found = result.predict(pandas.DataFrame({"review": TEXTS, "n": range(5)}))
    assert found.predictions == want and found.table.column("n").to_pylist() == [0, 1, 2, 3, 4]
    assert found.table.column_names[:3] == ["review", "n", "prediction"]
    assert repr(found).startswith("PredictResult(5 rows, prediction, probability, ")
    assert len(found) == 5 and found.to_pandas()["prediction"].tolist() == want


def best_of(folder: Path) -> list[int]:
    from distill.export.classifier import Classifier

    model = load_classifier(folder)
    rows = [(text, None) for text in TEXTS]
    return Classifier(model, str(folder)).probs(rows).argmax(1).tolist()


def test_predictions_are_written_and_shown(result: TrainResult, tmp_path: Path) -> None:
    table = pa.table({"review": [f"<i>{text}</i>" for text in TEXTS * 3]})
    out = tmp_path / "out.parquet"
    found = distill.predict(result, table, out=out)
    assert found.path == out and parquet.read_table(out).num_rows == 15
    with pytest.raises(RunFolderError, match="--overwrite"):
        distill.predict(result, table, out=out)
    shown = found._repr_html_()
    assert "… and 5 more rows" in shown and "&lt;i&gt;" in shown and "<i>" not in shown


def test_rows_of_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "student"
    space = FeatureSpace(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    model = build_classifier("mlp", space, ("no", "yes"), layers=1, hidden=8, dropout=0.0)
    model.save_pretrained(folder)
    points = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    with torch.no_grad():
        best = model(torch.from_numpy(points)).logits.argmax(1)
    want = [("no", "yes")[index] for index in best]
    for rows in (points, points.tolist(), pa.table({"a": points[:, 0], "b": points[:, 1]})):
        assert distill.predict(folder, rows).predictions == want
    with pytest.raises(DataError, match=r"data has 3 features, .* reads 2: a, b"):
        distill.predict(folder, [[1.0, 2.0, 3.0]])
    with pytest.raises(DataError, match="data is a int"):
        distill.predict(folder, 3)


def test_prompts_and_chats(tmp_path: Path) -> None:
    save_decoder(tmp_path / "student")
    found = distill.predict(tmp_path / "student", ["the film", "a"], max_new_tokens=3)
    assert found.columns == ("generated",) and len(found.predictions) == 2
    with pytest.raises(DataError, match=r"has numbers, .* reads text"):
        distill.predict(tmp_path / "student", [[1.0]])


def test_a_sweep_has_a_champion_or_none(result: TrainResult) -> None:
    small = Trial(
        "t1",
        "finished",
        {"student.layers": 1},
        {"eval.accuracy": 0.8, "student.size_mb": 0.1},
        student=str(result.paths.student),
    )
    large = Trial(
        "t2",
        "finished",
        {"student.layers": 2},
        {"eval.accuracy": 0.9, "student.size_mb": 0.2},
        student="elsewhere",
    )
    found = SweepResult((large, small), (small, large), small, (), {}, Path("report"))
    assert repr(found) == "SweepResult(2 of 2 trials on the frontier, champion t1)"
    assert "★ t1" in found._repr_html_() and "student.layers" in found._repr_html_()
    assert found.student.config.id2label == {0: "no", 1: "yes"}
    assert found.to_pandas()["eval.accuracy"].tolist() == [0.8, 0.9]
    none = SweepResult((large,), (large,), None, (), {}, Path("report"))
    with pytest.raises(RunFolderError, match="no student of the frontier is small enough"):
        _ = none.student


def test_an_evaluation_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    student = write_encoder(tmp_path / "student", num_labels=2)
    rows = parquet.read_table(write_data(tmp_path / "data.parquet", 60))
    plain = {"attack.methods": [], "transform.names": [], "intervals.num_draws": 0}
    found = distill.evaluate(
        student,
        rows.select(["text", "label"]).to_pandas(),
        overrides=plain,
        fail_if=["test.accuracy < 1.1"],
        out=tmp_path / "report",
    )
    assert found.metrics["test.rows"] == 60 and not found.passed
    assert "test.accuracy" in found.failures[0]
    shown = found._repr_html_()
    assert "gate: " in shown and str(tmp_path / "report") in shown and "<img" in shown
    assert repr(found).endswith(f"1 gate failed, {tmp_path / 'report'})")
    assert "gate: " in str(found) and "student" in str(found).splitlines()[1]
    with pytest.raises(ConfigError, match="text_colum is not an option: use one of domain_column"):
        distill.evaluate(student, rows, text_colum="text")


def test_check_and_preview_of_objects(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder", num_labels=2)
    table = parquet.read_table(write_data(tmp_path / "data.parquet", 120))
    raw: dict[str, Any] = {
        "data": {
            "columns": {"split": "split", "domain": "domain"},
            "cache_dir": str(tmp_path),
            "max_length": 16,
        },
        "output": str(tmp_path / "run"),
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        "student": {"layers": 1, "hidden": 32},
    }
    teachers = {"mine": folder}
    plan = distill.check(raw, teachers, data=table, overrides={"kd.temperature": 3})
    assert plan.output == str(tmp_path / "run") and repr(plan).startswith("CheckResult(ready")
    assert [line[1] for line in plan.lines if line[0] == "output"] == [plan.output]
    assert all(line[1].replace("'", "&#x27;") in plan._repr_html_() for line in plan.lines)
    assert str(plan).startswith("ready to train\n")
    shown = distill.preview(raw, rows=2, teachers=teachers, data=table)
    assert shown.rows[0].tokens[0] in str(shown)
    assert len(shown.rows) == 2 and shown.rows[0].label in ("no", "yes")
    first = next(r for r in table.to_pylist() if r["split"] == "train")
    words = " ".join(f"<span>{word}</span>" for word in first["text"].split())
    assert words in shown._repr_html_() and "train row 1 · label" in shown._repr_html_()


def test_export_of_a_result(result: TrainResult, tmp_path: Path) -> None:
    found = distill.export(result, tmp_path / "copy")
    assert load_classifier(found.path).config.id2label == {0: "no", 1: "yes"}
    assert repr(found) == f"ExportResult({tmp_path / 'copy'})" and "copy" in found._repr_html_()


def test_a_metric_that_was_not_measured_is_not_shown() -> None:
    assert quality({"test.accuracy": None, "student.size_mb": 0.5}) == "0.500 MB"
