"""Token ids of a whole corpus, written once, memory-mapped, padded when a batch needs them.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill.config import SPLITS, Cut
from distill.data.corpus import Corpus
from distill.data.encode import PaddedTokens, encode, padded
from distill.data.rows import BATCH_ROWS, RowsFile, published, write_rows
from distill.errors import DataError
from distill.models.tokenizer import fingerprint_of, load_fast_tokenizer, pad_id

FORMAT = 1  # raise it when the files or their meaning change


def tokenise(
    corpus: Corpus, tokenizer_folder: str | Path, max_length: int, cut: Cut = "head"
) -> Tokens:
    """Tokens of every row, at most ``max_length`` with the special ones; see :func:`encode`.

    Stored next to the corpus under its fingerprint and the tokenizer's, so a second call opens it.
    Raises ModelError for a folder without a usable fast tokenizer.
    """
    tokenizer = load_fast_tokenizer(tokenizer_folder)
    identity = [FORMAT, corpus.fingerprint, fingerprint_of(tokenizer), max_length]
    if cut != "head":  # whose fingerprint is older than the other rules
        identity.append(cut)
    fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    folder = corpus.folder / "tokens" / fingerprint[:32]
    if not (folder / "manifest.json").is_file():
        try:
            with published(folder) as building:
                _write(corpus, tokenizer, max_length, cut, fingerprint, building)
        except OSError as error:
            raise DataError(
                f"the token cache {folder.parent} cannot be written ({error}): set data.cache_dir "
                "or DISTILL_CACHE to a writable folder with enough space"
            ) from None
    return Tokens(corpus, folder)


class Tokens:
    """Opens a folder that ``tokenise`` wrote. Pickles as its path."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.corpus = corpus
        self.folder = folder
        self.fingerprint: str = manifest["fingerprint"]
        self.num_truncated: int = manifest["num_truncated"]
        self.pad_id: int = manifest["pad_id"]
        self._has_types: bool = manifest["has_types"]
        self._file = RowsFile(folder / "tokens.arrow")
        self._lengths = np.load(folder / "lengths.npy", mmap_mode="r")
        self._views: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray | None]] = {}

    def __reduce__(self) -> tuple[type[Tokens], tuple[Corpus, Path]]:
        return Tokens, (self.corpus, self.folder)

    def lengths(self, rows: Sequence[int] | np.ndarray | range) -> np.ndarray:
        """int64[n] tokens of each row, special ones included."""
        return self._lengths[np.asarray(rows, np.int64)].astype(np.int64)

    def padded(self, rows: Sequence[int] | np.ndarray | range) -> PaddedTokens:
        """Any rows in their order; a row costs two slices of mapped memory."""
        found_ids, found_types = [], []
        for row in np.asarray(rows, np.int64).tolist():
            offsets, ids, types = self._view(row // BATCH_ROWS)
            start, stop = offsets[row % BATCH_ROWS], offsets[row % BATCH_ROWS + 1]
            found_ids.append(ids[start:stop])
            if types is not None:
                found_types.append(types[start:stop])
        return padded(found_ids, found_types if self._has_types else None, self.pad_id)

    def _view(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Offsets, ids and types of one record batch, as views of the mapped file."""
        if index not in self._views:
            batch = self._file.batch(index)
            ids = batch.column("input_ids")
            types = batch.column("token_type_ids").values.to_numpy() if self._has_types else None
            self._views[index] = (ids.offsets.to_numpy(), ids.values.to_numpy(), types)
        return self._views[index]


def _write(
    corpus: Corpus, tokenizer: Any, max_length: int, cut: Cut, fingerprint: str, folder: Path
) -> None:
    has_types = corpus.is_pair and "token_type_ids" in tokenizer.model_input_names
    fields = {"input_ids": pa.list_(pa.int32())}
    if has_types:
        fields["token_type_ids"] = pa.list_(pa.int8())
    schema = pa.schema(fields)
    lengths: list[np.ndarray] = []
    num_truncated = 0

    def encoded() -> Iterator[pa.RecordBatch]:
        nonlocal num_truncated
        texts = (pair for split in SPLITS for pair in corpus.texts(split))
        while block := list(islice(texts, BATCH_ROWS)):
            found = encode(tokenizer, block, max_length, cut)
            num_truncated += found.num_truncated
            lengths.append(np.array([len(ids) for ids in found.ids], np.int32))
            columns = {"input_ids": found.ids, "token_type_ids": found.types}
            yield pa.RecordBatch.from_pydict({n: columns[n] for n in fields}, schema=schema)

    write_rows(folder / "tokens.arrow", schema, encoded())
    np.save(folder / "lengths.npy", np.concatenate(lengths))
    manifest = {
        "fingerprint": fingerprint,
        "num_truncated": num_truncated,
        "pad_id": pad_id(tokenizer),
        "has_types": has_types,
        "max_length": max_length,
        "cut": cut,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")
