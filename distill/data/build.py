"""Reading a source once and writing a corpus: splits, labels, limits, and every refusal.

The stream is spooled by split with provisional label and domain numbers (their order is known only
at the end), then copied into the final files, which also gives the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from distill.config import SPLITS, Data
from distill.data.columns import Splitter, values_in
from distill.data.content import Content
from distill.data.file_format import Kept
from distill.data.names import final_names, stripped
from distill.data.refusals import Labels, RowLocation, no_labels, no_rows, one_label
from distill.data.rows import fixed_batches, write_rows
from distill.data.source import File, column_names, read_batches
from distill.data.split_names import given_fractions, num_held_out
from distill.data.splits import Smallest, row_hashes, seed_of
from distill.errors import DataError
from distill.records import UNLABELLED

FORMAT = 1  # raise it when the files or their meaning change: every fingerprint changes with it
RULES = 2  # raise it when files are read by other rules: corpora are built again, and those that
# come out the same keep their fingerprint, by which teacher caches and run folders are found
TRANSFER = SPLITS.index("transfer")
UNLABELLED_ROWS = ("unlabelled_moved", "unlabelled_held", "unlabelled_dropped")  # of counts
MOVED = "moved"  # rows without a label, on their way to transfer
NONE = -1  # provisional number of no label, and final index of no domain


def corpus_key(
    files: list[File],
    data: Data,
    seed: int,
    labels: tuple[str, ...] | None,
    content: Content,
    only: str | None = None,
) -> str:
    """Names the corpus of these files under this configuration, without reading the files."""
    not_of_rows = {"path", "cache_dir", "max_length", "cut", "labels", "packing", "max_unlearnable"}
    not_of_rows |= {"chat_template", "template_arguments"}
    settings = data.model_dump(mode="json", exclude=not_of_rows)
    # As it was before there were other contents, so that corpora of text are found again.
    settings.pop("image")
    if settings["unlabelled"] == "error":
        del settings["unlabelled"]
    if not settings["prompt_as_chat"]:
        del settings["prompt_as_chat"]
    for name in ("features", "prompt", "completion", "messages", "tools"):
        if settings["columns"][name] is None:
            del settings["columns"][name]
    is_limited = any(limit is not None for limit in settings["limit"].values())
    identity = {
        "format": FORMAT,
        "rules": RULES,
        "files": [(file.filesystem.type_name, *file.identity()) for file in files],
        "settings": settings,
        "labels": labels,
        "only": only,
        "seed": seed if is_limited else None,
        **content.settings,
    }
    if any(file.split is not None for file in files):
        # Refused together with a file for the split; an earlier build without them was not.
        identity["fractions"] = given_fractions(data.holdout)
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


class Builder:
    """One build of one corpus into ``folder``; ``build`` is called once."""

    def __init__(
        self,
        data: Data,
        seed: int,
        label_names: tuple[str, ...] | None,
        content: Content,
        folder: Path,
        only: str | None = None,
    ) -> None:
        self.data = data
        self.seed = seed
        self.folder = folder
        self.content = content
        self.schema = pa.schema(
            [*self.content.fields, ("label", pa.int64()), ("domain", pa.int64())]
        )
        # key: the hash of a row's text; hash: the order in which a limit takes the rows.
        self.spooled = self.schema.append(pa.field("key", pa.uint64()))
        self.spooled = self.spooled.append(pa.field("hash", pa.uint64()))
        self.only = only
        self.needed = ("train", "validation", "test") if only is None else (only,)
        self.splitter = Splitter(data, only)
        self.is_moving = data.unlabelled == "transfer"
        self.labels = Labels(label_names, is_evaluated=only is not None)
        self.domains: dict[str, int] = {}
        self.num_dropped = 0
        self.counts: Counter[str] = Counter()
        self.sources: dict[str, dict[str, None]] = {split: {} for split in SPLITS}
        self.num_seen = [0] * len(SPLITS)
        self.smallest: dict[tuple[int, int], Smallest] = {}

    def build(self, files: list[File]) -> None:
        """Write the split files and manifest.json. Raises DataError for data it must refuse."""
        columns = self.data.columns
        label = columns.label if self.content.has_labels else None
        needed = [*self.content.strings, label, columns.domain]
        names = tuple(n for n in dict.fromkeys(needed + self.splitter.columns) if n is not None)
        kept = self.content.kept
        for key, special in (("features", kept.numbers), ("messages", kept.chats)):
            if twice := set(names) & set(special):
                raise DataError(
                    f"data.columns.{key} names {twice.pop()!r}, which is also the label, domain, "
                    "split or group of a row: a column is one of them"
                )
        groups = (columns.domain, self.data.holdout.group)
        kept = kept._replace(groups=tuple(n for n in groups if n is not None))
        self._count_unread(files)
        files = self._with_labels(files, names, kept)
        self.splitter = Splitter(self.data, self.only, files)
        self.is_split_by_text = (
            columns.split is None
            and self.data.holdout.group is None
            and all(file.split is None for file in files)
        )
        with ExitStack() as stack:
            writers = [stack.enter_context(self._writer(split)) for split in SPLITS]
            moved = stack.enter_context(self._writer(MOVED))
            for file in files:
                first_row = 1
                for batch in read_batches(file, names, kept):
                    for split, part in self._sorted(batch, file, first_row):
                        if split == MOVED:
                            moved.write_batch(part)
                        else:
                            self._write(part, SPLITS.index(split), writers)
                    first_row += batch.num_rows
            for split, writer in zip(SPLITS, writers, strict=True):
                if split != "transfer":
                    writer.close()
            moved.close()
            self._move(writers)
        self._finish(files)

    def _count_unread(self, files: list[File]) -> None:
        """Names of files and columns that nothing here reads, though they may have been meant.

        Columns are those of the first file: to open all of them would take long.
        """
        columns = self.data.columns
        if self.only is not None:
            return
        if columns.split is None and all(file.split is None for file in files):
            self.counts["held_out_pooled"] = num_held_out(files, self.data.splits)
            self.counts["split_unread"] = int("split" in column_names(files[0]))
        if columns.messages is not None and columns.tools is None:
            self.counts["tools_unread"] = int("tools" in column_names(files[0]))

    def _writer(self, split: str) -> Any:
        return ipc.new_stream(str(self._spool(split)), self.spooled)

    def _spool(self, split: str) -> Path:
        return self.folder / f"{split}.spool"

    def _with_labels(self, files: list[File], names: tuple[str, ...], kept: Kept) -> list[File]:
        """Without files of validation or test none of whose rows has a label, where those may be
        missing: the split is then cut from train."""
        if not self.content.has_labels or self.data.unlabelled == "error":
            return files
        for split in ("validation", "test"):
            named = [file for file in files if file.split == split]
            if named and not any(self._has_label(file, names, kept) for file in named):
                self.counts[f"{split}_without_labels"] = len(named)
                files = [file for file in files if file.split != split]
        return files

    def _has_label(self, file: File, names: tuple[str, ...], kept: Kept) -> bool:
        """``names`` and ``kept``: all that is read of a row, of which it may have no label."""
        name, given = self.data.columns.label, self.labels.given or ()
        return any(
            label is not None and (label != "-1" or label in given)
            for batch in read_batches(file, names, kept)
            if name in batch.schema.names
            for label in stripped(batch.column(name).to_pylist(), Counter(), given)
        )

    def _sorted(
        self, batch: pa.RecordBatch, file: File, first_row: int
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The rows of one batch by split, or MOVED."""
        if batch.num_rows == 0:
            return
        names = self.data.columns
        contents, keys = self.content.of(batch, file, first_row)
        labels = self._labels_in(batch, file)
        domains = values_in(batch, names.domain, "data.columns.domain", file)
        domains = stripped(domains, self.counts)
        is_cut = self.splitter.is_cut(batch, file)
        rows: dict[str, list[tuple]] = {split: [] for split in (*SPLITS, MOVED)}
        for i, index in enumerate(self.splitter.of(batch, file, first_row, keys)):
            if index is None:
                continue
            split = SPLITS[index]
            place = RowLocation(file, first_row + i)
            if empty := self.content.empty(contents[i]):
                self._drop_empty(place, empty)
                continue
            label = NONE
            if labels is not None and split != "transfer":  # which is unlabelled by definition
                if labels[i] is None and (to := self._destination(split, is_cut)) != split:
                    if to is None:
                        self.counts["unlabelled_dropped"] += 1
                        continue
                    split = to
                else:
                    label = self.labels.number(labels[i], split, place, self.data)
            domain = NONE
            if (name := domains[i]) is not None:
                domain = self.domains.setdefault(name, len(self.domains))
            rows[split].append((*contents[i], label, domain, seed_of(keys[i]), 0))
        for split, found in rows.items():
            if found:
                into = "transfer" if split == MOVED else split
                if split == MOVED:
                    source = f"{file.uri}, rows without a label (data.unlabelled)"
                else:
                    source = self.splitter.source(split, batch, file)
                self.sources[into][source] = None
                columns = [list(column) for column in zip(*found, strict=True)]
                named = dict(zip(self.spooled.names, columns, strict=True))
                yield split, pa.RecordBatch.from_pydict(named, schema=self.spooled)

    def _destination(self, split: str, is_cut: bool) -> str | None:
        """Where a row without a label goes that ``split`` would have; None: nowhere."""
        if self.data.unlabelled != "transfer":
            return split if self.data.unlabelled == "error" else None
        if split == "train":
            return MOVED
        if not is_cut:  # a validation or test row by its file or column
            return split
        # A group that is held out must not be trained on; of a text _move knows whether it is.
        return None if self.data.holdout.group is not None else MOVED

    def _move(self, writers: list[Any]) -> None:
        """Rows without a label into transfer, but for texts that validation or test also has."""
        held = np.empty(0, np.uint64)
        if self.is_moving:
            held = np.sort(np.concatenate([self._keys("validation"), self._keys("test")]))
        for batch in _read(self._spool(MOVED)):
            keys = batch.column("key").to_numpy()
            # Sorted once: np.isin would sort them for every batch.
            is_held = np.searchsorted(held, keys, "left") < np.searchsorted(held, keys, "right")
            self.counts["unlabelled_held"] += int(is_held.sum())
            self.counts["unlabelled_moved"] += int((~is_held).sum())
            self._write(batch.filter(pa.array(~is_held)), TRANSFER, writers)
        self._spool(MOVED).unlink()

    def _labels_in(self, batch: pa.RecordBatch, file: File) -> list[str | None] | None:
        if not self.content.has_labels:
            return None
        # A file of transfer rows alone may lack the column; Labels refuses other rows without.
        name = self.data.columns.label
        labels = values_in(batch, name, "data.columns.label", file, may_lack=True)
        return stripped(labels, self.counts, self.labels.given or ())

    def _write(self, rows: pa.RecordBatch, split: int, writers: list[Any]) -> None:
        """Into the spool, without rows that a limit certainly does not keep."""
        start = self.num_seen[split]
        self.num_seen[split] += rows.num_rows
        hashes = row_hashes(self.seed, split, np.arange(start, start + rows.num_rows))
        rows = rows.set_column(rows.num_columns - 1, "hash", pa.array(hashes))
        limit = getattr(self.data.limit, SPLITS[split])
        if limit is not None:
            maybe = np.ones(rows.num_rows, bool)
            domains = rows.column("domain").to_numpy()
            for domain in np.unique(domains):
                here = domains == domain
                smallest = self.smallest.setdefault((split, int(domain)), Smallest(limit))
                maybe[here] = smallest.offer(hashes[here])
            rows = rows.filter(pa.array(maybe))
        if rows.num_rows:
            writers[split].write_batch(rows)

    def _domain_numbers(self) -> tuple[list[str], np.ndarray]:
        """Domain names, and the final number of each provisional one; the last is of no domain."""
        finals = final_names(self.domains)
        names = sorted(set(finals.values()))
        return names, np.array([*(names.index(finals[name]) for name in self.domains), NONE])

    def _kept(self, split: str) -> Iterator[pa.RecordBatch]:
        """The spooled rows that the limit keeps."""
        _, domain_of = self._domain_numbers()
        # Before the end of the stream two domains may have been one.
        smallest: dict[int, Smallest] = {}
        for (index, domain), kept in self.smallest.items():
            if SPLITS[index] == split:
                final = int(domain_of[domain])
                smallest[final] = smallest[final].joined(kept) if final in smallest else kept
        threshold = {domain: kept.threshold() for domain, kept in smallest.items()}
        for batch in _read(self._spool(split)):
            if threshold:
                domains = domain_of[batch.column("domain").to_numpy()]
                hashes = batch.column("hash").to_numpy()
                is_kept = np.zeros(batch.num_rows, bool)
                for number, largest in threshold.items():
                    is_kept |= (domains == number) & (hashes <= largest)
                batch = batch.filter(pa.array(is_kept))
            yield batch

    def _keys(self, split: str) -> np.ndarray:
        """uint64[rows]: hashes of the texts."""
        found = [batch.column("key").to_numpy() for batch in self._kept(split)]
        return np.concatenate(found) if found else np.empty(0, np.uint64)

    def _count_shared(self) -> None:
        """Rows of validation and test whose text is trained on.

        Where the text's own hash decides there is none, and the spools are not read for it.
        """
        if self.only is None and not self.is_split_by_text:
            trained = np.concatenate([self._keys("train"), self._keys("transfer")])
            for split in ("validation", "test"):
                shared = np.isin(self._keys(split), trained)
                self.counts[f"{split}_in_train"] = int(shared.sum())

    def _drop_empty(self, place: RowLocation, role: str) -> None:
        if self.data.on_empty_text == "error":
            raise DataError(
                f"data.columns.{role} is empty in {place}: remove the row, or set "
                "data.on_empty_text=drop to drop and count such rows"
            )
        self.num_dropped += 1

    def _check_splits(self, files: list[File]) -> None:
        """Raises DataError for a split that is needed and has no row."""
        num_unlabelled = sum(self.counts[name] for name in UNLABELLED_ROWS)
        if num_unlabelled and not self.num_seen[SPLITS.index("train")]:
            raise no_labels(files, self.data)
        lost = self.num_dropped, num_unlabelled
        if not any(self.num_seen):
            # Of one split that a column names, it is the name that is wrong, not the file.
            is_named = len(self.needed) == 1 and self.data.columns.split is not None
            split = self.needed[0] if is_named else None
            raise no_rows(files, *lost, split, self.data)
        for split in self.needed:
            if not self.num_seen[SPLITS.index(split)]:
                raise no_rows(files, *lost, split, self.data)

    def _finish(self, files: list[File]) -> None:
        self._check_splits(files)
        self._count_shared()
        label_names = self.labels.final()
        domain_names, domain_of = self._domain_numbers()
        label_of = np.array([*self.labels.indices(), UNLABELLED])
        identity = [FORMAT, label_names, domain_names, *self.content.identity]
        fingerprint = hashlib.sha256(json.dumps(identity).encode())
        num_rows: dict[str, int] = {}
        for index, split in enumerate(SPLITS):
            batches = self._final(split, label_of, domain_of)
            path = self.folder / f"{split}.arrow"
            batches = _hashed(batches, split, self.content, fingerprint)
            num_rows[split] = write_rows(path, self.schema, batches)
            fingerprint.update(f"{index}:{num_rows[split]}".encode())
            self._spool(split).unlink()
        manifest = {
            "format": FORMAT,
            "fingerprint": fingerprint.hexdigest(),
            "label_names": label_names,
            "domain_names": domain_names,
            "num_dropped": self.num_dropped,
            "num_rows": num_rows,
            "counts": {name: count for name, count in self.counts.items() if count},
            "sources": {split: list(found) for split, found in self.sources.items()},
            **self.content.manifest(),
        }
        (self.folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")

    def _final(
        self, split: str, label_of: np.ndarray, domain_of: np.ndarray
    ) -> Iterator[pa.RecordBatch]:
        used: set[int] = set()

        def renumbered() -> Iterator[pa.RecordBatch]:
            for batch in self._kept(split):
                labels = label_of[batch.column("label").to_numpy()]
                used.update(np.unique(labels).tolist())
                yield pa.RecordBatch.from_arrays(
                    [
                        *(batch.column(name) for name, _ in self.content.fields),
                        labels,
                        domain_of[batch.column("domain").to_numpy()],
                    ],
                    schema=self.schema,
                )

        yield from fixed_batches(renumbered(), self.schema)
        is_trained = self.content.has_labels and split == "train" and "train" in self.needed
        if is_trained and len(used) < 2:
            raise one_label(self.labels.final()[used.pop()], self.data)


def _read(spool: Path) -> Iterator[pa.RecordBatch]:
    # A file, not its path, which pyarrow would map: mapped pages stay in memory.
    with pa.OSFile(str(spool)) as source, ipc.open_stream(source) as reader:
        yield from reader


def _hashed(
    batches: Iterator[pa.RecordBatch], split: str, content: Content, fingerprint: hashlib._Hash
) -> Iterator[pa.RecordBatch]:
    """Pass the batches on, adding all that they hold to ``fingerprint``."""
    for batch in batches:
        content.add(batch, split, fingerprint)
        for name in ("label", "domain"):
            fingerprint.update(batch.column(name).to_numpy().astype("<i8").tobytes())
        yield batch
