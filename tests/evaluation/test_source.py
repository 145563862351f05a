"""The columns that an evaluation reads: its options', else those of the student's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.config import Experiment, parse
from distill.errors import ConfigError, DataError
from distill.evaluation.source import (
    EvaluationData,
    EvaluationSource,
    as_options,
    check_split,
    reading_of,
)
from distill.models.reading import Reading as TextReading
from distill.models.reading import remember
from tests.toys import write_encoder

ROWS = {
    "sentence": ["a good plot", "a bad soup"],
    "stars": ["yes", "no"],
    "topic": ["films", "meals"],
    "part": ["dev", "exam"],
}
COLUMNS = {"text": "sentence", "label": "stars", "domain": "topic", "split": "part"}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_encoder(tmp_path_factory.mktemp("student") / "model", num_labels=2))


def write(path: Path, *without: str) -> str:
    pq.write_table(pa.table({k: v for k, v in ROWS.items() if k not in without}), path)
    return str(path)


def run_of(path: str | list[str], **data: Any) -> Experiment:
    raw = {"path": path, "columns": COLUMNS, "splits": {"test": "exam"}} | data
    return parse(
        {
            "output": "runs/mine",
            "data": raw,
            "teachers": [{"name": "a", "path": "nowhere"}],
            "student": {"layers": 1, "hidden": 8},
        }
    )


def read(student: str, path: str, run: Experiment | None, **source: Any) -> EvaluationData:
    return reading_of(EvaluationSource(path, **source), student, 0, run, "runs/mine")


def test_the_columns_and_the_test_split_of_the_run(student: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet")
    found = read(student, path, run_of("other.parquet", on_empty_text="drop"))
    assert found.data.columns.model_dump(exclude_none=True) == COLUMNS
    assert found.data.splits.test == "exam"
    assert found.data.on_empty_text == "drop"
    assert found.notes == ("rows of split 'exam' (column part) are measured",)


def test_options_go_first_and_an_empty_name_leaves_a_column_out(
    student: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.parquet")
    run = run_of("other.parquet")
    found = read(student, path, run, text_column="topic", domain_column="", split_column="")
    columns = found.data.columns
    assert (columns.text, columns.domain, columns.split) == ("topic", None, None)
    assert found.notes == ()
    named = read(student, path, run, split_column="topic", domain_column="")
    assert named.data.splits.test == "test"  # the run's name is of the run's own column
    assert read(student, path, run, split="dev").data.splits.test == "dev"


def test_a_column_that_the_file_lacks_is_refused(student: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", "topic", "stars")
    with pytest.raises(DataError) as caught:
        read(student, path, run_of("other.parquet"))
    for part in (
        "lacks columns of runs/mine: 'stars' (label), 'topic' (domain)",
        "its columns are sentence, part",
        "--label-column, --domain-column",
        "--domain-column '' leaves the domains out",
    ):
        assert part in str(caught.value)
    plain = write(tmp_path / "plain.parquet", "topic")
    assert (
        read(student, plain, run_of("other.parquet"), domain_column="").data.columns.domain is None
    )


def test_a_file_without_the_splits_is_measured_whole(student: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", "part")
    found = read(student, path, run_of("other.parquet"))
    assert found.data.columns.split is None
    assert found.notes == (f"all rows of {path} are measured: it has no split column 'part'",)
    with pytest.raises(DataError, match=r"--split dev: .* has no split column 'part'"):
        read(student, path, run_of("other.parquet"), split="dev")


def test_data_that_the_run_was_trained_on_is_reported(student: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet")
    columns = {**COLUMNS, "split": None}
    (note,) = read(student, path, run_of(path, columns=columns)).notes
    assert note.startswith(f"{path} is data that the run was trained on")
    assert read(student, path, run_of("gone.parquet", columns=columns)).notes == ()
    (tmp_path / "split").mkdir()
    train = write(tmp_path / "split" / "train.parquet")
    test = write(tmp_path / "split" / "test.parquet")
    run = run_of(str(tmp_path / "split"), columns=columns)
    assert read(student, test, run).notes == ()
    assert len(read(student, train, run).notes) == 1


def test_without_a_run_the_text_is_called_text_or_code(student: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="no column text or code: its columns are sentence, stars"):
        read(student, path, None)
    found = read(student, path, None, text_column="sentence", label_column="stars")
    assert (found.data.columns.domain, found.data.columns.split) == (None, None)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="has no data"):
        read(student, str(tmp_path / "empty.csv"), None)


def test_a_split_needs_its_column() -> None:
    check_split(EvaluationSource("rows.csv", split="dev", split_column="part"), None)
    check_split(EvaluationSource("rows.csv", split="dev"), run_of("rows.csv"))
    for source, run in (
        (EvaluationSource("rows.csv", split="dev"), None),
        (EvaluationSource("rows.csv", split="dev", split_column=""), run_of("rows.csv")),
    ):
        with pytest.raises(ConfigError, match="--split dev needs --split-column"):
            check_split(source, run)


def test_the_features_of_the_run_go_before_the_models_own(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0], "y": [2.0], "label": ["a"]}), tmp_path / "rows.parquet")
    path = str(tmp_path / "rows.parquet")
    run = run_of(path, columns={"features": ["x", "y"]}, splits={})
    found = reading_of(EvaluationSource(path), "student", 2, run, "runs/mine")
    assert found.data.columns.features == ("x", "y")
    other = run_of(path, columns={"features": ["x", "z"]}, splits={})
    with pytest.raises(
        DataError, match=r"no column 'z', which student reads: its columns are x, y"
    ):
        reading_of(EvaluationSource(path), "student", 2, other, "runs/mine")
    with pytest.raises(ConfigError, match="reads features: leave it out"):
        reading_of(EvaluationSource(path, text_column="x"), "student", 2, run, "runs/mine")


def test_a_pair_is_that_of_the_run(tmp_path: Path) -> None:
    from transformers import BertConfig

    path = write(tmp_path / "rows.parquet")
    folder = write_encoder(tmp_path / "pairs", num_labels=2)
    config = BertConfig.from_pretrained(folder)
    remember(config, TextReading(16, "head", is_pair=True))
    config.save_pretrained(folder)
    columns = {**COLUMNS, "text_pair": "topic", "domain": None}
    run = run_of("other.parquet", columns=columns)
    assert read(str(folder), path, run).data.columns.text_pair == "topic"
    with pytest.raises(ConfigError, match="trained on pairs of texts: give the column"):
        read(str(folder), path, run, pair_column="")


def test_messages_name_options() -> None:
    message = "data.columns.text_pair 'a', data.columns.text 'b' of data.path, data.splits.test"
    assert as_options(message) == "--pair-column 'a', --text-column 'b' of --data, --split"
