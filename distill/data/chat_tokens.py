"""Chats as a chat template renders them, and which tokens are trained on: the assistant's.

A template with ``{% generation %}`` marks them itself. Of others a chat is rendered up to each of
the assistant's messages, with the prompt that asks for it and with the message: what the second
adds to the first is the assistant's; see turns.py for where that begins and ends. If all these
texts are prefixes of the whole rendering, a chat is one sequence. Otherwise, as with templates that
leave earlier reasoning out, it is one sequence for each of the assistant's messages: the chat up to
it, as it was when the model answered. [ours]
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from distill.data.chat_template import ChatTemplate
from distill.data.chats import calls_of, has_reasoning
from distill.data.turns import (
    ANSWER,
    QUESTION,
    TOOL,
    ChatTurns,
    behind_empty_block,
    call,
    calling,
    num_common,
)
from distill.errors import DataError, ModelError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # as transformers looks for it
TokensInLoss = tuple[list[int], np.ndarray]
"""Token ids, and bool[T]: the tokens trained on."""
_TOOL_KEYS = ("type", "function", "name", "description", "parameters", "properties", "required")


class AssistantTurn(NamedTuple):
    """One message of the assistant's in the chat up to it."""

    message: int
    text: str
    start: int
    end: int
    end_in_chat: int
    """One token later where that ends the turn and begins the next message."""


class ChatTokens:
    """Raises ModelError for a tokenizer without a chat template, or with one that is none."""

    def __init__(
        self,
        tokenizer: Any,
        template: ChatTemplate = ChatTemplate(),  # noqa: B008 (immutable)
    ) -> None:
        if not template.put_into(tokenizer).chat_template:
            raise ModelError(
                f"the tokenizer in {tokenizer.name_or_path} has no chat template, which "
                "data.columns.messages (or data.prompt_as_chat) needs: set data.chat_template to "
                "a file with one, or student.tokenizer to a tokenizer that has one"
            )
        self._tokenizer = tokenizer
        self._arguments = template.values
        self._name = "the chat template " + (
            "in data.chat_template" if template.text else f"of {tokenizer.name_or_path}"
        )
        # Of chats without tools, and with them: a tokenizer may have a template for each.
        self._marks = [bool(_GENERATION.search(template_of(tokenizer, t))) for t in (False, True)]
        self._refuse_bad_syntax()
        self._takes_strings = self._finds_strings()
        self._shows_tools = False  # not known yet
        self._turns = ChatTurns(
            self._probed,
            self._encoded,
            frozenset(tokenizer.added_tokens_decoder),
            tokenizer.eos_token,
            "{}" if self._takes_strings else {},
        )

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a turn, besides the tokenizer's end-of-text token."""
        return tuple(end.token for end in self._turns.ends)

    def day(self, has_tools: bool) -> str | None:
        """A rendering of today, where the template writes the date into chats; else None.
        ``has_tools``: some of them have tools."""
        chat = [QUESTION, ANSWER]
        for tools in [None, [TOOL]] if has_tools else [None]:
            if "strftime_now" not in template_of(self._tokenizer, tools is not None):
                continue
            today, undated = self._probed(chat, tools), None
            with suppress(Exception):  # it calls what is no function here
                undated = self.applied(chat, tools, {"strftime_now": ""})
            if today != undated:
                return today
        return None

    def of(self, chat: list[dict[str, Any]], row: int, tools: Any = None) -> list[TokensInLoss]:
        """One sequence, or one for each of the assistant's messages; see the module.

        Nothing of it is trained on where the assistant has no message. ``row`` is what a refusal
        calls the chat, ``tools`` a list of schemas.
        """
        return self.compared(chat, row, tools)[0]

    def compared(
        self, chat: list[dict[str, Any]], row: int, tools: Any = None
    ) -> tuple[list[TokensInLoss], TokensInLoss | None]:
        """As :meth:`of`, and as the first version trained on the chat, None where it refused it.

        The second is for fingerprints alone: they are older than today's rules, and stay where both
        agree.
        """
        shown = Renderings(self, self._as_taken(chat), row, tools)
        raw = shown if shown.chat == chat and not tools else Renderings(self, chat, row)
        self._refuse_lost_tools(shown)
        own = [i for i, message in enumerate(shown.chat) if _is_trained_on(message)]
        if self._marks[shown.tools is not None]:
            ids, marked = self._marked(shown)
            first = (
                self._first(raw) if raw is not shown else (ids, _in_loss_of_chat(marked, raw.chat))
            )
            return [(ids, self._by_marks(shown, own, marked.copy()))], first
        turns = [turn for i in own if (turn := self._turn(shown, i)).end > turn.start]
        if not all(shown.is_one_text(turn.message) for turn in turns):
            found = [self._in_loss(turn.text, [(turn.start, turn.end)]) for turn in turns]
            return found, self._first(raw)
        spans = [(turn.start, turn.end_in_chat) for turn in turns]
        found = [self._in_loss(shown.whole, spans)]
        is_first = raw is shown and self._first_spans(raw) == spans
        return found, found[0] if is_first else self._first(raw)

    def prompt(
        self, chat: list[dict[str, Any]], row: int, tools: Any = None
    ) -> tuple[list[int], str] | None:
        """The tokens before the assistant's last message that is trained on, and that message.

        The message is its content, or of one that is more than that (a call, reasoning) the text
        that the template makes of it.
        """
        shown = Renderings(self, self._as_taken(chat), row, tools)
        own = [i for i, message in enumerate(shown.chat) if _is_trained_on(message)]
        if not own or own[-1] == 0:
            return None
        found = self._turn(shown, own[-1])
        turn = self._turns.without_end(found.text[found.start : found.end])
        content = shown.chat[own[-1]]["content"]
        if turn.strip() != content.strip():
            content = self._tokenizer.decode(self._encoded(turn)[0], skip_special_tokens=True)
        return list(self._encoded(found.text[: found.start])[0]), content

    def _first(self, shown: Renderings) -> TokensInLoss | None:
        """By the first rules; None where they refuse the chat, or the template did."""
        try:
            if self._marks[shown.tools is not None]:
                ids, in_loss = self._marked(shown)
                return ids, _in_loss_of_chat(in_loss, shown.chat)
            spans = self._first_spans(shown)
            return None if spans is None else self._in_loss(shown.whole, spans)
        except DataError:
            return None

    def _first_spans(self, shown: Renderings) -> list[tuple[int, int]] | None:
        """Characters of the messages with content up to a last end-of-text token."""
        spans = []
        for i in _first_own(shown.chat):
            asked, answered = shown.asked(i), shown.answered(i)
            if i == 0:
                asked = answered[: max(answered.rfind(shown.chat[0]["content"].strip()), 0)]
            if not (answered.startswith(asked) and shown.whole.startswith(answered)):
                return None
            eos = self._tokenizer.eos_token
            end = answered.rfind(eos, len(asked)) if eos else -1
            is_last = end >= 0 and not answered[end + len(eos) :].strip()
            spans.append((len(asked), end + len(eos) if is_last else len(answered)))
        return spans

    def _turn(self, shown: Renderings, i: int) -> AssistantTurn:
        message, where = shown.chat[i], f"message {i + 1} of document {shown.row}"
        content = message["content"]
        asked, text = shown.asked(i), shown.answered(i)
        if i == 0 and content.strip():  # nobody asks: what is before its content is not its own
            start = max(text.rfind(content.strip()), 0)
        elif i == 0:
            start = self._turns.header(text)
        else:
            before = "" if text.startswith(asked) else shown.before(i)
            if not text.startswith(before):
                text = self._after_prompt(shown, i, where)
            start = self._turns.start(before, asked, text, content)
        end = self._turns.end(text, start)
        turn = self._turns.without_end(text[start:end])
        _refuse_lost_calls(message, turn, where, self._name)
        if not content and not turn.strip():  # such as reasoning that the template does not show
            return AssistantTurn(i, text, start, start, start)
        following = shown.whole[len(text) :] if shown.whole.startswith(text) else ""
        return AssistantTurn(i, text, start, end, self._turns.end(text, start, following))

    def _after_prompt(self, shown: Renderings, i: int, where: str) -> str:
        """The prompt that asks for message ``i``, and what the message adds, where the message
        changes the messages before it too: gpt-oss drops the reasoning before a call with it."""
        asked, answered, before = shown.asked(i), shown.answered(i), shown.before(i)
        probed = self._probed([*shown.chat[:i], ANSWER], shown.tools) or answered
        same = num_common(answered, probed)
        header = asked[len(before) :] if asked.startswith(before) else ""
        for known in (header, header.partition("\n")[0]):
            place = answered.rfind(known, 0, same) if known else -1
            if place >= 0:
                return before + answered[place:]
        raise ModelError(
            f"{self._name} renders the messages before {where} differently with and without it, so "
            "its tokens cannot be located: mark them in the template with {% generation %}, or "
            "set data.chat_template to another template"
        )

    def _by_marks(self, shown: Renderings, own: list[int], in_loss: np.ndarray) -> np.ndarray:
        for i, message in enumerate(shown.chat):
            where = f"message {i + 1} of document {shown.row}"
            _refuse_lost_calls(message, shown.whole, where, self._name)
        if not own:
            return np.zeros_like(in_loss)
        has_block = any(behind_empty_block(m["content"], 0) for m in shown.chat)
        firsts = np.flatnonzero(np.diff(in_loss.astype(np.int8), prepend=0) == 1)
        if not has_block:
            offsets = np.array(self._encoded(shown.whole)[1], np.int64).reshape(-1, 2)
            assert len(offsets) == len(in_loss), "the template's text and its tokens differ"
            for first in firsts.tolist():
                start = int(offsets[first, 0])
                if (behind := behind_empty_block(shown.whole, start)) > start:
                    in_loss[first:] &= offsets[first:, 1] > behind
        self._take_weights(shown, in_loss, firsts)
        return in_loss

    def _take_weights(self, shown: Renderings, in_loss: np.ndarray, firsts: np.ndarray) -> None:
        """Messages of weight 0 are masked: each of the assistant's has a run of marks."""
        replies = [m for m in shown.chat if m["role"] == "assistant"]
        if all(m.get("weight") != 0 for m in replies):
            return
        if len(replies) != len(firsts):
            raise ModelError(
                f"{self._name} marks {len(firsts)} parts of document {shown.row} as the "
                f"assistant's, which has {len(replies)} messages, so weight 0 cannot be applied: "
                "set data.chat_template to a template without {% generation %}"
            )
        for message, start, stop in zip(replies, firsts, [*firsts[1:], len(in_loss)], strict=True):
            if message.get("weight") == 0:
                in_loss[start:stop] = False

    def _marked(self, shown: Renderings) -> TokensInLoss:
        found = shown.render(
            shown.chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return found["input_ids"], np.array(found["assistant_masks"], bool)

    def _in_loss(self, text: str, spans: list[tuple[int, int]]) -> TokensInLoss:
        ids, offsets = self._encoded(text)
        starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
        in_loss = np.zeros(len(starts), bool)
        for start, end in spans:
            # The second condition alone keeps out a blank before it whose place was trimmed away.
            in_loss |= (starts >= start) & (ends > start) & (ends <= end)
        return list(ids), in_loss

    def _encoded(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        # The template has written all special tokens that are wanted.
        (found,) = self._tokenizer([text], add_special_tokens=False, verbose=False).encodings
        return found.ids, found.offsets

    def _as_taken(self, chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages as templates read them."""
        return [self._message(message) for message in chat]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        if message.get("content") is None:
            message = message | {"content": ""}
        if "tool_calls" not in message:
            return message
        if not message["tool_calls"]:  # none: many templates ask only whether the field is there
            return {k: v for k, v in message.items() if k != "tool_calls"}
        if not self._takes_strings:
            return message
        return message | {"tool_calls": [_with_strings(one) for one in message["tool_calls"]]}

    def _probed(self, chat: list[dict[str, Any]], tools: Any = None) -> str | None:
        try:
            return Renderings(self, chat, 0, tools).whole
        except DataError:
            return None

    def _finds_strings(self) -> bool:
        """Whether the template needs a call's arguments as OpenAI writes them, a string of JSON;
        most take an object. One that needs a string refuses an object, or writes it as Python."""
        arguments = {"probe": "a"}
        shown = self._probed(calling(call(arguments)))
        if shown is not None and str(arguments) not in shown:
            return False
        return self._probed(calling(call(json.dumps(arguments)))) is not None

    def _refuse_bad_syntax(self) -> None:
        from jinja2.exceptions import TemplateSyntaxError

        try:
            self.applied([{"role": "user", "content": "a"}], None, {})
        except TemplateSyntaxError as error:
            raise ModelError(
                f"{self._name} is not a valid Jinja template (line {error.lineno}: "
                f"{error.message}): correct it, or set data.chat_template to another"
            ) from None
        except Exception:  # what it refuses of this chat it need not refuse of the data's
            return

    def _refuse_lost_tools(self, shown: Renderings) -> None:
        if shown.tools is None or self._shows_tools:
            return
        self._shows_tools = shown.whole != Renderings(self, shown.chat, shown.row).whole
        if not self._shows_tools:
            raise ModelError(
                f"{self._name} does not render the tools of document {shown.row}: set "
                "data.chat_template to one that does, or remove data.columns.tools"
            )

    def applied(self, chat: list[dict[str, Any]], tools: Any, options: dict[str, Any]) -> Any:
        """What transformers makes of it; any error of the template's."""
        options = {"tokenize": False} | self._arguments | options
        return self._tokenizer.apply_chat_template(chat, tools=tools, **options)

    def refuses(self, chat: list[dict[str, Any]], row: int, error: Exception) -> DataError:
        return DataError(
            f"{self._name} refuses document {row} (roles "
            f"{', '.join(message['role'] for message in chat)}): {error}: change the chat, or set "
            "data.chat_template to another template"
        )


def template_of(tokenizer: Any, has_tools: bool = False) -> str:
    """Of several in a tokenizer, the one that renders chats, or chats with tools."""
    try:
        return tokenizer.get_chat_template(tools=[{}] if has_tools else None)
    except ValueError:
        raise ModelError(
            f"the tokenizer in {tokenizer.name_or_path} has several chat templates and none named "
            "default: set data.chat_template to a file with the one to use"
        ) from None


class Renderings:
    """Of one chat and its beginnings, each made once. Raises DataError where the template does."""

    def __init__(
        self, tokens: ChatTokens, chat: list[dict[str, Any]], row: int, tools: Any = None
    ) -> None:
        self.chat = chat
        self.row = row
        self.tools = [_ordered(tool) for tool in tools] if tools else None
        self._tokens = tokens
        self._made: dict[tuple[int, bool], str] = {}

    @property
    def whole(self) -> str:
        return self._text(len(self.chat), False)

    def answered(self, i: int) -> str:
        """Up to message ``i``, with it."""
        return self._text(i + 1, False)

    def asked(self, i: int) -> str:
        """Up to message ``i``, without it, and the prompt that asks for it."""
        return self._text(i, True) if i else ""

    def before(self, i: int) -> str:
        return self._text(i, False) if i else ""

    def is_one_text(self, i: int) -> bool:
        """Whether message ``i`` stays what it was when it was asked for."""
        answered = self.answered(i)
        return answered.startswith(self.asked(i)) and self.whole.startswith(answered)

    def render(self, chat: list[dict[str, Any]], **options: Any) -> Any:
        from jinja2.exceptions import TemplateError

        try:
            return self._tokens.applied(chat, self.tools, options)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise self._tokens.refuses(chat, self.row, error) from None

    def _text(self, num_messages: int, is_querying: bool) -> str:
        key = num_messages, is_querying
        if key not in self._made:
            options = {"add_generation_prompt": True} if is_querying else {}
            self._made[key] = self.render(self.chat[:num_messages], **options)
        return self._made[key]


def _is_answer(message: dict[str, Any]) -> bool:
    """Whether the assistant's text, calls or reasoning are not empty in it."""
    if message["role"] != "assistant":
        return False
    return bool(message["content"]) or any(calls_of(message)) or has_reasoning(message)


def _first_own(chat: list[dict[str, Any]]) -> list[int]:
    return [i for i, m in enumerate(chat) if m["role"] == "assistant" and bool(m["content"])]


def _in_loss_of_chat(in_loss: np.ndarray, chat: list[dict[str, Any]]) -> np.ndarray:
    """By the first rules a chat without content of the assistant's has nothing to learn."""
    return in_loss if _first_own(chat) else np.zeros_like(in_loss)


def _is_trained_on(message: dict[str, Any]) -> bool:
    return _is_answer(message) and message.get("weight") != 0


def _refuse_lost_calls(message: dict[str, Any], text: str, where: str, name: str) -> None:
    for one in calls_of(message):
        called = one.get("name")
        if isinstance(called, str) and called not in text:
            raise ModelError(
                f"{name} leaves out the call of {called!r} in {where}: set data.chat_template to "
                "one that renders tool_calls, or write the call as content"
            )


def _with_strings(one: dict[str, Any]) -> dict[str, Any]:
    if isinstance(one.get("function"), dict):
        return one | {"function": _with_strings(one["function"])}
    if not isinstance(one.get("arguments"), dict):
        return one
    return one | {"arguments": json.dumps(one["arguments"], ensure_ascii=False)}


def _ordered(schema: Any) -> Any:
    """A tool's schema in the order in which schemas are written and served, not in the corpus's,
    which is sorted; templates show it as it is."""
    if isinstance(schema, list):
        return [_ordered(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    keys = [key for key in _TOOL_KEYS if key in schema]
    keys += [key for key in schema if key not in keys]
    return {key: _ordered(schema[key]) for key in keys}
