"""The same blocks in another tokenizer's tokens, and the positions that both tokenizers share.

[ours] Student and teacher are compared where they have read the same text up to the same place: a
position of one and a position of the other are aligned if both have consumed the same characters of
the sequence, no character in part, and both are to predict a further token. What they predict
may be tokens of different lengths; the objective must allow for that (Boizard et al. 2024, ULD,
aligns by index instead).

Only documents of kind text: prompts and chats are rendered and cut in the student's tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from distill.data.block_file import BLOCK_ROWS, BlockFile, Rows, write_blocks
from distill.data.blocks import Blocks
from distill.data.rows import published
from distill.data.sequences import prefix_of
from distill.data.tokens import pad_id
from distill.errors import ConfigError, DataError
from distill.models.tokenizer import fingerprint_of, load_fast_tokenizer

FORMAT = 1  # raise it when the files or their meaning change
MAX_DOCUMENTS = 64  # whose student tokens are remembered while their sequences pass
INSIDE = -1  # consumed by a position inside a character, or past the text


def for_teacher(blocks: Blocks, tokenizer_folder: str | Path) -> TeacherBlocks:
    """The blocks in the tokens of the teacher's tokenizer, each sequence's text by itself.

    Written once next to them, a few blocks in memory at a time. Raises ConfigError for prompts and
    chats, ModelError for a folder without a usable tokenizer.
    """
    if blocks.kind != "text":
        raise ConfigError(
            f"the teacher's tokenizer in {tokenizer_folder} differs from the student's, and only "
            "data.columns.text can be aligned between two tokenizers: use a teacher with the "
            "student's tokenizer, or data.columns.text"
        )
    tokenizer = load_fast_tokenizer(tokenizer_folder)
    identity = [FORMAT, blocks.fingerprint, fingerprint_of(tokenizer), tokenizer.eos_token_id]
    fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    folder = blocks.folder / "teachers" / fingerprint[:32]
    if not (folder / "manifest.json").is_file():
        try:
            with published(folder) as building:
                _write(blocks, tokenizer, fingerprint, building)
        except OSError as error:
            raise DataError(
                f"the block cache {folder.parent} cannot be written ({error}): set data.cache_dir "
                "or DISTILL_CACHE to a writable folder with enough space"
            ) from None
    return TeacherBlocks(blocks, folder)


class TeacherBlocks(BlockFile):
    """Opens a folder that ``for_teacher`` wrote. Pickles as its path.

    Its targets are the teacher's aligned positions: of every block as many as ``aligned`` has True
    for it, in the same order. ``num_targets`` counts them.
    """

    def __init__(self, blocks: Blocks, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        super().__init__(folder, manifest["pad_id"])
        self.blocks = blocks
        self.folder = folder
        self.fingerprint: str = manifest["fingerprint"]
        self.longest: int = manifest["longest"]
        """Tokens of the longest sequence: positions that the teacher needs."""
        self.num_truncated = blocks.num_truncated

    def __reduce__(self) -> tuple[type[TeacherBlocks], tuple[Blocks, Path]]:
        return TeacherBlocks, (self.blocks, self.folder)

    @property
    def corpus(self) -> Blocks:
        return self.blocks

    def aligned(self, rows: Rows) -> np.ndarray:
        """bool[P] over the student's target positions of ``rows``, block by block."""
        return np.concatenate([np.empty(0, bool), *self.column("aligned", rows)]).astype(bool)


class Positions(NamedTuple):
    """What a sequence's positions have consumed of its text, and which predict trained tokens."""

    consumed_T: np.ndarray  # int64 characters, or INSIDE
    targets_T: np.ndarray  # bool


def shared(student: Positions, teacher: Positions) -> tuple[np.ndarray, np.ndarray]:
    """bool[T] of the student's and of the teacher's tokens: aligned positions, equally many."""
    found = []
    for own in (student, teacher):
        places = np.flatnonzero(own.targets_T & (own.consumed_T != INSIDE))
        found.append((own, places, own.consumed_T[places]))
    both = np.intersect1d(found[0][2], found[1][2], assume_unique=True)
    masks = []
    for own, places, consumed in found:
        mask_T = np.zeros(len(own.consumed_T), bool)
        mask_T[places[np.isin(consumed, both)]] = True
        masks.append(mask_T)
    return masks[0], masks[1]


def consumed(offsets: np.ndarray, num_before: int, num_after: int) -> np.ndarray:
    """int64[T] characters consumed after each token of a text, INSIDE in the midst of one.

    ``offsets`` [N, 2]: places of the text's own tokens. Of ``num_before`` special ones in front the
    last has consumed 0 of it, and the ``num_after`` behind are past all text.
    """
    # The last of several tokens with one end: bytes of a character share its place.
    ends = np.maximum.accumulate(offsets[:, 1]) if len(offsets) else np.empty(0, np.int64)
    later = np.append(offsets[1:, 0], np.iinfo(np.int64).max)[: len(ends)]
    is_whole = (ends <= later) & np.append(ends[1:] > ends[:-1], [True])[: len(ends)]
    before = np.full(num_before, INSIDE)
    if num_before and not (len(ends) and ends[0] == 0):
        before[-1] = 0
    return np.concatenate([before, np.where(is_whole, ends, INSIDE), np.full(num_after, INSIDE)])


def _write(blocks: Blocks, tokenizer: Any, fingerprint: str, folder: Path) -> None:
    student = _Student(blocks)
    prefix = prefix_of(tokenizer)
    eos = tokenizer.eos_token_id
    longest = 0

    def row(block: list[_Place]) -> dict:
        nonlocal longest
        texts = [place.text for place in block]
        encodings = tokenizer(texts, add_special_tokens=False, verbose=False).encodings
        found: dict[str, list] = {"input_ids": [], "targets": [], "aligned": [], "sizes": []}
        for place, encoding in zip(block, encodings, strict=True):
            ending = [eos] if place.is_end and eos is not None else []
            ids = [*prefix, *encoding.ids, *ending]
            if not ids:  # only blanks, which this tokenizer leaves out
                found["aligned"].append(np.zeros(int(place.targets.sum()), bool))
                continue
            offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            targets = np.arange(len(ids)) + 1 < len(ids)
            targets[: max(len(prefix) - 1, 0)] = False
            own = Positions(consumed(offsets, len(prefix), len(ending)), targets)
            theirs = Positions(student.consumed(place), place.targets)
            of_student, of_teacher = shared(theirs, own)
            assert of_student.sum() == of_teacher.sum()
            found["input_ids"].append(ids)
            found["targets"].append(of_teacher)
            found["aligned"].append(of_student[place.targets])
            found["sizes"].append(len(ids))
            longest = max(longest, len(ids))
        flat = {n: np.concatenate([[], *found[n]]).astype(np.int64) for n in list(found)[:3]}
        return flat | {"sizes": found["sizes"]}

    rows = (row(block) for block in _places(blocks))
    write_blocks(folder, {"aligned": pa.list_(pa.uint8())}, rows)
    manifest = {"fingerprint": fingerprint, "pad_id": pad_id(tokenizer), "longest": longest}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), "utf-8")


class _Place(NamedTuple):
    """One sequence of the student and the place of its text."""

    row: int
    text: str
    start: int
    first_token: int
    is_end: bool
    ids: np.ndarray
    targets: np.ndarray  # bool[T]


def _places(blocks: Blocks) -> Iterator[list[_Place]]:
    """The sequences of every block, in order."""
    for first in range(0, blocks.num_rows, BLOCK_ROWS):
        rows = range(first, min(first + BLOCK_ROWS, blocks.num_rows))
        names = ("input_ids", "targets", "sizes", "starts", "first_tokens", "ends")
        columns = zip(*(blocks.column(name, rows) for name in names), strict=True)
        for texts, (ids, targets, sizes, *others) in zip(
            blocks.texts_of(rows), columns, strict=True
        ):
            cuts = np.cumsum(sizes)[:-1]
            parts = zip(np.split(ids, cuts), np.split(targets.astype(bool), cuts), strict=True)
            yield [
                _Place(row, text, start, token, bool(is_end), *part)
                for (row, text), part, start, token, is_end in zip(
                    texts, parts, *(other.tolist() for other in others), strict=True
                )
            ]


class _Student:
    """What the student's positions have consumed, from its own tokens of whole documents."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._tokenizer = load_fast_tokenizer(blocks.tokenizer_folder)
        self._num_before = len(prefix_of(self._tokenizer))
        self._has_eos = self._tokenizer.eos_token_id is not None
        # The sequences of a long document come one after another, or nearly so.
        self._tokens = lru_cache(MAX_DOCUMENTS)(self._tokens_of)

    def consumed(self, place: _Place) -> np.ndarray:
        num_after = int(place.is_end and self._has_eos)
        ids, offsets = self._tokens(place.row)
        stop = place.first_token + len(place.ids) - self._num_before - num_after
        own = slice(place.first_token, stop)
        inner = place.ids[self._num_before : len(place.ids) - num_after]
        assert np.array_equal(ids[own], inner), "the student's tokenizer is not that of the blocks"
        return consumed(offsets[own] - place.start, self._num_before, num_after)

    def _tokens_of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        ((text,),) = self._blocks.documents.documents_of([row])
        (encoding,) = self._tokenizer([text], add_special_tokens=False, verbose=False).encodings
        return np.array(encoding.ids, np.int64), np.array(encoding.offsets, np.int64).reshape(-1, 2)
