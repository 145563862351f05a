"""Which template renders chats, and what it is given: ``data.chat_template`` and its arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import Data
from distill.errors import ConfigError


@dataclass(frozen=True)
class ChatTemplate:
    """Travels between processes: a file may be on one machine alone."""

    text: str | None = None
    """None: the tokenizer's own."""
    arguments: str = "{}"
    """JSON with sorted keys."""

    def put_into(self, tokenizer: Any) -> Any:
        """The tokenizer, which now has this template."""
        if self.text is not None:
            tokenizer.chat_template = self.text
        return tokenizer

    @property
    def values(self) -> dict[str, Any]:
        return json.loads(self.arguments)


@dataclass(frozen=True)
class ChatFormat:
    """How a model was shown chats."""

    template: ChatTemplate
    turn_ends: tuple[int, ...]
    """Tokens that end an answer, besides the tokenizer's end-of-text token."""


def chat_template_of(data: Data) -> ChatTemplate:
    """Raises ConfigError for a file that cannot be read or is no template."""
    arguments = json.dumps(data.template_arguments, sort_keys=True)
    if data.chat_template is None:
        return ChatTemplate(arguments=arguments)
    path = Path(data.chat_template).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(
            f"data.chat_template {str(path)!r} cannot be read ({reason}): set it to a file with a "
            "Jinja template"
        ) from None
    if not text.strip():
        raise ConfigError(
            f"data.chat_template {str(path)!r} is empty: set it to a file with a Jinja template"
        )
    return ChatTemplate(text, arguments)
