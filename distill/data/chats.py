"""Columns of chats: lists of messages {role, content}, kept as JSON with sorted keys.

So the same chats have the same fingerprint in every format: Parquet and JSON lines hold lists,
CSV a string of JSON. For the same reason a field that is null is left out at every depth: Parquet
gives every struct of a column the fields of all others, null where one has none. Of several ways
to write the same message one is kept: ShareGPT's ``from`` and ``value`` become role and content,
parts of text one string, arguments of a call that are a string of JSON an object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill.data.refusals import RowLocation, absent_column
from distill.data.source import File
from distill.errors import DataError

KEY = "data.columns.messages"
TOOLS = "data.columns.tools"
ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "observation": "tool",
    "function": "tool",
    "tool": "tool",
}
"""Roles of ShareGPT's ``from``."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Fields of an assistant's reasoning; transformers shows a template each of them."""
TRAINED = ("train", "training")
"""Fields of axolotl that leave a message out of the loss where they are false."""
_SHOWN = 60  # characters of a bad value in a message


def chats_in(batch: pa.RecordBatch, name: str, file: File, first_row: int) -> list[str]:
    """The chats of a column, each checked, as canonical JSON.

    A chat without an assistant's message is let through: it has nothing to learn, and such rows are
    counted later. Raises DataError that names the row of any other fault.
    """
    if name not in batch.schema.names:
        raise absent_column(KEY, name, file)
    column = batch.column(name)
    if column.null_count:
        row = first_row + pc.index(column.is_null(), True).as_py()
        raise DataError(f"{KEY} {name!r} is null in {RowLocation(file, row)}: remove the row")
    chats = column.to_pylist()
    return [
        canonical_chat(chat, f"{KEY} {name!r} in {RowLocation(file, first_row + i)}")
        for i, chat in enumerate(chats)
    ]


def tools_in(batch: pa.RecordBatch, name: str, file: File, first_row: int) -> list[str | None]:
    """The tool schemas of each row as canonical JSON, None where it has none.

    A row holds a list of schemas, each an object or a string of JSON, or such a list as a string.
    Raises DataError that names the row of any other value.
    """
    if name not in batch.schema.names:
        raise absent_column(TOOLS, name, file)
    return [
        _canonical_tools(tools, f"{TOOLS} {name!r} in {RowLocation(file, first_row + i)}")
        for i, tools in enumerate(batch.column(name).to_pylist())
    ]


def as_chat(prompt: str, completion: str) -> str:
    """A prompt and its completion as the canonical JSON of a chat of two messages."""
    messages = [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": completion},
    ]
    return _dumped(messages, "a prompt with its completion")


def calls_of(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The {name, arguments} of every call in a message; OpenAI's older function_call is one."""
    for call in message.get("tool_calls") or []:
        yield call["function"] if isinstance(call.get("function"), dict) else call
    if isinstance(message.get("function_call"), dict):
        yield message["function_call"]


def has_reasoning(message: dict[str, Any]) -> bool:
    return any(isinstance(message.get(n), str) and message[n].strip() for n in REASONING)


def canonical_chat(text: str, where: str) -> str:
    expected = 'a list of messages {"role": …, "content": …} is needed'
    chat = _parsed(text, where, expected)
    if not isinstance(chat, list) or not all(isinstance(m, dict) for m in chat) or not chat:
        raise DataError(
            f"{where} is {text[:_SHOWN]}: a list of at least one message "
            '{"role": …, "content": …} is needed'
        )
    messages = [_message(m, f"message {number} of {where}") for number, m in enumerate(chat, 1)]
    return _dumped(messages, where)


def _canonical_tools(text: str | None, where: str) -> str | None:
    if not text:  # CSV knows no null
        return None
    expected = "a list of tool schemas, objects or strings of JSON, is needed"
    tools = _parsed(text, where, expected)
    if isinstance(tools, list):
        tools = [_parsed(t, where, expected) if isinstance(t, str) else t for t in tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{where} is {text[:_SHOWN]}: {expected}")
    return _dumped(tools, where) if tools else None


def _parsed(text: str, where: str, expected: str) -> Any:
    """JSON without its null fields."""
    try:
        return _without_nulls(json.loads(text))
    except (ValueError, RecursionError):
        raise DataError(f"{where} is {text[:_SHOWN]!r}, which is not JSON: {expected}") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _dumped(value: Any, where: str) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False)
    try:
        canonical.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where} is not UTF-8 (a lone surrogate): convert the file to UTF-8"
        ) from None
    return canonical


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    if "role" not in message and "from" in message:
        message = _of_sharegpt(message, where)
    role = message.get("role")
    if role is None:
        raise DataError(f"{where} has no role: it must be one of {', '.join(ROLES)}")
    if role not in ROLES:
        meant = SHAREGPT.get(role) if isinstance(role, str) else None
        way_out = f"; rename it to {meant!r}" if meant else ""
        raise DataError(
            f"the role of {where} is {str(role)[:_SHOWN]!r}: it must be one of "
            f"{', '.join(ROLES)}{way_out}"
        )
    message = message | {"content": _content(message, where)}
    if role == "assistant" and any(message.get(name) is False for name in TRAINED):
        message["weight"] = 0
    if "weight" in message:
        message["weight"] = _weight(message["weight"], where)
    if "tool_calls" in message:
        message["tool_calls"] = [_call(c, where) for c in _calls(message["tool_calls"], where)]
    return message


def _of_sharegpt(message: dict[str, Any], where: str) -> dict[str, Any]:
    role = message["from"]
    if not isinstance(role, str) or role not in SHAREGPT:
        raise DataError(
            f"the role of {where} (from) is {str(role)[:_SHOWN]!r}: it must be one of "
            f"{', '.join(SHAREGPT)}; rename it to the one that is meant (a call is a message of "
            "gpt with tool_calls)"
        )
    rest = {k: v for k, v in message.items() if k not in ("from", "value")}
    content = {"content": message["value"]} if "value" in message else {}
    return rest | {"role": SHAREGPT[role]} | content


def _content(message: dict[str, Any], where: str) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(_text_of(part, where) for part in content)
    if content is None and any(message.get(n) for n in ("tool_calls", "function_call", *REASONING)):
        return ""  # as OpenAI writes a message that only calls tools
    if not isinstance(content, str):
        shown = json.dumps(content)[:_SHOWN]
        raise DataError(
            f"the content of {where} is {shown}: it must be a string or a list of parts of text; "
            "only a message with tool_calls may have no content"
        )
    return content


def _text_of(part: Any, where: str) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    kind = part.get("type", "text") if isinstance(part, dict) else None
    if kind != "text" or not isinstance(text, str):
        raise DataError(
            f"the content of {where} has the part {json.dumps(part)[:_SHOWN]}: only parts "
            '{"type": "text", "text": …} are supported; remove the others, or the row'
        )
    return text


def _weight(weight: Any, where: str) -> int:
    if isinstance(weight, bool) or weight not in (0, 1):
        raise DataError(
            f"the weight of {where} is {json.dumps(weight)[:_SHOWN]}: it must be 0 (the message is "
            "context, not trained on) or 1"
        )
    return int(weight)


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise DataError(
            f"the tool_calls of {where} are {json.dumps(calls)[:_SHOWN]}: a list of "
            '{"type": "function", "function": {"name": …, "arguments": {…}}} is needed'
        )
    return calls


def _call(call: dict[str, Any], where: str) -> dict[str, Any]:
    """With arguments that are an object: OpenAI's are a string of JSON."""
    if isinstance(call.get("function"), dict):
        return call | {"function": _call(call["function"], where)}
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        # A null in it is not Parquet's: it stays.
        parsed = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return call
    return call | {"arguments": parsed} if isinstance(parsed, dict) else call
