from collections import defaultdict

import pytest

from distill.errors import DataError
from distill.samples.sentiment import main, rated_rows, without_duplicates

LINES = (
    "1_1\t2.5\tA &quot;fine&quot; film &amp; more.\r\n"
    "1_2\t-0.5\tToo slow.\r\n"
    "2_1\t0.49\tIt is a film.\r\n"
    "2_2\t-3\tBad\u2028very bad.\r\n"
    "10_1\t0.5\tToo slow."
)


def test_clear_ratings_become_labels_and_entities_text():
    rows = list(rated_rows("movies", LINES))
    assert [(row.text, row.label) for row in rows] == [
        ('A "fine" film & more.', "positive"),
        ("Too slow.", "negative"),
        ("Bad\u2028very bad.", "negative"),
        ("Too slow.", "positive"),
    ]
    assert [row.document for row in rows] == ["movies-1", "movies-1", "movies-2", "movies-10"]


def test_the_first_of_equal_texts_is_kept_and_the_others_are_counted():
    rows, num_dropped = without_duplicates(rated_rows("movies", LINES))
    assert num_dropped == 1
    assert [row.document for row in rows] == ["movies-1", "movies-1", "movies-2"]


def test_documents_stay_whole_and_splits_have_their_share():
    lines = "\n".join(f"{i // 5}_{i % 5}\t1\ttext {i}" for i in range(10_000))
    splits, sizes = defaultdict(set), defaultdict(int)
    for row in rated_rows("news", lines):
        splits[row.document].add(row.split)
        sizes[row.split] += 1
    assert {len(found) for found in splits.values()} == {1}
    for split, share in {"train": 35, "transfer": 35, "validation": 10, "test": 20}.items():
        assert sizes[split] / 100 == pytest.approx(share, abs=4)


def test_a_malformed_line_is_named():
    with pytest.raises(DataError, match="line 2 of tweets_GroundTruth"):
        list(rated_rows("tweets", "1\t1\tfine\n2\t1"))


def test_offline_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_CONFIG_FILE": "/dev/null",
        "DISTILL_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    assert main(["--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and "vaderSentiment==3.3.2" in errors[0]
