"""Forms in which files of rows are published: read as what they hold, or refused by name."""

import bz2
import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from data_rows import make_rows, write
from pyarrow import dataset, parquet

from distill.config import Data
from distill.data.corpus import build_corpus
from distill.data.file_format import COMPRESSIONS
from distill.data.formats import ENDINGS, TEXT, endings, format_of
from distill.data.refusals import absent_column
from distill.data.source import column_names, find_files
from distill.errors import DataError

Make = Callable[..., Data]


def refused(data: Make, path: Path | str, *parts: str, **settings: Any) -> None:
    with pytest.raises(DataError) as caught:
        build_corpus(data(path, **settings))
    for part in parts:
        assert part in str(caught.value), caught.value


def separated(path: Path, separator: str, quoting: Any = csv.QUOTE_MINIMAL) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(make_rows()[0]), delimiter=separator, quoting=quoting)
        writer.writeheader()
        writer.writerows(make_rows())
    return path


@pytest.fixture
def want(tmp_path: Path, data: Make) -> str:
    return build_corpus(data(write(make_rows(), tmp_path / "want.parquet"))).fingerprint


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_the_header_says_what_separates_columns(
    separator: str, ending: str, tmp_path: Path, data: Make, want: str
) -> None:
    path = separated(tmp_path / f"rows{ending}", separator)
    assert build_corpus(data(path)).fingerprint == want
    quoted = separated(tmp_path / f"quoted{ending}", separator, csv.QUOTE_ALL)
    quoted.write_bytes(b"\xef\xbb\xbf" + quoted.read_bytes())  # a mark before a quote
    assert build_corpus(data(quoted)).fingerprint == want
    shown = "tabs" if separator == "\t" else repr(separator)
    listed = f"its columns are text, label, domain, split (separated by {shown})"
    refused(data, path, "'body'", path.name, listed, columns={"text": "body"})


def test_named_columns_count_and_not_how_many_there_are(tmp_path: Path, data: Make) -> None:
    rows = [{"text": r["text"], "label": r["label"], "a;b;c;d;e": "x"} for r in make_rows()]
    settings: dict[str, Any] = {"columns": {"domain": None, "split": None}}
    settings["holdout"] = {"validation": 0.2, "test": 0.2}
    corpus = build_corpus(data(write(rows, tmp_path / "rows.csv"), **settings))
    assert corpus.label_names == ("neg", "pos")


@pytest.mark.parametrize(
    ("header", "name"), [('"do\nmain"', "do\nmain"), ('5" wide', '5" wide'), ("ü", "ü")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_headers_of_all_kinds(
    header: str, name: str, end: str, tmp_path: Path, data: Make, want: str
) -> None:
    text = write(make_rows(), tmp_path / "rows.csv").read_bytes().decode().replace("\r\n", end)
    assert text.startswith("text,label,domain,split" + end)
    text = "text,label," + header + text.removeprefix("text,label,domain")
    (tmp_path / "rows.csv").write_bytes(f"{end}{end}{text}".encode())
    corpus = build_corpus(data(tmp_path / "rows.csv", columns={"domain": name}))
    assert corpus.fingerprint == want


ROW = "text\tlabel\tsplit\n{0}\tneg\ttrain\n{0}\tpos\ttrain\n{0}\tneg\tvalidation\n{0}\tneg\ttest\n"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('"Yes" he said', '"Yes" he said'),
        ('"Yes he said ü', '"Yes he said ü'),
        ('he said "Yes"', 'he said "Yes"'),
        ('"a ""Yes"" ü"', 'a "Yes" ü'),
        ('"two\nlines"', "two\nlines"),
        ('"a\ttab"', "a\ttab"),
        ('""', None),
    ],
)
def test_quotes_of_tsv_are_characters_where_they_enclose_nothing(
    written: str, text: str | None, tmp_path: Path, data: Make
) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(ROW.format(written), encoding="utf-8")
    if text is None:
        refused(data, path, "data.columns.text is empty in row 1", columns={"domain": None})
        return
    corpus = build_corpus(data(path, columns={"domain": None}))
    for split, num_rows in (("train", 2), ("validation", 1), ("test", 1)):
        assert list(corpus.texts(split)) == [(text, None)] * num_rows


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pa.Codec("zstd").compress(content).to_pybytes(),
}


@pytest.mark.parametrize("packed", list(COMPRESSIONS))
@pytest.mark.parametrize("ending", [end for kind in TEXT for end in ENDINGS[kind]])
def test_every_text_format_in_every_compression(
    ending: str, packed: str, tmp_path: Path, data: Make, want: str
) -> None:
    kind = {".tsv": ".csv", ".ndjson": ".jsonl"}.get(ending, ending)
    content = write(make_rows(), tmp_path / f"plain{kind}").read_bytes()
    path = tmp_path / f"ROWS{ending}{packed}".upper()
    half = len(content) // 2  # two members, as cat and parallel packers leave them
    path.write_bytes(PACKERS[packed](content[:half]) + PACKERS[packed](content[half:]))
    assert build_corpus(data(path)).fingerprint == want


def test_messages_list_every_ending(tmp_path: Path, data: Make) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    listed = (
        ".parquet, .arrow, .feather, .jsonl, .ndjson, .json, .csv, .tsv are read, text also with "
        ".gz, .bz2 or .zst after it"
    )
    assert endings() == listed
    refused(data, tmp_path / "rows.xlsx", "rows.xlsx", "unknown file extension", listed)
    refused(data, tmp_path, "holds no data file", listed)
    assert format_of("a.tsv.bz2") == "csv" and format_of("a.NDJSON.zst") == "json"
    assert format_of("a.parquet.gz") is None and format_of("a.gz") is None


NESTED = "data {text, label, domain, split}"


def _nested(kind: str, folder: Path) -> Path:
    rows = make_rows()
    path = folder / "rows.json"
    if kind == "objects":
        return write([{"data": row, "id": i} for i, row in enumerate(rows)], folder / "rows.jsonl")
    if kind == "structs":
        return write([{"data": row, "id": i} for i, row in enumerate(rows)], folder / "r.parquet")
    if kind == "lists":
        return write([{"data": [row], "id": 0} for row in rows], folder / "rows.feather")
    whole = {"data": rows, "id": 1}
    path.write_text(json.dumps(whole, indent=1 if kind == "one object, indented" else None))
    return path


@pytest.mark.parametrize(
    "kind", ["objects", "structs", "lists", "one object", "one object, indented"]
)
def test_nested_rows_list_their_fields_and_the_way_out(
    kind: str, tmp_path: Path, data: Make
) -> None:
    path = _nested(kind, tmp_path)
    text = f"{path.name} has none of the columns text, label, domain, split: its columns are "
    refused(
        data, path, text + NESTED + ", id", "flatten nested objects, or write one object per row"
    )
    refused(data, path, "none of the columns data.text", NESTED, columns={"text": "data.text"})


def test_a_column_that_was_meant_is_named_without_another_hint(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    (file,) = find_files(str(tmp_path / "chats.jsonl"))
    text = str(absent_column("data.columns.messages", "conversation", file))
    assert text.endswith("messages {role, content}; did you mean data.columns.messages=messages?")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet", "arrow", "feather"])
def test_a_file_without_a_named_column_lists_those_that_it_has(
    ending: str, tmp_path: Path, data: Make
) -> None:
    rows = [{"body": f"row {i}", "stars": i} for i in range(5)]
    path = write(rows, tmp_path / f"rows.{ending}")
    refused(data, path, f"rows.{ending} has none of the columns text, label, domain, split: its")
    refused(data, path, "its columns are body, stars")
    good = write(make_rows(), tmp_path / f"good.{ending}")
    with pytest.raises(DataError, match="has none of the columns"):  # beside one that has them
        build_corpus(data((str(good), str(path))))


def test_pipes_and_headers_alone(tmp_path: Path, data: Make) -> None:
    path = separated(tmp_path / "rows.csv", "|")
    refused(data, path, "its columns are text|label|domain|split (separated by ',')")
    path.write_text("body;stars\n\n")
    refused(data, path, "holds no rows")
    wide = [{f"x{i}": i for i in range(100)}]
    refused(data, write(wide, tmp_path / "wide.csv"), "x29 and 70 more")


def test_rows_of_json_that_have_no_named_column_are_not_skipped(tmp_path: Path, data: Make) -> None:
    """One block of rows without them was: the file was read from the next block on."""
    rows = [{"note": "x"}] * 4096 + make_rows()
    refused(
        data, write(rows, tmp_path / "rows.jsonl"), "none of the columns", "its columns are note"
    )


# ---- folders -------------------------------------------------------------------------------


def partitioned(folder: Path, columns: list[str], rows: list[dict[str, Any]]) -> Path:
    dataset.write_dataset(
        pa.Table.from_pylist(rows),
        folder,
        format="parquet",
        partitioning=columns,
        partitioning_flavor="hive",
        existing_data_behavior="overwrite_or_ignore",
    )
    return folder


@pytest.mark.parametrize("columns", [["label"], ["domain", "split"], ["split", "label", "domain"]])
def test_hive_folders_are_columns(columns: list[str], tmp_path: Path, data: Make) -> None:
    names = {"movies": "a/b & c=d", "books": "ü", "news": "news"}
    rows = [{**row, "domain": names[row["domain"]]} for row in make_rows()]
    folder = partitioned(tmp_path / "hive", columns, rows)
    for path in (folder, f"{folder}/**/*.parquet"):
        corpus = build_corpus(data(path))
        assert corpus.label_names == ("neg", "pos")
        assert corpus.domain_names == tuple(sorted(names.values()))
        for split in ("train", "transfer", "validation", "test"):
            expected = {
                (row["text"], None if split == "transfer" else row["label"], row["domain"])
                for row in rows
                if row["split"] == split
            }
            ids = corpus.rows(split)
            labels = [None if y < 0 else corpus.label_names[y] for y in corpus.labels_of(ids)]
            domains = [corpus.domain_names[d] for d in corpus.domains_of(ids)]
            texts = [text for text, _ in corpus.texts(split)]
            assert set(zip(texts, labels, domains, strict=True)) == expected
    file = find_files(str(folder))[0]
    assert set(column_names(file)) == {"text", "label", "domain", "split"}


def test_hive_nulls_and_columns_that_the_file_has_itself(
    tmp_path: Path, data: Make, want: str
) -> None:
    rows = [row for row in make_rows() if row["split"] != "transfer"]
    free = [{k: v for k, v in r.items() if k != "label"} for r in make_rows() if r not in rows]
    write(rows, tmp_path / "a" / "label=wrong" / "1.parquet")  # the file's own column wins
    write(free, tmp_path / "a" / "label=__HIVE_DEFAULT_PARTITION__" / "2.parquet")
    corpus = build_corpus(data(tmp_path / "a"))
    assert corpus.fingerprint == want
    (tmp_path / "a").rename(tmp_path / "b")
    free[0]["split"] = "train"
    write(free, tmp_path / "b" / "label=__HIVE_DEFAULT_PARTITION__" / "2.parquet")
    refused(data, tmp_path / "b", "row 1 of", "2.parquet is in the train split and has no label")


def test_hive_labels_of_two_kinds_are_one_space(tmp_path: Path, data: Make) -> None:
    rows = [{**row, "label": "1" if row["label"] == "pos" else "other"} for row in make_rows()]
    assert build_corpus(data(partitioned(tmp_path, ["label"], rows))).label_names == ("1", "other")


def test_files_about_the_data_are_no_data(tmp_path: Path, data: Make, want: str) -> None:
    names = ("dataset_infos.json", "dataset_info.json", "croissant.json", "README.md", "_SUCCESS")
    for ending in ("parquet", "csv", "json"):
        folder = tmp_path / ending
        write(make_rows(), folder / "data" / f"rows.{ending}")
        for name in names:
            (folder / name).write_text('{"text": {}}')
        assert build_corpus(data(folder)).fingerprint == want
    (tmp_path / "json" / "data" / "rows.json").unlink()
    refused(data, tmp_path / "json", "holds no data file")
    write(make_rows(), tmp_path / "csv" / "data" / "rows.jsonl")
    refused(data, tmp_path / "csv", "mixes csv and json", "csv/**/*.jsonl")


def test_folders_that_were_saved_one_by_one(tmp_path: Path, data: Make) -> None:
    """No dataset_dict.json above them: each has its own state.json."""
    for i, part in enumerate((make_rows()[:60], make_rows()[60:])):
        write(part, tmp_path / "all" / f"part-{i}")
    assert len(build_corpus(data(tmp_path / "all")).rows("train")) == 60


# ---- encodings -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "csv.gz"])
def test_utf16_is_named(encoding: str, ending: str, tmp_path: Path, data: Make) -> None:
    kind = ending.replace(".gz", "").replace("tsv", "csv")
    text = write(make_rows(), tmp_path / f"plain.{kind}").read_text("utf-8").encode(encoding)
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    shown = encoding.upper()[:6]
    refused(data, path, f"rows.{ending} is {shown}: convert the file to UTF-8")


def test_a_header_of_another_encoding(tmp_path: Path, data: Make) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label,größe\na,b,c\n".encode("latin-1"))
    refused(data, path, "the header of", "rows.csv is not UTF-8: convert the file to UTF-8")


def test_nul_within_text_is_no_utf16(tmp_path: Path, data: Make) -> None:
    rows = make_rows()
    rows[0]["text"] = "a\0b\0"
    corpus = build_corpus(data(write(rows, tmp_path / "rows.csv")))
    assert next(corpus.texts("train")) == ("a\0b\0", None)


def test_duplicate_and_index_columns(tmp_path: Path, data: Make, want: str) -> None:
    text = write(make_rows(), tmp_path / "rows.csv").read_text("utf-8").splitlines()
    indexed = [",note," + text[0] + ",note", *(f"{i},a,{r},b" for i, r in enumerate(text[1:]))]
    (tmp_path / "rows.csv").write_text("\n".join(indexed), encoding="utf-8")
    assert build_corpus(data(tmp_path / "rows.csv")).fingerprint == want


def test_empty_row_groups_and_dictionaries(tmp_path: Path, data: Make, want: str) -> None:
    table = pa.Table.from_pylist(make_rows())
    for name in ("label", "domain"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].dictionary_encode())
    with parquet.ParquetWriter(tmp_path / "rows.parquet", table.schema) as writer:
        writer.write_table(table.slice(0, 0), row_group_size=1)
        writer.write_table(table)
    assert build_corpus(data(tmp_path / "rows.parquet")).fingerprint == want
