"""Partitions for experts: a column, or k-means that fulfils the equations of k-means."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from distill.config import ByColumn, KMeans
from distill.data.tokens import PaddedTokens
from distill.errors import DataError
from distill.experts.partition import by_kmeans, partition
from tests.toys import WORDS, write_encoder

NUM_ROWS = {"train": 150, "transfer": 5, "validation": 40, "test": 30}
SPLITS = ("train", "validation", "test")
GROUPS = 3


class GroupedTokens:
    """Row i has three random words, and 5 to 9 times the word of group i % 3."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        words = np.arange(5, 5 + len(WORDS))
        self.ids = [
            np.append(np.full(rng.integers(5, 10), words[row % GROUPS]), rng.choice(words, 3))
            for row in range(sum(NUM_ROWS.values()))
        ]
        ranges, start = {}, 0
        for split, num in NUM_ROWS.items():
            ranges[split] = range(start, start + num)
            start += num
        self.corpus = SimpleNamespace(
            rows=ranges.__getitem__,
            domain_names=("x", "y"),
            domains_of=lambda rows: np.asarray(rows) % 2,
        )

    def padded(self, rows: Any) -> PaddedTokens:
        longest = max(len(self.ids[row]) for row in rows)
        ids_BT = np.zeros((len(rows), longest), np.int64)
        mask_BT = np.zeros_like(ids_BT)
        for i, row in enumerate(rows):
            ids_BT[i, : len(self.ids[row])] = self.ids[row]
            mask_BT[i, : len(self.ids[row])] = 1
        return PaddedTokens(ids_BT, mask_BT, None)


TOKENS: Any = GroupedTokens()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def points(base: Path) -> dict[str, np.ndarray]:
    """[rows, H] of each split: the mean of the encoder's last states, one row at a time."""
    encoder = AutoModel.from_pretrained(base).eval()
    found = {}
    with torch.inference_mode():
        for split in SPLITS:
            rows = [torch.tensor(TOKENS.ids[row])[None] for row in TOKENS.corpus.rows(split)]
            states = [encoder(input_ids=ids_1T).last_hidden_state[0] for ids_1T in rows]
            found[split] = torch.stack([state_TH.mean(0) for state_TH in states]).numpy()
    return found


def nearest(points_RH: np.ndarray, centres_KH: np.ndarray) -> np.ndarray:
    return ((points_RH[:, None] - centres_KH) ** 2).sum(-1).argmin(1)


@pytest.mark.parametrize("num_clusters", [2, 4, 7])
def test_kmeans_is_a_fixed_point_of_its_two_steps(base, points, tmp_path, num_clusters) -> None:
    """Centres are the means of the train rows; every row of every split has the nearest centre."""
    parts = by_kmeans(TOKENS, str(base), num_clusters, SPLITS, 0, tmp_path)
    train = parts.of("train")
    assert set(train) == set(range(num_clusters)) and train.dtype == np.int64
    centres_KH = np.stack([points["train"][train == k].mean(0) for k in range(num_clusters)])
    for split in SPLITS:
        assert (parts.of(split) == nearest(points[split], centres_KH)).all()


def test_kmeans_finds_groups_that_are_apart(base: Path, tmp_path: Path) -> None:
    parts = by_kmeans(TOKENS, str(base), GROUPS, SPLITS, 0, tmp_path)
    for split in SPLITS:
        group = np.asarray(TOKENS.corpus.rows(split)) % GROUPS
        pairs = set(zip(parts.of(split).tolist(), group.tolist(), strict=True))
        assert len(pairs) == GROUPS, "a cluster has rows of two groups, or a group two clusters"


def test_rows_of_a_part_are_global_ids(base: Path, tmp_path: Path) -> None:
    parts = by_kmeans(TOKENS, str(base), GROUPS, SPLITS, 0, tmp_path)
    assert parts.names == ("cluster-0", "cluster-1", "cluster-2")
    rows = TOKENS.corpus.rows("validation")
    of_each = [parts.rows("validation", part) for part in range(GROUPS)]
    assert sorted(np.concatenate(of_each)) == list(rows)
    for part, found in enumerate(of_each):
        assert {parts.of("validation")[row - rows.start] for row in found} == {part}


def test_a_resumed_run_has_the_parts_of_the_first(base: Path, tmp_path: Path) -> None:
    first = by_kmeans(TOKENS, str(base), GROUPS, SPLITS, 0, tmp_path / "new" / "folder")
    assert [file.name for file in (tmp_path / "new" / "folder").iterdir()] == ["kmeans.npz"]
    again = by_kmeans(TOKENS, "no model is loaded", GROUPS, SPLITS, 1, tmp_path / "new" / "folder")
    assert again.names == first.names and again.corpus is TOKENS.corpus
    for split in SPLITS:
        assert (again.of(split) == first.of(split)).all()


def test_the_seed_decides_the_start_of_kmeans(base: Path, tmp_path: Path) -> None:
    def assigned(seed: int, folder: str) -> list[int]:
        parts = by_kmeans(TOKENS, str(base), 7, SPLITS, seed, tmp_path / folder)
        return parts.of("train").tolist()

    assert assigned(0, "a") == assigned(0, "b") != assigned(1, "c")


def test_more_clusters_than_rows_are_refused(base: Path, tmp_path: Path) -> None:
    message = r"experts\.partition\.num_clusters is 151, more than the 150 training rows: lower it"
    with pytest.raises(DataError, match=message):
        by_kmeans(TOKENS, str(base), 151, SPLITS, 0, tmp_path)
    assert not (tmp_path / "kmeans.npz").exists()
    parts = by_kmeans(TOKENS, str(base), 150, ("train",), 0, tmp_path)  # each row its own
    assert sorted(parts.of("train")) == list(range(150))


def test_the_configuration_chooses_the_kind_of_partition(base: Path, tmp_path: Path) -> None:
    corpus = TOKENS.corpus
    four = partition(KMeans(), corpus, TOKENS, str(base), 0, tmp_path)
    assert len(four.names) == 4  # the default
    assert set(four.assigned) == set(SPLITS)
    expected = by_kmeans(TOKENS, str(base), 4, SPLITS, 0, tmp_path / "again")
    assert all((four.of(split) == expected.of(split)).all() for split in SPLITS)
    column = partition(ByColumn(), corpus, TOKENS, "no model is loaded", 0, tmp_path)
    assert column.names == ("x", "y") and column.corpus is corpus
    assert set(column.assigned) == set(SPLITS)
    for split in SPLITS:
        assert (column.of(split) == np.asarray(corpus.rows(split)) % 2).all()


@pytest.mark.parametrize(("split", "num"), [("train", 1), ("test", 3)])
def test_a_row_without_a_domain_is_refused(tmp_path: Path, split: str, num: int) -> None:
    corpus: Any = SimpleNamespace(**vars(TOKENS.corpus))
    without = list(TOKENS.corpus.rows(split))[:num]
    corpus.domains_of = lambda rows: np.where(np.isin(rows, without), -1, 0)
    message = rf"data\.columns\.domain is empty in {num} rows of the {split} split: .* 'kmeans'"
    with pytest.raises(DataError, match=message):
        partition(ByColumn(), corpus, TOKENS, "", 0, tmp_path)
