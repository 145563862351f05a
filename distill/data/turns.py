"""Where an assistant's turn begins and ends in the text that a chat template writes.

A turn begins where the generation prompt ends, or behind an empty block of reasoning that the
data does not have: both are what the student reads, not what it writes. It ends with the special
token that the template writes after an answer, or after a call of a tool; a template that writes
none there (GLM-4) ends a turn with the token that begins the next message. [ours]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_THOUGHTS = [(f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning")]
_THOUGHTS += [
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
]
_OPENERS = "|".join(re.escape(opener) for opener, _ in _THOUGHTS)
_OPENED = re.compile(rf"(?:{_OPENERS})\s*\Z")
_BLOCKS = "|".join(rf"{re.escape(opener)}\s*{re.escape(closer)}" for opener, closer in _THOUGHTS)
_EMPTY = re.compile(rf"\s*(?:{_BLOCKS})\s*")

PROBE, CALLED = "probeanswer", "probetool"
QUESTION: dict[str, Any] = {"role": "user", "content": "probequestion"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": PROBE}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": CALLED,
        "description": "probe",
        "parameters": {"type": "object", "properties": {}},
    },
}


def call(arguments: Any, name: str = CALLED) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "id": "probecall", "function": function}


def calling(*calls: dict[str, Any]) -> list[dict[str, Any]]:
    """A chat that ends with these calls."""
    return [QUESTION, {"role": "assistant", "content": "", "tool_calls": list(calls)}]


def behind_empty_block(text: str, start: int) -> int:
    """The place behind an empty block of reasoning at ``start``, or opened in front of it; else
    ``start``."""
    opened = _OPENED.search(text, 0, start)
    block = _EMPTY.match(text, opened.start() if opened else start)
    return max(start, block.end()) if block else start


def num_common(one: str, other: str) -> int:
    """Characters that both begin with."""
    if other.startswith(one):
        return len(one)
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class End(NamedTuple):
    """What ends a turn."""

    token: int
    text: str
    tail: str
    """What the template writes after it."""
    is_next: bool = False
    """Whether it begins the next message."""


class ChatTurns:
    """Of one tokenizer and its template.

    ``rendered``: a chat as text, None where the template refuses it; ``encoded``: a text's ids and
    the place of each.
    """

    def __init__(
        self,
        rendered: Callable[[list[dict[str, Any]]], str | None],
        encoded: Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]],
        added: frozenset[int],
        eos: str | None,
        arguments: Any,
    ) -> None:
        self._rendered = rendered
        self._encoded = encoded
        self._added = added
        self._eos = eos
        self._arguments = arguments  # of a probe's call, as the template takes them
        ends = [self._answer_end(), self._call_end()]
        self.ends: tuple[End, ...] = tuple(dict.fromkeys(end for end in ends if end is not None))

    def start(self, before: str, asked: str, answered: str, content: str) -> int:
        """Characters of ``answered`` before the assistant's own.

        ``before``: the chat so far; ``asked``: with the generation prompt; ``answered``: with the
        message, whose text in the data is ``content``.
        """
        start = num_common(asked, answered)
        if start < len(asked):  # the prompt goes on as this message does not
            start = self._boundary(asked, len(before), start)
        if behind_empty_block(content, 0):  # the data has the block
            return start
        return behind_empty_block(answered, start)

    def end(self, answered: str, start: int, following: str = "") -> int:
        """Characters up to the end of the turn that starts at ``start``.

        ``following``: what comes after ``answered``; of it a token that begins the next message is
        taken where that ends the turn.
        """
        for end in self.ends:
            place = len(answered) - len(end.tail)
            is_here = not end.is_next and answered.endswith(end.text + end.tail)
            if is_here and place - len(end.text) >= start:
                return place
        eos = self._eos
        place = answered.rfind(eos, start) if eos else -1
        if eos and place >= 0 and not answered[place + len(eos) :].strip():
            return place + len(eos)
        for end in self.ends:
            if end.is_next and following.startswith(end.text):
                return len(answered) + len(end.text)
        return len(answered)

    def without_end(self, turn: str) -> str:
        """A turn's text without the token that ends it."""
        for text in [end.text for end in self.ends] + ([self._eos] if self._eos else []):
            if turn.endswith(text):
                return turn[: -len(text)]
        return turn

    def header(self, answered: str) -> int:
        """Characters of a first message, which follows no prompt, before the assistant's own."""
        text = self._rendered([ANSWER]) or ""
        return num_common(text[: max(text.rfind(PROBE), 0)], answered)

    def _boundary(self, text: str, first: int, last: int) -> int:
        """The last place behind ``first`` up to ``last`` where a line or an added token ends, lest
        a token is torn; else ``last``."""
        ids, offsets = self._encoded(text)
        ends = [stop for i, (_, stop) in zip(ids, offsets, strict=True) if i in self._added]
        ends.append(text.rfind("\n", 0, last) + 1)
        return max((stop for stop in ends if first < stop <= last), default=last)

    def _answer_end(self) -> End | None:
        chat = [QUESTION, ANSWER]
        text = self._rendered(chat)
        place = text.rfind(PROBE) if text else -1
        if text is None or place < 0:
            return None
        found = [end for end, start in self._added_in(text) if start >= place + len(PROBE)]
        return found[0] if found else self._next(chat, text, QUESTION)

    def _call_end(self) -> End | None:
        """The last added token, unless it is between two calls too: then it is the call's."""
        chat = calling(call(self._arguments))
        text = self._rendered(chat)
        place = text.rfind(CALLED) if text else -1
        if text is None or place < 0:
            return None
        found = [end for end, start in self._added_in(text) if start >= place]
        other = f"other{CALLED}"
        both = self._rendered(calling(call(self._arguments), call(self._arguments, other))) or ""
        between = both[both.find(CALLED) : both.rfind(other)] if other in both else ""
        if found and not found[-1].tail.strip() and found[-1].text not in between:
            return found[-1]
        reply = {"role": "tool", "content": "probereply", "name": CALLED}
        return self._next(chat, text, reply | {"tool_call_id": "probecall"})

    def _next(self, chat: list[dict[str, Any]], text: str, reply: dict[str, Any]) -> End | None:
        longer = self._rendered([*chat, reply])
        if longer is None or not longer.startswith(text):
            return None
        found = [end for end, start in self._added_in(longer) if start == len(text)]
        return found[0]._replace(tail="", is_next=True) if found else None

    def _added_in(self, text: str) -> list[tuple[End, int]]:
        """Added tokens and where they start."""
        ids, offsets = self._encoded(text)
        return [
            (End(token, text[start:stop], text[stop:]), start)
            for token, (start, stop) in zip(ids, offsets, strict=True)
            if token in self._added
        ]
