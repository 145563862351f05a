"""Blocks of packed sequences: the rows of a language model's data set.

Ids count the blocks of train, transfer, validation and test in this order. A block holds sequences
of one domain and split.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from distill.config import SPLITS, Cut
from distill.data.block_file import BlockFile, Rows, write_blocks
from distill.data.chat_template import ChatTemplate
from distill.data.chat_tokens import template_of
from distill.data.content import Kind
from distill.data.corpus import Corpus, documents_in, domain_teachers
from distill.data.packing import Block, packed
from distill.data.rows import published
from distill.data.sequences import Sequence, Sequencer
from distill.data.tokens import pad_id
from distill.errors import ConfigError, DataError
from distill.models.tokenizer import fingerprint_of, load_fast_tokenizer
from distill.records import UNLABELLED

FORMAT = 1  # raise it when the files or their meaning change
RULES = 2  # of chats: raise it when a correction makes other sequences of some of them
BATCH_CHARACTERS = 1 << 19  # of documents that are tokenised together
_SHOWN = 60  # characters of an example in a message
SOURCES = {
    "rows": pa.list_(pa.int64()),  # document of each sequence, and its place in that; sequences.py
    "starts": pa.list_(pa.int64()),
    "stops": pa.list_(pa.int64()),
    "first_tokens": pa.list_(pa.int64()),
    "ends": pa.list_(pa.uint8()),
}


class Prompt(NamedTuple):
    """What a model continues, and what it should write."""

    ids: list[int]
    reference: str
    domain: int


def build_blocks(
    corpus: Corpus,
    tokenizer_folder: str | Path,
    max_length: int,
    cut: Cut = "head",
    is_packing: bool = True,
    max_unlearnable: float = 0.01,
    template: ChatTemplate = ChatTemplate(),  # noqa: B008 (immutable)
) -> Blocks:
    """The documents of a corpus as blocks of at most ``max_length`` tokens; see sequences.py.

    Stored next to the corpus under its fingerprint and the tokenizer's, so a second call opens it;
    written in memory that does not grow with the corpus. ``template``: of chats. Raises ModelError
    for a folder without a usable tokenizer or, of chats, without a usable chat template,
    ConfigError for ``cut: middle`` of prompts and chats, DataError where more than the share
    ``max_unlearnable`` of the documents has no token to learn.

    The folder of chats is named by RULES too: what older rules wrote is not opened again. The
    fingerprint names the teachers' cached answers and belongs to run folders, and is older than
    RULES: it holds them only where they make other sequences of a chat than the first rules did.
    A template that writes today's date makes other blocks each day: their fingerprint holds it.
    """
    tokenizer = load_fast_tokenizer(tokenizer_folder)
    assert corpus.kind is not None, "a corpus of documents is needed"
    sequencer = Sequencer(tokenizer, corpus.kind, max_length, cut, template)
    identity: list[Any] = [FORMAT, corpus.fingerprint, fingerprint_of(tokenizer)]
    identity += [tokenizer.eos_token_id, max_length, is_packing]
    if corpus.kind != "text":
        identity.append(cut)
    if corpus.kind == "messages":
        named = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        # which the template writes
        shown_by = template_of(tokenizer, corpus.has_tools)
        identity += [shown_by, named]
        if (other := template_of(tokenizer)) != shown_by:  # of the chats that have no tools
            identity.append(other)
        if template.values:
            identity.append(template.values)
    key = _sha256([*identity, RULES] if corpus.kind == "messages" else identity)
    folder = corpus.folder / "blocks" / key[:32]
    if not (folder / "manifest.json").is_file():
        try:
            with published(folder) as building:
                _Writer(corpus, sequencer, is_packing).write(building, identity)
        except OSError as error:
            raise DataError(
                f"the block cache {folder.parent} cannot be written ({error}): set data.cache_dir "
                "or DISTILL_CACHE to a writable folder with enough space"
            ) from None
    found = Blocks(corpus, folder, Path(tokenizer_folder))
    _refuse_unlearnable(found, max_unlearnable)
    return found


def _sha256(identity: list[Any]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


class Blocks(BlockFile):
    """Opens a folder that ``build_blocks`` wrote. Pickles as its path.

    Its own ``corpus``: a caller that reads the rows, labels and domains gets those of the
    blocks. ``documents`` is the corpus that they were made of.
    """

    noun: str = "blocks"
    unit: str = "token"
    pooled_unit: str = "sequence"
    is_self_labelled: bool = True
    label_names: tuple[str, ...] = ()
    is_pair = False
    features = None

    def __init__(self, documents: Corpus, folder: Path, tokenizer_folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        super().__init__(folder, manifest["pad_id"])
        self.documents = documents
        self.folder = folder
        self.tokenizer_folder = tokenizer_folder
        assert documents.kind is not None
        self.kind: Kind = documents.kind
        self.domain_names = documents.domain_names
        self.num_dropped = documents.num_dropped
        self.fingerprint: str = manifest["fingerprint"]
        self.max_length: int = manifest["max_length"]
        self.cut: Cut = manifest["cut"]
        self.num_truncated: int = manifest["num_truncated"]
        """Documents that lost tokens."""
        self.num_unlearnable: int = manifest["num_unlearnable"]
        """Documents without a token to learn, which are in no block."""
        self.example: str | None = manifest["example"]
        """Such a document, in words."""
        self.longest: int = manifest["longest"]
        """Tokens of the longest sequence: positions that a model needs."""
        self.num_tokens: int = manifest["num_tokens"]
        self.turn_ends: tuple[int, ...] = tuple(manifest.get("turn_ends", ()))
        """Of chats: tokens that end an answer, besides the tokenizer's end-of-text token."""
        self.template = ChatTemplate(*manifest.get("template", ()))
        """Of chats: what renders them."""
        self._ranges: dict[str, range] = {}
        start = 0
        for split in SPLITS:
            stop = start + manifest["num_rows"][split]
            self._ranges[split] = range(start, stop)
            start = stop
        self.num_rows = start

    def __reduce__(self) -> tuple[type[Blocks], tuple[Corpus, Path, Path]]:
        return Blocks, (self.documents, self.folder, self.tokenizer_folder)

    @property
    def corpus(self) -> Blocks:
        return self

    @property
    def fill(self) -> float:
        """Tokens over the room for them, in all blocks."""
        return self.num_tokens / (self.num_rows * self.max_length)

    def rows(self, split: str) -> range:
        """Global ids of a split's blocks."""
        return self._ranges[split]

    def labels_of(self, rows: Rows) -> np.ndarray:
        return np.full(len(rows), UNLABELLED, np.int64)

    def domains_of(self, rows: Rows) -> np.ndarray:
        """int64[n] indices into domain_names, -1 for a block without a domain."""
        return self._domains[np.asarray(rows, np.int64)].astype(np.int64)

    def place_of(self, row: int, split: str) -> str:
        """For messages: the position of the block's first document in its split, from 1."""
        document = int(next(self.column("rows", [row]))[0])
        return self.documents.place_of(document, split)

    def domain_teachers_of(self, rows: Rows, names: tuple[str, ...] | list[str]) -> np.ndarray:
        """int64[n] which of ``names`` is the block's domain, -1 where none is."""
        return domain_teachers(self.domains_of(rows), self.domain_names, names)

    def texts_of(self, rows: Rows) -> list[list[tuple[int, str]]]:
        """Of each block the (document, text) of its sequences. Of kind text only."""
        assert self.kind == "text"
        columns = [list(self.column(name, rows)) for name in ("rows", "starts", "stops")]
        needed = np.unique(np.concatenate(columns[0])) if len(rows) else np.empty(0, np.int64)
        found = self.documents.documents_of(needed)
        texts = {row: text for row, (text,) in zip(needed.tolist(), found, strict=True)}
        return [
            [(row, texts[row][start:stop]) for row, start, stop in zip(*place, strict=True)]
            for place in zip(*([v.tolist() for v in column] for column in columns), strict=True)
        ]

    def prompts_of(self, split: str, limit: int) -> list[Prompt]:
        """``limit`` rows of a split that can be asked for, or all, for generation: spread over the
        split, which may be sorted.

        Of a chat everything before the assistant's last message that is trained on. Rows with
        nothing to write, or whose prompt leaves no room for it, are passed over. Raises ConfigError
        for kind text.
        """
        if self.kind == "text":
            raise ConfigError(
                "data.columns.text has no prompts to generate from: give data.columns.prompt and "
                "completion, or messages"
            )
        tokenizer = load_fast_tokenizer(self.tokenizer_folder)
        sequencer = Sequencer(tokenizer, self.kind, self.max_length, self.cut, self.template)
        found: list[Prompt] = []
        rows = self.documents.rows(split)
        row = rows.start
        for batch in self.documents.document_batches(split):
            domains = batch.column("domain").to_pylist()
            for document, domain in zip(documents_in(batch), domains, strict=True):
                if len(found) == limit:
                    return found
                is_due = (row - rows.start) * limit >= len(found) * len(rows)
                if is_due and (asked := sequencer.asked(document, row)) is not None:
                    found.append(Prompt(*asked, domain))
                row += 1
        return found

    @cached_property
    def _domains(self) -> np.ndarray:
        return np.load(self.folder / "domains.npy", mmap_mode="r")


class _Writer:
    """One writing of one corpus; ``write`` is called once."""

    def __init__(self, corpus: Corpus, sequencer: Sequencer, is_packing: bool) -> None:
        self.corpus = corpus
        self.sequencer = sequencer
        self.is_packing = is_packing
        self.domains: list[int] = []
        self.counts: Counter[str] = Counter()
        self.longest = 0
        self.example: str | None = None

    def write(self, folder: Path, identity: list[Any]) -> None:
        num_rows: dict[str, int] = {}

        def rows() -> Iterator[dict]:
            for split in SPLITS:
                before = len(self.domains)
                max_length = self.sequencer.max_length
                for domain, block in packed(self._sequences(split), max_length, self.is_packing):
                    self.domains.append(domain)
                    yield self._row(block)
                num_rows[split] = len(self.domains) - before
                if len(self.corpus.rows(split)) and not num_rows[split]:
                    answer = "an answer"
                    if self.sequencer.chat_tokens is not None:
                        answer = "an assistant's message, not of weight 0"
                    raise DataError(
                        f"data.path: no row of the {split} split has a target token (such as "
                        f"{self.example}): give its rows {answer}, or raise data.max_length"
                    )

        write_blocks(folder, SOURCES, rows())
        np.save(folder / "domains.npy", np.array(self.domains, np.int32))
        tokenizer: Any = self.sequencer.tokenizer
        chats = self.sequencer.chat_tokens
        if self.sequencer.num_corrected:
            identity = [*identity, "rules", RULES]
        if chats is not None and (day := chats.day(self.corpus.has_tools)) is not None:
            identity = [*identity, "day", day]
        manifest = {
            "fingerprint": _sha256(identity),
            "max_length": self.sequencer.max_length,
            "cut": self.sequencer.cut,
            "pad_id": pad_id(tokenizer),
            "num_rows": num_rows,
            "num_truncated": self.counts["truncated"],
            "num_unlearnable": self.counts["unlearnable"],
            "num_tokens": self.counts["tokens"],
            "longest": self.longest,
            "example": self.example,
        }
        if chats is not None:
            manifest["turn_ends"] = chats.ends
            manifest["template"] = astuple(self.sequencer.template)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")

    def _sequences(self, split: str) -> Iterator[tuple[int, Sequence]]:
        row = self.corpus.rows(split).start
        for batch in self.corpus.document_batches(split):
            domains = iter(batch.column("domain").to_pylist())
            for part in _parts(documents_in(batch)):
                for document, found in zip(part, self.sequencer.of(part, row), strict=True):
                    domain = next(domains)
                    self.counts["truncated"] += found.is_truncated
                    if not found.sequences:
                        self.counts["unlearnable"] += 1
                        at = row - self.corpus.rows(split).start + 1
                        shown = repr("".join(filter(None, document))[:_SHOWN])
                        self.example = self.example or f"row {at} of the {split} split, {shown}"
                    yield from ((domain, sequence) for sequence in found.sequences)
                    row += 1

    def _row(self, block: Block) -> dict:
        sizes = [len(sequence.ids) for sequence in block]
        self.counts["tokens"] += sum(sizes)
        self.longest = max(self.longest, *sizes)
        return {
            "input_ids": np.concatenate([s.ids for s in block]),
            "targets": np.concatenate([s.targets for s in block]).astype(np.uint8),
            "sizes": sizes,
            "rows": [s.row for s in block],
            "starts": [s.start for s in block],
            "stops": [s.stop for s in block],
            "first_tokens": [s.first_token for s in block],
            "ends": [int(s.is_end) for s in block],
        }


def _parts(documents: Iterable[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    """Documents in lists of about BATCH_CHARACTERS: their tokens, unpacked, take 100 times that."""
    held: list[tuple[str, ...]] = []
    size = 0
    for document in documents:
        held.append(document)
        size += sum(len(text or "") for text in document)
        if size >= BATCH_CHARACTERS:
            yield held
            held, size = [], 0
    if held:
        yield held


def _refuse_unlearnable(found: Blocks, largest: float) -> None:
    share = found.num_unlearnable / found.documents.num_rows
    if share > largest:
        raise DataError(
            f"{found.num_unlearnable} of {found.documents.num_rows} rows have no target tokens "
            f"(such as {found.example}), a share above data.max_unlearnable {largest}: give them "
            "an answer, raise data.max_length if it is their prompt that fills it, or raise "
            "data.max_unlearnable to drop them"
        )
