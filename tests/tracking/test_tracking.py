"""Tracking against a real MLflow on SQLite."""

import contextlib
import json
import math
import os
import select
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill.config import Tracking, parse
from distill.config.values import safe_name
from distill.errors import Interrupted
from distill.metrics import LANGUAGE_MODEL
from distill.tracking import Tracker
from distill.tracking.store import import_mlflow
from distill.tracking.view import NOTE, view_state


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    shutil.copy(empty_store, path)
    return f"sqlite:///{path}"


@pytest.fixture
def tracking(uri: str) -> Tracking:
    return Tracking(uri=uri, experiment="tests", system_metrics=False)


@pytest.fixture(scope="session")
def client(uri: str):
    return import_mlflow().MlflowClient(uri)


@contextlib.contextmanager
def broken(uri: str) -> Iterator[None]:
    """The database without its table of metrics: every write of one fails."""
    path = uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE metrics RENAME TO metrics_away")
    try:
        yield
    finally:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("ALTER TABLE metrics_away RENAME TO metrics")


def history(client, run_id: str, key: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run_id, key))


def test_a_run_holds_what_was_said_to_it(tracking, client, tmp_path):
    report = tmp_path / "table.md"
    report.write_text("| model |")
    with Tracker(tracking, tmp_path / "run") as tracker:
        tracker.params({"kd": {"temperature": 2.0, "alpha": 0.5}, "output": "x"})
        tracker.metrics({"loss": 0.5, "grad_norm": math.nan, "lr": None}, step=1)
        tracker.lines(
            [{"step": 2, "time": 1000.5, "metrics": {"loss": 0.25, "test.accuracy.C++": 1}}]
        )
        tracker.dataset("reviews", "f" * 64, "/data/reviews", "train", num_rows=3)
        tracker.dataset("reviews", "f" * 64, "/data/reviews", "test", num_rows=2)
        tracker.artifact(report, "report")
    run = client.get_run(tracker.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.tags["distill.ended"] == "finished"
    assert run.data.params == {"kd.temperature": "2.0", "kd.alpha": "0.5", "output": "x"}
    assert history(client, tracker.run_id, "loss") == [(1, 0.5), (2, 0.25)]
    assert 1_000_500 in {m.timestamp for m in client.get_metric_history(tracker.run_id, "loss")}
    assert math.isnan(run.data.metrics["grad_norm"])
    assert run.data.metrics[safe_name("test.accuracy.C++")] == 1
    assert "lr" not in run.data.metrics
    inputs = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
    assert inputs.keys() == {"train", "test"}
    assert json.loads(inputs["train"].profile) == {"num_rows": 3, "fingerprint": "f" * 64}
    assert [f.path for f in client.list_artifacts(tracker.run_id, "report")] == ["report/table.md"]
    database = Path(tracking.uri.removeprefix("sqlite:///"))
    assert (database.parent / "mlartifacts" / tracker.run_id).is_dir()
    assert not (tmp_path / "run" / "untracked.jsonl").exists()


def test_mlflow_opens_the_runs_and_says_how_to_read_them(uri, client, tmp_path):
    tracking = Tracking(uri=uri, experiment="notes", system_metrics=False)
    experiment = parse(
        {
            "data": {"path": "reviews.parquet"},
            "output": "runs/reviews",
            "teachers": [{"name": "bert", "path": "p1"}, {"name": "svm", "path": "p2"}],
            "objective": [{"type": "forward_kl"}, {"type": "cosine", "weight": 0.1}],
        }
    )
    with Tracker(tracking, tmp_path) as tracker:
        tracker.describe(experiment)
        tracker.params(experiment.model_dump(mode="json"))
        trial = tracker.child("trial-001", {"kd.alpha": 0.5}, {}, {"role": "trial"})
    tags = client.get_experiment(tracker.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"  # not the page of traces
    assert "distill frontier notes" in tags[NOTE]
    view = json.loads(tags["mlflow.sharedViewState.distill"])
    assert view["orderByKey"] in view["selectedColumns"]
    axes = {(chart["yaxis"]["key"], chart["xaxis"]["key"]) for chart in view["compareRunCharts"]}
    assert ("eval.accuracy", "student.size_mb") in axes
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == {
        section["uuid"] for section in view["compareRunSections"]
    }
    note = client.get_run(tracker.run_id).data.tags[NOTE]
    assert "Teachers: `bert`, `svm`." in note
    assert "objective `forward_kl + 0.1 cosine`" in note
    params = client.get_run(tracker.run_id).data.params
    assert params["objective.type"] == "forward_kl + 0.1 cosine"  # a column of all runs
    assert params["objective.1.weight"] == "0.1"
    assert "`kd.alpha` 0.5" in client.get_run(trial).data.tags[NOTE]
    client.set_experiment_tag(tracker.experiment_id, NOTE, "my own words")
    client.set_tag(tracker.run_id, NOTE, "mine too")
    with Tracker(tracking, tmp_path) as tracker:
        tracker.describe(experiment)
    assert client.get_experiment(tracker.experiment_id).tags[NOTE] == "my own words"
    assert client.get_run(tracker.run_id).data.tags[NOTE] == "mine too"


QUIET = """
import json, sys
from pathlib import Path
from distill.config import Tracking
from distill.tracking import Tracker
root = Path(sys.argv[1])
student = root / "student"
student.mkdir()
(student / "config.json").write_text(json.dumps({"num_features": 2}))
with Tracker(Tracking(uri=f"sqlite:///{root}/new.db", experiment="x"), root / "run") as tracker:
    tracker.metrics({"loss": 0.5}, 1)
    tracker.model(student, "student")
    tracker.child("trial-001", {}, {}, {"role": "trial"})
    tracker.register("trial-001", student, "a name", "champion")
    assert tracker.num_kept == 0
"""


@pytest.mark.slow  # a new process and a new database: seconds
def test_mlflow_and_its_migrations_write_nothing_on_the_screen(tmp_path):
    command = [sys.executable, "-c", QUIET, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours = "real_accelerator"  # a line of DeepSpeed, which transformers imports
    lines = [line for line in (done.stdout + done.stderr).splitlines() if ours not in line]
    assert lines == []


def test_of_language_models_the_view_compares_perplexity():
    view = json.loads(view_state(LANGUAGE_MODEL))
    assert view["orderByKey"] == "metrics.`eval.perplexity`"
    assert view["orderByAsc"] is True
    assert "accuracy" not in {c["yaxis"]["key"].split(".")[1] for c in view["compareRunCharts"]}


def test_children_are_found_under_their_run(tracking, client, tmp_path):
    with Tracker(tracking, tmp_path) as tracker:
        curve = [{"step": 5, "time": 1.0, "metrics": {"loss": 0.1}}]
        for name, accuracy in (("expert a", 0.79), ("expert b", 0.81)):
            params = {"student.params": 22_700_000}
            tags = {"role": "expert"}
            tracker.child(name, params, {"test.accuracy": accuracy}, tags, curve)
        tracker.child("expert a", {}, {"test.accuracy": 0.8})  # the same row again
    found = client.search_runs(
        [tracker.experiment_id],
        f"tags.mlflow.parentRunId = '{tracker.run_id}' and tags.role = 'expert'",
        order_by=["metrics.`test.accuracy` DESC"],
    )
    assert [run.info.run_name for run in found] == ["expert b", "expert a"]
    assert [run.data.metrics["test.accuracy"] for run in found] == [0.81, 0.8]
    assert found[0].data.params == {"student.params": "22700000"}
    assert {run.info.status for run in found} == {"FINISHED"}
    assert history(client, found[0].info.run_id, "loss") == [(5, 0.1)]


def test_a_resumed_training_continues_its_run(tracking, client, tmp_path):
    line = {"step": 1, "time": 7.0, "metrics": {"loss": 0.5}}
    with pytest.raises(KeyboardInterrupt), Tracker(tracking, tmp_path) as first:
        first.params({"seed": 0, "workers": 1})
        first.lines([line])
        raise KeyboardInterrupt
    run = client.get_run(first.run_id)
    assert run.info.status == "KILLED"
    assert "stopped by the user" in run.data.tags["distill.ended"]
    with Tracker(tracking, tmp_path) as second:
        assert client.get_run(first.run_id).info.status == "RUNNING"
        assert "distill.ended" not in client.get_run(first.run_id).data.tags
        second.params({"seed": 0, "workers": 2})
        second.lines([line, {"step": 2, "time": 8.0, "metrics": {"loss": 0.4}}])
    run = client.get_run(first.run_id)
    assert second.run_id == first.run_id
    assert run.info.status == "FINISHED"
    assert history(client, first.run_id, "loss") == [(1, 0.5), (2, 0.4)]
    assert run.data.params["workers"] == "1"  # MLflow never changes one
    assert run.data.tags["resumed.workers"] == "2"


@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (Interrupted("a checkpoint was written"), "KILLED", "checkpoint"),
        (RuntimeError("no room at http://me:pw@host"), "FAILED", "RuntimeError: no room"),
        (SystemExit(0), "FINISHED", "finished"),
    ],
)
def test_the_end_says_why(tracking, client, tmp_path, error, status, why):
    with pytest.raises(type(error)), Tracker(tracking, tmp_path) as tracker:
        raise error
    run = client.get_run(tracker.run_id)
    assert run.info.status == status
    assert why in run.data.tags["distill.ended"]
    assert "pw" not in run.data.tags["distill.ended"]


def test_a_failing_store_loses_nothing(tracking, client, tmp_path, caplog):
    kept = tmp_path / "untracked.jsonl"
    with Tracker(tracking, tmp_path, retry_s=0) as tracker:
        with broken(tracking.uri):
            tracker.metrics({"loss": 0.5}, step=1)
            tracker.metrics({"loss": 0.4}, step=2)
            assert tracker.num_kept == 2
            assert len(kept.read_text().splitlines()) == 2
        tracker.metrics({"loss": 0.3}, step=3)
        assert tracker.num_kept == 0
    assert history(client, tracker.run_id, "loss") == [(1, 0.5), (2, 0.4), (3, 0.3)]
    assert not kept.exists()
    assert sum("could not be written to" in r.message for r in caplog.records) == 1


def test_a_resumed_run_sends_what_was_kept(tracking, client, tmp_path, caplog):
    with broken(tracking.uri), Tracker(tracking, tmp_path) as tracker:
        tracker.metrics({"loss": 0.5}, step=1)
    assert (
        "2 records are not in MLflow" in caplog.text and "the same command sends" in caplog.text
    )  # the metric, and the end behind it
    with Tracker(tracking, tmp_path) as tracker:
        assert tracker.num_kept == 0
        assert client.get_run(tracker.run_id).info.status == "RUNNING"
    assert history(client, tracker.run_id, "loss") == [(1, 0.5)]


def test_a_refused_record_holds_up_no_other(tracking, client, tmp_path):
    with Tracker(tracking, tmp_path) as tracker:
        tracker.artifact(tmp_path / "no such file")
        tracker.metrics({"loss": 0.5}, step=1)
    assert tracker.num_kept == 1
    assert client.get_run(tracker.run_id).data.metrics == {"loss": 0.5}
    assert client.get_run(tracker.run_id).info.status == "FINISHED"


@pytest.fixture
def hub(monkeypatch):
    """A socket that everything which asks for another host would connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        yield listener


def test_a_logged_model_predicts_as_the_folder(tracking, client, tmp_path, hub):
    import mlflow
    import transformers

    folder = tiny_student(tmp_path / "student")
    before = os.environ.get("MLFLOW_TRACKING_URI")
    with Tracker(tracking, tmp_path) as tracker:
        model_uri = tracker.model(folder, "student")
    assert not select.select([hub], [], [], 0)[0], "the hub was asked"
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
    assert model_uri is not None
    expected = transformers.pipeline("text-classification", model=str(folder))("good")
    try:
        mlflow.set_tracking_uri(tracking.uri)
        assert mlflow.transformers.load_model(model_uri)("good") == expected
        frame = mlflow.pyfunc.load_model(model_uri).predict(["good", "bad " * 500])
        by_run = mlflow.pyfunc.load_model(f"runs:/{tracker.run_id}/student").predict(["good"])
        needs = Path(mlflow.pyfunc.get_model_dependencies(model_uri)).read_text()
    finally:
        mlflow.set_tracking_uri(None)
    assert frame["label"][0] == by_run["label"][0] == expected[0]["label"]
    assert frame["score"][0] == pytest.approx(expected[0]["score"], abs=1e-5)
    assert client.get_run(tracker.run_id).outputs.model_outputs
    # Nothing is inferred: MLflow would import the model in another process and add what it found.
    names = sorted(line.split("==")[0] for line in needs.splitlines())
    assert names == ["mlflow", "torch", "transformers"]


def tiny_student(folder: Path) -> Path:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = BertConfig(
        vocab_size=len(words),
        intermediate_size=16,
        max_position_embeddings=16,
        id2label={0: "negative", 1: "positive"},
        **sizes,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_system_metrics_are_recorded(uri, client, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with Tracker(Tracking(uri=uri, experiment="tests"), tmp_path) as tracker:
        give_up = time.monotonic() + 600  # ends only what hangs
        while time.monotonic() < give_up:
            metrics = client.get_run(tracker.run_id).data.metrics
            if "system/cpu_utilization_percentage" in metrics:
                break
            time.sleep(0.05)
        else:
            pytest.fail("no system metrics")


def test_a_student_of_features_is_registered(tracking, client, tmp_path):
    """Its files: MLflow knows no flavour of them."""
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_features": 2}))
    with Tracker(tracking, tmp_path / "run") as tracker:
        for i, name in enumerate(("trial-001", "trial-002"), 1):
            tracker.child(name, {"role": "trial"}, {"test.accuracy": 0.5})
            assert tracker.register(name, folder, "a student", "champion") == str(i)
    found = client.get_model_version_by_alias("a student", "champion")
    assert int(found.version) == 2
    assert client.get_run(found.run_id).info.run_name == "trial-002"
    copied = import_mlflow().artifacts.download_artifacts(
        found.source, dst_path=str(tmp_path / "got")
    )
    assert json.loads((Path(copied) / "config.json").read_text()) == {"num_features": 2}
