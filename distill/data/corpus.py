"""A data set on disk, split and labelled, with one global id a row.

Ids count the rows of train, transfer, validation and test in this order. Each split is one Arrow
file (text and text_pair, or features, or a document; label, domain) that is memory-mapped; labels
and domains are indices.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from distill.config import SPLITS, Data
from distill.data.build import FORMAT, Builder, corpus_key
from distill.data.content import Content, Kind, labelled_content, matrix
from distill.data.rows import BATCH_ROWS, RowsFile, published, streamed
from distill.data.source import find_files
from distill.data.split_names import assign_splits
from distill.errors import DataError


def cache_root(cache_dir: str | None) -> Path:
    """``data.cache_dir``, else $DISTILL_CACHE, else ~/.cache/distill."""
    return Path(cache_dir or os.environ.get("DISTILL_CACHE") or "~/.cache/distill").expanduser()


def build_corpus(
    data: Data,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    only: str | None = None,
    content: Callable[[Data], Content] = labelled_content,
) -> Corpus:
    """Read, check, split and store the data set that ``data`` names, or open it if it is there.

    ``labels`` are the class names in order, where a model already fixes them; they go before
    ``data.labels``. ``seed`` picks the rows that ``data.limit`` keeps and nothing else.
    ``only`` puts every row into that one split (evaluation of a file that has no splits).
    ``content``: what a row consists of. Of documents (DocumentContent), labels are not read.
    Every row is read once, in record batches. Raises DataError for data that cannot be used.
    """
    files = find_files(data.path)
    if only is None:
        files = assign_splits(files, data)
    rows = content(data)
    names = tuple(labels) if labels is not None else data.labels
    if not rows.has_labels:
        names = None
    key = corpus_key(files, data, seed, names, rows, only)
    folder = cache_root(data.cache_dir) / "corpora" / key
    if not (folder / "manifest.json").is_file():
        try:
            with published(folder) as building:
                Builder(data, seed, names, rows, building, only).build(files)
        except OSError as error:
            raise DataError(
                f"the data cache {folder.parent} cannot be written ({error}): set data.cache_dir "
                "or DISTILL_CACHE to a writable folder with enough space"
            ) from None
    return Corpus(folder)


@dataclass(frozen=True)
class FeatureInfo:
    """Where the features of a corpus come from, and their moments in the train split."""

    columns: tuple[str, ...]
    """One column of lists, or one for each feature."""
    mean: tuple[float, ...]
    sd: tuple[float, ...]

    @property
    def num(self) -> int:
        return len(self.mean)


class Corpus:
    """Opens the folder of a built corpus. Pickles as its path, so it travels between processes."""

    noun: str = "rows"
    unit: str = "row"
    pooled_unit: str = "row"
    is_self_labelled: bool = False
    num_unlearnable = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["format"] == FORMAT, f"{folder} was written by another version"
        self.fingerprint: str = manifest["fingerprint"]
        self.label_names: tuple[str, ...] = tuple(manifest["label_names"])
        self.domain_names: tuple[str, ...] = tuple(manifest["domain_names"])
        self.num_dropped: int = manifest["num_dropped"]
        self.counts: dict[str, int] = manifest["counts"]
        """Rows that were moved or dropped, and values that were changed, by reason: see
        tasks/checks/data.py."""
        self.sources: dict[str, list[str]] = manifest["sources"]
        """Of each split the files, in words, that its rows come from."""
        self.is_pair: bool = manifest["is_pair"]
        self.kind: Kind | None = manifest.get("kind")
        """What the documents of a language model are; None for rows of a classifier."""
        self.has_tools: bool = manifest.get("has_tools", False)
        """Whether tool schemas come with chats."""
        features: dict[str, list] | None = manifest.get("features")
        self.features: FeatureInfo | None = None
        """None for a corpus of text."""
        if features is not None:
            self.features = FeatureInfo(**{name: tuple(v) for name, v in features.items()})
        self._ranges: dict[str, range] = {}
        start = 0
        for split in SPLITS:
            stop = start + manifest["num_rows"][split]
            self._ranges[split] = range(start, stop)
            start = stop
        self.num_rows = start

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return Corpus, (self.folder,)

    def rows(self, split: str) -> range:
        """Global ids of a split."""
        return self._ranges[split]

    def texts(self, split: str) -> Iterator[tuple[str, str | None]]:
        """Texts of a split with their pair (None if it is no pair task), one batch at a time.

        Of documents the text, or prompt and completion, or all messages of a chat, a newline
        between.
        """
        for batch in self._files[split]:
            yield from _texts(batch)

    def document_batches(self, split: str) -> Iterator[pa.RecordBatch]:
        """Documents (see ``documents``) and domain of a split, in memory of one batch.

        Read, not mapped: mapped pages stay in the process's memory until it is needed.
        """
        assert self.kind is not None
        yield from streamed(self.folder / f"{split}.arrow")

    def documents(self, split: str) -> Iterator[tuple[str, ...]]:
        """Each (text,), or (prompt, completion), or (messages as JSON,), by ``kind``.

        With ``data.columns.tools``: (messages, tools as JSON or None).
        """
        for batch in self.document_batches(split):
            yield from documents_in(batch)

    def documents_of(self, rows: Sequence[int] | np.ndarray | range) -> list[tuple[str, ...]]:
        """Documents of any rows, in their order."""
        found: list[tuple[str, ...]] = [()] * len(rows)
        for batch, inside, positions in self._batches_of(rows):
            taken = batch.take(pa.array(positions))
            for i, document in zip(inside, documents_in(taken), strict=True):
                found[i] = document
        return found

    def texts_of(self, rows: Sequence[int] | np.ndarray | range) -> list[tuple[str, str | None]]:
        """Texts of any rows, in their order."""
        found: list[tuple[str, str | None]] = [("", None)] * len(rows)
        for batch, inside, positions in self._batches_of(rows):
            taken = batch.take(pa.array(positions))
            for i, text in zip(inside, _texts(taken), strict=True):
                found[i] = text
        return found

    def features_of(self, rows: Sequence[int] | np.ndarray | range) -> np.ndarray:
        """float32[n, D] raw features of any rows, in their order."""
        assert self.features is not None
        found = np.empty((len(rows), self.features.num), np.float32)
        for batch, inside, positions in self._batches_of(rows):
            found[inside] = matrix(batch)[positions]
        return found

    def _batches_of(
        self, rows: Sequence[int] | np.ndarray | range
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
        """Stored batches that hold some of ``rows``: which of them, and their places in it."""
        rows = np.asarray(rows, np.int64)
        for split in SPLITS:
            here = self._ranges[split]
            where = np.flatnonzero((rows >= here.start) & (rows < here.stop))
            positions = rows[where] - here.start
            for index in np.unique(positions // BATCH_ROWS):
                inside = where[positions // BATCH_ROWS == index]
                batch = self._files[split].batch(int(index))
                yield batch, inside, rows[inside] - here.start - index * BATCH_ROWS

    def labels_of(self, rows: Sequence[int] | np.ndarray | range) -> np.ndarray:
        """int64[n] class indices, UNLABELLED in the transfer split."""
        return self._labels[np.asarray(rows, np.int64)]

    def domains_of(self, rows: Sequence[int] | np.ndarray | range) -> np.ndarray:
        """int64[n] indices into domain_names, -1 for a row without a domain."""
        return self._domains[np.asarray(rows, np.int64)]

    def place_of(self, row: int, split: str) -> str:
        """As of Rows."""
        return f"row {row - self.rows(split).start + 1} of the {split} split"

    def domain_teachers_of(
        self, rows: Sequence[int] | np.ndarray | range, names: Sequence[str]
    ) -> np.ndarray:
        """int64[n] which of ``names`` is the row's domain, -1 where none is."""
        return domain_teachers(self.domains_of(rows), self.domain_names, names)

    @cached_property
    def _files(self) -> dict[str, RowsFile]:
        return {split: RowsFile(self.folder / f"{split}.arrow") for split in SPLITS}

    @cached_property
    def _labels(self) -> np.ndarray:
        return np.concatenate([self._files[split].int64("label") for split in SPLITS])

    @cached_property
    def _domains(self) -> np.ndarray:
        return np.concatenate([self._files[split].int64("domain") for split in SPLITS])


def domain_teachers(
    domains: np.ndarray, domain_names: Sequence[str], names: Sequence[str]
) -> np.ndarray:
    """int64[n] which of ``names`` each of ``domains`` (indices) is, -1 where none is."""
    index = {name: i for i, name in enumerate(names)}
    # The last entry is that of no domain, whose index is -1.
    return np.array([*(index.get(name, -1) for name in domain_names), -1], np.int64)[domains]


def documents_in(batch: pa.RecordBatch) -> Iterator[tuple[str, ...]]:
    """The documents of a stored batch: every column but label and domain."""
    names = [name for name in batch.schema.names if name not in ("label", "domain")]
    return zip(*(batch.column(name).to_pylist() for name in names), strict=True)


def _texts(batch: pa.RecordBatch) -> Iterator[tuple[str, str | None]]:
    names = batch.schema.names
    if "prompt" in names:
        yield from documents_in(batch)  # pyright: ignore[reportReturnType] (two columns)
    elif "messages" in names:
        for chat in batch.column("messages").to_pylist():
            yield "\n".join(message["content"] for message in json.loads(chat)), None
    elif "text_pair" not in names:
        yield from ((text, None) for (text,) in documents_in(batch))
    else:
        yield from _pairs(batch)


def _pairs(batch: pa.RecordBatch) -> Iterator[tuple[str, str | None]]:
    return zip(batch.column("text").to_pylist(), batch.column("text_pair").to_pylist(), strict=True)
