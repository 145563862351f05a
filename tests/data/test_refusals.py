"""Every bad input has one message: the key or file, the value, and the way out."""

import re

import pyarrow as pa
import pytest
from data_rows import make_rows, write, write_saved_dict
from pyarrow import parquet

from distill.data.corpus import build_corpus
from distill.errors import DataError


def refuses(config, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        build_corpus(config)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def changed(**values):
    """The tiny rows, with the first row's values replaced."""
    rows = make_rows()
    rows[0] = {**rows[0], **values}
    return rows


def test_paths_without_data(tmp_path, data):
    refuses(data(tmp_path / "none.csv"), "data.path", "no file or folder", "none.csv")
    refuses(data(tmp_path / "*.csv"), "data.path", "matches no file", "*.csv")
    refuses(data("nowhere://x/y.csv"), "data.path", "nowhere://x/y.csv", "fsspec")
    refuses(data(tmp_path), "data.path", "holds no data file", ".parquet")
    refuses(data(()), "data.path is empty")
    (tmp_path / "rows.txt").write_text("x")
    refuses(data(tmp_path / "rows.txt"), "rows.txt", "extension", ".jsonl")
    write(make_rows(), tmp_path / "mixed" / "a.csv")
    write(make_rows(), tmp_path / "mixed" / "b.parquet")
    refuses(data(tmp_path / "mixed"), "mixes csv and parquet", "*.parquet")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_empty_data(ending, tmp_path, data):
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        parquet.write_table(pa.Table.from_pylist(make_rows()).slice(0, 0), path)
    else:
        path.write_text("text,label,domain,split\n" if ending == "csv" else "")
    refuses(data(path), "data.path", f"rows.{ending} holds no rows")


def test_files_that_are_not_of_their_format(tmp_path, data):
    for ending in ("parquet", "arrow", "csv"):
        path = tmp_path / f"rows.{ending}"
        path.write_bytes(b"")
        refuses(data(path), f"rows.{ending} cannot be read as {ending}")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\nnot json\n')
    refuses(data(path), "line 2 of", "rows.jsonl is not valid JSON", "one object a line")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("role", ["text", "label", "domain", "split"])
def test_a_missing_column_lists_those_there_are(role, ending, tmp_path, data):
    path = write(make_rows(), tmp_path / f"rows.{ending}")
    listed = "its columns are text, label, domain, split"
    refuses(data(path, columns={role: "body"}), f"data.columns.{role} 'body'", path.name, listed)


def test_labels_outside_the_label_space(tmp_path, data):
    path = write(changed(label="meh"), tmp_path / "a.csv")
    refuses(data(path, labels=("pos", "neg")), "'meh'", "row 1 of", "a.csv", "data.labels")
    rows = make_rows()
    rows[4]["label"] = "meh"
    path = write(rows, tmp_path / "b.csv")
    refuses(data(path), "'meh'", "validation", "row 5 of", "never occurs in the train split")


def test_missing_labels(tmp_path, data):
    for row, split in ((0, "train"), (4, "validation"), (5, "test")):
        rows = make_rows()
        rows[row]["label"] = None
        for ending in ("csv", "parquet"):
            path = write(rows, tmp_path / f"{split}.{ending}")
            refuses(data(path), f"row {row + 1} of", f"{split} split", "no label", "'label'")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_text_that_is_not_utf8(ending, tmp_path, data):
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        rows = make_rows()
        texts = [row["text"].encode() for row in rows]
        texts[2] = b"caf\xe9"
        table = pa.Table.from_pylist(rows)
        offsets = pa.array(texts, pa.binary())
        bad = pa.StringArray.from_buffers(len(texts), *offsets.buffers()[1:])
        parquet.write_table(table.set_column(0, "text", bad), path)
    else:
        content = write(changed(text="MARK"), path).read_bytes()
        path.write_bytes(content.replace(b"MARK", b"caf\xe9"))
    row = {"csv": "row 1", "jsonl": "line 1", "parquet": "row 3"}[ending]
    refuses(data(path), f"rows.{ending}", "is not UTF-8", row, "convert the file to UTF-8")


def test_a_lone_surrogate_in_json(tmp_path, data):
    path = write(changed(text="\ud800"), tmp_path / "rows.jsonl")
    refuses(data(path), "'text'", "rows.jsonl is not UTF-8", "\\ud800")


def test_empty_and_null_texts(tmp_path, data):
    path = write(changed(text=""), tmp_path / "empty.csv")
    refuses(data(path), "data.columns.text is empty in row 1 of", "data.on_empty_text=drop")
    for ending in ("parquet", "jsonl"):
        path = write(changed(text=None), tmp_path / f"null.{ending}")
        refuses(data(path), "data.columns.text 'text' is null in row 1 of", path.name)


def test_one_label_only(tmp_path, data):
    rows = [{**row, "label": "pos"} for row in make_rows()]
    refuses(data(write(rows, tmp_path / "a.csv")), "train split have the label 'pos'", "two")
    path = write(make_rows(), tmp_path / "b.csv")
    limited = data(path, limit={"train": 1}, columns={"domain": None})
    refuses(limited, "train split have the label", "data.limit.train (1)")


def test_split_values(tmp_path, data):
    path = write(changed(split="dev"), tmp_path / "a.csv")
    refuses(data(path), "row 1 of", "'dev'", "data.splits.validation=dev")
    write_saved_dict(changed(split="exam"), tmp_path / "dict", ["neg", "pos"])
    refuses(data(tmp_path / "dict"), "'exam'", "data.splits.validation=exam")
    same = {"validation": "test"}
    refuses(data(path, splits=same), "data.splits.validation and data.splits.test are both 'test'")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_splits_without_rows(split, tmp_path, data):
    rows = [row for row in make_rows() if row["split"] != split]
    refuses(data(write(rows, tmp_path / "a.csv")), f"has no {split} rows", f"data.splits.{split}")


def test_holdout_that_leaves_nothing(tmp_path, data):
    path = write(make_rows(), tmp_path / "a.csv")
    holdout = {"validation": 0.5, "test": 0.5}
    refuses(data(path, columns={"split": None}, holdout=holdout), "data.holdout", "below 1")
    tiny = {"validation": 1e-9, "test": 0.1}
    refuses(data(path, columns={"split": None}, holdout=tiny), "no validation rows", "1e-09")
    group = {"group": "doc"}
    refuses(data(path, columns={"split": None}, holdout=group), "data.holdout.group 'doc'", "text")


def test_types_that_are_no_strings(tmp_path, data):
    rows = [{**row, "label": 0.5} for row in make_rows()]
    for ending in ("parquet", "jsonl"):
        refuses(data(write(rows, tmp_path / f"a.{ending}")), "'label'", "non-integer")
    rows = [{**row, "label": ["pos"]} for row in make_rows()]
    for ending in ("parquet", "jsonl"):
        refuses(data(write(rows, tmp_path / f"b.{ending}")), "'label'", "list")


def test_a_refused_build_leaves_nothing_behind(tmp_path, data):
    config = data(write(changed(text=""), tmp_path / "a.csv"))
    refuses(config, "empty")
    assert not list((tmp_path / "cache" / "corpora").iterdir())


def test_an_unwritable_cache_is_named(tmp_path, data):
    (tmp_path / "cache").write_text("a file")
    path = write(make_rows(), tmp_path / "a.csv")
    with pytest.raises(DataError, match=re.escape("set data.cache_dir")):
        build_corpus(data(path))


def test_of_many_labels_a_message_names_the_first(tmp_path, data):
    rows = [{"text": f"t {i}", "label": f"{i / 7}"} for i in range(400)]
    path = write(rows, tmp_path / "rows.csv")
    with pytest.raises(
        DataError, match=r"split, which has .* and \d+ more: add train rows"
    ) as caught:
        build_corpus(data(path, columns={"split": None, "domain": None}))
    assert len(str(caught.value)) < 1000
