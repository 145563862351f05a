"""Tokens as text, each by itself: what a person is shown of what a model reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any


class Pieces:
    """Of a fast tokenizer: ids to as many pieces of text.

    A piece is what its token stands for, leading blank included; of byte-level tokenizers the
    pieces of a sequence join to its text. The bytes of a character that several tokens share are
    written as ``<0xE7>``. A continuation of WordPiece keeps its ``##``; special and added tokens
    are written as they are called.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()}
        decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
        steps = [decoder, *decoder.get("decoders", [])]
        self._is_bytes = any(step.get("type") == "ByteLevel" for step in steps)
        marks = [step.get("replacement") for step in steps if step.get("type") == "Metaspace"]
        marks += [
            step["pattern"].get("String")
            for step in steps
            if step.get("type") == "Replace" and step.get("content") == " "
        ]
        self._blanks = [mark for mark in marks if mark]

    def of(self, ids: Sequence[int]) -> list[str]:
        return [self._piece(int(token_id)) for token_id in ids]

    def _piece(self, token_id: int) -> str:
        if token_id in self._added:
            return self._added[token_id]
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return f"<id {token_id}>"
        if self._is_bytes and all(letter in BYTES for letter in token):
            return "".join(_decoded(bytes(BYTES[letter] for letter in token)))
        for blank in self._blanks:
            token = token.replace(blank, " ")
        return token


def _decoded(raw: bytes) -> Iterator[str]:
    """UTF-8; bytes that are no character as <0xE7>."""
    while raw:
        try:
            yield raw.decode()
            return
        except UnicodeDecodeError as error:
            yield raw[: error.start].decode()
            yield "".join(f"<0x{byte:02X}>" for byte in raw[error.start : error.end])
            raw = raw[error.end :]


def _byte_of_letter() -> dict[str, int]:
    """Byte-level BPE writes each byte as a letter (Radford et al. 2019, bytes_to_unicode): that of
    the byte's own number where it can be seen, else the next free one from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    seen += range(ord("®"), ord("ÿ") + 1)
    others = (byte for byte in range(256) if byte not in seen)
    letters = {chr(byte): byte for byte in seen}
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTES = _byte_of_letter()
