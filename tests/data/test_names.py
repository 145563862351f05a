"""Labels and domains have one name whatever the format, and what is ambiguous is refused."""

import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from data_rows import make_rows, write, write_saved
from pyarrow import feather, parquet

from distill.config import Data
from distill.data.corpus import Corpus, build_corpus
from distill.data.names import final_names
from distill.errors import DataError
from distill.tasks.checks.data import source_lines

Make = Callable[..., Data]


def labelled(names: dict[str, Any], column: str = "label") -> list[dict[str, Any]]:
    """The tiny rows with other names of classes, or domains; transfer rows have no label."""
    rows = make_rows()
    for row in rows:
        row[column] = names[row[column]]
        if row["split"] == "transfer":
            row["label"] = None
    return rows


def build(data: Make, path: Path | Sequence[Path], **settings: Any) -> Corpus:
    return build_corpus(data(path if isinstance(path, Path) else tuple(map(str, path)), **settings))


def refused(data: Make, path: Path | Sequence[Path], *parts: str, **settings: Any) -> None:
    with pytest.raises(DataError) as caught:
        build(data, path, **settings)
    for part in parts:
        assert part in str(caught.value), caught.value


ZERO_ONE: Iterable[tuple[str, Any, Any, str]] = [
    ("text", "0", "1", "csv"),
    ("float text", "0.0", "1.0", "csv"),
    ("float text", "0.0", "1.0", "jsonl"),
    ("float text", "-0.0", "1.", "parquet"),
    ("blanks", " 0", "1.0 ", "csv"),
    ("int", 0, 1, "jsonl"),
    ("int", 0, 1, "parquet"),
    ("float", 0.0, 1.0, "jsonl"),
    ("float with nulls", 0.0, 1.0, "parquet"),
    ("float with nulls", 0.0, 1.0, "feather"),
    ("decimal", Decimal("0.00"), Decimal("1.00"), "parquet"),
    ("bool", False, True, "arrow"),
]


@pytest.mark.parametrize(("kind", "neg", "pos", "ending"), ZERO_ONE)
def test_integers_are_one_label_however_they_are_written(
    kind: str, neg: Any, pos: Any, ending: str, tmp_path: Path, data: Make
) -> None:
    want = build(data, write(labelled({"neg": "0", "pos": "1"}), tmp_path / "want.parquet"))
    rows = labelled({"neg": neg, "pos": pos})
    corpus = build(data, write(rows, tmp_path / f"rows.{ending}"))
    assert corpus.label_names == ("0", "1")
    assert corpus.fingerprint == want.fingerprint


def test_labels_were_integers_before(tmp_path: Path, data: Make) -> None:
    """A constant of distill 0.1.0: caches and run folders of integer labels are found again."""
    want = "736805e9f93267779b70b3eacf0ed41b8c5b96615e14463f29e322519ff95b0b"
    corpus = build(data, write(labelled({"neg": 0, "pos": 1}), tmp_path / "rows.parquet"))
    assert corpus.fingerprint == want


def test_floats_beside_integers_are_the_same_labels(tmp_path: Path, data: Make) -> None:
    want = build(data, write(labelled({"neg": "0", "pos": "1"}), tmp_path / "want.csv"))
    rows = labelled({"neg": "0", "pos": "1"})
    for row in rows[:50]:  # a part of train, and of the other splits
        row["label"] = row["label"] and row["label"] + ".0"
    assert build(data, write(rows, tmp_path / "one.csv")).fingerprint == want.fingerprint
    parts = [write(rows[:50], tmp_path / "a.csv"), write(rows[50:], tmp_path / "b.csv")]
    assert build(data, parts).fingerprint == want.fingerprint
    for row in rows:  # only validation and test have floats: train has their labels
        is_train = row["split"] == "train"
        row["label"] = row["label"] and row["label"][0] + ("" if is_train else ".0")
    assert build(data, write(rows, tmp_path / "c.csv")).fingerprint == want.fingerprint


def test_what_is_no_integer_keeps_every_name() -> None:
    assert final_names(["0.0", "1", "-2.00"]) == {"0.0": "0", "1": "1", "-2.00": "-2"}
    for names in (["1.0", "neg"], ["1.0", "007"], ["1.0", "1e0"], ["1.0", "0.5"], ["1.0", "+1"]):
        assert final_names(names) == {name: name for name in names}


def test_only_labels_and_domains_are_numbers(tmp_path: Path, data: Make) -> None:
    rows = [{**row, "text": f"{i}.0"} for i, row in enumerate(labelled({"neg": "0", "pos": "1.0"}))]
    corpus = build(data, write(rows, tmp_path / "rows.csv"))
    assert next(corpus.texts("train")) == ("0.0", None)
    rows = [{**row, "text": "nan" if i == 0 else row["text"]} for i, row in enumerate(make_rows())]
    assert next(build(data, write(rows, tmp_path / "n.csv")).texts("train")) == ("nan", None)


def test_known_names_are_found_in_every_form(tmp_path: Path, data: Make) -> None:
    floats = write(labelled({"neg": "0.0", "pos": " 1.0"}), tmp_path / "floats.csv")
    for known in (("1", "0"), ("1.0", "0.0"), (" 1", "0")):
        corpus = build(data, floats, labels=known)
        assert corpus.label_names == tuple(name.strip() for name in known)
        labels = corpus.labels_of(corpus.rows("train")).tolist()
        assert labels[:6] == [0, 0, 0, 1, 1, 1]  # pos first, as make_rows
    refused(data, floats, "'1.0' in row 1 of", "not among the labels 1, one", labels=("1", "one"))
    words = write(labelled({"neg": " nan ", "pos": " pos"}), tmp_path / "words.csv")
    for known in ("nan", " nan "):
        assert build(data, words, labels=(known, "pos")).label_names == ("nan", "pos")


@pytest.mark.parametrize("value", ["nan", "NaN", " nan ", "  ", ""])
def test_nan_is_no_label(value: str, tmp_path: Path, data: Make) -> None:
    rows = make_rows()
    rows[6]["label"] = value
    path = write(rows, tmp_path / "rows.csv")
    refused(data, path, "row 7 of", "train split and has no label")
    rows[6]["split"] = "transfer"
    assert build(data, write(rows, tmp_path / "ok.csv")).label_names == ("neg", "pos")
    rows[6]["domain"] = value
    corpus = build(data, write(rows, tmp_path / "domain.csv"))
    assert corpus.domain_names == ("books", "movies", "news")
    assert (corpus.domains_of(range(corpus.num_rows)) == -1).sum() == 1


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_float_that_is_nan_is_null(ending: str, tmp_path: Path, data: Make) -> None:
    rows = labelled({"neg": 0.0, "pos": 1.0})
    nans = [{**r, "label": float("nan") if r["label"] is None else r["label"]} for r in rows]
    nulls = build(data, write(rows, tmp_path / f"nulls.{ending}"))
    assert build(data, write(nans, tmp_path / f"nans.{ending}")).fingerprint == nulls.fingerprint
    nans[0]["label"] = float("nan")
    refused(data, write(nans, tmp_path / f"bad.{ending}"), "row 1 of", "has no label")


def test_blanks_around_names_are_removed_and_counted(tmp_path: Path, data: Make) -> None:
    rows = make_rows()
    want = build(data, write(rows, tmp_path / "want.csv"))
    assert want.counts.get("stripped_names", 0) == 0
    rows[0]["label"], rows[1]["label"], rows[4]["domain"] = " pos", "pos\t", f" {rows[4]['domain']}"
    for ending in ("csv", "jsonl", "parquet"):
        corpus = build(data, write(rows, tmp_path / f"rows.{ending}"))
        assert corpus.fingerprint == want.fingerprint
        assert corpus.counts["stripped_names"] == 3


def test_names_equal_but_for_case(tmp_path: Path, data: Make) -> None:
    rows = make_rows()
    rows[4]["label"] = "Pos"  # a validation row
    path = write(rows, tmp_path / "rows.csv")
    refused(data, path, "'pos' (row 1 of", "'Pos' (row 5 of", "only in case", "data.labels")
    names = ("neg", "pos", "Pos")
    assert build(data, path, labels=names).label_names == names
    write_saved(rows, tmp_path / "saved", list(names))  # the owner lists both
    rows[6]["label"] = "Pos"  # in train too
    write_saved(rows, tmp_path / "saved", list(names))
    assert build(data, tmp_path / "saved").label_names == ("Pos", "neg", "pos")


def test_words_in_one_file_and_numbers_in_another(tmp_path: Path, data: Make) -> None:
    words = write(make_rows()[:60], tmp_path / "a.csv")
    numbers = write(labelled({"neg": 0, "pos": 1})[60:], tmp_path / "b.jsonl")
    for paths in ([words, numbers], [numbers, words]):
        text = ("words in one file and numbers", "'pos' in row 1 of", "a.csv", "'1' in row 1 of")
        refused(data, paths, *text, "b.jsonl", "data.labels")
    names = ("0", "1", "neg", "pos")
    assert build(data, [words, numbers], labels=names).label_names == names
    mixed = make_rows()
    for row in mixed[60:]:
        row["label"] = 1 if row["label"] == "pos" else row["label"]
    corpus = build(data, write(mixed, tmp_path / "one.jsonl"))
    assert corpus.label_names == ("1", "neg", "pos")  # one file may have both


def as_class_labels(rows: list[dict[str, Any]], names: list[str]) -> datasets.Dataset:
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["label"] = [names.index(row["label"]) if row["label"] else -1 for row in rows]
    features = {name: datasets.Value("string") for name in columns}
    features |= {"label": datasets.ClassLabel(names=names)}
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


@pytest.mark.parametrize("form", ["parquet", "arrow", "saved", "feather"])
def test_class_label_names_are_read_from_the_file_itself(
    form: str, tmp_path: Path, data: Make
) -> None:
    rows = labelled({"neg": "neg", "pos": "pos"})
    want = build(data, write(rows, tmp_path / "want.csv"))
    dataset = as_class_labels(rows, ["pos", "neg"])
    path = tmp_path / f"rows.{form}"
    if form == "parquet":
        dataset.to_parquet(str(path))
    elif form == "feather":
        feather.write_feather(dataset.data.table, str(path))
    else:
        dataset.save_to_disk(str(tmp_path / "saved"))
        path = tmp_path / "saved"
        if form == "arrow":  # a file of it alone
            path = path / "data-00000-of-00001.arrow"
    corpus = build(data, path)
    assert corpus.label_names == ("neg", "pos")
    assert corpus.fingerprint == want.fingerprint
    assert build(data, path, labels=("pos", "neg")).label_names == ("pos", "neg")


def test_class_label_numbers_outside_the_names(tmp_path: Path, data: Make) -> None:
    table = as_class_labels(make_rows(), ["neg", "pos"]).data.table
    metadata = table.schema.metadata
    wrong = table.set_column(1, "label", pa.array([0.0, 1.0, 2.0] * 40))  # as pandas writes gaps
    parquet.write_table(wrong.replace_schema_metadata(metadata), tmp_path / "rows.parquet")
    refused(data, tmp_path / "rows.parquet", "class outside its 2 ClassLabel names")


def test_class_label_names_of_two_files(tmp_path: Path, data: Make) -> None:
    rows = labelled({"neg": "neg", "pos": "pos"})
    want = build(data, write(rows, tmp_path / "want.csv"))
    first, second, other = (tmp_path / f"{name}.parquet" for name in ("a", "b", "c"))
    as_class_labels(rows[:60], ["neg", "pos"]).to_parquet(str(first))
    as_class_labels(rows[60:], ["pos", "neg"]).to_parquet(str(second))
    assert build(data, [first, second]).fingerprint == want.fingerprint  # each has its own numbers
    long = labelled({"neg": "negative", "pos": "positive"})[60:]
    as_class_labels(long, ["negative", "positive"]).to_parquet(str(other))
    refused(data, [first, other], "a.parquet", "neg, pos", "c.parquet", "negative, positive")
    numbers = write(labelled({"neg": 0, "pos": 1})[60:], tmp_path / "d.csv")
    refused(data, [first, numbers], "words in one file", "a.parquet", "d.csv")


def test_dates_and_decimals_are_domains(tmp_path: Path, data: Make) -> None:
    day = datetime.date(2024, 1, 31)
    moment = datetime.datetime(2024, 1, 31, 12, 30)
    utc = moment.replace(tzinfo=datetime.UTC)
    values: list[tuple[Any, str]] = [
        (day, "2024-01-31"),
        (moment, "2024-01-31T12:30:00"),
        (moment.replace(microsecond=250_000), "2024-01-31T12:30:00.25"),
        (utc, "2024-01-31T12:30:00Z"),
        (utc.astimezone(datetime.timezone(datetime.timedelta(hours=2))), "2024-01-31T12:30:00Z"),
        (datetime.time(12, 30), "12:30:00"),
        (Decimal("100.50"), "100.5"),
        (Decimal("100.00"), "100"),
        (Decimal("0.05"), "0.05"),
    ]
    for i, (value, name) in enumerate(values):
        rows = labelled({"movies": value, "books": None, "news": value}, "domain")
        path = write(rows, tmp_path / f"{i}.parquet")
        assert build(data, path).domain_names == (name,)
        flat = write(
            labelled({"movies": name, "books": "", "news": name}, "domain"), tmp_path / "n.csv"
        )
        assert build(data, path).fingerprint == build(data, flat).fingerprint


def test_dates_are_no_labels_but_groups(tmp_path: Path, data: Make) -> None:
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i % 20) for i in range(120)]
    rows = [{**row, "day": day} for row, day in zip(make_rows(), days, strict=True)]
    path = write(rows, tmp_path / "rows.parquet")
    refused(data, path, "'day'", "has the type date32[day]", columns={"label": "day"})
    refused(data, path, "'day'", "has the type date32[day]", columns={"text": "day"})
    halves = labelled({"neg": Decimal("0.5"), "pos": Decimal("1.5")})
    refused(data, write(halves, tmp_path / "d.parquet"), "'label'", "non-integer")
    holdout = {"validation": 0.2, "test": 0.2, "group": "day"}
    settings = {"columns": {"split": None}, "holdout": holdout}
    want = build(data, write(rows, tmp_path / "rows.csv"), **settings).fingerprint
    assert build(data, path, **settings).fingerprint == want


def test_a_limit_holds_for_a_domain_that_was_written_in_two_ways(
    tmp_path: Path, data: Make
) -> None:
    years = labelled({"movies": 2020, "books": 2021, "news": 2022}, "domain")
    rows = [
        {**row, "domain": f"{row['domain']}{'.0' * (i // 6 % 2)}"} for i, row in enumerate(years)
    ]
    for limit in ({"train": 7}, {"train": 2}, {}):
        want = build(data, write(years, tmp_path / "want.parquet"), limit=limit)
        assert want.domain_names == ("2020", "2021", "2022")
        corpus = build(data, write(rows, tmp_path / "rows.csv"), limit=limit)
        assert corpus.fingerprint == want.fingerprint


def test_the_plan_counts_names_that_lost_blanks(tmp_path: Path, data: Make) -> None:
    rows = make_rows()
    rows[0]["label"] = " pos"
    config = data(write(rows, tmp_path / "rows.csv"))
    lines = source_lines(build_corpus(config))
    assert any("spaces" in line.what and line.size == "1" for line in lines)


def test_class_names_of_unsigned_integers(tmp_path: Path, data: Make) -> None:
    """As other writers than ``datasets`` store them; the row without a class has no label."""
    features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
    metadata = json.dumps({"info": {"features": features}}).encode()
    numbers = pa.array([0, 1, None] * 40, pa.uint8())
    table = pa.table({"text": [f"text {i}" for i in range(120)], "label": numbers})
    parquet.write_table(
        table.replace_schema_metadata({b"huggingface": metadata}), tmp_path / "rows.parquet"
    )
    settings = {"columns": {"split": None, "domain": None}, "unlabelled": "drop"}
    corpus = build_corpus(data(tmp_path / "rows.parquet", **settings))
    assert corpus.label_names == ("neg", "pos") and corpus.counts == {"unlabelled_dropped": 40}
