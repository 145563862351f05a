"""Rows of numbers: the same in every format, refused by row, and text left as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from data_rows import make_rows, write
from pyarrow import fs, parquet

from distill.config import Columns, Data, parse
from distill.data import Batches
from distill.data.build import corpus_key
from distill.data.content import TextContent
from distill.data.corpus import Corpus, build_corpus
from distill.data.inputs import Features
from distill.data.source import File
from distill.errors import ConfigError, DataError
from distill.tasks.classification.inputs import space_of

NUM_ROWS = 60


def rows(num_rows: int = NUM_ROWS) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "x": float(rng.normal(100, 5)),
            "y": int(rng.integers(9)),
            "z": 7.0,
            "note": "n/a",
            "label": ("no", "yes")[i % 2],
            "split": ("train", "train", "validation", "test")[i % 4],
        }
        for i in range(num_rows)
    ]


def as_lists(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"pixels": [row["x"], row["y"], row["z"]], "label": row["label"], "split": row["split"]}
        for row in given
    ]


def section(tmp_path: Path, path: Path, features: Any, **settings: Any) -> Data:
    columns = {"features": features, "split": "split"}
    cache = str(tmp_path / "cache")
    return Data.model_validate(
        {"path": str(path), "columns": columns, "cache_dir": cache, **settings}
    )


def corpus_of(tmp_path: Path, given: list[dict[str, Any]], name: str, features: Any) -> Corpus:
    return build_corpus(section(tmp_path, write(given, tmp_path / name), features))


def test_every_format_and_layout_is_the_same_data(tmp_path: Path) -> None:
    flat = [corpus_of(tmp_path, rows(), n, ["x", "y", "z"]) for n in ("a.parquet", "a.csv")]
    flat.append(corpus_of(tmp_path, rows(), "a.jsonl", ["x", "y", "z"]))
    lists = [corpus_of(tmp_path, as_lists(rows()), n, "pixels") for n in ("b.arrow", "b.jsonl")]
    table = pa.Table.from_pylist(as_lists(rows()))
    column = pa.FixedSizeListArray.from_arrays(table["pixels"].combine_chunks().flatten(), 3)
    parquet.write_table(table.set_column(0, "pixels", column), tmp_path / "fixed.parquet")
    lists.append(build_corpus(section(tmp_path, tmp_path / "fixed.parquet", "pixels")))
    assert len({corpus.fingerprint for corpus in flat + lists}) == 1
    want = {s: [[r["x"], r["y"], r["z"]] for r in rows() if r["split"] == s] for s in ("train",)}
    for corpus in flat + lists:
        got = corpus.features_of(corpus.rows("train"))
        assert np.array_equal(got, np.array(want["train"], np.float32))
        backwards = list(corpus.rows("train"))[::-1] + list(corpus.rows("test"))
        assert np.array_equal(corpus.features_of(backwards)[: len(got)], got[::-1])


def test_models_see_zero_mean_and_unit_variance_of_the_train_split(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, rows(3000), "a.parquet", ["x", "y", "z"])  # several batches
    space = space_of(Data(path="x", columns=Columns(features=("x", "y", "z"))), corpus)
    assert space is not None
    train = corpus.features_of(corpus.rows("train")).astype(np.float64)
    scaled = (train - np.array(space.mean)) / np.array(space.scale)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 0], atol=1e-6)  # z never varies


def test_an_image_is_scaled_by_channel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 9, (40, 2, 3, 2)) * np.array([1, 10])
    given = [
        {"pixels": image.flatten().tolist(), **{k: row[k] for k in ("label", "split")}}
        for image, row in zip(images, rows(40), strict=True)
    ]
    shape = {"height": 2, "width": 3, "channels": 2}
    data = section(tmp_path, write(given, tmp_path / "i.parquet"), "pixels", image=shape)
    corpus = build_corpus(data)
    space = space_of(data, corpus)
    assert space is not None
    train = corpus.features_of(corpus.rows("train")).reshape(-1, 2)
    np.testing.assert_allclose(space.mean, np.tile(train.mean(0), 6), rtol=1e-6)
    np.testing.assert_allclose(space.scale, np.tile(train.std(0), 6), rtol=1e-6)
    with pytest.raises(DataError, match=r"data\.image is 5 × 3 × 1 numbers, a row has 12"):
        space_of(Data(path="x", image={"height": 5, "width": 3}), corpus)  # type: ignore[arg-type]


def test_batches_carry_raw_features(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, rows(), "a.parquet", ["x", "y", "z"])
    batches = Batches(Features(corpus), corpus.rows("train"), 8, seed=0)
    seen = [b for step in range(batches.steps_per_epoch) for b in batches.at(step)]
    assert sorted(np.concatenate([b.rows_B for b in seen])) == list(corpus.rows("train"))
    for batch in seen:
        assert set(batch.inputs()) == {"features"}
        assert np.array_equal(batch.inputs()["features"], corpus.features_of(batch.rows_B))


def broken(change: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    given = as_lists(rows())
    change(given[16])
    return given


BAD_LISTS = [
    (lambda r: r.update(pixels=[1.0, 2.0]), r"'pixels' has 2 numbers in row 17 .* before have 3"),
    (lambda r: r.update(pixels=None), r"'pixels' is null in row 17 .*: fill it in"),
    (lambda r: r.update(pixels=[1.0, None, 2.0]), r"'pixels' is null in row 17"),
    (lambda r: r.update(pixels=[1.0, float("nan"), 2.0]), r"'pixels'\[1\] is nan in row 17"),
    (lambda r: r.update(pixels=[1.0, 2.0, 1e300]), r"'pixels'\[2\] is inf in row 17"),
]


@pytest.mark.parametrize(("change", "message"), BAD_LISTS, ids=[m[:24] for _, m in BAD_LISTS])
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_broken_row_is_named(tmp_path: Path, ending: str, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        corpus_of(tmp_path, broken(change), f"bad.{ending}", "pixels")


def test_columns_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'note' of .*a\.parquet has the type string: numbers"):
        corpus_of(tmp_path, rows(), "a.parquet", ["x", "note"])
    with pytest.raises(DataError, match=r"'note' is 'n/a' in row 1 of .*a\.csv: a number is"):
        corpus_of(tmp_path, rows(), "a.csv", ["x", "note"])
    with pytest.raises(DataError, match=r"'note' holds \"n/a\" in row 1 of .*a\.jsonl: numbers"):
        corpus_of(tmp_path, rows(), "a.jsonl", ["x", "note"])
    with pytest.raises(DataError, match=r"'w' is not a column of .*: its columns are x, y, z"):
        corpus_of(tmp_path, rows(), "b.parquet", ["x", "w"])
    with pytest.raises(DataError, match=r"features names 'label', which is also the label"):
        corpus_of(tmp_path, rows(), "b.parquet", ["x", "label"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "body", "features": "x"}, r"give data\.columns\.text \('body'\) or .*not both"),
        ({"text_pair": "b", "features": ["x"]}, r"give data\.columns\.text_pair"),
        ({"features": ["x", "x"]}, "names no column, or one twice"),
        ({"text": None}, r"data\.columns\.text is null: name a column"),
    ],
)
def test_text_or_features(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse({"data": {"path": "x", "columns": columns}, "output": "out"})


def test_corpora_of_text_are_found_where_they_were(data: Callable[..., Data]) -> None:
    """Constants: new keys at their default change neither. The fingerprint is that of 0.1.0, so
    old teacher caches and run folders fit."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        corpus = build_corpus(data(write(make_rows(), Path(folder) / "d.parquet")))
    want = "dc434ca87e79c7a0588c1ff4bca03050772a6e9868c961e18b1284cf4cae6216"
    assert corpus.fingerprint == want
    file = File(fs.LocalFileSystem(), "/x/d.parquet", "/x/d.parquet", "parquet", 1000, 5)
    config = data("/x/d.parquet")
    key = corpus_key([file], config, 0, ("neg", "pos"), TextContent(config))
    assert key == "b9089b2cb52c21f385714709496af24b"  # of RULES 2: built anew, the same content
    assert "features" not in json.loads((corpus.folder / "manifest.json").read_text())
