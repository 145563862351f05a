import multiprocessing
import pickle
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
from data_rows import make_rows, write, write_saved, write_saved_dict

from distill.config import SPLITS, Data
from distill.data.corpus import build_corpus
from distill.errors import DataError
from distill.records import UNLABELLED

ENDINGS = ("parquet", "csv", "jsonl", "json", "arrow", "feather", "saved")


def _place(kind: str, folder: Path) -> str | tuple[str, ...]:
    """The same rows in one of many forms."""
    rows = make_rows()
    if kind in ENDINGS:
        return str(write(rows, folder / ("rows" if kind == "saved" else f"rows.{kind}")))
    if kind == "classlabel":
        write_saved(rows, folder / "saved", ["pos", "neg"])
        return str(folder / "saved")
    if kind == "dict":
        write_saved_dict(rows, folder / "dict", ["neg", "pos"])
        return str(folder / "dict")
    if kind == "memory":
        text = write(rows, folder / "rows.csv").read_bytes()
        fsspec.filesystem("memory").pipe(f"/{folder.name}/rows.csv", text)
        return f"memory://{folder.name}/rows.csv"
    parts = [write(rows[:50], folder / "a" / "1.jsonl"), write(rows[50:], folder / "b" / "2.jsonl")]
    if kind == "memory glob":
        for part in parts:
            fsspec.filesystem("memory").pipe(f"/{folder.name}/{part.name}", part.read_bytes())
        return f"memory://{folder.name}/*.jsonl"
    return {
        "glob": str(folder / "**" / "*.jsonl"),
        "uri glob": f"file://{folder}/*/?.jsonl",
        "folder": str(folder),
        "list": (str(parts[0]), str(parts[1])),
    }[kind]


FORMS = (
    *ENDINGS,
    "classlabel",
    "dict",
    "memory",
    "memory glob",
    "glob",
    "uri glob",
    "folder",
    "list",
)


@pytest.mark.parametrize("kind", FORMS)
def test_the_same_rows_have_the_same_fingerprint_in_every_form(kind, tmp_path, data):
    reference = build_corpus(data(write(make_rows(), tmp_path / "reference.parquet")))
    corpus = build_corpus(data(_place(kind, tmp_path / f"in {kind}".replace(" ", "-"))))
    assert corpus.folder != reference.folder
    assert corpus.fingerprint == reference.fingerprint
    assert corpus.label_names == ("neg", "pos")
    assert corpus.domain_names == ("books", "movies", "news")


def test_other_content_has_another_fingerprint(tmp_path, data):
    rows = make_rows()
    seen = {build_corpus(data(write(rows, tmp_path / "0.parquet"))).fingerprint}
    for i, key in enumerate(("text", "label", "domain"), 1):
        changed = [dict(row) for row in rows]
        changed[0][key], changed[6][key] = changed[6][key] + "", changed[0][key]
        changed[0]["domain"] = "news" if key == "domain" else changed[0]["domain"]
        seen.add(build_corpus(data(write(changed, tmp_path / f"{i}.parquet"))).fingerprint)
    assert len(seen) == 4


def test_rows_are_where_the_split_column_puts_them(tmp_path, data):
    rows = make_rows()
    corpus = build_corpus(data(write(rows, tmp_path / "rows.parquet")))
    start = 0
    for split in SPLITS:
        expected = [row for row in rows if row["split"] == split]
        ids = corpus.rows(split)
        assert ids == range(start, start + len(expected))
        start = ids.stop
        assert list(corpus.texts(split)) == [(row["text"], None) for row in expected]
        domains = [corpus.domain_names[d] for d in corpus.domains_of(ids)]
        assert domains == [row["domain"] for row in expected]
        if split == "transfer":
            assert set(corpus.labels_of(ids).tolist()) == {UNLABELLED}
        else:
            labels = [corpus.label_names[y] for y in corpus.labels_of(ids)]
            assert labels == [row["label"] for row in expected]


def test_texts_of_any_rows_come_in_their_order_over_batches_and_splits(tmp_path, data):
    corpus = build_corpus(data(write(make_rows(6000), tmp_path / "rows.parquet")))
    everything = [text for split in SPLITS for text in corpus.texts(split)]
    ids = np.random.default_rng(0).permutation(6000)[:500]
    assert corpus.texts_of(ids) == [everything[i] for i in ids]


def test_a_second_call_opens_what_the_first_wrote_and_a_changed_file_is_read_again(tmp_path, data):
    path = write(make_rows(), tmp_path / "rows.parquet")
    first = build_corpus(data(path))
    written = (first.folder / "manifest.json").stat().st_mtime_ns
    again = build_corpus(data(path, max_length=9))  # tokens are cut later: the same corpus
    assert again.folder == first.folder
    assert (again.folder / "manifest.json").stat().st_mtime_ns == written
    write(make_rows(126), path)
    assert build_corpus(data(path)).rows("train") == range(63)


def test_a_changed_file_without_a_time_is_noticed_by_its_bytes(tmp_path, data):
    files = fsspec.filesystem("memory")
    before, after = make_rows(), make_rows()
    after[0]["text"], after[1]["text"] = after[1]["text"], after[0]["text"]
    found = []
    for rows in (before, after):
        content = write(rows, tmp_path / "rows.csv").read_bytes()
        files.pipe("/changed/rows.csv", content)
        found.append(build_corpus(data("memory://changed/rows.csv")).fingerprint)
    assert found[0] != found[1]


def test_given_labels_fix_the_class_order_and_integers_and_booleans_are_names(tmp_path, data):
    path = write(make_rows(), tmp_path / "rows.parquet")
    rows = build_corpus(data(path)).rows("train")
    default = build_corpus(data(path)).labels_of(rows)
    ordered = build_corpus(data(path, labels=("pos", "neutral", "neg")))
    assert ordered.label_names == ("pos", "neutral", "neg")
    assert np.array_equal(ordered.labels_of(rows), np.array([2, 0])[default])
    by_model = build_corpus(data(path), labels=["pos", "neg"])
    assert np.array_equal(by_model.labels_of(rows), 1 - default)
    for name, convert in (("int", int), ("bool", bool)):
        flags = [{**row, "label": convert(row["label"] == "pos")} for row in make_rows()]
        for ending in ("parquet", "jsonl"):
            corpus = build_corpus(data(write(flags, tmp_path / f"{name}.{ending}")))
            assert corpus.label_names == ("0", "1")
            assert np.array_equal(corpus.labels_of(rows), default)


def test_transfer_rows_need_no_label_and_lose_one(tmp_path, data):
    labelled = make_rows()
    nulls = [
        {**row, "label": None if row["split"] == "transfer" else row["label"]} for row in labelled
    ]
    without = [{k: v for k, v in r.items() if k != "label"} for r in nulls if not r["label"]]
    rest = [row for row in labelled if row["split"] != "transfer"]
    forms = (
        str(write(labelled, tmp_path / "labelled.csv")),
        str(write(nulls, tmp_path / "nulls.csv")),
        str(write(nulls, tmp_path / "nulls.parquet")),
        (str(write(rest, tmp_path / "a.jsonl")), str(write(without, tmp_path / "b.jsonl"))),
    )
    assert len({build_corpus(data(form)).fingerprint for form in forms}) == 1


def test_holdout_keeps_groups_whole_and_does_not_depend_on_seed_or_order(tmp_path, data):
    rows = [{**row, "doc": f"doc {i // 4}"} for i, row in enumerate(make_rows(1200))]
    holdout = {"transfer": 0.3, "validation": 0.1, "test": 0.2, "group": "doc"}
    settings = {"columns": {"split": None}, "holdout": holdout}
    corpus = build_corpus(data(write(rows, tmp_path / "rows.parquet"), **settings))
    other = build_corpus(data(write(rows[::-1], tmp_path / "back.parquet"), **settings), seed=5)
    doc_of = {row["text"]: row["doc"] for row in rows}
    docs = {split: {doc_of[text] for text, _ in corpus.texts(split)} for split in SPLITS}
    assert sum(len(found) for found in docs.values()) == 300
    for split in SPLITS:
        assert {doc_of[text] for text, _ in other.texts(split)} == docs[split]
        fraction = {"train": 0.4, **holdout}[split]
        assert len(docs[split]) / 300 == pytest.approx(fraction, abs=0.08)


def test_a_limit_keeps_a_seeded_sample_of_each_domain_in_order(tmp_path, data):
    path = write(make_rows(3000), tmp_path / "rows.parquet")
    limit = {"train": 40, "transfer": 7, "validation": 1000}
    corpus = build_corpus(data(path, limit=limit), seed=1)
    whole = build_corpus(data(path))
    for split, expected in (("train", 40), ("transfer", 7), ("validation", 500), ("test", 500)):
        counts = Counter(corpus.domains_of(corpus.rows(split)).tolist())
        assert set(counts.values()) == {expected}
        order = {text: i for i, text in enumerate(whole.texts(split))}
        places = [order[text] for text in corpus.texts(split)]
        assert places == sorted(places)
    kept = set(corpus.texts("train"))
    assert kept == set(build_corpus(data(path, limit=limit), seed=1).texts("train"))
    assert kept != set(build_corpus(data(path, limit=limit), seed=2).texts("train"))
    csv = build_corpus(data(write(make_rows(3000), tmp_path / "rows.csv"), limit=limit), seed=1)
    assert csv.fingerprint == corpus.fingerprint
    # A sample, not the head: the kept rows spread over the whole split.
    whole_order = list(whole.texts("train"))
    places = [whole_order.index(text) for text in corpus.texts("train")]
    assert 500 < np.mean(places) < 1000


def test_a_corpus_pickles_as_its_path(tmp_path, data):
    corpus = build_corpus(data(write(make_rows(), tmp_path / "rows.parquet")))
    copy = pickle.loads(pickle.dumps(corpus))
    assert len(pickle.dumps(corpus)) < 1000
    assert list(copy.texts("test")) == list(corpus.texts("test"))


def test_empty_texts_are_dropped_and_counted(tmp_path, data):
    rows = make_rows()
    rows[0]["text"] = rows[9]["text"] = ""
    corpus = build_corpus(data(write(rows, tmp_path / "r.csv"), on_empty_text="drop"))
    assert corpus.num_dropped == 2
    assert len(corpus.rows("train")) == 59 and len(corpus.rows("transfer")) == 19


def _build(config: Data, answers: "multiprocessing.Queue[str]") -> None:
    answers.put(build_corpus(config).fingerprint)


def test_two_processes_may_build_at_once(tmp_path, data):
    config = data(write(make_rows(3000), tmp_path / "rows.jsonl"))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_build, args=(config, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {answers.get(timeout=600) for _ in processes}
    for process in processes:
        process.join()
    assert found == {build_corpus(config).fingerprint}
    assert len(list((tmp_path / "cache" / "corpora").iterdir())) == 1


def test_only_one_split_of_a_file_may_be_read(data, tmp_path: Path) -> None:
    rows = make_rows()
    path = write(rows, tmp_path / "rows.parquet")
    config = data(path, splits={"test": "validation", "validation": "other"})
    corpus = build_corpus(config, labels=("neg", "pos"), only="test")
    wanted = [row["text"] for row in rows if row["split"] == "validation"]
    assert [text for text, _ in corpus.texts("test")] == wanted
    with pytest.raises(DataError, match=r"no row has the split 'exam'"):
        build_corpus(data(path, splits={"test": "exam"}), labels=("neg", "pos"), only="test")
