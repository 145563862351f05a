"""A missing column: the message proposes the one that was probably meant."""

from collections.abc import Callable
from pathlib import Path

import pytest
from data_rows import write

from distill.config import Data
from distill.data.corpus import build_corpus
from distill.data.usual_columns import proposals, usual
from distill.errors import DataError

Make = Callable[..., Data]


@pytest.mark.parametrize(
    ("wanted", "columns", "found"),
    [
        ({"text": "data.columns.text"}, ["id", "review"], "data.columns.text=review"),
        ({"text": "data.columns.text"}, ["id", "Text"], "data.columns.text=Text"),
        ({"reviw": "data.columns.text"}, ["text", "review"], "data.columns.text=review"),
        ({"split": "data.columns.split"}, ["fold"], "data.columns.split=fold"),
        (
            {"text": "data.columns.text", "label": "data.columns.label"},
            ["sentiment", "body"],
            "data.columns.text=body data.columns.label=sentiment",
        ),
        ({"group": "data.holdout.group"}, ["groups"], "data.holdout.group=groups"),
    ],
)
def test_the_column_that_is_close_or_usual_is_proposed(
    wanted: dict[str, str], columns: list[str], found: str
) -> None:
    assert proposals(wanted, columns) == f"; did you mean {found}?"


def test_nothing_is_proposed_where_nothing_fits_and_no_column_twice() -> None:
    assert proposals({"text": "data.columns.text"}, ["a", "b"]) == ""
    both = {"text": "data.columns.text", "prompt": "data.columns.prompt"}
    assert proposals(both, ["question"]) == "; did you mean data.columns.text=question?"


def test_the_first_of_the_usual_names_is_taken() -> None:
    assert usual("text", ["title", "body", "id"]) == "body"
    assert usual("label", ["stars", "Label"]) == "Label"
    assert usual("domain", ["id"]) is None


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_without_any_named_column_proposes_its_own(
    ending: str, tmp_path: Path, data: Make
) -> None:
    rows = [{"id": i, "review": f"row {i}", "sentiment": i % 2} for i in range(5)]
    path = write(rows, tmp_path / f"rows.{ending}")
    with pytest.raises(DataError) as caught:
        build_corpus(Data(path=str(path), cache_dir=str(tmp_path / "cache")))
    text = str(caught.value)
    assert "its columns are id, review, sentiment" in text
    assert text.endswith("did you mean data.columns.text=review data.columns.label=sentiment?")


def test_a_column_that_is_missing_alone_is_proposed(tmp_path: Path) -> None:
    rows = [{"body": f"row {i}", "label": i % 2} for i in range(5)]
    path = write(rows, tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match=r"did you mean data.columns.text=body\?$"):
        build_corpus(Data(path=str(path), cache_dir=str(tmp_path / "cache")))
