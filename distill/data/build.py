"""Reading a source once and writing a corpus: splits, labels, limits, and every refusal.

The stream is spooled by split with provisional label and domain numbers (their order is known only
at the end), then copied into the final files, which also gives the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from distill.config import SPLITS, Data
from distill.data.columns import Splitter, values_in
from distill.data.content import Content, content_of
from distill.data.names import final_names, stripped
from distill.data.refusals import Labels, Place, no_rows, one_label
from distill.data.rows import fixed_batches, write_rows
from distill.data.source import File, read_batches
from distill.data.splits import Smallest, row_hashes
from distill.errors import DataError
from distill.records import UNLABELLED

FORMAT = 1  # raise it when the files or their meaning change
TRANSFER = SPLITS.index("transfer")
NONE = -1  # provisional number of no label, and final index of no domain


def corpus_key(
    files: list[File],
    data: Data,
    seed: int,
    labels: tuple[str, ...] | None,
    only: str | None = None,
    is_language_model: bool = False,
) -> str:
    """Names the corpus of these files under this configuration, without reading the files."""
    not_of_rows = {"path", "cache_dir", "max_length", "cut", "labels", "packing", "max_unlearnable"}
    settings = data.model_dump(mode="json", exclude=not_of_rows)
    # As it was before there were other contents, so that corpora of text are found again.
    settings.pop("image")
    for name in ("features", "prompt", "completion", "messages"):
        if settings["columns"][name] is None:
            del settings["columns"][name]
    is_limited = any(limit is not None for limit in settings["limit"].values())
    identity = {
        "format": FORMAT,
        "files": [(file.filesystem.type_name, *file.identity()) for file in files],
        "settings": settings,
        "labels": labels,
        "only": only,
        "seed": seed if is_limited else None,
    }
    if is_language_model:
        identity["task"] = "language_model"
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


class Builder:
    """One build of one corpus into ``folder``; ``build`` is called once."""

    def __init__(
        self,
        data: Data,
        seed: int,
        label_names: tuple[str, ...] | None,
        folder: Path,
        only: str | None = None,
        is_language_model: bool = False,
    ) -> None:
        self.data = data
        self.seed = seed
        self.folder = folder
        self.is_language_model = is_language_model
        self.content = content_of(data, is_language_model)
        self.schema = pa.schema(
            [*self.content.fields, ("label", pa.int64()), ("domain", pa.int64())]
        )
        self.spool = self.schema.append(pa.field("hash", pa.uint64()))
        self.needed = ("train", "validation", "test") if only is None else (only,)
        self.splitter = Splitter(data, only)
        self.labels = Labels(label_names)
        self.domains: dict[str, int] = {}
        self.num_dropped = 0
        self.counts: Counter[str] = Counter()
        self.num_seen = [0] * len(SPLITS)
        self.smallest: dict[tuple[int, int], Smallest] = {}

    def build(self, files: list[File]) -> None:
        """Write the split files and manifest.json. Raises DataError for data it must refuse."""
        columns = self.data.columns
        label = None if self.is_language_model else columns.label
        wanted = [*self.content.strings, label, columns.domain]
        names = tuple(n for n in dict.fromkeys(wanted + self.splitter.columns) if n is not None)
        kept = self.content.kept
        for key, special in (("features", kept.numbers), ("messages", kept.chats)):
            if twice := set(names) & set(special):
                raise DataError(
                    f"data.columns.{key} names {twice.pop()!r}, which is also the label, domain, "
                    "split or group of a row: a column is one of them"
                )
        groups = (columns.domain, self.data.holdout.group)
        kept = kept._replace(groups=tuple(n for n in groups if n is not None))
        spools = [self.folder / f"{split}.spool" for split in SPLITS]
        writers = [ipc.new_stream(str(path), self.spool) for path in spools]
        try:
            for file in files:
                first_row = 1
                for batch in read_batches(file, names, kept):
                    for split, part in self._sorted(batch, file, first_row):
                        writers[split].write_batch(part)
                    first_row += batch.num_rows
        finally:
            for writer in writers:
                writer.close()
        self._finish(files, spools)

    def _sorted(
        self, batch: pa.RecordBatch, file: File, first_row: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows of one batch by split, without those that a limit cannot keep."""
        if batch.num_rows == 0:
            return
        names = self.data.columns
        contents, keys = self.content.of(batch, file, first_row)
        labels = self._labels_in(batch, file)
        domains = values_in(batch, names.domain, "data.columns.domain", file)
        domains = stripped(domains, self.counts)
        rows: list[list[tuple]] = [[] for _ in SPLITS]
        for i, split in enumerate(self.splitter.of(batch, file, first_row, keys)):
            if split is None:
                continue
            place = Place(file, first_row + i)
            if empty := self.content.empty(contents[i]):
                self._drop_empty(place, empty)
                continue
            label = NONE
            if labels is not None and split != TRANSFER:  # which is unlabelled by definition
                label = self.labels.number(labels[i], SPLITS[split], place, self.data)
            domain = NONE
            if (name := domains[i]) is not None:
                domain = self.domains.setdefault(name, len(self.domains))
            rows[split].append((*contents[i], label, domain))
        for split, found in enumerate(rows):
            if found and (part := self._limited(split, found)).num_rows:
                yield split, part

    def _labels_in(self, batch: pa.RecordBatch, file: File) -> list[str | None] | None:
        if self.is_language_model:
            return None
        # A file of transfer rows alone may lack the column; Labels refuses other rows without.
        name = self.data.columns.label
        labels = values_in(batch, name, "data.columns.label", file, may_lack=True)
        return stripped(labels, self.counts, self.labels.given or ())

    def _limited(self, split: int, rows: list[tuple]) -> pa.RecordBatch:
        start = self.num_seen[split]
        self.num_seen[split] += len(rows)
        hashes = row_hashes(self.seed, split, np.arange(start, start + len(rows)))
        columns = [list(column) for column in zip(*rows, strict=True)]
        part = pa.RecordBatch.from_pydict(
            dict(zip(self.spool.names, [*columns, hashes], strict=True)), schema=self.spool
        )
        limit = getattr(self.data.limit, SPLITS[split])
        if limit is None:
            return part
        maybe = np.ones(len(rows), bool)
        domains = np.array(columns[-1])
        for domain in np.unique(domains):
            here = domains == domain
            smallest = self.smallest.setdefault((split, int(domain)), Smallest(limit))
            maybe[here] = smallest.offer(hashes[here])
        return part.filter(pa.array(maybe))

    def _drop_empty(self, place: Place, role: str) -> None:
        if self.data.on_empty_text == "error":
            raise DataError(
                f"data.columns.{role} is empty in {place}: remove the row, or set "
                "data.on_empty_text=drop to drop and count such rows"
            )
        self.num_dropped += 1

    def _finish(self, files: list[File], spools: list[Path]) -> None:
        if not any(self.num_seen):
            # Of one split that a column names, it is the name that is wrong, not the file.
            is_named = len(self.needed) == 1 and self.data.columns.split is not None
            split = self.needed[0] if is_named else None
            raise no_rows(files, self.num_dropped, split, self.data)
        for split in self.needed:
            if not self.num_seen[SPLITS.index(split)]:
                raise no_rows(files, self.num_dropped, split, self.data)
        label_names = self.labels.final()
        finals = final_names(self.domains)
        domain_names = sorted(set(finals.values()))
        label_of = np.array([*self.labels.indices(), UNLABELLED])
        domain_of = np.array([domain_names.index(finals[n]) for n in self.domains] + [NONE])
        identity = [FORMAT, label_names, domain_names, *self.content.identity]
        fingerprint = hashlib.sha256(json.dumps(identity).encode())
        num_rows: dict[str, int] = {}
        for split, spool in enumerate(spools):
            batches = self._final(split, spool, label_of, domain_of)
            path = self.folder / f"{SPLITS[split]}.arrow"
            batches = _hashed(batches, SPLITS[split], self.content, fingerprint)
            num_rows[SPLITS[split]] = write_rows(path, self.schema, batches)
            fingerprint.update(f"{split}:{num_rows[SPLITS[split]]}".encode())
            spool.unlink()
        manifest = {
            "format": FORMAT,
            "fingerprint": fingerprint.hexdigest(),
            "label_names": label_names,
            "domain_names": domain_names,
            "num_dropped": self.num_dropped,
            "counts": dict(self.counts),
            "num_rows": num_rows,
            **self.content.manifest(),
        }
        (self.folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")

    def _final(
        self, split: int, spool: Path, label_of: np.ndarray, domain_of: np.ndarray
    ) -> Iterator[pa.RecordBatch]:
        # Before the end of the stream two domains may have been one.
        smallest: dict[int, Smallest] = {}
        for (s, domain), kept in self.smallest.items():
            if s == split:
                final = int(domain_of[domain])
                smallest[final] = smallest[final].joined(kept) if final in smallest else kept
        threshold = {domain: kept.threshold() for domain, kept in smallest.items()}
        used: set[int] = set()

        def renumbered() -> Iterator[pa.RecordBatch]:
            # A file, not its path, which pyarrow would map: mapped pages stay in memory.
            with pa.OSFile(str(spool)) as source, ipc.open_stream(source) as reader:
                for batch in reader:
                    domains = domain_of[batch.column("domain").to_numpy()]
                    if threshold:
                        hashes = batch.column("hash").to_numpy()
                        kept = np.zeros(batch.num_rows, bool)
                        for number, largest in threshold.items():
                            kept |= (domains == number) & (hashes <= largest)
                        batch, domains = batch.filter(pa.array(kept)), domains[kept]
                    labels = label_of[batch.column("label").to_numpy()]
                    used.update(np.unique(labels).tolist())
                    yield pa.RecordBatch.from_arrays(
                        [
                            *(batch.column(name) for name, _ in self.content.fields),
                            labels,
                            domains,
                        ],
                        schema=self.schema,
                    )

        yield from fixed_batches(renumbered(), self.schema)
        if self.is_language_model:
            return
        if SPLITS[split] == "train" and "train" in self.needed and len(used) < 2:
            raise one_label(self.labels.final()[used.pop()], self.data)


def _hashed(
    batches: Iterator[pa.RecordBatch], split: str, content: Content, fingerprint: hashlib._Hash
) -> Iterator[pa.RecordBatch]:
    """Pass the batches on, adding all that they hold to ``fingerprint``."""
    for batch in batches:
        content.add(batch, split, fingerprint)
        for name in ("label", "domain"):
            fingerprint.update(batch.column(name).to_numpy().astype("<i8").tobytes())
        yield batch
