"""Rows without a label: refused, moved to transfer, or dropped; never out of validation or test."""

import pytest
from data_rows import make_rows, write

from distill.data.corpus import build_corpus
from distill.errors import DataError


def _rows(num: int = 120) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "split"} for row in make_rows(num)]


def _texts(corpus, split: str) -> set[str]:
    return {text for text, _ in corpus.texts(split)}


def test_unlabelled_rows_of_unsplit_data_become_transfer(tmp_path, data):
    rows = _rows(240)
    without = {row["text"] for row in rows[::3]}
    mixed = [{**row, "label": None if row["text"] in without else row["label"]} for row in rows]
    settings = {"columns": {"split": None}}
    path = write(mixed, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"has no label.*data\.unlabelled=transfer"):
        build_corpus(data(path, **settings))
    corpus = build_corpus(data(path, unlabelled="transfer", **settings))
    assert _texts(corpus, "transfer") == without
    assert corpus.counts == {"unlabelled_moved": 80}
    assert corpus.sources["transfer"] == [f"{path}, rows without a label (data.unlabelled)"]
    # The labelled rows are split as if the others were not there, and as in every other format.
    alone = [row for row in rows if row["text"] not in without]
    labelled = build_corpus(data(write(alone, tmp_path / "alone.csv"), **settings))
    for split in ("train", "validation", "test"):
        assert list(corpus.texts(split)) == list(labelled.texts(split))
    csv = build_corpus(data(write(mixed, tmp_path / "r.csv"), unlabelled="transfer", **settings))
    assert csv.fingerprint == corpus.fingerprint
    dropped = build_corpus(data(path, unlabelled="drop", **settings))
    assert dropped.fingerprint == labelled.fingerprint
    assert dropped.counts == {"unlabelled_dropped": 80}


def test_texts_that_validation_or_test_has_are_not_moved(tmp_path, data):
    settings = {"columns": {"split": None}}
    rows = _rows(240)
    labelled = build_corpus(data(write(rows, tmp_path / "rows.csv"), **settings))
    again = [{**row, "label": None} for row in rows]
    path = write([*again, *rows], tmp_path / "twice.csv")
    corpus = build_corpus(data(path, unlabelled="transfer", **settings))
    held = _texts(labelled, "validation") | _texts(labelled, "test")
    assert _texts(corpus, "transfer") == _texts(labelled, "train")
    assert not _texts(corpus, "transfer") & held
    assert corpus.counts["unlabelled_held"] == len(held)
    assert corpus.counts["unlabelled_moved"] == len(labelled.rows("train"))


def test_groups_that_are_held_out_are_not_moved(tmp_path, data):
    rows = [{**row, "doc": f"doc {i // 4}"} for i, row in enumerate(_rows(400))]
    settings = {"columns": {"split": None}, "holdout": {"group": "doc"}}
    split = build_corpus(data(write(rows, tmp_path / "rows.csv"), **settings))
    doc_of = {row["text"]: row["doc"] for row in rows}
    mixed = [{**row, "label": None if i % 4 else row["label"]} for i, row in enumerate(rows)]
    path = write(mixed, tmp_path / "mixed.csv")
    corpus = build_corpus(data(path, unlabelled="transfer", **settings))
    train_docs = {doc_of[text] for text in _texts(split, "train")}
    assert {doc_of[text] for text in _texts(corpus, "transfer")} == train_docs
    assert corpus.counts["unlabelled_moved"] == 3 * len(train_docs)
    assert corpus.counts["unlabelled_dropped"] == 3 * (100 - len(train_docs))


def test_a_limit_counts_what_is_moved_and_not_what_is_dropped(tmp_path, data):
    rows = _rows(300)
    again = [{**row, "label": None} for row in rows]
    settings = {"columns": {"split": None, "domain": None}, "limit": {"transfer": 30}}
    path = write([*rows, *again], tmp_path / "rows.csv")
    corpus = build_corpus(data(path, unlabelled="transfer", **settings))
    assert len(corpus.rows("transfer")) == 30


def test_named_test_files_are_never_touched(tmp_path, data):
    rows = _rows()
    settings = {"columns": {"split": None}, "unlabelled": "transfer"}
    write([{**r, "label": None if i % 2 else r["label"]} for i, r in enumerate(rows[:80])],
          tmp_path / "f" / "train.csv")  # fmt: skip
    write(rows[80:100], tmp_path / "f" / "dev.csv")
    write([{**rows[100], "label": None}, *rows[101:]], tmp_path / "f" / "test.csv")
    with pytest.raises(DataError, match=r"row 1 of .*test\.csv is in the test split and has no"):
        build_corpus(data(tmp_path / "f", **settings))
    for i, empty in enumerate((None, -1)):  # GLUE's test files: -1, or null
        write([{**row, "label": empty} for row in rows[100:]], tmp_path / "f" / "test.csv")
        corpus = build_corpus(data(tmp_path / "f", cache_dir=str(tmp_path / str(i)), **settings))
        assert _texts(corpus, "transfer") == {row["text"] for row in rows[1:80:2]}
        everything = {text for s in ("train", "validation", "test") for text in _texts(corpus, s)}
        assert everything == {row["text"] for row in [*rows[:80:2], *rows[80:100]]}
        assert _texts(corpus, "test") < {row["text"] for row in rows[:80:2]}
        assert corpus.counts == {"test_without_labels": 1, "unlabelled_moved": 40}


def test_a_column_of_splits_keeps_its_test_rows(tmp_path, data):
    rows = make_rows()
    for i in (0, 1, 4):  # two train rows and one of validation
        rows[i]["label"] = None
    path = write(rows, tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"row 5 of .* is in the validation split and has no label"):
        build_corpus(data(path, unlabelled="transfer"))
    rows[4]["label"] = "neg"
    corpus = build_corpus(data(write(rows, tmp_path / "b.csv"), unlabelled="transfer"))
    assert len(corpus.rows("train")) == 58 and len(corpus.rows("transfer")) == 22


@pytest.mark.parametrize("unlabelled", ["transfer", "drop"])
def test_a_test_file_without_a_column_of_labels_is_left_out(unlabelled, tmp_path, data):
    rows = _rows(120)
    write(rows, tmp_path / "f" / "train.csv")
    write(
        [{"text": f"other {i}", "domain": "films"} for i in range(9)], tmp_path / "f" / "test.csv"
    )
    settings = {"columns": {"split": None}}
    with pytest.raises(DataError, match=r"its columns are .*set data.unlabelled to drop$"):
        build_corpus(data(tmp_path / "f", **settings))
    corpus = build_corpus(data(tmp_path / "f", unlabelled=unlabelled, **settings))
    assert corpus.counts == {"test_without_labels": 1}
    assert corpus.num_rows == 120


def test_no_message_says_a_value_that_is_set_or_does_not_help(tmp_path, data):
    rows = _rows(120)
    write(rows, tmp_path / "f" / "train.csv")
    half = [
        {**row, "text": f"t {row['text']}", "label": row["label"] * (i % 2)}
        for i, row in enumerate(rows)
    ]
    write(half, tmp_path / "f" / "test.csv")
    settings = {"columns": {"split": None}}
    for unlabelled in ("error", "transfer"):
        with pytest.raises(DataError, match=r"or set data.unlabelled=drop to leave such rows out$"):
            build_corpus(data(tmp_path / "f", unlabelled=unlabelled, **settings))
    corpus = build_corpus(data(tmp_path / "f", unlabelled="drop", **settings))
    assert len(corpus.rows("test")) == 60


@pytest.mark.parametrize("unlabelled", ["transfer", "drop"])
def test_a_misspelt_label_column_is_named(unlabelled, tmp_path, data):
    path = write(_rows(60), tmp_path / "rows.csv")
    settings = {"columns": {"split": None, "label": "lable"}, "unlabelled": unlabelled}
    text = r"'lable' is not a column of .*text, label, domain.*data.columns.label=label"
    with pytest.raises(DataError, match=text):
        build_corpus(data(path, **settings))


def test_what_is_evaluated_needs_labels(tmp_path, data):
    """No message of it names data.unlabelled, which an evaluation has not."""
    settings = {"columns": {"split": None}}
    rows = [{**row, "label": None} for row in _rows(9)]
    for labelled, text in (
        (rows, "remove the row$"),
        ([{"text": "a", "domain": "b"}], "text, domain$"),
    ):
        path = write(labelled, tmp_path / "rows.jsonl")
        with pytest.raises(DataError, match=text) as caught:
            build_corpus(data(path, **settings), only="test")
        assert "unlabelled" not in str(caught.value)


def _named_files(folder, test_rows):
    rows = _rows()
    write(rows[:80], folder / "train.csv")
    write(test_rows(rows[80:]), folder / "test.csv")
    return folder


def test_a_test_file_without_the_column_of_labels_counts_as_missing(tmp_path, data):
    folder = _named_files(
        tmp_path / "f", lambda rows: [{k: v for k, v in r.items() if k != "label"} for r in rows]
    )
    corpus = build_corpus(data(folder, columns={"split": None}, unlabelled="drop"))
    assert corpus.counts == {"test_without_labels": 1}
    assert _texts(corpus, "test") < {row["text"] for row in _rows()[:80]}


@pytest.mark.parametrize("name", ["-1", "nan"])
def test_a_test_file_with_a_given_label_alone_is_read(name, tmp_path, data):
    rows = [{**row, "label": (name, "1")[i % 2]} for i, row in enumerate(_rows())]
    write(rows[:80], tmp_path / "f" / "train.csv")
    write(rows[80::2], tmp_path / "f" / "test.csv")
    settings = {"columns": {"split": None}, "unlabelled": "drop", "labels": [name, "1"]}
    corpus = build_corpus(data(tmp_path / "f", **settings))
    assert _texts(corpus, "test") == {row["text"] for row in rows[80::2]}
    assert corpus.counts == {}


def test_refusals_say_what_became_of_rows_without_a_label(tmp_path, data):
    settings = {"columns": {"split": None}, "unlabelled": "transfer"}
    path = write([{**row, "label": None} for row in _rows(30)], tmp_path / "rows.csv")
    for unlabelled in ("transfer", "drop"):
        text = (
            rf"no row for the train split has a label .* data\.unlabelled is {unlabelled}: correct"
        )
        with pytest.raises(DataError, match=text):
            build_corpus(data(path, **settings | {"unlabelled": unlabelled}))
    rows = make_rows()
    rows[4]["label"] = None  # of validation, by its column: transfer would not move it
    path = write(rows, tmp_path / "split.csv")
    for unlabelled in ("error", "transfer"):
        with pytest.raises(
            DataError, match=r"label it, or set data\.unlabelled=drop to leave such"
        ):
            build_corpus(data(path, unlabelled=unlabelled))
