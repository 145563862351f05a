"""Files that say their split: nothing of a test file is ever trained on."""

from pathlib import Path

import pytest
from data_rows import make_rows, write, write_saved_dict

from distill.config import SPLITS, SplitNames
from distill.data.corpus import build_corpus
from distill.data.source import File, find_files
from distill.data.split_names import split_in
from distill.errors import DataError
from distill.tasks.checks.data import source_lines

PARTS = {"train": 60, "validation": 20, "test": 40}


def _rows() -> dict[str, list[dict]]:
    """Rows of three files, all different, without a split column."""
    rows = [{k: v for k, v in row.items() if k != "split"} for row in make_rows()]
    found, start = {}, 0
    for split, num in PARTS.items():
        found[split], start = rows[start : start + num], start + num
    return found


def _write(folder: Path, names: dict[str, str]) -> Path:
    for split, rows in _rows().items():
        if split in names:
            write(rows, folder / names[split])
    return folder


def _texts(rows: list[dict]) -> list[tuple[str, None]]:
    return [(row["text"], None) for row in rows]


HUB = {s: f"data/{s}-00000-of-00001.parquet" for s in PARTS}
PLAIN = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}
FOLDERS = {"train": "train/a.csv", "validation": "valid/train-a.csv", "test": "test/a.csv"}
WORDS = {"train": "My_Training2.csv", "validation": "x-VAL.csv", "test": "evaluation 1.csv"}
NESTED = {s: f"eval-suite/{s}/part-0.csv" for s in PARTS}


@pytest.mark.parametrize("names", [HUB, PLAIN, FOLDERS, WORDS, NESTED])
@pytest.mark.parametrize("form", ["folder", "glob", "list"])
def test_the_names_of_files_and_folders_are_their_splits(names, form, tmp_path, data):
    # The folder's own name says test, and is not looked at.
    folder = _write(tmp_path / "test-set", names)
    place = {
        "folder": str(folder),
        "glob": str(folder / "**" / "*.*"),
        "list": tuple(str(folder / name) for name in names.values()),
    }[form]
    corpus = build_corpus(data(place, columns={"split": None}))
    for split, rows in _rows().items():
        assert list(corpus.texts(split)) == _texts(rows)
        (source,) = corpus.sources[split]
        assert source == str(folder / names[split])
    assert corpus.rows("transfer") == range(60, 60)


def test_without_a_train_file_names_say_nothing(tmp_path, data):
    """As before: parts that are pooled, and cut by a hash."""
    pooled = write([row for rows in _rows().values() for row in rows], tmp_path / "all.csv")
    reference = build_corpus(data(pooled, columns={"split": None}))
    names = {"train": "a.csv", "validation": "b-val.csv", "test": "c.csv"}
    corpus = build_corpus(data(_write(tmp_path / "f", names), columns={"split": None}))
    assert corpus.fingerprint == reference.fingerprint
    two = {"train": "a.csv", "validation": "dev-test.csv", "test": "c.csv"}  # no fault here either
    corpus = build_corpus(data(_write(tmp_path / "g", two), columns={"split": None}))
    assert corpus.num_rows == reference.num_rows and corpus.counts == {"held_out_pooled": 1}
    lone = build_corpus(data(write(make_rows(), tmp_path / "test.csv"), columns={"split": None}))
    assert lone.num_rows == 120 and len(lone.rows("train")) > 80


def test_a_split_that_no_file_gives_is_cut_from_train(tmp_path, data):
    folder = _write(tmp_path / "f", {"train": "train.csv", "test": "test.csv"})
    settings = {"columns": {"split": None}, "holdout": {"validation": 0.3, "transfer": 0.2}}
    corpus = build_corpus(data(folder, **settings))
    assert list(corpus.texts("test")) == _texts(_rows()["test"])
    cut = [text for split in SPLITS[:3] for text in corpus.texts(split)]
    assert sorted(cut) == sorted(_texts(_rows()["train"]))
    assert 8 <= len(corpus.rows("validation")) <= 28
    assert corpus.sources["validation"] == [
        f"{folder}/train.csv, 30 % of its rows (data.holdout.validation)"
    ]
    # The same rows as a hash alone would hold out: the test fraction is not taken from train.
    alone = build_corpus(data(str(folder / "train.csv"), **settings))
    assert not set(alone.texts("test")) & set(corpus.texts("test"))


def test_a_fraction_beside_a_file_for_its_split_is_refused(tmp_path, data):
    folder = _write(tmp_path / "f", PLAIN)
    build_corpus(data(folder, columns={"split": None}))  # which must not be opened below
    config = data(folder, columns={"split": None}, holdout={"test": 0.1})
    with pytest.raises(DataError, match=r"data\.holdout\.test is 0\.1, but .*test\.jsonl is"):
        build_corpus(config)
    # A configuration as the run folder keeps it names every key.
    whole = data(folder, columns={"split": None}).model_dump(mode="json")
    assert "test" in whole["holdout"]
    assert build_corpus(type(config).model_validate(whole)).rows("test") == range(80, 120)


def test_a_file_without_a_split_beside_others_is_refused(tmp_path, data):
    folder = _write(tmp_path / "f", PLAIN)
    write(_rows()["train"], folder / "extra.jsonl")
    with pytest.raises(
        DataError, match=r"extra\.jsonl has no split .*, as \S+dev\.jsonl.*data\.splits"
    ):
        build_corpus(data(folder, columns={"split": None}))
    named = build_corpus(data(folder, columns={"split": None}, splits={"transfer": "extra"}))
    assert len(named.rows("transfer")) == 60
    with pytest.raises(DataError, match=r"'dev-test\.jsonl' in .* names two splits, validation"):
        write(_rows()["train"], folder / "dev-test.jsonl")
        build_corpus(data(folder, columns={"split": None}, splits={"transfer": "extra"}))


def test_values_of_data_splits_go_first_and_a_column_wins(tmp_path, data):
    folder = _write(
        tmp_path / "f", {"train": "fit.csv", "validation": "test.csv", "test": "dev.csv"}
    )
    splits = {"train": "fit", "validation": "test", "test": "dev"}
    corpus = build_corpus(data(folder, columns={"split": None}, splits=splits))
    for split, rows in _rows().items():
        assert list(corpus.texts(split)) == _texts(rows)
    for i, row in enumerate(make_rows()):
        write([row], tmp_path / "column" / ("train" if i % 2 else "test") / f"{i}.csv")
    by_column = build_corpus(data(tmp_path / "column"))
    whole = build_corpus(data(write(make_rows(), tmp_path / "rows.csv")))
    assert {s: sorted(by_column.texts(s)) for s in SPLITS} == {
        s: sorted(whole.texts(s)) for s in SPLITS
    }


def test_a_saved_dictionary_is_read_by_the_same_words(tmp_path, data):
    words = {"train": "train", "transfer": "unsupervised", "validation": "dev", "test": "eval"}
    rows = [{**row, "split": words[row["split"]]} for row in make_rows()]
    write_saved_dict(rows, tmp_path / "dict", ["neg", "pos"])
    reference = build_corpus(data(write(make_rows(), tmp_path / "rows.csv")))
    for columns in ({}, {"split": None}):
        corpus = build_corpus(data(tmp_path / "dict", columns=columns))
        assert corpus.fingerprint == reference.fingerprint


def test_texts_that_are_in_train_too_are_counted(tmp_path, data):
    parts = _rows()
    parts["test"][0] = parts["train"][3]
    parts["test"][1] = {**parts["train"][4], "label": "neg"}
    parts["validation"][5] = parts["train"][5]
    for split, rows in parts.items():
        write(rows, tmp_path / "f" / f"{split}.csv")
    corpus = build_corpus(data(tmp_path / "f", columns={"split": None}))
    assert corpus.counts == {"validation_in_train": 1, "test_in_train": 2}


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("contest.csv", None),
        ("latest/x.csv", None),
        ("train_unlabeled.csv", "transfer"),
        ("test/train.csv", "test"),
        ("unsupervised-00000-of-00001.parquet", "transfer"),
        ("dev2.csv", "validation"),
        ("Testing.csv", "test"),
        ("evaluate.csv", None),
        ("x/split=test/0.parquet", "test"),
    ],
)
def test_words_of_a_path(path, split, tmp_path):
    (file,) = find_files(str(write(make_rows(), tmp_path / "x.csv")))
    assert isinstance(file, File)
    assert split_in(path, SplitNames(), file) == split


@pytest.mark.parametrize(
    ("name", "text"), [("train-small/test-0.csv", "test"), ("unsupervised/dev.csv", "validation")]
)
def test_a_held_out_file_in_a_folder_that_is_trained_on_is_refused(name, text, tmp_path, data):
    folder = _write(tmp_path / "f", {"train": "train-small/train-0.csv", "test": name})
    message = rf"has the split {text} in its name, but its folder '\S+' has \w+: .*"
    with pytest.raises(DataError, match=rf"{message}data\.splits\.{text}=(test-0|dev)$"):
        build_corpus(data(folder, columns={"split": None}))
    stem = Path(name).stem
    corpus = build_corpus(data(folder, columns={"split": None}, splits={text: stem}))
    assert list(corpus.texts(text)) == _texts(_rows()["test"])


def test_held_out_files_that_are_pooled_are_counted(tmp_path, data):
    names = {"train": "a.csv", "validation": "b-val.csv", "test": "c.csv"}
    corpus = build_corpus(data(_write(tmp_path / "f", names), columns={"split": None}))
    assert corpus.counts["held_out_pooled"] == 1
    text = [line.size for line in source_lines(corpus) if "no file is named train" in line.what]
    assert text == ["1"]
    named = _write(tmp_path / "g", {**names, "train": "train.csv", "test": "test.csv"})
    assert "held_out_pooled" not in build_corpus(data(named, columns={"split": None})).counts


def test_a_column_of_splits_that_is_not_named_is_told(tmp_path, data):
    path = write(make_rows(60), tmp_path / "rows.csv")
    corpus = build_corpus(data(path, columns={"split": None}))
    assert corpus.counts["split_unread"] == 1
    text = [line.what for line in source_lines(corpus) if "data.columns.split" in line.what]
    assert text == ["column split exists but is not used: set data.columns.split to use it"]
    assert "split_unread" not in build_corpus(data(path)).counts


def test_texts_are_counted_wherever_their_own_hash_does_not_decide(tmp_path, data):
    rows = make_rows()
    rows[5]["text"] = rows[0]["text"]  # test and train, by the column
    assert build_corpus(data(write(rows, tmp_path / "column.csv"))).counts == {"test_in_train": 1}
    grouped = [{**row, "text": "alike", "doc": f"doc {i}"} for i, row in enumerate(make_rows())]
    settings = {"columns": {"split": None}, "holdout": {"group": "doc"}}
    corpus = build_corpus(data(write(grouped, tmp_path / "group.parquet"), **settings))
    assert corpus.counts["test_in_train"] == len(corpus.rows("test")) > 0
    alike = [{**row, "text": row["text"][:7]} for row in make_rows()]  # by the hash: none is shared
    by_text = build_corpus(data(write(alike, tmp_path / "text.csv"), columns={"split": None}))
    assert not {"test_in_train", "validation_in_train"} & by_text.counts.keys()
    assert not set(by_text.texts("test")) & set(by_text.texts("train"))
