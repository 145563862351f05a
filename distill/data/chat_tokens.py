"""Chats as the tokenizer's template renders them, and which tokens are the assistant's.

A template with ``{% generation %}`` says so itself. Of others the chat is rendered up to each of
the assistant's messages, with the prompt that asks for it and with the message: what the second
adds to the first is the assistant's, if both are prefixes of the whole rendering. What follows an
end-of-text token there (most templates add a newline) is the template's, not learnt [ours].
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from distill.errors import DataError, ModelError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it


class ChatTokens:
    """Raises ModelError for a tokenizer without a chat template."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer in {tokenizer.name_or_path} has no chat template, which "
                "data.columns.messages needs: name one that has in student.tokenizer, or set "
                "tokenizer.chat_template and save it again"
            )
        self._tokenizer = tokenizer
        self._marks_itself = bool(_GENERATION.search(tokenizer.get_chat_template()))

    def of(self, chat: list[dict[str, Any]], row: int) -> tuple[list[int], np.ndarray]:
        """Token ids, and learnt bool[T]; all False without an answer of any character.

        ``row`` is what a refusal calls the chat.
        """
        if self._marks_itself:
            found = self._applied(
                chat, row, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
            ids, learnt = found["input_ids"], np.array(found["assistant_masks"], bool)
        else:
            ids, learnt = self._by_prefixes(chat, row)
        if not any(_is_answer(message) for message in chat):
            learnt[:] = False
        return ids, learnt

    def prompt(self, chat: list[dict[str, Any]], row: int) -> tuple[list[int], str] | None:
        """The tokens that ask for the assistant's last message, and its content, if it has one."""
        answers = [i for i, message in enumerate(chat) if _is_answer(message)]
        if not answers or answers[-1] == 0:
            return None
        text = self._applied(chat[: answers[-1]], row, add_generation_prompt=True)
        return self._encoding(text).ids, chat[answers[-1]]["content"]

    def _by_prefixes(self, chat: list[dict[str, Any]], row: int) -> tuple[list[int], np.ndarray]:
        whole = self._applied(chat, row)
        spans = [
            self._span(chat, i, whole, row) for i, message in enumerate(chat) if _is_answer(message)
        ]
        encoding = self._encoding(whole)
        starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        learnt = np.zeros(len(starts), bool)
        for start, end in spans:
            # The second condition alone keeps out a blank before it whose place was trimmed away.
            learnt |= (starts >= start) & (ends > start) & (ends <= end)
        return encoding.ids, learnt

    def _span(self, chat: list[dict[str, Any]], i: int, whole: str, row: int) -> tuple[int, int]:
        """Characters of the assistant's message ``i`` in the rendering."""
        answered = self._applied(chat[: i + 1], row)
        if i:
            asked = self._applied(chat[:i], row, add_generation_prompt=True)
        else:  # nobody asks: what stands before its content is the template's
            asked = answered[: max(answered.rfind(chat[0]["content"].strip()), 0)]
        if not (answered.startswith(asked) and whole.startswith(answered)):
            first, then = (asked, answered) if whole.startswith(answered) else (answered, whole)
            pairs = zip(first, then, strict=False)
            at = next((n for n, (a, b) in enumerate(pairs) if a != b), len(then))
            raise ModelError(
                f"the chat template of {self._tokenizer.name_or_path} renders message {i + 1} of "
                f"document {row} as {first[at : at + 30]!r} at its time and {then[at : at + 30]!r} "
                "with what follows it, so that its tokens cannot be told: mark them in the "
                "template with {% generation %}, or use one that leaves earlier messages alone"
            )
        eos = self._tokenizer.eos_token
        end = answered.rfind(eos, len(asked)) if eos else -1
        if end >= 0 and not answered[end + len(eos) :].strip():
            return len(asked), end + len(eos)
        return len(asked), len(answered)

    def _encoding(self, text: str) -> Any:
        # The template has written all special tokens that are wanted.
        return self._tokenizer([text], add_special_tokens=False, verbose=False).encodings[0]

    def _applied(self, chat: list[dict[str, Any]], row: int, **options: Any) -> Any:
        from jinja2.exceptions import TemplateError

        try:
            return self._tokenizer.apply_chat_template(chat, **{"tokenize": False} | options)
        except (TemplateError, TypeError) as error:
            raise DataError(
                f"the chat template of {self._tokenizer.name_or_path} refuses document {row} "
                f"(roles {', '.join(message['role'] for message in chat)}): {error}: change the "
                "chat, or name another tokenizer in student.tokenizer"
            ) from None


def _is_answer(message: dict[str, Any]) -> bool:
    return message["role"] == "assistant" and bool(message["content"])
