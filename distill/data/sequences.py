"""Documents to token sequences, and which of their tokens are trained on.

Position t is a target if token t + 1 is trained on and in the same sequence. ``learnt`` are

- of a text all tokens but the first: what the tokenizer itself puts in front (``<bos>``), the text,
  and the end-of-text token if there is one. A longer text is split into several sequences; each
  repeats the last character's tokens of the one before as context, so every token is trained on
  once and none without context [ours];
- of a prompt and its completion, which are tokenised separately, as at generation time: the
  completion and the end-of-text token;
- of a chat the assistant's messages: see chat_tokens.py. Where its template renders them otherwise
  with what follows, a chat is a sequence for each of them.

Prompts and chats that are longer are truncated by ``data.cut``: ``head`` drops the end, ``tail``
the oldest tokens behind those that the tokenizer puts in front.
"""

from __future__ import annotations

import json
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distill.config import Cut
from distill.data.chat_template import ChatTemplate
from distill.data.chat_tokens import ChatTokens
from distill.data.content import Kind
from distill.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Sequence:
    """Tokens that attend to each other and to no others. ``row`` is the document's.

    For teachers with another tokenizer the exact place of a text's sequence is kept; 0 and False
    in prompts and chats.
    """

    row: int
    ids: np.ndarray  # int32[T]
    in_loss: np.ndarray  # bool[T]
    start: int = 0  # first character
    stop: int = 0  # last character + 1
    first_token: int = 0  # of the document's tokens without special ones
    is_end: bool = False  # whether the text ends here, with an end-of-text token if there is one

    @property
    def targets(self) -> np.ndarray:
        """bool[T]: the positions whose next token is trained on."""
        return np.append(self.in_loss[1:], False)


class EncodedDocument(NamedTuple):
    """What became of one document."""

    sequences: list[Sequence]  # none: it has no token to learn
    is_truncated: bool


class Sequencer:
    """Documents of one kind to sequences of at most ``max_length`` tokens, by one tokenizer.

    ``tokenizer``: as ``distill.data.tokens.load_tokenizer`` gives it. Raises ConfigError for
    ``cut: middle`` of prompts and chats, and ModelError for a chat without a template.
    ``template``: of chats.
    """

    def __init__(
        self,
        tokenizer: Any,
        kind: Kind,
        max_length: int,
        cut: Cut = "head",
        template: ChatTemplate = ChatTemplate(),  # noqa: B008 (immutable)
    ) -> None:
        refuse_cut(kind, cut)
        self.tokenizer = template.put_into(tokenizer)
        self.template = template
        self.kind: Kind = kind
        self.max_length = max_length
        self.cut: Cut = cut
        self.prefix = prefix_of(tokenizer)
        eos = tokenizer.eos_token_id
        self.ending: list[int] = [] if eos is None else [eos]
        if max_length <= len(self.prefix):
            raise ConfigError(
                f"data.max_length {max_length} leaves no room after the {len(self.prefix)} tokens "
                "that the tokenizer puts in front: raise it"
            )
        self.chat_tokens = ChatTokens(tokenizer, template) if kind == "messages" else None
        self.num_corrected = 0
        """Chats so far that the first version's rules made other sequences of; see blocks.py."""

    def of(self, documents: Rows[tuple[str, ...]], first_row: int) -> list[EncodedDocument]:
        """Sequences of documents with the row ids ``first_row``, ``first_row`` + 1, …"""
        if self.kind == "text":
            encodings = self.encodings([text for (text,) in documents])
            return [
                self._text(text, encoding, first_row + i)
                for i, ((text,), encoding) in enumerate(zip(documents, encodings, strict=True))
            ]
        if self.kind == "completion":
            flat = [text for document in documents for text in document]
            ids = [encoding.ids for encoding in self.encodings(flat)]
            return [
                self._completion(ids[2 * i], ids[2 * i + 1], first_row + i)
                for i in range(len(documents))
            ]
        return [self._chat(document, first_row + i) for i, document in enumerate(documents)]

    def encodings(self, texts: list[str]) -> list[Any]:
        """Of texts, each without special tokens."""
        return self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        ).encodings

    def asked(self, document: tuple[str, ...], row: int) -> tuple[list[int], str] | None:
        """The prompt of a document, cut to leave room for a token, and what is to be written.

        None where nothing is, where nothing asks for it, and where ``head`` would cut all of it.
        """
        if self.kind == "completion":
            prompt, reference = document
            (encoding,) = self.encodings([prompt])
            found = ([*self.prefix, *encoding.ids], reference) if reference else None
        else:
            assert self.chat_tokens is not None
            found = self.chat_tokens.prompt(_chat_of(document), row, _tools_of(document))
        ids = None if found is None else self._with_room(found[0])
        return (ids, found[1]) if found and ids else None

    def _with_room(self, ids: list[int]) -> list[int] | None:
        room = self.max_length - 1
        if len(ids) <= room:
            return ids
        if self.cut == "head":
            return None
        kept = self._num_kept_in_front(ids)
        return ids[:kept] + ids[len(ids) - (room - kept) :]

    def _num_kept_in_front(self, ids: Any) -> int:
        return len(self.prefix) if list(ids[: len(self.prefix)]) == self.prefix else 0

    def _completion(self, prompt: list[int], completion: list[int], row: int) -> EncodedDocument:
        ids = np.array([*self.prefix, *prompt, *completion, *self.ending], np.int32)
        in_loss = np.arange(len(ids)) >= len(self.prefix) + len(prompt)
        if not completion:  # to end at once is nothing to imitate
            in_loss[:] = False
        return self._cut(ids, in_loss, row)

    def _chat(self, document: tuple[str, ...], row: int) -> EncodedDocument:
        assert self.chat_tokens is not None
        parts, first = self.chat_tokens.compared(_chat_of(document), row, _tools_of(document))
        found = [self._cut(np.array(ids, np.int32), in_loss, row) for ids, in_loss in parts]
        sequences = [sequence for part in found for sequence in part.sequences]
        if first is None:
            self.num_corrected += 1
        elif first is not parts[0]:
            before = self._cut(np.array(first[0], np.int32), first[1], row)
            self.num_corrected += not _are_equal(sequences, before.sequences)
        return EncodedDocument(sequences, any(part.is_truncated for part in found))

    def _cut(self, ids: np.ndarray, in_loss: np.ndarray, row: int) -> EncodedDocument:
        is_truncated = len(ids) > self.max_length
        if is_truncated and self.cut == "head":
            ids, in_loss = ids[: self.max_length], in_loss[: self.max_length]
        elif is_truncated:
            kept = self._num_kept_in_front(ids)
            places = np.r_[:kept, len(ids) - (self.max_length - kept) : len(ids)]
            ids, in_loss = ids[places], in_loss[places]
            in_loss[kept] = False  # what it followed is gone
        if not in_loss[1:].any():
            return EncodedDocument([], is_truncated)
        return EncodedDocument([Sequence(row, ids, in_loss)], is_truncated)

    def _text(self, text: str, encoding: Any, row: int) -> EncodedDocument:
        text_ids = encoding.ids
        whole = np.array([*text_ids, *self.ending], np.int32)
        chars = Characters(encoding)
        first, start, num_in_loss = 0, 0, 0
        sequences: list[Sequence] = []
        while num_in_loss < len(whole):
            stop = min(first + self.max_length - len(self.prefix), len(whole))
            is_end = stop == len(whole)
            if not is_end:
                stop = chars.boundary(stop)
                if stop <= num_in_loss:
                    raise DataError(
                        f"data.max_length {self.max_length} is too short for the tokens of one "
                        f"character of {text[start : start + 20]!r}: raise it"
                    )
            ids = np.r_[np.array(self.prefix, np.int32), whole[first:stop]]
            in_loss = np.arange(len(ids)) >= len(self.prefix) + num_in_loss - first
            in_loss[0] = False
            stop_char = len(text) if is_end else chars.end(stop)
            sequences.append(Sequence(row, ids, in_loss, start, stop_char, first, is_end))
            num_in_loss = stop
            first = chars.boundary(stop - 1)
            start = chars.end(first)
        return EncodedDocument([s for s in sequences if s.in_loss.any()], False)


def _chat_of(document: tuple[str, ...]) -> list[dict[str, Any]]:
    return json.loads(document[0])


def _tools_of(document: tuple[str, ...]) -> list[dict[str, Any]] | None:
    tools = document[1] if len(document) > 1 else None
    return json.loads(tools) if tools else None


def _are_equal(some: list[Sequence], others: list[Sequence]) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.in_loss, b.in_loss)
        for a, b in zip(some, others, strict=True)
    )


class Characters:
    """Where tokens of one text begin and end in it, asked for few of them."""

    def __init__(self, encoding: Any) -> None:
        self._encoding = encoding
        self._num_tokens = len(encoding)

    def end(self, token: int) -> int:
        """Characters consumed by the tokens before ``token``, which is at a boundary."""
        return self._encoding.token_to_chars(token - 1)[1] if token else 0

    def boundary(self, token: int) -> int:
        """The last token at or before ``token`` that does not begin inside a character."""
        while 0 < token < self._num_tokens:
            # Tokens of one character (bytes, or what a normaliser made of it) share its place.
            if self._encoding.token_to_chars(token)[0] >= self.end(token):
                break
            token -= 1
        return token


def prefix_of(tokenizer: Any) -> list[int]:
    """What the tokenizer itself puts in front of a text."""
    (encoding,) = tokenizer(["a"], verbose=False).encodings
    mask = encoding.special_tokens_mask
    return encoding.ids[: mask.index(0) if 0 in mask else 0]


def refuse_cut(kind: Kind, cut: Cut) -> None:
    """ConfigError for a rule that would tear a prompt from its answer."""
    if kind != "text" and cut == "middle":
        name = "prompt" if kind == "completion" else "messages"
        raise ConfigError(
            "data.cut is middle, which would leave a gap before the tokens that are trained on in "
            f"data.columns.{name}: use head or tail"
        )
