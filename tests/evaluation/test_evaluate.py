"""``distill evaluate`` as typed, on models that are trained within a second."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from distill.cli import app
from distill.config import Data, Optimizer, Student, Trainer
from distill.data.corpus import build_corpus
from distill.tasks.classification.specs import DataSpec, EncoderSpec, StudentSpec
from distill.training.fit import fit_and_save
from distill.training.job import Job
from tests.toys import write_data, write_encoder
from tests.toys_language import write_llama

FEW = ["attack.budget=6", "attack.num_samples=10", "transform.num_samples=12"]
FAST = [*FEW, "intervals.num_draws=20", "num_worst=3"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and a student folder, a teacher's pickle, and one with labels of its own."""
    root = tmp_path_factory.mktemp("evaluate")
    path = write_data(root / "data.parquet", 240)
    write_encoder(root / "encoder")
    columns = {"domain": "domain", "split": "split"}
    data = Data.model_validate(
        {"path": str(path), "columns": columns, "cache_dir": str(root / "cache")}
    )
    corpus = build_corpus(data)
    teacher = Job(
        name="teacher",
        folder=str(root / "teacher"),
        seed=0,
        model=EncoderSpec(str(root / "encoder"), corpus.label_names),
        data=DataSpec(str(corpus.folder), str(root / "encoder"), 16),
        train_rows=corpus.rows("train"),
        validation_rows=corpus.rows("validation"),
        optimizer=Optimizer(lr=5e-3),
        trainer=Trainer(engine="torch", epochs=8, batch_size=16),
    )
    small = Student(layers=1, hidden=32, heads=2)
    tokenizer = str(root / "encoder")
    student = replace(
        teacher,
        name="student",
        folder=str(root / "student"),
        model=StudentSpec(small, tokenizer, corpus.label_names, 16),
    )
    for job in (teacher, student):
        fit_and_save(job)
    train = pq.read_table(path, filters=[("split", "==", "train")]).to_pylist()
    texts, labels = [row["text"] for row in train], [row["label"] for row in train]
    words = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, labels)
    (root / "words.pkl").write_bytes(pickle.dumps(words))
    words.fit(texts, ["good" if label == "yes" else "bad" for label in labels])
    (root / "other.pkl").write_bytes(pickle.dumps(words))
    return root


def run(root: Path, *arguments: str, code: int = 0) -> str:
    """Standard output, or the error; ``code`` is the exit code expected."""
    common = [str(root / "student/model"), "--data", str(root / "data.parquet"), *FAST]
    split = ["--split-column", "split", "--domain-column", "domain"]
    where = ["--out", str(root / "out")]
    done = CliRunner().invoke(app, ["evaluate", *common, *split, *where, *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_table_json_plots_and_mlflow(root: Path) -> None:
    uri = f"sqlite:///{root}/mlflow.db"
    recorded = ["--experiment", "trust", "--tracking-uri", uri]
    output = run(root, "--teacher", str(root / "teacher/model"), "--json", *recorded)
    for shown in ("films", "another class", "success", "peak memory", "evaluation.html"):
        assert shown in output
    metrics = json.loads(output.splitlines()[-1])
    num_rows = sum(r["split"] == "test" for r in pq.read_table(root / "data.parquet").to_pylist())
    assert metrics["test.rows"] == num_rows  # the test split alone
    assert metrics["compression"] > 1
    written = json.loads((root / "out/evaluation.json").read_text())
    assert written["metrics"] == {k: metrics[k] for k in written["metrics"]}
    assert written["settings"]["attack"]["budget"] == 6
    names = {path.name for path in (root / "out").iterdir()}
    assert {
        "evaluation.html",
        "evaluation.md",
        "reliability.png",
        "violations.png",
        "attacks.png",
    } <= names
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("trust")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.metrics["fidelity.any"] == metrics["fidelity.any"]


def test_an_out_that_is_no_folder_and_a_dead_store_are_refused_first(root: Path) -> None:
    output = run(root, "--out", str(root / "data.parquet"), code=2)
    assert "--out" in output and "reading the data" not in output
    dead = ["--experiment", "x", "--tracking-uri", "http://127.0.0.1:1"]
    output = run(root, *dead, code=2)
    assert "127.0.0.1:1" in output and "reading the data" not in output


def test_gates_exit_with_one_and_are_checked_first(root: Path) -> None:
    beside = ["--teacher", str(root / "teacher/model")]
    output = run(root, *beside, "--fail-if", "test.accuracy > 0.01", code=1)
    assert "gate: --fail-if test.accuracy > 0.01" in output
    output = run(root, *beside, "--fail-if", "test.accuracy < 0.01")
    assert re.search(r"gate      passed: test\.accuracy is [\d.]+, not < 0\.01", output)
    output = run(root, *beside, "--fail-if", "fidelity.anny > 0.2", code=2)
    assert "did you mean fidelity.any?" in output and "predicting" not in output


def test_a_teacher_may_be_a_pickle_or_several_models(root: Path) -> None:
    pickled = ["--teacher", str(root / "words.pkl")]
    assert "pickles run code" in run(root, *pickled, code=2)
    both = [*pickled, "--teacher", str(root / "teacher/model"), "--allow-pickle"]
    assert "any of the four" in run(root, *both)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--teacher", "other.pkl", "--allow-pickle"], "--teacher-labels: {bad: …, good: …}"),
        (["--language", "fortran"], "--language fortran: this language is not supported"),
        (["--language", "python"], "do not parse as python"),
        (["--teacher", "nowhere"], "there is no model folder"),
        (["--split", "exam"], "no row has the split 'exam' (--split)"),
        (["--label-column", "grade"], "--label-column 'grade' is not a column of"),
        (["attack.budget=0"], "attack.budget must be at least 1"),
    ],
)
def test_bad_input_is_one_message(root: Path, arguments: list[str], expected: str) -> None:
    paths = [str(root / a) if a.endswith(".pkl") or a == "nowhere" else a for a in arguments]
    output = run(root, *paths, code=2)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and expected in errors[0], output


def test_a_column_of_code_needs_its_language(root: Path, tmp_path: Path) -> None:
    table = pq.read_table(root / "data.parquet", columns=["text", "label"])
    renamed = pa.Table.from_arrays(table.columns, ["code", "label"])
    pq.write_table(renamed.slice(0, 40), tmp_path / "code.parquet")
    arguments = [str(root / "student/model"), "--data", str(tmp_path / "code.parquet"), *FAST]
    done = CliRunner().invoke(app, ["evaluate", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "give the language of the column code" in done.output
    assert "Attacks" not in done.output


def test_a_language_model_is_refused_with_where_its_measures_are(
    root: Path, tmp_path: Path
) -> None:
    for arguments in (
        [str(write_llama(tmp_path / "llama"))],
        [str(root / "student"), "--teacher", str(tmp_path / "llama")],
    ):
        result = CliRunner().invoke(
            app, ["evaluate", *arguments, "--data", str(root / "test.parquet")]
        )
        assert result.exit_code == 2
        assert (
            "llama is a language model, and distill evaluate measures classifiers" in result.stderr
        )
        assert "report/ in the run's folder" in result.stderr
        assert "Traceback" not in result.output + result.stderr
